"""Servers that are built while the host closes, sent back to it, shelved, deleted softly or for good, or broken."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.cloud import Cloud, Sentence, until
from tests.acceptance.judge import Facts
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import (
    A_DRAIN,
    LAST,
    REASON,
    SOON_S,
    begin,
    closed,
    drain_live,
    emptied,
    first,
    reopen,
    rest,
    stay,
)


def build(stage: Stage) -> Facts:
    """Builds race the closing: whichever wins each time, a server that lands is seen, and nothing is empty before."""
    here = stage.create(1)
    stage.go()
    watcher, another = stage.watch(), Cloud(stage.options.cloud)
    wait_s = secrets.randbelow(2000) / 1000
    stage.say(f"the host is closed {wait_s:.3f} s after the first is asked for")

    def close() -> str | None:
        time.sleep(wait_s)
        return stage.shut(REASON, another)

    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(close)
        racing = stage.create(wait=False)
    facts = Facts(stage.host, stage.options.settle_s, REASON, here | racing, watcher, host_events=A_DRAIN, loose=LAST)
    facts.requests |= {"service.disabled": closing.result(), "drain.started": closing.result()}
    stage.expect("service.disabled", SOON_S)
    stage.expect("drain.started", SOON_S)
    facts.counted = (len(here), len(facts.servers))
    stage.built(racing)  # or refused: the closing was first
    shown = {server_id: stage.cloud.server(server_id) or {} for server_id in facts.servers}
    landed = {i: facts.servers[i] for i, s in shown.items() if s.get("OS-EXT-SRV-ATTR:host") == stage.host}
    stage.say(f"{len(landed) - len(here)} of {len(racing)} landed before the closing, or in spite of it")
    stage.settled(landed, lambda s: True, "settled")
    blocked = {server_id for _, server_id in stage.kinds()}
    if not landed.keys() <= blocked:
        raise Fault(f"the host's blockers name {blocked}, and not every server that landed: {sorted(landed)}")
    drain_live(stage, landed)
    emptied(stage, facts)
    return reopen(stage, facts)


def build_late(stage: Stage) -> Facts:
    """Builds that take long: closed, with nothing else on it, the host is not empty while something is coming."""
    stage.need(knob=True)
    racing = stage.create(1)
    stage.go()
    slow = stage.create(wait=False)
    stage.wish({server_id: {"spawn": {"seconds": 20 + stage.options.settle_s}} for server_id in slow})
    facts = closed(stage, racing | slow)
    facts.counted = (1, len(facts.servers))
    stage.delete(racing)
    stage.blocked({("incoming", server_id) for server_id in slow})
    stay(stage, facts, 2.0)
    if not stage.built(slow):
        raise Fault("Nova could not build them")
    stage.wish({})
    stage.blocked({("not_attempted", server_id) for server_id in slow})
    stay(stage, facts)
    drain_live(stage, slow)
    emptied(stage, facts)
    return reopen(stage, facts)


def refill(stage: Stage) -> Facts:
    """Emptied, then a server is forced back onto the closed host: taken back at once, and proven anew when it left."""
    events = ("service.disabled", "drain.started", "host.emptied", "host.occupied", "host.emptied", *A_DRAIN[3:])
    facts = begin(stage, host_events=events)
    drain_live(stage, facts.servers)
    emptied(stage, facts)
    one = first(facts.servers)
    (server_id,) = one
    facts.refilled_at.append(time.time())
    stage.cloud.force_live_migrate(server_id, stage.host)
    stage.say("server migrate --live-migration --force, back to the closed host")
    occupied = stage.expect("host.occupied", 30.0)
    if {note["server_id"] for note in occupied.data["occupants"]} != {server_id}:
        raise Fault(f"host.occupied names {occupied.data['occupants']}, not the server that comes")
    stage.settled(one, lambda s: s["OS-EXT-SRV-ATTR:host"] == stage.host, f"back to {stage.host}")
    stage.blocked({("not_attempted", server_id)})
    stage.none_comes("host.emptied", facts.settle_s + 5.0, number=2)
    drain_live(stage, one)
    emptied(stage, facts, number=2)
    return reopen(stage, facts)


def shelve(stage: Stage) -> Facts:
    """Shelved servers leave when they are offloaded, and are unshelved elsewhere; the host stays empty."""
    facts = begin(stage)
    for server_id in facts.servers:
        stage.cloud.act(server_id, "shelve")
    stage.say("server shelve, for every server")
    shelved = ("SHELVED", "SHELVED_OFFLOADED")
    stage.settled(facts.servers, lambda s: s["status"] in shelved, "shelved")
    here = {i: name for i, name in facts.servers.items() if (stage.cloud.server(i) or {}).get("status") == "SHELVED"}
    if here:
        stage.blocked({("cannot_live_migrate", server_id) for server_id in here})
        stay(stage, facts)
        for server_id in here:
            stage.cloud.act(server_id, "shelveOffload")
        stage.say("server shelve --offload, for every server")
        stage.settled(here, lambda s: s["status"] == "SHELVED_OFFLOADED", "offloaded")
    emptied(stage, facts)
    for server_id in facts.servers:
        stage.cloud.unshelve(server_id, stage.options.to)
    stage.say("server unshelve, for every server")
    stage.settled(facts.servers, lambda s: s["status"] == "ACTIVE", "unshelved")
    stage.none_comes("host.occupied", facts.settle_s)
    return reopen(stage, facts)


def delete(stage: Stage) -> Facts:
    """Servers are deleted, some by force, while their host is up: it is empty without an operator having to look."""
    facts = begin(stage)
    if any((stage.cloud.server(i) or {})["status"] != "ACTIVE" for i in facts.servers):
        raise Fault("the servers are not ACTIVE any more")
    one, others = first(facts.servers), rest(facts.servers)
    stage.delete(one, "forceDelete")
    if others:
        stage.blocked({("not_attempted", server_id) for server_id in others})
        stay(stage, facts)
    stage.delete(others)
    emptied(stage, facts)
    return reopen(stage, facts)


def soft_delete(stage: Stage) -> Facts:
    """Soft-deleted servers keep their disks here: one is restored and moved, the others are deleted for good."""
    facts = _softly(stage)
    stay(stage, facts)
    one, others = first(facts.servers), rest(facts.servers)
    (server_id,) = one
    stage.cloud.act(server_id, "restore")
    stage.say("server restore, for one")
    stage.settled(one, lambda s: s["status"] == "ACTIVE", "restored")
    stage.blocked({("not_attempted", server_id)} | {("soft_deleted", i) for i in others})
    drain_live(stage, one)
    if others:
        stage.blocked({("soft_deleted", i) for i in others})
        stay(stage, facts)
        stage.delete(others, "forceDelete")
    emptied(stage, facts)
    return reopen(stage, facts)


def reclaim(stage: Stage) -> Facts:
    """Soft-deleted servers are reclaimed by Nova in its own time, and the host is empty then."""
    facts = _softly(stage)
    stage.gone(facts.servers)
    stage.say("Nova has reclaimed them")
    emptied(stage, facts)
    return reopen(stage, facts)


def _softly(stage: Stage) -> Facts:
    facts = begin(stage)
    for server_id in facts.servers:
        stage.cloud.delete_softly(server_id)
    stage.say("server delete, for every server")

    def softly() -> bool:
        shown = [stage.cloud.server(server_id) for server_id in facts.servers]
        if None in shown:
            raise Sentence("This Nova deletes at once: the story needs reclaim_instance_interval in nova-api.")
        return all(s is not None and s["status"] == "SOFT_DELETED" for s in shown)

    if not until(softly, stage.options.patience_s):
        raise Fault("the servers are not SOFT_DELETED")
    stage.blocked({("soft_deleted", server_id) for server_id in facts.servers})
    return facts


def error(stage: Stage) -> Facts:
    """A server in ERROR is as much in the way as any other, until it is deleted."""
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.cloud.act(server_id, "os-resetState", {"state": "error"})
    stage.settled(one, lambda s: s["status"] == "ERROR", "into ERROR")
    drain_live(stage, rest(facts.servers))
    stage.blocked({("cannot_live_migrate", server_id)})
    stay(stage, facts)
    stage.note_rows(one)
    stage.delete(one)
    emptied(stage, facts)
    return reopen(stage, facts)


STORIES = (build, build_late, refill, shelve, delete, soft_delete, reclaim, error)
