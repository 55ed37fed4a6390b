"""Killed at every named point and at any moment, the daemon misses nothing and says nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.daemon import crash
from tests.daemon.processes import Nursery
from tests.daemon.world import World, kind_of
from tests.support.rabbitmq import Rabbit, wait_until


def test_killed_everywhere(rabbit: Rabbit, nursery: Nursery, tmp_path: Path) -> None:
    """Deaths at each named point, early and later in a life, and some at random moments: the receiver has got what
    had to come, each event under one id, no proof too early, each host's story in order."""
    named = crash.named_deaths((1, 5), seed=3)

    moments = crash.moments(5, seed=3)
    result = crash.run(rabbit, nursery, tmp_path, name="crashes", named=named, moments=moments, timeout_s=600.0)

    assert [] == result.wrong
    assert {**dict.fromkeys(crash.POINTS, 2), "at a random moment": 5} == dict(result.died)
    assert result.drains.keys() == {host for pair in crash.PAIRS for host in pair}
    assert 4 <= sum(result.drains.values())


def test_what_was_in_hand_is_sent_again_at_once(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """Killed in mid-request, on SQLite, its successor does not wait for the end of the lease, which is half a minute:
    nobody else can have it."""
    world = new_world()

    def times(kind: str) -> int:
        return sum(kind_of(receipt.event) == kind for receipt in world.receiver.receipts)

    daemon = nursery.spawn(world.config, lease_s=None).wait_connected()
    world.receiver.flows.clear()
    world.close_host("cmp-01")
    wait_until(lambda: world.receiver.held == 1, what="the request to be held")
    daemon.kill()
    world.receiver.flows.set()

    nursery.spawn(world.config, lease_s=None)
    wait_until(lambda: times("service.disabled") == 2, 20.0, "it to be sent again")
