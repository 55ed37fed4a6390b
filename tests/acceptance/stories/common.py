"""What the stories have in common: how each begins and ends, and what has to be heard of the host by then."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.subject import Settings

REASON = "maintenance: acceptance story"

A_DRAIN = (
    "service.disabled",
    "drain.started",
    "host.emptied",
    "service.enabled",
    "host.reopened",
    "drain.ended",
)
LAST = frozenset({"service.enabled", "host.reopened", "drain.ended"})
SOON_S = 15.0
"""How long a thing may take that follows at once."""
GRACE_S = 420.0
"""How long a leak may keep the host from being called empty."""
WORD_S = 60.0
"""How long the end of a migration may take to be told: the API is waited for."""


def closed(
    stage: Stage,
    servers: dict[str, str],
    host_events: tuple[str, ...] = A_DRAIN,
) -> Facts:
    """Those servers on a host, maintd beside it, the host watched, then closed."""
    watcher = stage.watch()
    facts = Facts(stage.host, stage.options.settle_s, REASON, servers, watcher, host_events=host_events, loose=LAST)
    shut(stage, facts)
    return facts


def shut(stage: Stage, facts: Facts) -> None:
    request_id = stage.shut(REASON)
    facts.requests |= {"service.disabled": request_id, "drain.started": request_id}
    stage.expect("service.disabled", SOON_S)
    stage.expect("drain.started", SOON_S)


def begin(stage: Stage, settings: Settings | None = None, host_events: tuple[str, ...] = A_DRAIN) -> Facts:
    """Servers on a host, as many as asked for, and then as in `closed`."""
    servers = stage.create()
    stage.go(settings)
    return closed(stage, servers, host_events)


def stay(stage: Stage, facts: Facts, more_s: float = 5.0) -> None:
    """Nothing may be called empty now, and is not."""
    stage.say("nothing may be called empty now")
    stage.none_comes("host.emptied", facts.settle_s + more_s)


def emptied(stage: Stage, facts: Facts, within_s: float = 60.0, number: int = 1) -> Heard:
    """The host is said to be empty, for the first time or the `number`th.

    A busy Nova may fail to free what a move had held here, and never tries again: then maintd has to wait for that, and
    to warn of it in the end.
    """
    try:
        return stage.expect("host.emptied", facts.settle_s + within_s, number=number)
    except Fault:
        leaks = stage.leaks(facts.servers)
        if not leaks or {kind for kind, _ in stage.kinds()} != {"allocation"}:
            raise
        stage.say(f"Nova has leaked what these held: {leaks}")
        facts.leaked |= leaks.keys()
        facts.warnings |= {("leftover_allocation", server_id) for server_id in leaks.values()}
        return stage.expect("host.emptied", GRACE_S, number=number)


def reopen(stage: Stage, facts: Facts) -> Facts:
    """The host is opened, the drain has to end, and the story is over."""
    stage.up()
    stage.recovered()
    facts.opened_at = time.time()
    request_id = stage.open()
    facts.requests |= {"service.enabled": request_id, "host.reopened": request_id, "drain.ended": request_id}
    stage.expect("drain.ended", SOON_S)
    return stage.gather(facts)


def drain_live(stage: Stage, servers: dict[str, str]) -> None:
    """Live-migrate them all away, and wait until they are."""
    for server_id in servers:
        stage.cloud.live_migrate(server_id, stage.options.to)
    stage.say(f"server migrate --live-migration, for {len(servers)}")
    stage.away(servers)


def told_of(stage: Stage, event_type: str, servers: dict[str, str], within_s: float = WORD_S) -> None:
    """An event of this type comes about each of these servers."""
    for server_id in servers:
        stage.expect(event_type, within_s, of(server_id))


def of(server_id: str) -> Callable[[Heard], bool]:
    return lambda heard: bool(heard.data.get("server_id") == server_id)


def first(servers: dict[str, str]) -> dict[str, str]:
    """The first of them alone."""
    return dict(list(servers.items())[:1])


def rest(servers: dict[str, str]) -> dict[str, str]:
    """All but the first."""
    return dict(list(servers.items())[1:])
