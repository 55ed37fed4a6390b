"""The rules that hold the tree together, checked: who may import whom, and who may ask the time.

The layers and the places of the libraries are contracts for import-linter, in setup.cfg. What it cannot express is
checked here on the syntax trees.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "maintd"

PURE = (
    "domain",
    "nova/notifications",
    "nova/answers.py",
    "delivery/routing.py",
    "delivery/retry.py",
    "delivery/breaker.py",
    "delivery/subscription_events.py",
    "delivery/outcome.py",
    "delivery/egress.py",
    "nova/rights.py",
    "nova/shown.py",
    "doctor/facts.py",
    "doctor/findings.py",
    "doctor/judging",
    "doctor/stream.py",
)
"""Deciding without I/O, clock or configuration."""

JUDGEABLE = (
    "maintd.nova.answers",
    "maintd.nova.notifications",
    "maintd.nova.rights",
    "maintd.nova.shown",
    "maintd.doctor.facts",
    "maintd.doctor.findings",
    "maintd.doctor.judging",
    "maintd.doctor.stream",
)
"""What the pure modules outside of the core may import of each other."""

DOORS = {
    "asyncio",
    "ftplib",
    "glob",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
"""Modules of the standard library through which the world, the time or chance come in."""

CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}


def modules(*places: str) -> Iterator[Path]:
    """The modules at some places of the package; a place that does not exist (yet) has none."""
    for place in places or (".",):
        path = PACKAGE / place
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that a syntax tree imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"


def clocks_asked(tree: ast.AST) -> Iterator[int]:
    """The lines on which a syntax tree asks the machine for the time, however the module was imported."""
    names = {wanted[1]: wanted for wanted in CLOCKS}
    taken = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for name in node.names
        if ("time", name.name) in CLOCKS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", None)
            if (owner, node.attr) in CLOCKS:
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in taken:
            yield node.lineno


def faults_of_purity(path: Path, source: str) -> list[str]:
    """What a pure module imports that it must not."""
    domain = PACKAGE / "domain" in path.parents
    allowed = ("maintd.domain",) if domain else ("maintd.domain", "maintd.delivery", *JUDGEABLE)
    found = []
    for name in imported(ast.parse(source)):
        top = name.partition(".")[0]
        if top == "maintd":
            wrong = not any(name == package or name.startswith(f"{package}.") for package in allowed)
        else:
            wrong = top not in sys.stdlib_module_names or (top in DOORS and name != "urllib.parse")
        if wrong:
            found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_the_layers_and_the_places_of_the_libraries_hold() -> None:
    """Every contract for import-linter in setup.cfg is kept."""
    program = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [program, "--config", "setup.cfg", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert 0 == run.returncode, run.stdout[run.stdout.find("Contracts") :] + run.stderr


def test_the_deciding_modules_are_pure() -> None:
    """The core and its kin import nothing but the harmless part of the standard library and each other."""
    assert [] == [fault for path in modules(*PURE) for fault in faults_of_purity(path, path.read_text())]


def test_only_the_clock_asks_the_time() -> None:
    """Nobody but clock.py asks the machine what time it is; everybody else is given a clock."""
    asked = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules()
        if path != PACKAGE / "clock.py"
        for line in clocks_asked(ast.parse(path.read_text()))
    ]

    assert [] == asked


def test_modules_open_with_an_essay() -> None:
    """Every module that holds code says first what it is for."""
    silent = []
    for path in modules():
        tree = ast.parse(path.read_text())
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(str(path.relative_to(ROOT)))

    assert [] == silent


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime, UTC\nask = datetime.now\nask(UTC)",
        "from time import time\ntime()",
        "from time import time_ns as ns\nns()",
        "import datetime as d\nd.date.today()",
    ],
)
def test_asking_the_time_is_seen(source: str) -> None:
    """The check above finds each way of asking."""
    assert [] != list(clocks_asked(ast.parse(source)))


@pytest.mark.parametrize("source", ["self.clock.now()", "from time import sleep\nsleep(1)", "clock.monotonic()"])
def test_asking_a_clock_is_no_fault(source: str) -> None:
    """A clock that was handed in may be asked."""
    assert [] == list(clocks_asked(ast.parse(source)))


@pytest.mark.parametrize(
    "name", ["socket", "oslo_messaging", "maintd.store", "maintd.errors", "time", "random", "os.path"]
)
def test_impurity_is_seen(name: str) -> None:
    """The check above finds I/O, the time, chance, a library and our own outer modules."""
    assert [] != faults_of_purity(PACKAGE / "domain" / "model.py", f"import {name}")
