"""What /metrics shows of drains and stalls, by a running daemon, from the fleet that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintd.config import load
from maintd.daemon import Daemon
from maintd.domain.model import Drain, Entity, Host, Kind, Migration, Phase, Server, Stall
from maintd.systemd import Notifier
from tests.support.rabbitmq import wait_until

MOVE = Migration(
    "m1", "srv-1", Kind.LIVE, Phase.PREPARING, source="cmp-1", destination="cmp-2", begun_at=1.0, moved_at=1.0
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with nothing to hear and nobody to ask, running."""
    file = tmp_path / "maintd.conf"
    file.write_text(
        f"[database]\nconnection = sqlite:///{tmp_path}/maintd.sqlite\n[api]\nlisten = 127.0.0.1:0\n"
        "[metrics]\nlisten = 127.0.0.1:0\n"
    )
    made = Daemon(load([file], None), notifier=Notifier({}))
    made.start()
    wait_until(lambda: made.leading is not None, what="it to lead")
    yield made
    made.stop()


def shown(daemon: Daemon) -> dict[str, str]:
    """Every series of a scrape that is about drains or migrations."""
    lines = daemon.metrics.exposition().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith(("maintd_drain_", "maintd_migrations")))


def remember(daemon: Daemon, *values: Entity) -> None:
    leading = daemon.leading
    assert leading is not None
    for value in values:
        leading.admission.remember(value)


def hold(daemon: Daemon, *stalls: Stall) -> None:
    """Stalls that are in memory, and nowhere else."""
    leading = daemon.leading
    assert leading is not None
    leading.admission.read(lambda fleet: [fleet.put(stall) for stall in stalls])


def test_what_is_only_noted_is_no_stall(daemon: Daemon) -> None:
    """A stall of a reason in observe_only is counted as noted; only one that was said is called stalled."""
    remember(daemon, Migration("m2", "srv-2", Kind.LIVE, Phase.RUNNING, source="cmp-1", stalled="frozen"), MOVE)
    hold(
        daemon,
        Stall("s1", "m1", "srv-1", "live-migration", "not_converging", 1.0, 2.0, published=False),
        Stall("s2", "m2", "srv-2", "live-migration", "frozen", 1.0, 2.0),
    )

    wait_until(lambda: 'maintd_migrations_stalled_noted{reason="not_converging"}' in shown(daemon), what="a gauge")

    found = shown(daemon)
    assert "1.0" == found['maintd_migrations_stalled_noted{reason="not_converging"}']
    assert "1.0" == found['maintd_migrations_stalled{reason="frozen"}']
    assert not [series for series in found if "stalled{" in series and "not_converging" in series]
    assert not [series for series in found if "noted" in series and "frozen" in series]


def test_a_drain_shows_what_holds_it_up(daemon: Daemon) -> None:
    """Stalled migrations off a host are counted beside it while it drains, by reason, and forgotten afterwards."""
    move = Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-1", stalled="frozen", begun_at=1.0)
    remember(
        daemon,
        Host("cmp-1", disabled=True, closed_at=1.0, drain_id="d1"),
        Drain("d1", "cmp-1", 1.0),
        Server("srv-1", host="cmp-1"),
        move,
        Migration("m2", "srv-2", Kind.LIVE, Phase.RUNNING, source="cmp-9", stalled="frozen", begun_at=1.0),
    )
    wait_until(lambda: 'maintd_drain_migrations_stalled{host="cmp-1",reason="frozen"}' in shown(daemon), what="a gauge")
    assert [] == [series for series in shown(daemon) if "cmp-9" in series]

    remember(daemon, Host("cmp-1"))
    wait_until(lambda: not [series for series in shown(daemon) if "cmp-1" in series], what="it to be forgotten")
