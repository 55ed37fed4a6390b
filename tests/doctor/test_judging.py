"""The judges on facts that no installation on loopback can be brought to, and what is folded of a stream."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from maintd.doctor.facts import (
    ApiFacts,
    BusFacts,
    BusMemory,
    Changed,
    Compute,
    ConfigFacts,
    DaemonFacts,
    DatabaseFacts,
    Facts,
    WebhookFacts,
)
from maintd.doctor.findings import Check, Level, worst
from maintd.doctor.judging import bus as bus_judge
from maintd.doctor.judging import clocks, computes, daemon, database, judge, stream, webhooks, words
from maintd.doctor.stream import Form, Heard, Place
from maintd.nova.shown import Look, Managed, Node, Queue, Reading

PLACE = Place("nova", "versioned_notifications")
REACHED = Look((Node("rabbit-1:5672"),), True)
BUS = BusFacts(
    name="default",
    group="[bus]",
    exchange="nova",
    topic="versioned_notifications",
    pool="maintd",
    queues=("maintd",),
    topic_queues=("versioned_notifications.info", "versioned_notifications.error"),
    before=REACHED,
    after=REACHED,
    listened_s=60.0,
)
DATABASE = DatabaseFacts("the database x", now=100.0, current="2", needed="2")


def body(event_type: str, publisher: str, *, server: str = "s-1", at: str = "1970-01-01 00:01:39", **more: Any) -> str:
    """A versioned notification on the wire."""
    payload = {"nova_object.name": "P", "nova_object.version": "1.9", "nova_object.data": {"uuid": server}}
    message = {
        "message_id": "m",
        "event_type": event_type,
        "publisher_id": publisher,
        "payload": payload,
        "timestamp": at,
    }
    return json.dumps(message | more)


def heard(*messages: str, topic: str = PLACE.topic, at: float = 100.0) -> Heard:
    """What is known after some messages."""
    made = Heard(PLACE)
    for message in messages:
        made.take("nova", f"{topic}.info", message, at)
    return made


# --- the stream ------------------------------------------------------------------------------------------------------


def test_borrowed_names_are_not_believed() -> None:
    """A host is not heard by an event type whose publisher may be another process than the one it names (facts 1.1)."""
    some = heard(
        body("instance.update", "nova-compute:conductor-1"),
        body("service.update", "nova-compute:cmp-1"),
        body("instance.rebuild_scheduled", "nova-conductor:cmp-2"),
        body("instance.power_off.end", "nova-compute:cmp-3"),
    )

    assert {"cmp-3"} == some.hosts()
    assert frozenset() == some.hosts("nova-conductor")
    assert {"conductor-1", "cmp-3"} == set(some.delays)


def test_other_services_do_not_count() -> None:
    """Old-format notifications of Neutron or Cinder on the same exchange say nothing about Nova."""
    some = heard(
        body("port.create.end", "network.ctl-1", payload={}),
        body("volume.create.end", "volume.ctl-1", payload={}),
        topic="notifications",
    )

    assert 0 == some.count(Form.UNVERSIONED, here=False) == len(some.legacy)


def test_an_old_update_accuses_nobody() -> None:
    """compute.instance.update comes from conductors under a compute's name, and proves nothing about that host."""
    some = heard(*[body("compute.instance.update", "compute.ctl-1", payload={})] * 3)

    assert 3 == some.count(Form.UNVERSIONED)
    assert frozenset() == some.unconverted()


@pytest.mark.parametrize(
    ("between", "silent"),
    [
        ((), 1),
        ((body("instance.update", "nova-compute:c"),), 0),
        ((body("instance.update", "nova-compute:c", server="s-2"),), 1),
    ],
)
def test_an_action_with_or_without_its_update(between: tuple[str, ...], silent: int) -> None:
    """Only an action heard from start to end, without an update of that very server, speaks against the option."""
    start, end = (body(f"instance.power_off.{phase}", "nova-compute:cmp-1") for phase in ("start", "end"))

    assert silent == sum(heard(start, *between, end).silent_actions.values())
    assert 0 == sum(heard(*between, end).silent_actions.values())


def test_what_another_bus_may_have_told_accuses_nobody() -> None:
    """Of two buses one is silent: what changed may be the other's to tell, and so may be a silent compute that is heard
    there no more because listening broke."""
    api = ApiFacts(
        computes=(Compute("cmp-a1", True, True), Compute("cmp-b1", True, True)),
        changed=(Changed("s-1", "cmp-a1", 90.0), Changed("s-2", "cmp-b1", 90.0)),
    )
    a = replace(BUS, name="a", heard=heard(body("instance.reboot.end", "nova-compute:cmp-a1")))
    b = replace(BUS, name="b", heard=heard())
    alone = [one.level for one in stream.judge(b, api, None) if one.check == "stream.arrives"]
    beside = [one.level for one in stream.judge(b, api, None, [a]) if one.check == "stream.arrives"]
    assert ([Level.ERROR], [Level.UNKNOWN]) == (alone, beside)
    for other, level in ((replace(a, heard=heard()), Level.ERROR), (replace(a, heard=None), Level.UNKNOWN)):
        assert [level] == [one.level for one in stream.judge(b, api, None, [other]) if one.check == "stream.arrives"]

    broken = replace(b, heard=heard(body("instance.reboot.end", "nova-compute:cmp-b1")), listening_trouble="lost")
    assert [Level.WARNING] == [one.level for one in computes.judge([a, b], api)]
    for lost, buses in ((replace(broken, heard=None), [a]), (replace(broken, heard=heard()), [a])):
        facts = Facts(ConfigFacts(), api=api, buses=(*buses, lost))
        assert [Level.UNKNOWN] == [one.level for one in judge(facts) if one.check == "stream.computes"]
    facts = Facts(ConfigFacts(), api=api, buses=(a, broken))
    assert [Level.OK] == [one.level for one in judge(facts) if one.check == "stream.computes"]


def test_a_running_daemon_remembers_updates() -> None:
    """What the daemon has taken since its start counts where the doctor itself has heard too little."""
    facts = replace(BUS, heard=heard(body("instance.exists", "nova-compute:cmp-1")))

    def level(**received: int) -> set[Level]:
        running = DaemonFacts(True, received={name.replace("_", "."): n for name, n in received.items()})
        return {one.level for one in stream.judge(facts, None, running) if one.check == "stream.state_changes"}

    assert {Level.UNKNOWN} == level(instance_reboot=3)
    assert {Level.WARNING} == level(instance_reboot=300)
    assert {Level.OK} == level(instance_reboot=300, instance_update=1)


def test_a_flood_of_names_is_bounded() -> None:
    """Made-up publishers do not fill the memory."""
    from maintd.doctor import stream as folding

    some = Heard(PLACE)
    for n in range(folding.MAX_NAMES + 50):
        some.take(
            "nova",
            "versioned_notifications.info",
            body("instance.power_off.start", f"nova-compute:h{n}", server=f"s{n}"),
            100.0,
        )

    assert folding.MAX_NAMES == len(some.speakers) == len(some.delays)


# --- the broker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "went_in", "known"),
    [
        (Queue("q", True, 10), Queue("q", True, 10), 5, True),
        (Queue("q", True, 10), Queue("q", True, 14), 5, True),
        (Queue("q", True, 10), Queue("q", True, 15), 5, None),
        (Queue("q", True, 10), Queue("q", True, 10), 0, None),
        (Queue("q", True, 10, consumers=1), Queue("q", True, 10), 5, None),
        (Queue("q"), Queue("q", True, 1), 5, None),
    ],
)
def test_what_gives_a_bound_away(before: Queue, after: Queue, went_in: int, known: bool | None) -> None:
    """Only a queue that nobody reads and that grew by less than went into it is known to be bounded."""
    some = Heard(PLACE)
    some.keys["q"] = went_in
    facts = replace(BUS, topic_queues=("q",), before=Look(queues=(before,)), after=Look(queues=(after,)), heard=some)

    assert known is bus_judge.bounded(facts, "q")


@pytest.mark.parametrize(
    ("pool", "messages", "level"), [("maintd", 300_000, "warning"), ("maintd", 3_000, "unknown"), ("maintd", 0, "ok")]
)
def test_piles_of_unread_messages(pool: str, messages: int, level: str) -> None:
    """A default queue that holds more than the README's bound lets it is a warning; less is not known to be wrong."""
    look = Look((Node("r"),), True, None, (Queue("versioned_notifications.info", True, messages),))
    facts = replace(BUS, pool=pool, before=look, after=look)

    assert [level] == [str(one.level) for one in bus_judge.default_queues(facts)]


@pytest.mark.parametrize(
    ("consumers", "limits", "level"),
    [
        (1, {}, "warning"),
        (0, {}, "error"),
        (1, {"max-length": 5}, "ok"),
        (0, {"message-ttl": 5}, "ok"),
        (0, None, "unknown"),
    ],
)
def test_bounds_as_the_plugin_shows_them(consumers: int, limits: dict[str, int] | None, level: str) -> None:
    """An unbounded queue is worse without a reader; where the plugin has not said yet, nothing is known."""
    look = Look((Node("r"),), True, None, (Queue("maintd", True, 7, consumers),))
    facts = replace(BUS, before=look, after=look, managed=(Managed("maintd", limits),))

    assert [level] == [str(one.level) for one in bus_judge.bounds(facts)]


def test_what_a_leading_daemon_remembers() -> None:
    """While a daemon leads, blindness not made up for is a warning; without one its memory says nothing."""
    blind = BusMemory("default", True, blind_from=40.0, last_message_at=90.0)
    led = replace(DATABASE, holder=("a", 10.0), buses=(blind,))

    (found,) = bus_judge.memory(BUS, led)
    assert ("warning", True) == (found.level, "missed notifications 60 s ago" in found.text)
    (found,) = bus_judge.memory(BUS, replace(led, buses=(replace(blind, blind_from=None, deaf_from=70.0),)))
    assert ("warning", True) == (found.level, "since 30 s ago" in found.text)
    (found,) = bus_judge.memory(BUS, replace(led, buses=(replace(blind, blind_from=None),)))
    assert ("ok", True) == (found.level, "10 s ago" in found.text)
    assert [] == list(bus_judge.memory(BUS, replace(led, holder=None)))


@pytest.mark.parametrize(
    ("holder", "consumers", "level"),
    [
        (("a", 10.0), 1, "ok"),
        (("a", 10.0), 0, "warning"),
        (("a", 10.0), 2, "error"),
        (("a", -10.0), 1, "error"),
        (None, 1, "error"),
        (None, 0, "ok"),
    ],
)
def test_readers_against_the_lease(holder: tuple[str, float] | None, consumers: int, level: str) -> None:
    """One reader is ours exactly while somebody holds the lease of our database."""
    look = Look((Node("r"),), True, None, (Queue("maintd", True, 0, consumers),))
    facts = replace(BUS, before=look, after=None)

    assert [level] == [str(one.level) for one in bus_judge.readers(facts, replace(DATABASE, holder=holder))]


@pytest.mark.parametrize("led_before", [False, True])
def test_who_has_begun_or_ended_meanwhile_is_no_stranger(led_before: bool) -> None:
    """The reader is counted a minute after the lease was first looked at: who leads by then is another question."""
    look = Look((Node("r"),), True, None, (Queue("maintd", True, 0, 1 - led_before),))
    held = None if led_before else ("a", 10.0)
    facts = replace(BUS, before=look, after=None)
    (found,) = bus_judge.readers(facts, replace(DATABASE, holder=held, led_before=led_before))

    assert found.level is (Level.OK if led_before else Level.UNKNOWN)


def test_a_reader_without_a_database_to_ask() -> None:
    """Whose reader it is, is unknown where the database cannot be read; two are one too many anyway."""
    away = replace(DATABASE, trouble="gone")
    for consumers, level in ((1, "unknown"), (2, "error")):
        look = Look((Node("r"),), True, None, (Queue("maintd", True, 0, consumers),))
        assert [level] == [str(one.level) for one in bus_judge.readers(replace(BUS, before=look, after=None), away)]


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_at", "date", "at", "skew_s"),
    [
        (100.2, 100.0, 100.3, 0.0),
        (99.9, 100.0, 100.1, 0.0),
        (100.0, 103.0, 100.1, 2.9),
        (100.0, 90.0, 100.1, -9.0),
        (100.0, 109.0, 110.0, 0.0),  # a slow answer, whose clock was read at its end
    ],
)
def test_skew(asked_at: float, date: float, at: float, skew_s: float) -> None:
    """A Date's second and the time of the answer are given the benefit of the doubt."""
    assert skew_s == pytest.approx(clocks.skew_of(Reading("compute", asked_at, date, at)))


@pytest.mark.parametrize(
    ("embedded", "current", "level"), [(True, "1", "warning"), (False, "1", "error"), (False, "2", "ok")]
)
def test_older_tables(embedded: bool, current: str, level: str) -> None:
    """A file's tables are brought up to date by the daemon; those on a server are the operator's to upgrade."""
    facts = replace(DATABASE, embedded=embedded, current=current)

    assert level == str(database.schema(facts).level)


@pytest.mark.parametrize(
    ("facts", "levels"),
    [
        (DaemonFacts(False), ["unknown"]),
        (DaemonFacts(True, ready=False, said=("The database cannot be used.",)), ["ok", "error"]),
        (
            DaemonFacts(True, ready=True, said=("Bus default is connecting.", "Nova said no.")),
            ["ok", "warning", "warning"],
        ),
        (DaemonFacts(True, ready=True, said=("This controller stands by: another one leads.",)), ["ok", "ok"]),
    ],
)
def test_what_the_daemon_says_of_itself(facts: DaemonFacts, levels: list[str]) -> None:
    """What the running daemon lacks is passed on; standing by is no lack."""
    assert levels == [str(one.level) for one in daemon.judge(facts, DATABASE)]


def test_deliveries_that_do_not_go() -> None:
    """An event that has waited for long and an endpoint that was given up are told; an endpoint of old is not."""
    hook = WebhookFacts("hook", "x:1", True)
    late = replace(DATABASE, now=1_000.0, oldest_pending_at=10.0, disabled={"hook": "it answered 410", "old": "x"})

    found = [(one.check, str(one.level), one.subject) for one in webhooks.pending([hook], late)]
    assert [("webhook.enabled", "error", "hook"), ("webhook.pending", "warning", None)] == found
    assert ["ok"] == [str(one.level) for one in webhooks.pending([hook], DATABASE)]


def test_one_fault_makes_one_finding() -> None:
    """Where the broker or the API cannot be reached, nothing else is said of it."""
    lost = Look((Node("r", "RabbitMQ at r is not reachable: no answer in time."),))
    found = judge(Facts(ConfigFacts(), DATABASE, buses=(replace(BUS, before=lost, after=None),), api=ApiFacts("No.")))

    assert [("bus.reachable", "error"), ("api.reachable", "error")] == [
        (one.check, str(one.level)) for one in found if one.level in ("warning", "error")
    ]
    assert not [one for one in found if one.check.startswith(("stream.", "clock."))]


def test_computes_of_several_buses_are_one_set() -> None:
    """A compute may speak on either bus; only one that speaks on none is silent."""
    one = replace(BUS, heard=heard(body("instance.power_off.end", "nova-compute:cmp-1")))
    two = replace(BUS, name="cell2", heard=heard(body("instance.power_off.end", "nova-compute:cmp-2")))
    api = ApiFacts(computes=tuple(Compute(f"cmp-{n}", True, True) for n in (1, 2, 3)), changed=())

    (finding,) = [
        one for one in judge(Facts(ConfigFacts(), buses=(one, two), api=api)) if one.check == "stream.computes"
    ]
    assert finding.level == "unknown" and finding.text.endswith(": cmp-3.")


def test_levels_and_words() -> None:
    """The worst level decides; a check makes no finding of a level that it does not declare; lists stay readable."""
    check = Check("a.b", "x", means_warning="y")
    assert Level.WARNING == worst([check.ok("fine"), check.warning("w", "f"), check.ok("fine")])
    with pytest.raises(ValueError, match="declares no error"):
        check.error("e", "f")
    assert "h0, h1, h2, h3, h4, h5, h6, h7 and 3 more" == words.named([f"h{n}" for n in range(8)] + ["x", "y", "z"])
