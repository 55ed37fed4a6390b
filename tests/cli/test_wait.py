"""wait: every way it can end, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from maintd.cli.common import Usage
from maintd.cli.wait import PATIENCE_S, SIGHT_PATIENCE_S, Waiting
from maintd.client import ApiError, Client, Unreachable
from maintd.clock import ManualClock
from maintd.domain.model import Bus, Drain, Host, Kind, Knowledge, Migration, Phase
from tests.support.rabbitmq import free_port
from tests.web.serving import AT, CLOUD, Served, closed, empty, occupied


class Hours:
    """Waiting without waiting: each sleep moves the clock, and does what the test planned for that moment."""

    def __init__(self, served: Served, plan: dict[float, Callable[[], object]] | None = None) -> None:
        self.clock = ManualClock(AT)
        self.plan = dict(sorted((plan or {}).items()))
        self.served = served

    def sleep(self, seconds: float) -> None:
        now = self.clock.advance(seconds)
        assert now < AT + 7200, "it waits for ever"
        for at in [at for at in self.plan if AT + at <= now]:
            self.plan.pop(at)()

    def wait(self, *hosts: str, **given: object) -> int:
        api = Client(self.served.url)
        try:
            return Waiting(api, hosts, clock=self.clock, sleep=self.sleep, **given).run()  # type: ignore[arg-type]
        finally:
            api.close()


def test_it_ends_once_all_are_empty(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """0 when the last of them is proven empty, with a line for each change and none for no change."""
    served.put(occupied("cmp-1", "moving"), empty("cmp-2"))
    plan = {30.0: lambda: served.put(occupied("cmp-1", "verifying")), 60.0: lambda: served.put(empty("cmp-1"))}

    assert 0 == Hours(served, plan).wait("cmp-1", "cmp-2")

    lines = capsys.readouterr().out.splitlines()
    assert ["cmp-1: 1 moving", "cmp-2: empty", "cmp-1: 1 verifying", "cmp-1: empty"] == [
        " ".join(line.split()[2:])[: len(want)]
        for line, want in zip(
            lines, ["cmp-1: 1 moving", "cmp-2: empty", "cmp-1: 1 verifying", "cmp-1: empty"], strict=True
        )
    ]


def test_any_is_content_with_one(served: Served) -> None:
    """--any ends with the first."""
    served.put(occupied("cmp-1", "moving"), empty("cmp-2"))

    assert 0 == Hours(served).wait("cmp-1", "cmp-2", any_of=True)


def test_an_open_host_is_never_empty(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that is open may be filled at any moment: waiting goes on, and says why."""
    served.put(Host("cmp-1"))

    assert 4 == Hours(served).wait("cmp-1", timeout_s=10.0)
    assert "open" in capsys.readouterr().out


def test_it_gives_up_in_time(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """4 after --timeout, and not a second later; with 0 it asks once."""
    served.put(occupied("cmp-1", "moving"))
    hours = Hours(served)

    assert 4 == hours.wait("cmp-1", timeout_s=7.5)
    assert AT + 7.5 == hours.clock.now()
    assert 4 == Hours(served).wait("cmp-1", timeout_s=0.0)
    assert "cmp-1" in capsys.readouterr().err


def test_a_stalled_drain_ends_it_if_so_asked(served: Served) -> None:
    """3 with --fail-on-stall, else it waits on."""
    stall = {5.0: lambda: served.put(closed("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT - 9, stalled_at=AT))}
    served.put(closed("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT - 9))

    assert 3 == Hours(served, stall).wait("cmp-1", fail_on_stall=True)
    assert 4 == Hours(served).wait("cmp-1", timeout_s=60.0)


def test_a_stalled_migration_off_the_host_counts(served: Served) -> None:
    """A move away that will never end stalls the host; one that arrives, or is over, does not."""
    served.put(
        occupied("cmp-1", "moving"),
        Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-9", destination="cmp-1", stalled="frozen"),
        Migration("m2", "srv-2", Kind.LIVE, Phase.FAILED, source="cmp-1", stalled="frozen", ended_at=AT - 1),
    )
    move = Migration("m3", "srv-3", Kind.LIVE, Phase.RUNNING, source="cmp-1", destination="cmp-2", stalled="frozen")

    assert 4 == Hours(served).wait("cmp-1", fail_on_stall=True, timeout_s=20.0)
    assert 3 == Hours(served, {9.0: lambda: served.put(move)}).wait("cmp-1", fail_on_stall=True)


def test_any_stalls_only_when_all_do(served: Served) -> None:
    """With --any one stalled host leaves hope for the others."""
    served.put(closed("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT, stalled_at=AT), occupied("cmp-2", "moving"))

    assert 0 == Hours(served, {9.0: lambda: served.put(empty("cmp-2"))}).wait(
        "cmp-1", "cmp-2", any_of=True, fail_on_stall=True
    )


def test_empty_beats_stalled(served: Served) -> None:
    """Where both are true at once, the answer is yes."""
    served.put(empty("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT, stalled_at=AT))

    assert 0 == Hours(served).wait("cmp-1", fail_on_stall=True)


def test_a_stall_that_is_only_remembered_ends_nothing(served: Served) -> None:
    """After a restart a stall may be over: 3 comes with the reading of the cloud, if it stalls then."""
    served.put(closed("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT - 9, stalled_at=AT - 900))
    served.status["leading_since_at"] = AT
    read: dict[float, Callable[[], object]] = {
        20.0: lambda: served.put(Knowledge(memory_since=AT - 900, baselined_at=AT + 20))
    }
    hours = Hours(served, read)

    assert 3 == hours.wait("cmp-1", fail_on_stall=True)
    assert AT + 20 == hours.clock.now()
    served.put(Knowledge(memory_since=AT - 900, baselined_at=AT - 1))
    assert 5 == Hours(served).wait("cmp-1", fail_on_stall=True)


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hours, int, float, float], None]:
    """Let the API refuse with a status, from one time to another."""

    def refuse(hours: Hours, status: int, from_s: float, until_s: float) -> None:
        get = Client.get

        def refusing(self: Client, *path: str, **params: object) -> dict[str, object]:
            if AT + from_s <= hours.clock.now() < AT + until_s:
                raise ApiError(status, "no") if status else Unreachable("away")
            return get(self, *path, **params)

        monkeypatch.setattr(Client, "get", refusing)

    return refuse


Refuse = Callable[[Hours, int, float, float], None]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_ends_is_no_removed_host(served: Served, status: int, refuse: Refuse) -> None:
    """5 where what was shown for an hour is shown no more; 2 where it never was."""
    served.put(occupied("cmp-1", "moving"))
    hours = Hours(served)
    refuse(hours, status, 60, 9000)
    assert 5 == hours.wait("cmp-1")

    hours = Hours(served)
    refuse(hours, status, 0, 9000)
    with pytest.raises(Usage):
        hours.wait("cmp-1")


def test_a_store_that_is_away_at_first_is_waited_for(served: Served, refuse: Refuse) -> None:
    """A daemon that answers, and cannot at the moment, is asked again, be it the first time."""
    served.put(empty("cmp-1"))
    hours = Hours(served)
    refuse(hours, 503, 0, 20)

    assert 0 == hours.wait("cmp-1")
    assert AT + 20 == hours.clock.now()


def test_a_cloud_that_was_never_read_has_no_unknown_hosts(served: Served, refuse: Refuse) -> None:
    """Right after a first start no host is known yet, and none is called a mistake; a restart then is waited for, too,
    and two moments of a store that is away are not one long one. Without a cloud none will ever be known."""
    served.put(Knowledge(memory_since=AT))

    def read() -> None:
        served.put(empty("cmp-1"), Knowledge(memory_since=AT, baselined_at=AT + 50))

    for status in (503, 0):
        served.drop(empty("cmp-1"))
        served.put(Knowledge(memory_since=AT))
        hours = Hours(served, {50.0: read})
        refuse(hours, 503, 0, 3)
        refuse(hours, status, 31, 34)
        assert 0 == hours.wait("cmp-1")

    served.drop(empty("cmp-1"))
    served.put(Knowledge(memory_since=AT))
    served.status["cloud"] = {"configured": False}
    with pytest.raises(ApiError):
        Hours(served).wait("cmp-1")


def test_an_unknown_host_is_a_mistake(served: Served) -> None:
    """A host that was never there is the operator's slip, said at once."""
    with pytest.raises(ApiError) as caught:
        Hours(served).wait("cmp-1")

    assert 404 == caught.value.status


def test_a_removed_host_is_a_failure(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """1 when its compute service goes away meanwhile: nobody can prove anything about it any more."""
    host = occupied("cmp-1", "moving")
    served.put(host)

    assert 1 == Hours(served, {5.0: lambda: served.drop(host)}).wait("cmp-1")
    assert "removed from Nova" in capsys.readouterr().err


def test_sight_lost_for_long_ends_it(served: Served) -> None:
    """5 once maintd runs but cannot see for a minute; a short gap is waited out."""
    served.put(occupied("cmp-1", "moving"))

    def cloud(ok: bool) -> Callable[[], None]:
        return lambda: served.status.update(cloud={**CLOUD, "ok": ok, "last_error": "HTTP 503"})

    gaps = {5.0: cloud(False), 40.0: cloud(True), 50.0: cloud(False), 90.0: cloud(True)}
    assert 0 == Hours(served, {**gaps, 95.0: lambda: served.put(empty("cmp-1"))}).wait("cmp-1")
    served.put(occupied("cmp-1", "moving"))
    hours = Hours(served, {5.0: cloud(False)})
    assert 5 == hours.wait("cmp-1")
    assert AT + 5 + SIGHT_PATIENCE_S <= hours.clock.now() <= AT + 6 + SIGHT_PATIENCE_S


def _blind(served: Served) -> None:
    served.status["bus_states"] = {"main": "connected"}
    served.put(Bus("main", connected=True, blind_from=AT - 30))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda served: served.status.update(cloud={**CLOUD, "ok": False, "last_error": "HTTP 503"}), "HTTP 503"),
        (lambda served: served.status.update(leading_since_at=AT - 5), "not read the whole cloud"),
        (lambda served: served.status.update(leading_since_at=None), "does not lead"),
        (lambda served: served.status.update(bus_states={"main": "failed"}), "Bus main is failed"),
        (_blind, "Bus main was not heard"),
    ],
)
def test_an_old_memory_is_no_yes(
    served: Served, make: Callable[[Served], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that the store calls empty is no yes while maintd cannot see, or has not looked since it began: 5."""
    served.put(empty("cmp-1"))
    make(served)

    hours = Hours(served)
    assert 5 == hours.wait("cmp-1")
    assert AT + SIGHT_PATIENCE_S <= hours.clock.now()
    assert said in capsys.readouterr().err


def test_a_yes_is_said_once_the_cloud_was_read_again(served: Served) -> None:
    """After a restart, the yes comes with the reading of the cloud."""
    served.put(empty("cmp-1"))
    served.status["leading_since_at"] = AT
    hours = Hours(served, {20.0: lambda: served.put(Knowledge(memory_since=AT - 900, baselined_at=AT + 20))})

    assert 0 == hours.wait("cmp-1")
    assert AT + 20 == hours.clock.now()


def test_without_a_cloud_there_is_no_sight(served: Served) -> None:
    """5 at once: a maintd without [cloud] will never prove anything."""
    served.put(occupied("cmp-1", "no_cloud"))
    served.status = {"cloud": {"configured": False}}

    assert 5 == Hours(served).wait("cmp-1")


def test_a_restarted_daemon_is_waited_for(served: Served) -> None:
    """Half a minute without an answer is a restart; more is exit code 6."""
    port = free_port()
    served.serve(port)
    served.put(occupied("cmp-1", "moving"))

    def stop() -> None:
        assert served.server is not None
        served.server.stop()

    def back() -> None:
        served.put(empty("cmp-1"))
        served.serve(port)

    restarts = {5.0: stop, 25.0: lambda: served.serve(port), 30.0: stop, 50.0: back}
    assert 0 == Hours(served, restarts).wait("cmp-1")
    served.put(occupied("cmp-1", "moving"))
    hours = Hours(served, {5.0: stop})
    assert 6 == hours.wait("cmp-1")
    assert hours.clock.now() <= AT + 5 + PATIENCE_S + 2


def test_nobody_there_at_first_is_not_waited_for() -> None:
    """A daemon that is not there when waiting begins is a mistake, not a restart."""
    with pytest.raises(Unreachable):
        Waiting(Client("http://127.0.0.1:9"), ("cmp-1",)).run()


def test_json_has_a_line_for_each_change(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object a line."""
    served.put(occupied("cmp-1", "moving"))

    assert 0 == Hours(served, {3.0: lambda: served.put(empty("cmp-1"))}).wait("cmp-1", as_json=True)

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(False, {"moving": 1}), (True, {})] == [(row["empty"], row["blockers"]) for row in rows]


def test_many_hosts_are_asked_less_often(served: Served) -> None:
    """The API is asked for twenty hosts a second at most."""
    names = [f"cmp-{n:03}" for n in range(60)]
    served.put(*(occupied(name, "moving") for name in names))
    slept: list[float] = []
    hours = Hours(served, {2.0: lambda: served.put(*(empty(name) for name in names))})
    sleep = hours.sleep
    hours.sleep = lambda seconds: (slept.append(seconds), sleep(seconds))[0]  # type: ignore[method-assign]

    assert 0 == hours.wait(*names)
    assert [3.0] == slept
