"""docs/policy.md is what the routes need and the rules say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from maintd.web.auth import Policies

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    """If this fails: run tools/draw_policy.py, and read the difference."""
    spec = importlib.util.spec_from_file_location("draw_policy", ROOT / "tools" / "draw_policy.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)

    assert not draw.outdated()


def test_the_examples_of_the_page_are_a_policy_file(tmp_path: Path) -> None:
    """What the page says to write is taken as it stands there."""
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    file = tmp_path / "policy.yaml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0])

    Policies({"policy_file": str(file)})
