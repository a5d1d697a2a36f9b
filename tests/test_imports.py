"""The house of docs/design.md holds: imports go downward only, and what is pure stays pure.

Every file of the package is parsed, function-local imports included, and each import is judged by
`objection`, which has a table of its own below. A new module needs a floor in FLOORS.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "sockbus"
MAX_LINES = 350


class Room(NamedTuple):
    """Rooms see the floors below them and their own name: the modules of `values` see each other."""

    floor: int
    name: str


FLOORS = {
    "errors": Room(0, "errors"),
    "interrupt": Room(0, "interrupt"),
    "address": Room(1, "values"),
    "topic": Room(1, "values"),
    "fd": Room(1, "values"),
    "payload": Room(1, "values"),
    "message": Room(1, "values"),
    "state": Room(1, "values"),
    "protocol": Room(2, "protocol"),
    "routing": Room(2, "routing"),
    "transport": Room(3, "transport"),
    "broker": Room(4, "broker"),
    "client": Room(4, "client"),
    "trio": Room(5, "trio"),
    "asyncio": Room(5, "asyncio"),
    "blocking": Room(5, "blocking"),
    "cli": Room(6, "cli"),
    "testing": Room(6, "testing"),
    "__main__": Room(7, "__main__"),
}
VALUES_FLOOR = 1
# Clients and broker do not see each other, on whatever floors they are.
CLIENTS = frozenset({"client", "trio", "asyncio", "blocking"})

# By the first part of the module's name, "" being the package's __init__.
RUNTIMES = frozenset({"trio", "asyncio"})
IO_AND_CLOCKS = RUNTIMES | {"socket", "select", "selectors", "ssl", "time", "datetime", "threading"}
FORBIDDEN_OUTSIDE: dict[str, frozenset[str]] = {
    "": RUNTIMES,
    "errors": RUNTIMES,
    "address": RUNTIMES,
    "topic": RUNTIMES,
    "interrupt": RUNTIMES,
    "fd": RUNTIMES,
    "payload": RUNTIMES,
    "message": RUNTIMES,
    "protocol": IO_AND_CLOCKS,
    "routing": IO_AND_CLOCKS,
    "transport": RUNTIMES | {"time.sleep"},
    "client": RUNTIMES | {"time.sleep", "socket", "select"},
}


def objection(module: str, imported: str) -> str | None:
    """Why `module` of the package must not import `imported`; None where it may. Both are absolute names."""
    room = module.partition(".")[2].partition(".")[0]
    if room and room not in FLOORS:
        return f"{module} has no floor: give it one in {Path(__file__).name}"
    if imported.partition(".")[0] != PACKAGE:
        return _objection_outside(module, room, imported)
    other = imported.partition(".")[2].partition(".")[0]
    if not other:
        return None if room in {"cli", "__main__"} else f"{module} imports the package from within itself"
    if other not in FLOORS:
        return f"{imported} has no floor: give it one in {Path(__file__).name}"
    there = FLOORS[other]
    if not room:
        return None if there.floor <= VALUES_FLOOR else f"{module} imports more than values: {imported}"
    here = FLOORS[room]
    if other == "broker" and room in CLIENTS:
        return f"{module} is a client's and must not know the broker: {imported}"
    if there.floor < here.floor or there.name == here.name:
        return None
    return f"{module} imports {'sideways' if there.floor == here.floor else 'upward'}: {imported}"


def _objection_outside(module: str, room: str, imported: str) -> str | None:
    for name in FORBIDDEN_OUTSIDE.get(room, ()):
        if imported == name or imported.startswith(f"{name}."):
            return f"{module} must not know {name}"
    return None


class _RunTime(ast.NodeTransformer):
    """Leaves out what only a type checker imports."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:  # the name is ast's
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return node


def imports_of(
    source: str, module: str, modules: frozenset[str], *, is_package: bool = False, run_time_only: bool = False
) -> set[str]:
    """The absolute names that a source imports; of the package, modules only; of others, also what is used.

    `import time` with `time.sleep(1)` gives `time` and `time.sleep`. In `sockbus/trio.py`, `import trio` is
    the runtime and `from . import trio` the module itself: an absolute import never means a sibling.
    """
    parts = module.split(".") if is_package else module.split(".")[:-1]
    tree: ast.AST = ast.parse(source)
    if run_time_only:
        tree = _RunTime().visit(tree)
    found: set[str] = set()
    outside: dict[str, str] = {}  # local name → module
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.add(_module_named(alias.name, modules))
                bound = alias.name if alias.asname else alias.name.partition(".")[0]
                outside[alias.asname or bound] = bound
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.update(_module_named(f"{base}.{alias.name}", modules) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in outside:
            found.add(_module_named(f"{outside[node.value.id]}.{node.attr}", modules))
    return found - {module}


def _module_named(name: str, modules: frozenset[str]) -> str:
    """The module that a dotted name leads to: `sockbus.fd.Fd` is a name in `sockbus.fd`."""
    while name.partition(".")[0] == PACKAGE and name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import cycle, the first repeated at the end; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def _files() -> Iterator[tuple[str, Path]]:
    """Each module of the package with its file."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _graph(*, run_time_only: bool = False) -> dict[str, set[str]]:
    # Modules that are still to be written count as existing: a floor is a promise.
    modules = frozenset(name for name, _ in _files()) | {PACKAGE} | {f"{PACKAGE}.{room}" for room in FLOORS}
    return {
        name: imports_of(
            path.read_text(), name, modules, is_package=path.name == "__init__.py", run_time_only=run_time_only
        )
        for name, path in _files()
    }


def test_imports_go_downward_only() -> None:
    objections = [objection(module, name) for module, names in _graph().items() for name in sorted(names)]
    assert [each for each in objections if each] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = _graph(run_time_only=True)
    assert circle({name: {i for i in names if i.startswith(PACKAGE)} for name, names in graph.items()}) == []


def test_files_stay_short() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for _, path in _files()}
    assert {name: count for name, count in lines.items() if count >= MAX_LINES} == {}


def test_importing_the_package_loads_no_runtime() -> None:
    program = "import sys, sockbus; print(sorted({'trio', 'asyncio'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sockbus", "sockbus.errors"),
        ("sockbus", "sockbus.message"),
        ("sockbus", "importlib.metadata"),
        ("sockbus.message", "sockbus.fd"),
        ("sockbus.fd", "sockbus.errors"),
        ("sockbus.fd", "socket"),
        ("sockbus.fd", "threading"),
        ("sockbus.protocol", "sockbus.protocol.frame"),
        ("sockbus.protocol.session", "sockbus.protocol.inbox"),
        ("sockbus.protocol.inbox", "sockbus.fd"),
        ("sockbus.protocol.frame", "msgpack"),
        ("sockbus.protocol.frame", "timeit"),
        ("sockbus.routing.router", "sockbus.routing.index"),
        ("sockbus.routing.router", "sockbus.topic"),
        ("sockbus.transport.stream", "sockbus.protocol.outbox"),
        ("sockbus.transport.stream", "sockbus.transport.base"),
        ("sockbus.transport.stream", "socket"),
        ("sockbus.transport.stream", "time.monotonic"),
        ("sockbus.broker.server", "sockbus.routing.router"),
        ("sockbus.broker.server", "trio"),
        ("sockbus.trio", "trio"),
        ("sockbus.trio", "trio.lowlevel"),
        ("sockbus.trio", "sockbus.protocol.session"),
        ("sockbus.trio", "sockbus.transport"),
        ("sockbus.trio", "sockbus.client.client"),
        ("sockbus.client.client", "sockbus.transport.channel"),
        ("sockbus.asyncio", "asyncio"),
        ("sockbus.cli", "sockbus"),
        ("sockbus.cli", "sockbus.trio"),
        ("sockbus.cli.broker", "sockbus.broker.server"),
        ("sockbus.__main__", "sockbus.cli"),
    ],
)
def test_allowed_import_meets_no_objection(module: str, imported: str) -> None:
    assert objection(module, imported) is None


@pytest.mark.parametrize(
    ("module", "imported", "reason"),
    [
        ("sockbus", "sockbus.trio", "more than values"),
        ("sockbus", "sockbus.protocol.frame", "more than values"),
        ("sockbus", "trio", "must not know trio"),
        ("sockbus.errors", "sockbus.topic", "upward"),
        ("sockbus.fd", "sockbus.transport.fds", "upward"),
        ("sockbus.fd", "sockbus", "from within itself"),
        ("sockbus.fd", "trio.lowlevel", "must not know trio"),
        ("sockbus.protocol.session", "sockbus.routing.router", "sideways"),
        ("sockbus.protocol.session", "sockbus.transport.base", "upward"),
        ("sockbus.protocol.session", "socket", "must not know socket"),
        ("sockbus.protocol.session", "select.epoll", "must not know select"),
        ("sockbus.protocol.session", "time", "must not know time"),
        ("sockbus.protocol.session", "time.monotonic", "must not know time"),
        ("sockbus.protocol.session", "trio", "must not know trio"),
        ("sockbus.protocol.session", "asyncio", "must not know asyncio"),
        ("sockbus.protocol.session", "threading", "must not know threading"),
        ("sockbus.routing.router", "sockbus.protocol.frame", "sideways"),
        ("sockbus.routing.router", "socket", "must not know socket"),
        ("sockbus.routing.router", "time", "must not know time"),
        ("sockbus.transport.tcp", "sockbus.broker.link", "upward"),
        ("sockbus.transport.tcp", "sockbus.trio", "upward"),
        ("sockbus.transport.tcp", "trio.socket", "must not know trio"),
        ("sockbus.transport.tcp", "asyncio", "must not know asyncio"),
        ("sockbus.transport.tcp", "time.sleep", "must not know time.sleep"),
        ("sockbus.broker.server", "sockbus.trio", "upward"),
        ("sockbus.broker.server", "sockbus", "from within itself"),
        ("sockbus.broker.server", "sockbus.cli", "upward"),
        ("sockbus.trio", "sockbus.broker.server", "must not know the broker"),
        ("sockbus.client.client", "sockbus.broker.server", "must not know the broker"),
        ("sockbus.broker.server", "sockbus.client.client", "sideways"),
        ("sockbus.client.client", "sockbus.trio", "upward"),
        ("sockbus.client.client", "trio", "must not know trio"),
        ("sockbus.trio", "sockbus.asyncio", "sideways"),
        ("sockbus.trio", "sockbus", "from within itself"),
        ("sockbus.cli", "sockbus.__main__", "upward"),
        ("sockbus.fd", "sockbus.attic", "has no floor"),
        ("sockbus.attic", "sockbus.errors", "has no floor"),
    ],
)
def test_forbidden_import_is_objected_to(module: str, imported: str, reason: str) -> None:
    assert reason in (objection(module, imported) or "")


MODULES = frozenset({"sockbus", "sockbus.errors", "sockbus.trio", "sockbus.protocol", "sockbus.protocol.frame"})


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("sockbus.trio", "import trio", {"trio"}),
        ("sockbus.trio", "import trio.lowlevel", {"trio.lowlevel"}),
        ("sockbus.trio", "from trio import lowlevel", {"trio.lowlevel"}),
        ("sockbus.cli", "from . import trio", {"sockbus.trio"}),
        ("sockbus.cli", "from .trio import connect", {"sockbus.trio"}),
        ("sockbus.cli", "from . import connect", {"sockbus"}),
        ("sockbus.cli", "from sockbus import connect", {"sockbus"}),
        ("sockbus.cli", "from sockbus import errors", {"sockbus.errors"}),
        ("sockbus.cli", "import sockbus.errors", {"sockbus.errors"}),
        ("sockbus.cli", "import sockbus\nsockbus.trio.connect()", {"sockbus", "sockbus.trio"}),
        ("sockbus.protocol.inbox", "from .frame import Kind", {"sockbus.protocol.frame"}),
        ("sockbus.protocol.inbox", "from . import frame", {"sockbus.protocol.frame"}),
        ("sockbus.protocol.inbox", "from . import Kind", {"sockbus.protocol"}),
        ("sockbus.protocol.inbox", "from ..errors import ProtocolError", {"sockbus.errors"}),
        ("sockbus.protocol.inbox", "from .. import errors", {"sockbus.errors"}),
        ("sockbus.protocol.inbox", "from ..errors import *", {"sockbus.errors"}),
        ("sockbus.protocol.inbox", "def f():\n    if 1:\n        import socket", {"socket"}),
        ("sockbus.protocol.inbox", "async def f():\n    from .. import trio", {"sockbus.trio"}),
        ("sockbus.protocol.inbox", "import time\ntime.sleep(1)", {"time", "time.sleep"}),
        ("sockbus.protocol.inbox", "import time as t\nt.sleep(1)", {"time", "time.sleep"}),
        ("sockbus.protocol.inbox", "from time import sleep", {"time.sleep"}),
    ],
)
def test_import_is_resolved_to_what_it_loads(module: str, source: str, expected: set[str]) -> None:
    assert imports_of(source, module, MODULES) == expected


def test_relative_import_in_an_init_starts_at_its_package() -> None:
    found = imports_of("from . import frame\nfrom .. import errors", "sockbus.protocol", MODULES, is_package=True)
    assert found == {"sockbus.protocol.frame", "sockbus.errors"}


def test_circle_is_found_and_named() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
