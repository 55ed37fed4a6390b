"""Killed at every named point and at any moment, the daemon misses nothing and says nothing twice."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import crash
from tests.daemon.processes import Nursery
from tests.support.rabbitmq import Rabbit


def test_killed_everywhere(rabbit: Rabbit, nursery: Nursery, tmp_path: Path) -> None:
    """Deaths at each named point, early and later in a life, and some at random moments: the receiver has got what
    had to come, each event under one id, no proof too early, each host's story in order."""
    named = crash.named_deaths((1, 5), seed=3)

    result = crash.run(rabbit, nursery, tmp_path, name="crashes", named=named, moments=crash.moments(5, seed=3))

    assert [] == result.wrong
    assert {**dict.fromkeys(crash.POINTS, 2), "at a random moment": 5} == dict(result.died)
    assert result.drains.keys() == {host for pair in crash.PAIRS for host in pair}
    assert 4 <= sum(result.drains.values())
