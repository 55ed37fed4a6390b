"""Does what maintd needs really arrive: in the versioned format, at the place that it reads, in versions it knows?

A silent bus proves nothing by itself. It is held against what cannot be silent: queues that Nova's publishers make when
they first send, and servers that the API shows to have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maintd.doctor.facts import ApiFacts, BusFacts, DaemonFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import NOVA_CONF, counted, named, seconds
from maintd.doctor.stream import Form, Heard
from maintd.nova.shown import LEGACY_QUEUE

LISTENED = Check(
    "stream.listened",
    "whether the doctor itself could listen, through a temporary queue of its own",
    means_unknown="It was told not to listen.",
    means_error="The temporary queue could not be made or bound, or the connection broke.",
)
ARRIVES = Check(
    "stream.arrives",
    "whether versioned notifications arrive on the exchange and topic of `[bus]`",
    means_unknown="Nothing arrived, and nothing is known to have happened that this bus should have told: make "
    "something happen, and look again.",
    means_error="Nothing arrived, although the API shows that servers changed meanwhile.",
)
PLACE = Check(
    "stream.place",
    "where versioned notifications go, when they do not come to the exchange and topic of `[bus]`",
    means_error="Nova sends them, to another exchange or topic than maintd reads.",
)
FORMAT = Check(
    "stream.format",
    "which formats are sent: maintd reads versioned notifications only, and Nova's default is the other one",
    means_warning="Some Nova services still send the old format only, and maintd hears nothing of them.",
    means_error="Nova sends the old format only, and maintd hears nothing.",
)
STATES = Check(
    "stream.state_changes",
    "whether `instance.update` is sent, which `[notifications] notify_on_state_change` turns on",
    means_unknown="None was heard, and nothing that would have caused one.",
    means_warning="It is not turned on: some failures show nowhere else, and maintd learns of them late, by the API.",
)
PAYLOADS = Check(
    "stream.payloads",
    "whether the payloads are of a major version that this maintd reads (1 and 2)",
    means_error="This Nova is newer than maintd knows; what it cannot read is set aside.",
)
READABLE = Check(
    "stream.readable",
    "whether every message on the topic can be read at all",
    means_warning="Something else publishes there, or something is broken; maintd sets such messages aside.",
)
CHECKS = (LISTENED, ARRIVES, PLACE, FORMAT, STATES, PAYLOADS, READABLE)

ENOUGH = 20
"""Notifications of servers after which a daemon that has taken no instance.update will not take any."""


def judge(
    bus: BusFacts,
    api: ApiFacts | None,
    daemon: DaemonFacts | None,
    others: Sequence[BusFacts] = (),
    *,
    one_is_lost: bool = False,
) -> Iterator[Finding]:
    """`others`: the other buses; what changed may be theirs to tell, or that of one that is lost to us."""
    if not bus.reached:
        return
    if bus.listening_trouble is not None:
        yield LISTENED.error(
            bus.listening_trouble,
            "The user of the transport URL needs the rights of README, step 1: to configure and read queues that are "
            f"named like {bus.pool or 'maintd'}.…, and to read the exchange.",
            bus.name,
        )
        return
    if not bus.listened or bus.heard is None:
        yield LISTENED.unknown(
            "The bus was not listened to, so nothing is known of what Nova sends.",
            "maintd doctor --listen 60",
            bus.name,
        )
        return
    yield from arrives(bus, bus.heard, api, alone=not (one_is_lost or any(map(_may_have_told, others))))
    yield from half_converted(bus, bus.heard)
    yield from state_changes(bus, bus.heard, daemon)
    yield from payloads(bus, bus.heard)
    yield from readable(bus, bus.heard)


def arrives(bus: BusFacts, heard: Heard, api: ApiFacts | None, *, alone: bool) -> Iterator[Finding]:
    """Versioned notifications, where we read; else why not. `alone`: no other bus can have told what changed."""
    span = seconds(bus.listened_s)
    here = heard.count(Form.VERSIONED)
    if here:
        computes = counted(len(heard.hosts()), "compute")
        text = f"{counted(here, 'versioned notification')} arrived within {span}, from {computes} and other services."
        yield ARRIVES.ok(text, bus.name)
        return
    places = heard.places(Form.VERSIONED)
    if places:
        place = places[0]
        yield PLACE.error(
            f"Versioned notifications arrive on the exchange '{place.exchange}' with the topic '{place.topic}', and "
            f"{bus.group} reads the exchange '{bus.exchange}' with the topic '{bus.topic}'.",
            f"{bus.group}\nexchange = {place.exchange}\ntopic = {place.topic}",
            bus.name,
        )
        return
    legacy = heard.count(Form.UNVERSIONED) + heard.count(Form.UNVERSIONED, here=False)
    if legacy:
        text = (
            f"Within {span} Nova sent {counted(legacy, 'notification')} of the old format, and none that is versioned."
        )
        yield FORMAT.error(text, NOVA_CONF, bus.name)
        return
    if bus.last.exchange_there:
        yield _silence(bus, api, span, alone=alone)


def _silence(bus: BusFacts, api: ApiFacts | None, span: str, *, alone: bool) -> Finding:
    """Nothing at all came: does anything else tell why?"""
    made = {queue.name for queue in bus.last.queues if queue.there}
    ours = set(bus.topic_queues) & made
    if bus.pool and not ours:
        # Without a pool the daemon makes these queues itself, and they tell nothing.
        if "versioned_notifications.info" in made:
            return PLACE.error(
                f"Nova's publishers have made the queue 'versioned_notifications.info' here, and none for the topic "
                f"'{bus.topic}': that is not where they send.",
                f"{bus.group}\ntopic = versioned_notifications\nor on every Nova service, in nova.conf:\n"
                f"  [notifications]\n  versioned_notifications_topics = versioned_notifications,{bus.topic}",
                bus.name,
            )
        if LEGACY_QUEUE in made:
            return FORMAT.error(
                f"Nova's publishers have made the queue '{LEGACY_QUEUE}' here and none for the topic '{bus.topic}': "
                "they send the old, unversioned format only.",
                NOVA_CONF,
                bus.name,
            )
    changed = (api.changed if api is not None else None) or ()
    if changed and not alone:
        return ARRIVES.unknown(
            f"Nothing arrived within {span}; what the API shows to have changed meanwhile (on "
            f"{named({one.host for one in changed})}) may have been for another bus to tell.",
            f"Make something happen in the cell of {bus.group} while the doctor listens: start or stop a server there.",
            bus.name,
        )
    if changed:
        return ARRIVES.error(
            f"Nothing arrived within {span}, although {counted(len(changed), 'server')} changed meanwhile (on "
            f"{named({one.host for one in changed})}).",
            f"{NOVA_CONF}\nand see that its transport_url, if it has one there, is that of {bus.group}.",
            bus.name,
        )
    asked = (
        "and the API shows no server that changed"
        if api is not None and api.changed is not None
        else "and it is not known whether anything happened"
    )
    return ARRIVES.unknown(
        f"Nothing arrived within {span}, {asked}: that proves nothing.",
        "Make something happen that harms nobody while the doctor listens: openstack keypair create maintd-doctor "
        ">/dev/null; openstack keypair delete maintd-doctor",
        bus.name,
    )


def _may_have_told(other: BusFacts) -> bool:
    """Whether what changed may have been for another bus to tell: it tells something, or nobody could listen to it."""
    return not other.listened or other.heard is None or bool(other.heard.forms)


def half_converted(bus: BusFacts, heard: Heard) -> Iterator[Finding]:
    """Who still speaks the old format only, where others speak the versioned one?"""
    if not heard.count(Form.VERSIONED):
        return
    behind = heard.unconverted()
    if not behind:
        yield FORMAT.ok("Nobody was heard in the old format only.", bus.name)
        return
    by_service: dict[str, set[str]] = {}
    for service, host in behind:
        by_service.setdefault(service, set()).add(host)
    who = "; ".join(f"{service} on {named(hosts)}" for service, hosts in sorted(by_service.items()))
    text = f"Some Nova services sent the old format only, so maintd hears nothing of them: {who}."
    yield FORMAT.warning(text, NOVA_CONF, bus.name)


def state_changes(bus: BusFacts, heard: Heard, daemon: DaemonFacts | None) -> Iterator[Finding]:
    """Is instance.update turned on?"""
    if not heard.count(Form.VERSIONED):
        return
    received = daemon.received if daemon is not None else {}
    taken = sum(n for name, n in received.items() if name.startswith("instance."))
    fix = f"{NOVA_CONF}\nThe conductors send most of them."
    if heard.updates or received.get("instance.update"):
        yield STATES.ok("instance.update is sent: notify_on_state_change is set.", bus.name)
    elif heard.silent_actions:
        some = named({action.removeprefix("instance.") for action in heard.silent_actions})
        yield STATES.warning(
            f"Servers changed ({some}) and no instance.update told of it: notify_on_state_change is not set.",
            fix,
            bus.name,
        )
    elif taken >= ENOUGH:
        yield STATES.warning(
            f"The running daemon has taken {taken} notifications of servers and no instance.update: "
            "notify_on_state_change is not set.",
            fix,
            bus.name,
        )
    else:
        yield STATES.unknown("No instance.update was heard, and nothing that would have caused one.", None, bus.name)


def payloads(bus: BusFacts, heard: Heard) -> Iterator[Finding]:
    """Are there payloads from a future that we cannot read?"""
    if heard.strange:
        some = named({f"{name} {version}" for name, version in heard.strange})
        yield PAYLOADS.error(
            f"Payloads of major versions that this maintd does not know: {some}.",
            "Install a maintd that knows this release of Nova.",
            bus.name,
        )
    elif heard.count(Form.VERSIONED):
        yield PAYLOADS.ok("All payloads are of major versions that this maintd reads.", bus.name)


def readable(bus: BusFacts, heard: Heard) -> Iterator[Finding]:
    """Is anything on the topic no notification at all?"""
    if heard.broken:
        reason, _ = heard.broken.most_common(1)[0]
        yield READABLE.warning(
            f"{counted(heard.count(Form.UNREADABLE), 'message')} on the topic could not be read ({reason}).",
            f"Find out who publishes to '{bus.topic}.*' besides Nova; maintd sets such messages aside.",
            bus.name,
        )
