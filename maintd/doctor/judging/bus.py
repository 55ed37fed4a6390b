"""Is the broker as it must be: reachable, our exchange, our queue, nobody else at it, and nothing that grows for ever?

What AMQP does not show is not made up. What bounds a queue is known from the management plugin where it was asked, else
only where the queue gives it away: one that nobody reads, and that grew by less than was heard going into it, drops.
"""

from __future__ import annotations

from collections.abc import Iterator

from maintd.doctor.facts import BusFacts, DatabaseFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import NOVA_CONF, counted, seconds
from maintd.doctor.stream import Form
from maintd.nova.shown import Managed

REACHABLE = Check(
    "bus.reachable",
    "whether every broker of the transport URL takes a connection with our credentials and virtual host",
    means_unknown="The transport lives inside the daemon.",
    means_warning="Some brokers of the URL do not answer; the others do.",
    means_error="None can be used, and nothing is heard.",
)
EXCHANGE = Check(
    "bus.exchange",
    "whether the exchange exists, with the type and durability that `[bus]` asks for",
    means_error="It does not exist (wrong name or virtual host, or Nova has never sent anything), or it differs: the "
    "daemon hears nothing.",
)
QUEUE = Check(
    "bus.queue",
    "whether our queue can be declared as `[bus]` asks for it",
    means_error="It exists and differs: the daemon cannot read it.",
)
BACKLOG = Check(
    "bus.backlog",
    "how many notifications wait in our queue",
    means_unknown="Many wait, and only listening shows whether they get less.",
    means_warning="Nobody reads it, or it is not read as fast as it fills.",
)
READERS = Check(
    "bus.readers",
    "who else reads our queue (without a pool, Nova's own): each message goes to one reader only",
    means_unknown="The database that would tell whether the reader is ours cannot be read, or who leads has changed.",
    means_warning="Our daemon leads, and does not read.",
    means_error="Somebody else reads it too, and maintd misses what they get.",
)
BOUNDS = Check(
    "bus.bounds",
    "whether a policy or an argument bounds our queue and Nova's default queues",
    means_unknown="AMQP does not show it; `--management-url` does.",
    means_warning="A queue has no bound: it fills the broker as soon as its reader is away.",
    means_error="A queue has no bound and no reader: it is filling the broker.",
)
DEFAULTS = Check(
    "bus.default_queues",
    "whether Nova's own queues of the topic, which its publishers make and fill, pile up unread",
    means_unknown="They fill and nobody reads them; whether they are bounded is not known.",
    means_warning="More waits in one than any bound that the README sets.",
)
MEMORY = Check(
    "bus.memory",
    "what the running daemon remembers of the bus: its last message, and whether it missed some",
    means_warning="It may have missed notifications, and has not made up for it; or it hears nothing, although the API "
    "shows that it should.",
)
CHECKS = (REACHABLE, EXCHANGE, QUEUE, BACKLOG, READERS, BOUNDS, DEFAULTS, MEMORY)

BEHIND = 1000
"""Messages ready in a queue that is being read; fewer are just on their way."""
PILED = 250_000
"""Above the bound that the README's policy sets, with some room."""


def judge(bus: BusFacts, database: DatabaseFacts | None) -> Iterator[Finding]:
    if bus.embedded:
        yield REACHABLE.unknown(
            f"The transport of {bus.group} lives inside the daemon: there is no broker to look at.", subject=bus.name
        )
        return
    yield from reachable(bus)
    if not bus.reached:
        return
    yield from exchange(bus)
    yield from queue(bus)
    yield from backlog(bus)
    yield from readers(bus, database)
    yield from bounds(bus)
    yield from default_queues(bus)
    yield from memory(bus, database)


def reachable(bus: BusFacts) -> Iterator[Finding]:
    """Does every broker of the URL let us in?"""
    advice = f"{bus.group} transport_url: make it what nova.conf has, with a user of maintd's own (README, step 1)."
    if bus.trouble is not None or bus.before is None:
        yield REACHABLE.error(bus.trouble or "Nothing was learnt of the broker.", advice, bus.name)
        return
    for node in bus.before.nodes:
        if node.trouble is None:
            yield REACHABLE.ok(f"{node.version.strip() or 'The broker'} at {node.where} takes us in.", bus.name)
        elif bus.reached:
            yield REACHABLE.warning(node.trouble, advice, bus.name)
        else:
            yield REACHABLE.error(node.trouble, advice, bus.name)


def exchange(bus: BusFacts) -> Iterator[Finding]:
    """Is the exchange there, and is it what we take it for? Where it was found elsewhere, that says it all."""
    look = bus.before
    assert look is not None  # noqa: S101 - the caller has looked
    if not look.exchange_there and bus.heard is not None and bus.heard.places(Form.VERSIONED):
        return
    if not look.exchange_there:
        yield EXCHANGE.error(
            f"There is no exchange '{bus.exchange}' on this virtual host: it is called otherwise, this is another "
            "virtual host than Nova's, or no Nova service has sent anything since the broker began.",
            f"{bus.group}\nexchange = CONTROL_EXCHANGE      # of nova.conf; Nova's default is nova\n"
            "transport_url = …/VHOST           # as [oslo_messaging_notifications] transport_url of nova.conf",
            bus.name,
        )
    elif look.exchange_trouble is not None:
        yield EXCHANGE.error(look.exchange_trouble, _as_nova(bus), bus.name)
    else:
        yield EXCHANGE.ok(f"The exchange '{bus.exchange}' is there, and is declared as {bus.group} says.", bus.name)


def queue(bus: BusFacts) -> Iterator[Finding]:
    """Can our queue be what it must be?"""
    for name in bus.queues:
        found = bus.last.queue(name)
        if found.trouble is not None:
            yield QUEUE.error(found.trouble, _as_nova(bus), bus.name)
        elif found.there:
            yield QUEUE.ok(f"The queue '{name}' is there, and is declared as {bus.group} says.", bus.name)
        else:
            yield QUEUE.ok(f"The queue '{name}' is not there yet; the daemon makes it.", bus.name)


def _as_nova(bus: BusFacts) -> str:
    return (
        f"{bus.group}\ndurable_queues = …     # nova.conf: amqp_durable_queues\n"
        "quorum_queue = …       # nova.conf: rabbit_quorum_queue\nauto_delete = …        # nova.conf: amqp_auto_delete"
        "\nA queue of ours that is left from before: maintd bus remove, with the daemon stopped."
    )


def backlog(bus: BusFacts) -> Iterator[Finding]:
    """Does anything wait in our queue, and does it get less?"""
    assert bus.before is not None  # noqa: S101
    for name in bus.queues:
        now, then = bus.last.queue(name), bus.before.queue(name)
        if not now.there:
            continue
        waits = f"{counted(now.messages, 'notification')} wait{'s' if now.messages == 1 else ''} in '{name}'"
        if now.messages and not now.consumers:
            yield BACKLOG.warning(
                f"{waits}, and nobody reads {'it' if bus.pool else 'that queue'}.",
                "systemctl start maintd; if maintd is not to run here any more: maintd bus remove",
                bus.name,
            )
        elif now.messages > BEHIND and bus.after is None:
            yield BACKLOG.unknown(
                f"{waits}; whether they get less is not known.", "maintd doctor --listen 60", bus.name
            )
        elif now.messages > BEHIND and now.messages >= then.messages:
            yield BACKLOG.warning(
                f"{waits}, {now.messages - then.messages} more than {seconds(bus.listened_s)} ago: the daemon does not "
                "keep up, or holds back.",
                "maintd status says whether it is paused; look at the load and the database of the leading controller.",
                bus.name,
            )
        else:
            yield BACKLOG.ok(f"{waits}.", bus.name)


def readers(bus: BusFacts, database: DatabaseFacts | None) -> Iterator[Finding]:
    """Is whoever reads our queue one of ours? One daemon leads, and it reads each queue once."""
    led = database.led if database is not None else None
    for name in bus.queues:
        found = bus.last.queue(name)
        if not found.there:
            continue
        who = _readers_of(bus, name)
        read = f"'{name}' has {counted(found.consumers, 'reader')}{who}"
        if found.consumers > 1 or (found.consumers == 1 and led is False):
            owner = "one of them at most is ours"
            if led is False:
                owner = "none of them is ours: nobody holds the lease of our database"
            yield READERS.error(
                f"{read}, and {owner}. Each notification goes to one reader only.",
                f"{bus.group}\npool = maintd-{'NAME' if bus.pool else 'own'}"
                "      # a name that no other program and no other installation uses",
                bus.name,
            )
        elif found.consumers == 1 and led is None:
            usable = database is not None and database.usable
            why = "and who leads has changed meanwhile" if usable else "without the database"
            yield READERS.unknown(f"{read}; whether it is ours is not known {why}.", None, bus.name)
        elif found.consumers == 0 and led:
            yield READERS.warning(
                f"'{name}' has no reader, although a maintd holds the fleet lease.",
                "maintd status says what the bus is to it; its log says why.",
                bus.name,
            )
        else:
            yield READERS.ok(f"{read}{', ours' if found.consumers else ''}.", bus.name)


def _readers_of(bus: BusFacts, name: str) -> str:
    managed = _managed(bus, name)
    return f" ({'; '.join(managed.readers)})" if managed is not None and managed.readers else ""


def _managed(bus: BusFacts, name: str) -> Managed | None:
    return next((queue for queue in bus.managed or () if queue.name == name), None)


def bounded(bus: BusFacts, name: str) -> bool | None:
    """Whether a queue has a bound; None where nothing shows it."""
    managed = _managed(bus, name)
    if managed is not None and managed.limits is not None:
        return bool(managed.limits)
    if bus.before is None or bus.after is None or bus.heard is None:
        return None
    then, now = bus.before.queue(name), bus.after.queue(name)
    unread = then.there and now.there and not then.consumers and not now.consumers
    if unread and name in bus.topic_queues and now.messages - then.messages < bus.heard.keys[name]:
        return True
    return None


def bounds(bus: BusFacts) -> Iterator[Finding]:
    """What keeps a queue from filling the broker?"""
    if bus.management_trouble is not None:
        yield BOUNDS.unknown(bus.management_trouble, "maintd doctor --management-url http://HOST:15672", bus.name)
    names = [name for name in dict.fromkeys((*bus.queues, *bus.topic_queues)) if bus.last.queue(name).there]
    untold = []
    for name in names:
        found, managed = bus.last.queue(name), _managed(bus, name)
        known = bounded(bus, name)
        if known and managed is not None and managed.limits:
            said = ", ".join(f"{limit} {value}" for limit, value in sorted(managed.limits.items()))
            yield BOUNDS.ok(f"'{name}' is bounded: {said}.", bus.name)
        elif known:
            yield BOUNDS.ok(f"'{name}' is bounded: nobody reads it, and it does not grow by what goes in.", bus.name)
        elif known is None:
            untold.append(name)
        elif found.consumers:
            yield BOUNDS.warning(
                f"Nothing bounds '{name}': without its reader it grows until the broker stops Nova.",
                _policy(bus),
                bus.name,
            )
        else:
            yield BOUNDS.error(
                f"Nothing bounds '{name}', nobody reads it, and {counted(found.messages, 'message')} wait in it: it "
                "grows until the broker stops Nova.",
                _policy(bus),
                bus.name,
            )
    if untold and bus.management_trouble is None:
        teller = "AMQP does not show" if bus.managed is None else "RabbitMQ's management has not said yet"
        yield BOUNDS.unknown(
            f"{teller} whether {', '.join(map(repr, untold))} {'is' if len(untold) == 1 else 'are'} bounded.",
            "maintd doctor --management-url http://HOST:15672, or on the broker:\n"
            f"  rabbitmqctl list_queues -p {bus.vhost} name effective_policy_definition arguments\n" + _policy(bus),
            bus.name,
        )


def _policy(bus: BusFacts) -> str:
    names = "|".join(name.replace(".", r"\.") for name in dict.fromkeys((*bus.queues, *bus.topic_queues)))
    return (
        f"rabbitmqctl set_policy -p {bus.vhost} maintd-bounds '^({names})$' \\\n  "
        '\'{"max-length":200000,"max-length-bytes":1073741824,"message-ttl":86400000,"overflow":"drop-head"}\' '
        "--apply-to queues"
    )


def default_queues(bus: BusFacts) -> Iterator[Finding]:
    """With a pool, Nova's own queues of the topic are nobody's unless somebody else reads them."""
    for name in bus.topic_queues:
        found = bus.last.queue(name)
        if name in bus.queues or not found.there:
            continue
        if found.consumers:
            yield DEFAULTS.ok(
                f"'{name}' is read by {counted(found.consumers, 'other reader')}, as it may be.", bus.name
            )
        elif found.messages > PILED and not bounded(bus, name):
            yield DEFAULTS.warning(
                f"{found.messages} messages wait in '{name}', which Nova fills and nobody reads.",
                f"{_policy(bus)}\n  and, to have the room back: rabbitmqctl purge_queue -p {bus.vhost} {name}",
                bus.name,
            )
        elif found.messages and bounded(bus, name) is None:
            yield DEFAULTS.unknown(
                f"{counted(found.messages, 'message')} wait in '{name}', which Nova fills and nobody reads; that is as "
                "it should be if a policy bounds it.",
                None,
                bus.name,
            )
        else:
            yield DEFAULTS.ok(f"'{name}', which nobody reads, holds {counted(found.messages, 'message')}.", bus.name)


def memory(bus: BusFacts, database: DatabaseFacts | None) -> Iterator[Finding]:
    """Did the daemon miss anything that it has not made up for?"""
    if database is None or not database.led:
        return
    for known in database.buses:
        if known.name != bus.name:
            continue
        if known.blind_from is not None:
            ago = seconds(database.now - known.blind_from)
            yield MEMORY.warning(
                f"The daemon may have missed notifications {ago} ago, and has not made up for it yet.",
                "It heals by itself once the API has been read; maintd status says what keeps it from that.",
                bus.name,
            )
        elif known.deaf_from is not None:
            ago = seconds(database.now - known.deaf_from)
            yield MEMORY.warning(
                f"The API has shown to the daemon since {ago} ago what this bus should have told, and did not.",
                NOVA_CONF,
                bus.name,
            )
        elif known.last_message_at is not None:
            ago = seconds(max(0.0, database.now - known.last_message_at))
            yield MEMORY.ok(f"The daemon took the last notification {ago} ago.", bus.name)
