"""The benchmarks run, print their rows and leave nothing behind. How fast anything is, is nobody's business here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.endurance import endure
from benchmarks.endurance.checker import Fault
from benchmarks.process import BenchmarkError
from benchmarks.programs import RUNTIMES
from benchmarks.report import Floor
from benchmarks.rounds import Effort, Sample, compare, quantiles, take_turns

ROOT = Path(__file__).parent.parent
UNIX = ("seqpacket", "stream")
TURN = ("--messages", "200", "--rounds", "1")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for temporary files; pytest's own has a name too long for sockets (unix(7): 107 bytes)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    with start(*arguments, **environment) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("verb", "transports", "cases", "promised"),
    [
        ("throughput", (*UNIX, "tcp"), ("64B", "64B-16-topics", "64B-to-4", "1KiB", "64KiB"), ("64B",)),
        ("latency", (*UNIX, "tcp"), ("plain", "async", "pub-sub"), ("plain", "async")),
        ("fds", UNIX, ("1-fd",), ()),
    ],
)
def test_benchmark_prints_a_row_for_each_transport_and_case(
    verb: str, transports: tuple[str, ...], cases: tuple[str, ...], promised: tuple[str, ...], place: Path
) -> None:
    code, output, errors = run(verb, *TURN, TMPDIR=str(place))
    assert (code, errors) == (0, "")
    rows = rows_of(output)
    assert [row[:3] for row in rows] == [[transport, case, "trio"] for transport in transports for case in cases]
    assert all(value >= 0 for row in rows for value in values_of(row))
    assert with_floor(rows) == {(transport, case, "trio") for transport in UNIX for case in promised}
    assert list(place.iterdir()) == []


def rows_of(output: str) -> list[list[str]]:
    """The fields of each line that compares something."""
    return [
        line.split()
        for line in output.splitlines()
        if line.split(maxsplit=1)[:1] in (["seqpacket"], ["stream"], ["tcp"])
    ]


def values_of(row: list[str]) -> list[float]:
    """Value, reference and ratio."""
    return [float(text.replace(",", "")) for text in row[3:6]]


def with_floor(rows: list[list[str]]) -> set[tuple[str, str, str]]:
    """Transport, case and runtime of those that the project promises something about."""
    return {(row[0], row[1], row[2]) for row in rows if row[7] in ("<=", ">=")}


def test_transports_cases_and_runtimes_can_be_chosen() -> None:
    options = ("--transports", "stream", "--cases", "1KiB", "64B", "--runtimes", "blocking", "asyncio")
    code, output, _ = run("throughput", *TURN, *options)
    assert code == 0
    assert [row[:3] for row in rows_of(output)] == [
        ["stream", case, runtime] for runtime in ("blocking", "asyncio") for case in ("1KiB", "64B")
    ]
    assert with_floor(rows_of(output)) == set()


@pytest.mark.parametrize(("verb", "cases"), [("latency", ("plain", "async", "pub-sub")), ("fds", ("1-fd",))])
def test_benchmark_runs_in_every_runtime(verb: str, cases: tuple[str, ...], place: Path) -> None:
    code, output, errors = run(verb, *TURN, "--transports", "seqpacket", "--runtimes", *RUNTIMES, TMPDIR=str(place))
    assert (code, errors) == (0, "")
    # Nothing awaits in a blocking program.
    measured = [(name, case) for name in RUNTIMES for case in cases if (name, case) != ("blocking", "async")]
    assert [row[:3] for row in rows_of(output)] == [["seqpacket", case, name] for name, case in measured]
    assert list(place.iterdir()) == []


def test_runtimes_are_compared_with_trio(place: Path) -> None:
    code, output, errors = run("runtimes", *TURN, "--transports", *UNIX, TMPDIR=str(place))
    assert (code, errors) == (0, "")
    latency = [
        (f"{server}-server{value}", name)
        for server in ("own", "trio")
        for name in RUNTIMES
        for value in ("", "-cpu")
        if (server, name) != ("trio", "trio")
    ]
    rows = rows_of(output)
    expected = [(transport, "64B", name) for transport in UNIX for name in RUNTIMES]
    expected += [(transport, *row) for transport in UNIX for row in latency]
    assert [tuple(row[:3]) for row in rows] == expected
    assert all(values_of(row)[2] == 1 for row in rows if row[1:3] in (["64B", "trio"], ["own-server", "trio"]))
    promised = (("64B", "asyncio"), ("64B", "blocking"), ("own-server", "blocking"), ("own-server-cpu", "blocking"))
    assert with_floor(rows) == {(transport, *row) for transport in UNIX for row in promised}
    assert list(place.iterdir()) == []


def test_runtimes_can_be_compared_in_part() -> None:
    options = ("--transports", "tcp", "--cases", "trio-server", "--runtimes", "blocking")
    code, output, _ = run("runtimes", *TURN, *options)
    assert code == 0
    assert [row[:3] for row in rows_of(output)] == [
        ["tcp", case, "blocking"] for case in ("trio-server", "trio-server-cpu")
    ]


def test_command_line_is_compared_with_programs_in_every_runtime(place: Path) -> None:
    options = ("--messages", "1", "--rounds", "1", "--transports", "stream", "tcp", "--runtimes", *RUNTIMES)
    code, output, errors = run("cli", *options, TMPDIR=str(place))
    assert (code, errors) == (0, "")
    rows = rows_of(output)
    assert [row[:3] for row in rows] == [
        [transport, "pub", name] for transport in ("stream", "tcp") for name in RUNTIMES
    ]
    assert with_floor(rows) == {("stream", "pub", "trio")}
    assert list(place.iterdir()) == []


def test_program_that_fails_beside_the_command_line_is_one_line() -> None:
    with pytest.raises(BenchmarkError, match="a program ended with exit code 3: no, not so"):
        cli.running([sys.executable, "-S", "-c", "import sys; print('no, not so', file=sys.stderr); sys.exit(3)"])


def test_endurance_ends_with_a_verdict(place: Path) -> None:
    code, output, errors = run(
        "endurance", "--minutes", "0.1", "--transports", "stream", "--seed", "1", TMPDIR=str(place)
    )
    assert (code, errors) == (0, ""), output
    first, *about, verdict = output.splitlines()
    assert (first.split(";")[0], verdict) == ("endurance: 0.1 minutes, seed 1", "verdict: every promise was kept")
    assert [line.split()[:2] for line in about] == [["stream:", word] for word in ("published", "killed,", "the")]
    assert list(place.iterdir()) == []


def test_trials_of_endurance_at_one_broker_know_nothing_of_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endure, "_TRIAL", 1.0)
    # The broker is not killed, and has the kept values of the trial before.
    monkeypatch.setattr(endure, "_DEEDS", ("publisher",))
    code = endure.endure(("stream",), 0.12, 1)
    assert (code, "verdict: every promise was kept" in capsys.readouterr().out) == (0, True)


def test_broken_promise_is_a_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = [Fault("lost", "s0 did not get p0/1"), Fault("duplicated", "s0 got p0/2 twice")]
    monkeypatch.setattr(endure, "_transport", lambda *_: faults)
    assert endure.endure(["tcp"], 1.0, 7) == 1
    _, evidence, verdict = capsys.readouterr().out.splitlines()
    assert evidence == "tcp: BROKEN: lost: s0 did not get p0/1"
    assert verdict == "verdict: 2 promises were broken"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "throughput|latency|fds|runtimes|cli|endurance"),
        (("speed",), "speed"),
        (("fds", "--transports", "tcp"), "tcp"),
        (("latency", "--runtimes", "curio"), "curio"),
        (("latency", "--rounds", "0"), "'0'"),
        (("latency", "--seconds", "nan"), "'nan'"),
        (("endurance", "--minutes", "0"), "'0'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], named: str) -> None:
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    assert named in errors


def test_broker_that_cannot_start_is_one_line_and_exit_code_1(place: Path) -> None:
    deep = place / ("d" * 100)
    deep.mkdir()
    code, _, errors = run("fds", *TURN, TMPDIR=str(deep))
    assert code == 1
    assert errors.count("\n") == 1
    assert errors.startswith("benchmarks: the broker ended with exit code 2: sockbus: ")
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_run_and_everything_that_it_started(number: signal.Signals, code: int, place: Path) -> None:
    arguments = ("throughput", "--seconds", "60", "--transports", "seqpacket", "--cases", "64B")
    with start(*arguments, TMPDIR=str(place)) as process:
        try:
            children = wait_for_children(process, 5)
            assert list(place.iterdir()) != []
        finally:
            process.send_signal(number)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (code, "")
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(place.iterdir()) == []


def wait_for_children(process: subprocess.Popen[str], count: int) -> list[int]:
    """The pids of its children, once there are so many: broker, publisher, subscriber, and two of the reference."""
    listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        children = [int(pid) for pid in listing.read_text().split()]
        if len(children) >= count:
            return children
    raise AssertionError(f"it ended with exit code {process.returncode}")


def test_comparison_takes_turns_and_the_median_of_the_rounds() -> None:
    turns: list[tuple[str, int]] = []

    def side(name: str, values: list[float]) -> Sample:
        turns.append((name, len(values)))
        value = values.pop(0)
        return Sample(1.0, value, (value * 2,))

    ours, theirs = [10.0, 40.0, 30.0], [10.0, 20.0, 10.0]
    found = compare(lambda _: side("bus", ours), lambda _: side("bare", theirs), Effort(3, 0.0, 7))
    assert [name for name, _ in turns] == ["bus", "bare", "bare", "bus", "bus", "bare"]
    assert (found.bus.value, found.bus.others, found.reference.value) == (30.0, (60.0,), 10.0)
    assert found.ratios == (2.0, 1.0, 3.0)


def test_every_side_goes_first_in_its_round() -> None:
    turns: list[int] = []

    def side(number: int) -> Sample:
        turns.append(number)
        return Sample(1.0, 10.0 * number + len(turns), ())

    found = take_turns([lambda _: side(0), lambda _: side(1), lambda _: side(2)], Effort(3, 0.0, 7))
    assert turns == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert [[sample.value for sample in samples] for samples in found] == [[1, 6, 8], [12, 14, 19], [23, 25, 27]]


@pytest.mark.parametrize(("rounds", "shares"), [(1, [1]), (5, [5]), (6, [5, 1]), (15, [5, 5, 5])])
def test_rounds_are_shared_out_to_sittings(rounds: int, shares: list[int]) -> None:
    assert list(Effort(rounds, 0.5, 7).sittings()) == [Effort(share, 0.5, 7) for share in shares]


def test_turn_is_made_as_long_as_asked() -> None:
    counts: list[int] = []

    def thousand_a_second(count: int) -> Sample:
        counts.append(count)
        return Sample(count / 1000, 1000.0, ())

    compare(thousand_a_second, thousand_a_second, Effort(1, 20.0, 0))
    assert counts[-2:] == [20_000, 20_000]


@pytest.mark.parametrize(
    ("floor", "ratio", "met"),
    [
        (Floor(0.4), 0.39, False),
        (Floor(0.4), 0.4, True),
        (Floor(2.5, at_most=True), 2.5, True),
        (Floor(2.5, at_most=True), 2.51, False),
    ],
)
def test_floor_is_met_from_its_own_value_on(floor: Floor, ratio: float, met: bool) -> None:
    assert floor.met(ratio) is met


def test_quantiles_are_the_median_and_the_99th_of_a_hundred() -> None:
    assert quantiles([number * 1000 for number in range(100, 0, -1)]) == (50.5, 99.0)
