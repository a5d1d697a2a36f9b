"""What the documents say is so: examples run, commands and files exist, links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from sockbus.broker.config import LIMITS
from sockbus.cli.parser import parse_arguments
from sockbus.trio import Bus
from tests.brokers import PATIENCE, ROOT, environment, run
from tests.pages import blocks

README = (ROOT / "README.md").read_text()
SOCKETS = (ROOT / "docs" / "sockets.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


# README.md

RUNTIMES = ("trio", "asyncio", "blocking")
WHOLE = blocks(README, "python")[: len(RUNTIMES)]
SNIPPETS = blocks(README, "python")[len(RUNTIMES) :]
RUN = {"trio": "trio.run(main)", "asyncio": "asyncio.run(main())"}


def what_it_does(program: str) -> str:
    """The block of a program in which it is connected, without what tells one runtime from another, and comments."""
    bare = re.sub(r"\b(async|await) |  # .*", "", program)
    block = re.search(r"^ *with connect\(\).*?(?=\n\n|\Z)", bare, re.M | re.S)
    assert block is not None
    return textwrap.dedent(block[0]).strip()


def run_in_readme(program: str, address: str) -> str:
    """What a program prints that is run where the README is."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(SOCKBUS_ADDRESS=address),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_readme_begins_with_a_program_of_ten_lines_for_each_runtime() -> None:
    for runtime, program in zip(RUNTIMES, WHOLE, strict=True):
        assert f"from sockbus.{runtime} import connect\n" in program
        assert RUN.get(runtime, "\n") in program
        assert len([line for line in program.splitlines() if line.strip()]) <= 10
    assert len({what_it_does(program) for program in WHOLE}) == 1
    assert what_it_does(WHOLE[0]).count("\n") == 3


@pytest.mark.parametrize("number", range(len(RUNTIMES)), ids=RUNTIMES)
def test_whole_program_in_the_readme_runs(number: int, sockbus_address: str) -> None:
    printed = run_in_readme(WHOLE[number], sockbus_address)
    assert re.fullmatch(r"sensors\.kitchen\.temp \{'c': 21\.5\} \d+\n", printed)


@pytest.mark.parametrize(
    ("number", "runtime", "printed"),
    [(0, "trio", "b'# sockbus\\n'\n"), (0, "asyncio", "b'# sockbus\\n'\n"), (1, "trio", "HELLO\n")],
)
def test_snippet_in_the_readme_runs(number: int, runtime: str, printed: str, sockbus_address: str) -> None:
    assert ("trio" in SNIPPETS[number]) == (number == 1)
    body = textwrap.indent(SNIPPETS[number], 8 * " ")
    program = f"import {runtime}\nfrom sockbus.{runtime} import connect\n\n"
    program += f"async def main():\n    async with connect() as bus:\n{body}\n{RUN[runtime]}\n"
    assert run_in_readme(program, sockbus_address) == printed


def test_no_python_in_the_readme_is_left_out() -> None:
    assert (len(WHOLE), len(SNIPPETS)) == (3, 2)


@pytest.mark.parametrize("line", "".join(blocks(README, "sh")).splitlines())
def test_command_in_the_readme_exists(line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M)
    else:
        assert program == "sockbus"
        assert parse_arguments(arguments).verb == arguments[0]


def test_command_that_the_readme_has_run_on_a_bus_of_its_own_succeeds() -> None:
    (line,) = [line for line in README.splitlines() if line.startswith("sockbus run")]
    found = run(*[{"python": sys.executable}.get(word, word) for word in shlex.split(line)[1:]])
    assert (found.code, found.err) == (0, "")
    assert found.out


def test_benchmarks_that_the_readme_names_exist() -> None:
    assert "`python -m benchmarks throughput`, `latency`, `fds` or `runtimes`, and `cli`" in README
    names = ("__main__", "throughput", "latency", "fds", "runtimes", "cli")
    assert all((ROOT / "benchmarks" / f"{name}.py").exists() for name in names)


def test_numbers_in_the_readme_are_the_defaults() -> None:
    defaults = inspect.signature(Bus.subscribe).parameters
    assert (defaults["capacity"].default, defaults["capacity_bytes"].default) == (1024, 4 << 20)
    assert LIMITS["window_bytes"].default == 1 << 20
    assert "room for 1024 messages or 4 MiB" in README
    assert "1 MiB ahead" in README


# docs/testing.md


@pytest.fixture
def testing_page(tmp_path: Path) -> Path:
    """A directory with the examples, each in the file that its first line names."""
    for program in blocks((ROOT / "docs" / "testing.md").read_text(), "python"):
        name = program.partition("\n")[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name)
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(program)
    return tmp_path


def run_python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_tests_of_the_testing_page_pass(testing_page: Path) -> None:
    run = run_python(testing_page, "-W", "error", "-m", "pytest", "-rA", "-p", "no:cacheprovider")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert set(re.findall(r"^PASSED (\w+\.py)", run.stdout, re.M)) == {
        path.name for path in testing_page.glob("test_*.py")
    }


def test_programs_of_the_testing_page_run_or_are_tested(testing_page: Path) -> None:
    programs = sorted(path.name for path in testing_page.iterdir() if not path.name.startswith("test_"))
    assert programs == ["kitchen.py", "with_unittest.py"]
    run = run_python(testing_page, "with_unittest.py")
    assert run.returncode == 0
    assert re.search(r"Ran 1 test .*\n\nOK\n", run.stderr)


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_documents_are_reached_from_the_readme() -> None:
    assert all(f"(docs/{page.name})" in README for page in (ROOT / "docs").glob("*.md"))


# docs/sockets.md

PLACE = re.compile(r"`([\w/]+\.py)`: `([\w.]+)`")


class Row(NamedTuple):
    """A row of a table: what it is about in code, and the functions where that is seen."""

    subject: str
    words: list[str]
    places: list[tuple[str, str]]
    proofs: list[str]


def rows() -> list[Row]:
    found = []
    for line in SOCKETS.splitlines():
        if line.startswith("| ") and "`" in line:
            subject, _, places, proof = line.strip("| ").split(" | ")
            found.append(Row(subject, re.findall(r"`(\w+)`", subject), PLACE.findall(places), proofs_in(proof)))
    return found


def proofs_in(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def source_of(path: str, name: str) -> str:
    """The source of a function, a class, or a method as Class.method."""
    text = (ROOT / path).read_text()
    scope: ast.AST = ast.parse(text)
    for part in name.split("."):
        named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        scope = next(node for node in ast.iter_child_nodes(scope) if isinstance(node, named) and node.name == part)
    return ast.get_source_segment(text, scope) or ""


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.subject)
def test_what_a_row_names_is_at_work_where_it_says(row: Row) -> None:
    assert row.words
    assert row.places
    sources = [source_of(*place) for place in row.places]
    for word in row.words:
        assert any(re.search(rf"\b{word}\b", source) for source in sources), word
    for place, source in zip(row.places, sources, strict=True):
        assert any(re.search(rf"\b{word}\b", source) for word in row.words), place
    assert len(row.proofs) == 1


def test_every_proof_that_is_named_is_a_test() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    names = {name for source in sources for name in re.findall(r"^(?:async )?def (test_\w+)", source, re.M)}
    assert set(proofs_in(SOCKETS)) - {"test_docs"} <= names


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.(?:py|md))`", SOCKETS)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_call_has_its_row() -> None:
    calls = (
        "SOCK_STREAM SOCK_SEQPACKET socket bind listen accept connect send recv sendmsg recvmsg shutdown close dup "
        "setsockopt getsockopt"
    )
    assert set(calls.split()) <= {word for row in rows() for word in row.words}
