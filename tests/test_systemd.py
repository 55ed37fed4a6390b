"""What systemd hears, and when it stops hearing it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maintd.clock import ManualClock
from maintd.systemd import Notifier, Watchdog


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket like systemd's, and the address that it gives to services."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@maintd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        ear.settimeout(5)
        yield ear, address


def test_what_is_said(listening: tuple[socket.socket, str]) -> None:
    """Each word arrives as sd_notify(3) writes it; a status is one line; a reload carries the monotonic time."""
    ear, address = listening
    notifier = Notifier({"NOTIFY_SOCKET": address})

    said = [
        notifier.ready(),
        notifier.status("draining\ncmp-1"),
        notifier.reloading(ManualClock(12.5)),
        notifier.stopping(),
        notifier.alive(),
    ]

    assert [True] * 5 == said
    assert [
        b"READY=1",
        b"STATUS=draining cmp-1",
        b"RELOADING=1\nMONOTONIC_USEC=12500000",
        b"STOPPING=1",
        b"WATCHDOG=1",
    ] == [ear.recv(100) for _ in said]


def test_without_systemd_nothing_is_said(tmp_path: Path) -> None:
    """Without NOTIFY_SOCKET, or with nobody behind it, saying something is no error and reports that it did not go."""
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_how_long_systemd_waits(environment: dict[str, str], expected: float | None) -> None:
    """The watchdog's time is read from the environment, if it is meant for this process."""
    assert expected == Notifier(environment).watchdog_s


def test_systemd_is_fed_while_every_part_ticks(listening: tuple[socket.socket, str]) -> None:
    """A sign of life goes out while all parts are fresh, and none from the moment one of them is not."""
    ear, address = listening
    clock = ManualClock(1000.0)
    watchdog = Watchdog(clock, {"intake": 30.0, "scheduler": 10.0}, Notifier({"NOTIFY_SOCKET": address}))

    clock.advance(9)
    assert watchdog.feed()
    assert b"WATCHDOG=1" == ear.recv(100)
    clock.advance(2)
    assert ("scheduler",) == watchdog.stale()
    assert not watchdog.feed()
    watchdog.tick("scheduler")
    assert watchdog.feed()
    clock.advance(60)
    assert ("intake", "scheduler") == watchdog.stale()

    assert b"WATCHDOG=1" == ear.recv(100)
    ear.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.recv(100)


def test_a_tick_of_nobody_is_a_mistake() -> None:
    """A part that was not announced cannot tick: its silence would go unnoticed."""
    with pytest.raises(KeyError):
        Watchdog(ManualClock(), {"intake": 1.0}).tick("intak")
