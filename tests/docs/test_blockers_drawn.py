"""docs/blockers.md is what the code says of every kind of blocker."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from maintd.domain.emptiness import BLOCKER_KINDS

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_blockers", ROOT / "tools" / "draw_blockers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load()


def test_what_is_drawn_is_up_to_date() -> None:
    """If this fails: run tools/draw_blockers.py, and read the difference."""
    assert draw.markdown() == (ROOT / "docs" / "blockers.md").read_text(encoding="utf-8")


def test_every_kind_is_explained_and_no_other() -> None:
    """Of each kind the page says when it comes and what to do, in the order in which they are listed."""
    assert list(BLOCKER_KINDS) == [kind for kind in draw.HELP if kind in BLOCKER_KINDS] == list(draw.HELP)
