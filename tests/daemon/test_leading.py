"""What the holder of the fleet lease does when something goes wrong inside it, and how the process then ends."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from maintd import daemon as module
from maintd.clock import ManualClock, SystemClock
from maintd.config import load
from maintd.daemon import Daemon, Leading
from maintd.delivery.subscribers import Disabled
from maintd.domain.events import CloudEvent, instant_text
from maintd.domain.model import Because, Bus, Host
from maintd.domain.observations import BusSeen
from maintd.errors import LeaseLost, StoreUnavailable
from maintd.store import Commit, EventRow
from maintd.systemd import Notifier
from maintd.web import stream
from tests.support.rabbitmq import wait_until
from tests.web.listening import listening


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


def _leading(daemon: Daemon) -> Leading:
    assert daemon.leading is not None
    return daemon.leading


def _seen(state: str) -> BusSeen:
    return BusSeen(SystemClock().now(), Because("clock", f"bus.{state}"), "main", state)


def test_it_says_since_when_it_leads(daemon: Daemon) -> None:
    """The status has the moment from which on this process vouches for what it knows."""
    since_at = daemon.status()["leading_since_at"]

    assert 0 <= daemon.clock.now() - since_at < 60.0


def test_who_listens_hears_at_once_what_is_committed(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit itself wakes a stream, which waits for no look; and the daemon's end is the stream's."""
    monkeypatch.setattr(stream, "LOOK_S", 600.0)
    with listening(daemon.api_server.url) as client:
        assert "retry" in client.message()
        _leading(daemon).admit(replace(_seen("blind"), blind_from=SystemClock().now() - 60.0))
        assert "maintd.bus.blinded.v1" == client.message()["event"]

        daemon.bell.close()
        assert client.ended()


def test_who_listens_with_a_clock_that_is_behind_is_woken_once_it_may_see(daemon: Daemon) -> None:
    """What another controller has committed may not be seen yet by our clock; without a jitter, too."""
    now = daemon.clock.now()
    told = CloudEvent(
        "e-1", "maintd.server.moving.v1", "/maintd/main", "srv-1", now + 60.0, 9, {"server_id": "srv-1"},
        project_id="p-1", incarnation=1, visible_at=now + 60.0,
    )  # fmt: skip
    daemon.store.commit(Commit(_leading(daemon).fence, events=[told]))
    later = copy.copy(daemon)
    later.clock = ManualClock(now + 61.0)

    assert daemon._newest() != later._newest()


def test_a_late_word_of_a_lost_lease_does_not_end_the_next_leader(daemon: Daemon) -> None:
    """A lost lease ends the leading that lost it; what is left of that one cannot end its successor."""
    first = _leading(daemon)
    first.lost.set()
    wait_until(lambda: daemon.leading not in (None, first), what="it to lead anew")
    second = _leading(daemon)
    first.lost.set()
    turns: list[int] = []
    turn = second.turn
    second.turn = lambda: (turns.append(1), turn())[1]  # type: ignore[method-assign]
    wait_until(lambda: len(turns) > 3, what="a few turns")

    assert daemon.leading is second


@pytest.mark.parametrize("by_s", [-3600.0, 60.0])
def test_a_clock_that_was_set_begins_everything_anew(daemon: Daemon, by_s: float) -> None:
    """Jobs and timers go by it, and so does the pause between two passes of a proof."""
    first, set_by = _leading(daemon), [0.0]

    class Set(SystemClock):
        def now(self) -> float:
            return super().now() + set_by[0]

    daemon.clock = Set()
    set_by[0] = by_s
    wait_until(lambda: daemon.leading not in (None, first), what="it to lead anew")


def test_a_bus_that_is_left_to_another_maintd_ends_the_leading(daemon: Daemon) -> None:
    """The store cannot say that the lease is lost while it is away for us; the broker shows who reads our queue."""
    first = _leading(daemon)
    first.intakes = [cast(Any, SimpleNamespace(given_up=True, healthy=lambda now: True, stop=lambda timeout_s: True))]
    wait_until(lambda: daemon.leading not in (None, first), what="it to lead anew")


@pytest.mark.parametrize("ask", ["_request_drain", "_clear_residue"])
def test_an_operator_who_finds_the_lease_lost_ends_the_leading(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    """What an operator asks for is refused, and the fleet is loaded anew."""
    leading = _leading(daemon)

    def refuse(observations: object) -> None:
        raise LeaseLost("another has it")

    class Known:
        closed = True

    monkeypatch.setattr(leading.admission, "admit", refuse)
    monkeypatch.setattr(leading.admission, "read", lambda look: Known())
    with pytest.raises(LeaseLost):
        getattr(daemon, ask)(*(["cmp-1", False] if ask == "_request_drain" else ["cmp-1", "me", frozenset(), True]))
    assert leading.lost.is_set()
    monkeypatch.undo()


def test_an_observation_that_we_fail_on_is_dropped(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own fault costs one observation and not the timers; a store that is away costs nothing."""
    leading = _leading(daemon)
    admit, admitted, away = leading.admission.admit, [], [True]

    def fail(observations: Any) -> Any:
        (one,) = observations
        if one.state == "lost" and away:
            away.pop()
            raise StoreUnavailable("away")
        if one.state == "blind":
            raise ZeroDivisionError("a mistake of ours")
        admitted.append(one.state)
        return admit(observations)

    monkeypatch.setattr(leading.admission, "admit", fail)
    leading._pending.extend(_seen(state) for state in ("lost", "blind", "connected"))
    wait_until(lambda: not leading._pending and len(admitted) == 2, what="the observations to be handled")
    assert ["lost", "connected"] == admitted


@pytest.mark.parametrize("way", ["notifications", "answers"])
def test_what_is_known_of_the_buses_goes_first(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Neither notifications nor answers of Nova are taken in before a gap that was noticed is."""
    leading = _leading(daemon)
    order: list[str] = []
    admission = leading.admission
    monkeypatch.setattr(leading, "turn", lambda: None)
    monkeypatch.setattr(
        admission, "admit", lambda seen: order.append(getattr(next(iter(seen), None), "state", "answer"))
    )
    monkeypatch.setattr(admission, "admit_notifications", lambda *given: order.append("notifications"))
    leading._pending.append(_seen("blind"))
    if way == "notifications":
        leading._admit((), ())
    else:
        module._Door(admission, leading._admit_pending).admit(())

    assert ["blind", "notifications" if way == "notifications" else "answer"] == order
    monkeypatch.undo()


def _led_anew(daemon: Daemon) -> Leading:
    """The next leading, that has loaded the fleet from the store."""
    first = _leading(daemon)
    first.lost.set()
    wait_until(lambda: daemon.leading not in (None, first), what="it to lead anew")
    return _leading(daemon)


def test_a_bus_that_is_configured_no_longer_is_forgotten(daemon: Daemon) -> None:
    """Else the API would for ever wait for a bus that was given up, and call its hosts unknown."""
    _leading(daemon).admission.remember(Bus("given-up", blind_from=1.0, deaf_from=1.0))
    assert ["given-up"] == [bus.name for bus in daemon.store.reading.buses()]
    leading = _led_anew(daemon)

    assert [] == daemon.store.reading.buses() == leading.admission.read(lambda fleet: list(fleet.buses()))


def test_a_heartbeat_that_nobody_watched_has_not_lasted(daemon: Daemon) -> None:
    """A loss that was still to last when maintd ended is not told at the next start, but looked at again."""
    waiting = Host("cmp-1", up=False, said_up=True, say_up_at=daemon.clock.now() + 3600.0)
    _leading(daemon).admission.remember(waiting)
    host = _led_anew(daemon).admission.read(lambda fleet: fleet.host("cmp-1"))

    assert host is not None and (False, True, None) == (host.up, host.said_up, host.say_up_at)


def test_from_the_first_moment_on_it_is_known_that_somebody_watches(daemon: Daemon) -> None:
    """A crash in the first seconds leaves a gap like any other."""
    knowledge = daemon.store.reading.knowledge()

    assert knowledge is not None and knowledge.alive_at is not None and knowledge.alive_at >= knowledge.memory_since


class _Ear:
    """An intake of which only the name is asked."""

    dropped = restarts = 0

    def __init__(self, name: str) -> None:
        self.bus = type("Named", (), {"name": name})

    def healthy(self, now: float) -> bool:
        return True


@pytest.mark.parametrize(
    ("second", "ready", "lost"), [("connected", True, []), ("paused", True, []), ("blind", False, []),
                                  ("connecting", True, ["lost"])],
)  # fmt: skip
def test_the_cloud_is_read_once_what_is_heard_is_kept(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, second: str, ready: bool, lost: list[str]
) -> None:
    """Not while a bus drops what it hears, each time anew; one that is away is lost, and waited for no longer."""
    leading = _leading(daemon)
    monkeypatch.setattr(leading, "turn", lambda: None)
    monkeypatch.setattr(leading, "intakes", [_Ear("a"), _Ear("b")])
    monkeypatch.setattr(leading, "since_at", 0.0)
    leading._bus_state("a", "connected", "")
    leading._bus_state("b", "connecting", "")
    assert leading._ready()  # it was given up once, and came
    leading._bus_state("b", "connected", "")
    leading._pending.clear()
    leading.states["b"] = (second, "")

    assert ready is leading._ready()
    assert lost == [one.state for one in leading._pending if isinstance(one, BusSeen)]
    leading._pending.clear()
    monkeypatch.undo()


def test_a_rights_check_that_fails_is_made_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in it is logged once, and the check goes on."""
    leading, logged, asked = _leading(daemon), [], threading.Event()
    monkeypatch.setattr(module, "RIGHTS_AGAIN_S", 0.01)
    monkeypatch.setattr(module.log, "exception", lambda event, **rest: logged.append(event))

    class Api:
        calls = 0

        def self_check(self) -> Any:
            self.calls += 1
            if self.calls < 4:
                raise KeyError("a mistake of ours")
            asked.set()
            leading._stopping.set()
            raise KeyError("enough")

    leading.api = Api()  # type: ignore[assignment]
    thread = threading.Thread(target=leading._check_rights, daemon=True)
    thread.start()
    assert asked.wait(10.0)
    thread.join(10.0)
    assert ["rights_check_failed"] == logged


def test_no_bus_is_connected_after_standing_down(daemon: Daemon) -> None:
    """The gauges of the buses are 0 where nobody listens, also when an intake speaks late."""
    leading = _leading(daemon)
    gauge = daemon.metrics.bus_connected.labels("main")

    class Named:
        name = "main"

    class Configured:
        buses = (Named(),)

    leading._config = Configured()  # type: ignore[assignment]
    leading._bus_state("main", "connected", "")
    assert 1.0 == gauge._value.get()
    leading.stop(1.0)
    leading._bus_state("main", "connected", "")
    assert 0.0 == gauge._value.get()


def test_polls_that_stand_still_are_told_to_the_watchdog(daemon: Daemon) -> None:
    """The watchdog hears of the polls only while they are healthy."""
    leading = _leading(daemon)
    ticked: list[str] = []
    healthy = [True]

    class Still:
        def healthy(self, now: float) -> bool:
            return healthy[0]

        def wake(self) -> None: ...
        def stop(self, timeout_s: float) -> None: ...
        def errors(self) -> dict[str, str]:
            return {}

    leading.polls = Still()  # type: ignore[assignment]
    tick: Callable[[str], None] = daemon._watchdog.tick
    daemon._watchdog.tick = lambda part: (ticked.append(part), tick(part))[1]  # type: ignore[method-assign]
    wait_until(lambda: "polls" in ticked, what="a tick")
    healthy[0] = False
    wait_until(lambda: len(ticked) > 60 and "polls" not in ticked[-20:], what="no more ticks")


FAULTY = """
import sys, time
from maintd import app, daemon
from maintd.errors import OurFault

class Faulty:
    def __init__(self, config): pass
    def start(self): pass
    def request_stop(self): pass
    def wait(self):
        if sys.argv[1] != "stopped":
            raise OurFault("the scheduler thread has died; see the log")
    def stop(self):
        if sys.argv[1] == "hangs":
            time.sleep(60)
        if sys.argv[1] == "raises":
            raise KeyError("another")

daemon.Daemon = Faulty
real = app.threading.Timer
app.threading.Timer = lambda seconds, work: real(0.5, work)
from maintd.config import load
app.run(load([], None))
"""


@pytest.mark.parametrize(("how", "code"), [("stopped", 0), ("ends", 1), ("hangs", 1), ("raises", 1)])
def test_a_dead_scheduler_is_a_failure(how: str, code: int) -> None:
    """However the end goes on after our own fault, the exit code is 1, so that systemd starts maintd again."""
    done = subprocess.run([sys.executable, "-c", FAULTY, how], capture_output=True, timeout=60, check=False)

    assert code == done.returncode, done.stderr.decode()


def test_an_endpoint_that_was_given_up_is_told_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever disabled it, the holder of the fleet publishes it; a next holder finds that in the log and is silent."""
    at = SystemClock().now()
    given_up = [Disabled("5b8f", at, "failing", at - 500_000), Disabled("ha", at, "gone", at)]
    monkeypatch.setattr(daemon.dispatcher, "disabled", lambda: given_up)
    wait_until(lambda: len(_said_disabled(daemon)) == 2, what="it to be told")
    daemon._stand_down("in a test")
    wait_until(lambda: daemon.leading is not None, what="it to lead again")
    _leading(daemon).tell_disabled(given_up)
    _leading(daemon).tell_disabled([Disabled("old", at - 2 * 86400, "gone", at)])

    told = [json.loads(row.body) for row in _said_disabled(daemon)]
    assert [("5b8f", "failing"), ("ha", "gone")] == [(e["subject"], e["data"]["reason"]) for e in told]
    assert instant_text(at - 500_000) == told[0]["data"]["failing_since"]


def _said_disabled(daemon: Daemon) -> list[EventRow]:
    return daemon.store.events.list(type_glob="maintd.subscription.disabled.v1")
