"""docs/facts-and-tests.md is what the facts and the tests named after them say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
TABLED = ("2.1", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "6.1")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_facts", ROOT / "tools" / "draw_facts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


draw = load()


def test_what_is_drawn_is_up_to_date() -> None:
    """If this fails: run tools/draw_facts.py, and read the difference."""
    assert draw.DRAWN.read_text() == draw.drawn()


def test_every_row_has_a_test() -> None:
    """No fact that maintd relies on is without a test of its own, and each section has its rows, numbered through."""
    assert [] == draw.untested()
    numbers = [row.number for row in draw.rows()]
    for section in TABLED:
        mine = [number for number in numbers if number.startswith(section)]
        assert [f"{section}.{i:02}" for i in range(1, len(mine) + 1)] == mine
        assert mine


def test_no_test_is_of_a_row_that_is_not_there() -> None:
    """A test in tests/facts names a row of the facts, and stands in the file of its section."""
    assert [] == draw.strays()
    for test in draw.tests():
        section = test.row.rpartition(".")[0].replace(".", "_")
        assert test.path.name.startswith(f"test_{section}_"), test.name


def test_every_test_says_what_must_hold() -> None:
    """The docstring of each is one sentence, which the table shows."""
    assert [] == [test.name for test in draw.tests() if not test.says.endswith(".")]
