"""What /metrics shows of drains and stalls, by a running daemon, from the fleet that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from maintd import daemon as module
from maintd.config import load
from maintd.daemon import Daemon
from maintd.domain.curve import look
from maintd.domain.model import Curve, Drain, Entity, Host, Kind, Migration, Phase, Progress, Server, Stall
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


def test_estimates_take_turns(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many draining hosts one turn of the gauges estimates as many as its time allows, and each has its turn."""
    monkeypatch.setattr(module, "ETAS_BUDGET_S", 0.0)
    monkeypatch.setattr(module, "GAUGES_S", 0.05)
    for name in ("cmp-1", "cmp-2", "cmp-3"):
        remember(daemon, Drain(f"d-{name}", name, 1.0), Host(name, disabled=True, closed_at=1.0, drain_id=f"d-{name}"))

    wait_until(lambda: 3 == len(daemon._estimates), what="three estimates")

    assert 3 == len({at for at, _ in daemon._estimates.values()})


def test_a_drain_shows_when_its_moves_will_be_done(daemon: Daemon) -> None:
    """The gauge is there once something is known of the moves, runs down, and is gone with the drain; a drain of which
    nothing is known has none."""
    now, gib = daemon.clock.now(), 1024**3
    move = Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-1", destination="cmp-2", begun_at=now - 60)
    curve: Curve | None = None
    for age in range(60, 0, -5):
        sent = (60 - age) * gib // 10
        progress = Progress(8 * gib, sent, 8 * gib - sent)
        curve = look(curve, move, now - age, progress=progress) or curve
    assert curve is not None
    remember(
        daemon,
        curve,
        move,
        Migration("m2", "srv-2", Kind.LIVE, Phase.RUNNING, source="cmp-3", destination="cmp-2", begun_at=now - 60),
        Drain("d3", "cmp-3", now - 100),
        Drain("d1", "cmp-1", now - 100),
        Host("cmp-3", disabled=True, closed_at=now - 100, drain_id="d3"),
        Host("cmp-1", disabled=True, closed_at=now - 100, drain_id="d1"),
    )

    wait_until(lambda: 'maintd_drain_eta_seconds{host="cmp-1"}' in shown(daemon), what="an estimate")

    first = float(shown(daemon)['maintd_drain_eta_seconds{host="cmp-1"}'])
    assert 10.0 < first < 120.0
    assert 'maintd_drain_eta_seconds{host="cmp-3"}' not in shown(daemon)
    wait_until(lambda: float(shown(daemon)['maintd_drain_eta_seconds{host="cmp-1"}']) < first, what="it to run down")
    remember(daemon, Host("cmp-1"))
    wait_until(lambda: 'maintd_drain_eta_seconds{host="cmp-1"}' not in shown(daemon), what="it to be forgotten")
