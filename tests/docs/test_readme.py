"""The README's samples of configuration can be copied as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"```ini\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_has_no_comment_behind_anything(sample: str) -> None:
    """oslo.config, ours and Nova's, takes a comment behind a value for part of it, and refuses one behind a group."""
    assert [] == [line for line in sample.splitlines() if " #" in line and not line.startswith("#")]


def test_there_are_samples() -> None:
    """Else nothing was looked at."""
    assert 4 <= len(SAMPLES)
