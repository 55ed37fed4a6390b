"""Fixtures of the command line tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintd.domain.model import Knowledge
from tests.web.serving import AT, Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A maintd that leads, and has read the whole cloud since it began."""
    with serving(tmp_path) as made:
        made.status.update(leading=True, leading_since_at=AT - 900, bus_states={})
        made.put(Knowledge(memory_since=AT - 900, baselined_at=AT - 890))
        yield made
