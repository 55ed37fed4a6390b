"""docs/doctor.md is what the checks declare."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from maintd.doctor.findings import Level
from maintd.doctor.judging import CHECKS

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    """If this fails: run tools/draw_checks.py, and read the difference."""
    spec = importlib.util.spec_from_file_location("draw_checks", ROOT / "tools" / "draw_checks.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)

    assert not draw.outdated()


def test_every_check_that_is_declared_is_listed_once() -> None:
    """No module of judges has a check that neither the page nor a script could know of."""
    declared = [
        found
        for path in sorted((ROOT / "maintd" / "doctor").rglob("*.py"))
        for found in re.findall(r'Check\(\s*"([a-z._]+)"', path.read_text(encoding="utf-8"))
    ]

    assert sorted(declared) == sorted(check.id for check in CHECKS)
    assert len(set(declared)) == len(declared)


def test_a_finding_has_a_level_that_its_check_declares() -> None:
    """A judge cannot say what the page does not explain."""
    for check in CHECKS:
        for level, meaning in (("warning", check.means_warning), ("error", check.means_error)):
            try:
                made = getattr(check, level)("text", "fix")
            except ValueError:
                assert meaning is None
            else:
                assert meaning is not None and made.level is Level(level)
