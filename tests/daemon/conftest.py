"""What the tests of the whole daemon share: the nursery, and worlds with names of their own on the broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.processes import Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import Rabbit

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def _nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@pytest.fixture
def nursery(_nursery: Nursery) -> Iterator[Nursery]:
    """Daemons in no time; none outlives its test, and goes on asking at ports that are somebody else's by then."""
    yield _nursery
    _nursery.kill_all()


@pytest.fixture
def new_world(rabbit: Rabbit, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds on the session's broker, and ends them."""
    with ExitStack() as ends:

        def make(**options: Any) -> World:
            number = next(_numbers)
            options.setdefault("broker_url", rabbit.url)
            world = World(tmp_path / f"world-{number}", f"world-{number}", **options)
            ends.callback(world.close)
            return world

        yield make
