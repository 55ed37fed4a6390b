"""What all tests share: the way to `tests.support`, and the fixtures that stand there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.rabbitmq import proxy, rabbit  # noqa: E402

__all__ = ["proxy", "rabbit"]


# A machine that stalls for a moment is no fault of what is tested.
settings.register_profile("maintd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("maintd")


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A test that sets up the log writes to what it captured; the next one must not."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what recordings lead to as the new reviewed events")
