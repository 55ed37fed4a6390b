#!/usr/bin/env python3
"""Draws docs/facts-and-tests.md: which test says what maintd does with each fact of Nova.

    tools/draw_facts.py            write it
    tools/draw_facts.py --check    say whether it is up to date, and what has no test (exit code 1 when not)

The rows are those of the tables in docs/nova-facts.md, the tests those in tests/facts whose names begin with a row's
number (`test_2_1_05_…` is of row 2.1.05), and what must hold is the test's docstring. Nothing is written here, so
nothing here can be out of date. Tests are read, not imported.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FACTS = ROOT / "docs" / "nova-facts.md"
TESTS = ROOT / "tests" / "facts"
DRAWN = ROOT / "docs" / "facts-and-tests.md"

HEAD = """# What Nova does, and the test that says what maintd makes of it

Drawn by `tools/draw_facts.py` from the tables of [nova-facts.md](nova-facts.md) and the tests in `tests/facts`; do not
edit it by hand. A row may have several tests.
"""

_ROW = re.compile(r"^\| (\d\.\d\.\d\d) \| (.+?) \| (.+) \|$", re.MULTILINE)
_SECTION = re.compile(r"^\*\*(\d\.\d) (.+?)\.?\*\*", re.MULTILINE)
_NAME = re.compile(r"^test_(\d)_(\d)_(\d\d)_")


@dataclass(frozen=True)
class Row:
    """One fact: its number, the case or message it is of, and what Nova does then."""

    number: str
    case: str
    what: str

    @property
    def section(self) -> str:
        return self.number.rpartition(".")[0]


@dataclass(frozen=True)
class Test:
    """One test: the row it is of, its name, and its docstring."""

    row: str
    name: str
    says: str
    path: Path


def rows(text: str | None = None) -> list[Row]:
    """Every numbered row of the facts, in their order."""
    return [Row(*found) for found in _ROW.findall(FACTS.read_text() if text is None else text)]


def sections() -> dict[str, str]:
    """The titles of the sections of the facts."""
    return dict(_SECTION.findall(FACTS.read_text()))


def tests() -> list[Test]:
    """Every test in tests/facts, in the order of files and lines."""
    found = []
    for path in sorted(TESTS.glob("test_*.py")):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
                named = _NAME.match(statement.name)
                row = ".".join(named.groups()) if named else ""
                says = " ".join((ast.get_docstring(statement) or "").split())
                found.append(Test(row, statement.name, says, path))
    return found


def untested() -> list[str]:
    """Rows that no test is named after."""
    told = {test.row for test in tests()}
    return [row.number for row in rows() if row.number not in told]


def strays() -> list[str]:
    """Tests that are named after no row, or after one that is not there."""
    known = {row.number for row in rows()}
    return [test.name for test in tests() if test.row not in known]


def drawn() -> str:
    """What docs/facts-and-tests.md has to be."""
    titles = sections()
    of: dict[str, list[Test]] = {}
    for test in tests():
        of.setdefault(test.row, []).append(test)
    parts = [HEAD.rstrip("\n")]
    section = ""
    for row in rows():
        if row.section != section:
            section = row.section
            path = next((test.path for test in of.get(row.number, ())), TESTS)
            where = path.relative_to(ROOT)
            parts.append(f"\n## {section} {titles[section]}\n\nTests in `{where}`.\n")
            parts.append("| row | Nova | maintd | test |\n|---|---|---|---|")
        for i, test in enumerate(of.get(row.number, ())):
            fact = f"{row.case}: {row.what}" if i == 0 else "〃"
            parts.append(f"| {row.number} | {fact} | {test.says.replace('|', chr(92) + '|')} | `{test.name}` |")
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where something is not as it must be"
    )
    options = parser.parse_args()
    wrong = [f"row {number} has no test" for number in untested()] + [f"{name} is of no row" for name in strays()]
    if not options.check:
        DRAWN.write_text(drawn())
    elif not DRAWN.exists() or DRAWN.read_text() != drawn():
        wrong.append(f"{DRAWN.relative_to(ROOT)} is not what would be drawn: run tools/draw_facts.py")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
