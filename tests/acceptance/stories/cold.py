"""Cold migrations and resizes: the host keeps the disks until each is confirmed; a revert brings the server back."""

from __future__ import annotations

from tests.acceptance.judge import Facts
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import begin, closed, drain_live, emptied, first, reopen, rest, stay, told_of


def cold(stage: Stage) -> Facts:
    """Cold migrations: the host is not empty until each is confirmed."""
    facts = begin(stage)
    _migrate(stage, facts.servers)
    stay(stage, facts)
    stage.blocked({("unconfirmed_resize", server_id) for server_id in facts.servers})
    for server_id in facts.servers:
        stage.cloud.act(server_id, "confirmResize", None, "2.55")
    stage.say("server migration confirm, for every server")
    stage.settled(facts.servers, lambda s: s["status"] != "VERIFY_RESIZE", "confirmed")
    emptied(stage, facts)
    return reopen(stage, facts)


def revert(stage: Stage) -> Facts:
    """Reverted instead: a closed host gets its servers back, is not empty, and is emptied another way."""
    facts = begin(stage)
    _migrate(stage, facts.servers)
    stage.blocked({("unconfirmed_resize", server_id) for server_id in facts.servers})
    for server_id in facts.servers:
        stage.cloud.act(server_id, "revertResize", None, "2.55")
    stage.say("server migration revert, for every server")
    stage.settled(facts.servers, lambda s: s["status"] == "ACTIVE", "reverted")
    told_of(stage, "migration.cancelled", facts.servers)
    strange = {i: s["OS-EXT-SRV-ATTR:host"] for i in facts.servers if (s := stage.cloud.server(i) or {})}
    if set(strange.values()) != {stage.host}:
        raise Fault(f"Nova did not bring them back: they are on {strange}")
    named = {(kind, i) for kind in ("last_attempt_failed", "not_attempted") for i in facts.servers}
    if not stage.kinds() <= named or {i for _, i in stage.kinds()} != facts.servers.keys():
        raise Fault(f"the host's blockers are {stage.kinds()}, not one for each server that is back")
    stay(stage, facts)
    drain_live(stage, facts.servers)
    emptied(stage, facts)
    return reopen(stage, facts)


def delete_unconfirmed(stage: Stage) -> Facts:
    """A server is deleted before its move is confirmed: Nova confirms on the way, and the disks go."""
    facts = begin(stage)
    _migrate(stage, facts.servers)
    stage.blocked({("unconfirmed_resize", server_id) for server_id in facts.servers})
    stay(stage, facts)
    stage.note_rows(facts.servers, "confirmed")
    stage.delete(facts.servers)
    emptied(stage, facts)
    return reopen(stage, facts)


def resize_here(stage: Stage) -> Facts:
    """Resizes on the same host, closed before they are confirmed: nothing has left, and nothing does by confirming."""
    servers = stage.create(group=stage.group())  # which must stay together, so that Nova resizes them where they are
    stage.go()
    flavor = stage.other_flavor()
    for server_id in servers:
        stage.cloud.act(server_id, "resize", {"flavorRef": flavor})
    stage.say("server resize, for every server")
    stage.settled(servers, lambda s: s["status"] in ("VERIFY_RESIZE", "ACTIVE", "ERROR"), "to VERIFY_RESIZE")
    for server_id in servers:
        server = stage.cloud.server(server_id) or {}
        if (server.get("status"), server.get("OS-EXT-SRV-ATTR:host")) != ("VERIFY_RESIZE", stage.host):
            raise Fault("this Nova does not resize on the same host: it needs allow_resize_to_same_host")
    told_of(stage, "migration.awaiting_confirmation", servers)
    facts = closed(stage, servers)
    stage.blocked({("unconfirmed_resize", server_id) for server_id in servers})
    stay(stage, facts)
    for server_id in servers:
        stage.cloud.act(server_id, "confirmResize", None, "2.55")
    stage.say("server resize confirm, for every server")
    stage.settled(servers, lambda s: s["status"] == "ACTIVE", "confirmed")
    told_of(stage, "migration.completed", servers)
    stage.blocked({("not_attempted", server_id) for server_id in servers})
    stay(stage, facts)
    stage.note_rows(servers)
    stage.delete(servers, "forceDelete")  # for good, also where Nova would keep them
    emptied(stage, facts)
    return reopen(stage, facts)


def finish_failure(stage: Stage) -> Facts:
    """One fails at its destination, when its host has been changed already: told as failed, its files perhaps left."""
    stage.need(knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"finish_migration": {"fail": True}}})
    stage.cloud.cold_migrate(server_id, stage.options.to)
    stage.settled(one, lambda s: s["status"] == "ERROR", "into ERROR")
    stage.wish({})
    told_of(stage, "migration.failed", one)
    drain_live(stage, rest(facts.servers))
    facts.warnings = frozenset({("failed_migration", server_id)})
    emptied(stage, facts)
    return reopen(stage, facts)


def copy_failure(stage: Stage) -> Facts:
    """One fails at its source, while its disks are copied: told as failed, and still here."""
    stage.need(knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"migrate_disk": {"fail": True}}})
    stage.cloud.cold_migrate(server_id, stage.options.to)
    told_of(stage, "migration.failed", one)
    stage.wish({})
    stage.settled(one, lambda s: s["OS-EXT-SRV-ATTR:host"] == stage.host, "left where it was")
    drain_live(stage, rest(facts.servers))
    stage.blocked({("last_attempt_failed", server_id)})
    stay(stage, facts)
    stage.cloud.act(server_id, "os-resetState", {"state": "active"})
    drain_live(stage, one)
    facts.warnings = frozenset({("failed_migration", server_id)})
    emptied(stage, facts)
    return reopen(stage, facts)


def _migrate(stage: Stage, servers: dict[str, str]) -> None:
    for server_id in servers:
        stage.cloud.cold_migrate(server_id, stage.options.to)
    stage.say("server migrate, for every server")
    stage.settled(servers, lambda s: s["status"] == "VERIFY_RESIZE", "to VERIFY_RESIZE")
    told_of(stage, "migration.awaiting_confirmation", servers)


STORIES = (cold, revert, delete_unconfirmed, resize_here, finish_failure, copy_failure)
