"""What the tests of the doctor share: a RabbitMQ with its management plugin, and clinics on it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.clinic import Clinic, Managed
from tests.support.rabbitmq import Rabbit, wait_until

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def managed_rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ of these tests' own, with the management plugin."""
    node = Rabbit(Path(tempfile.mkdtemp(prefix="maintd-rabbit-")), management=True)
    try:
        node.start()
        wait_until(Managed(node).answers, 180.0, "the management plugin to answer")
        yield node
    finally:
        node.close()


@pytest.fixture(scope="package")
def new_clinic(managed_rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Clinic]]:
    """Makes healthy installations, and ends them."""
    with ExitStack() as ends:

        def make(**timing: Any) -> Clinic:
            number = next(_numbers)
            folder = tmp_path_factory.mktemp(f"clinic-{number}")
            clinic = Clinic(folder, f"clinic-{number}", managed_rabbit, Managed(managed_rabbit), **timing)
            ends.callback(clinic.close)
            return clinic

        yield make


@pytest.fixture(scope="package")
def _clinic(new_clinic: Callable[..., Clinic]) -> Clinic:
    made = new_clinic()
    made.make_a_migration()
    return made


@pytest.fixture
def clinic(_clinic: Clinic) -> Clinic:
    """A healthy installation with a server on each host and a migration that has been; used again and again."""
    _clinic.heal()
    return _clinic


@pytest.fixture
def fresh_clinic(new_clinic: Callable[..., Clinic]) -> Clinic:
    """The same for one test alone, where what the broker remembers would be in the way."""
    made = new_clinic()
    made.make_a_migration()
    return made
