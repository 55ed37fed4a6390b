"""Two projects, with tokens of a real Keystone: each hears what touches its own servers, and nothing else.

One has subscribed and is called, the other reads by cursor. Their servers share a host: it is forced down and comes
back, is drained for good, and emptied; then one owner resizes her server herself. At the end every byte that either
received is searched for the names of hosts and for the other's ids.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from maintd.store.vault import new_key
from tests.acceptance.cloud import until
from tests.acceptance.judge import Facts
from tests.acceptance.owners import Owner
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import A_DRAIN, LAST, SOON_S, WORD_S, closed, drain_live, emptied, reopen

_EVENTS = ("service.forced_down", "service.force_down_lifted", *A_DRAIN)
_PAIRS = (
    ("maintenance_started", "maintenance_ended"),
    ("moving", "moved"),
    ("host_lost", "host_recovered"),
)


def tenants(stage: Stage) -> Facts:
    """The whole of it."""
    admin = stage.cloud.connection
    ada, bob = owners = [Owner(admin, name) for name in ("ada", "bob")]
    for owner in owners:
        stage.undo(f"take {owner.name} away", *owner.leave())
    stage.say(f"two projects of a real Keystone: {ada.project_id} and {bob.project_id}")
    mine = {owner.name: stage.create_within(owner.within, owner.name) for owner in owners}
    servers = {server_id: name for made in mine.values() for server_id, name in made.items()}
    (hers,), (his,) = (list(mine[owner.name]) for owner in owners)
    if not stage.built(servers):
        raise Fault("the owners' servers could not be built")
    stage.go(_settings(stage, ada.endpoint.port))
    assert stage.maintd is not None
    for owner in owners:
        owner.api = stage.maintd.api
    subscription = ada.subscribe()
    stage.say("ada has subscribed with her token; her endpoint has agreed to be called")
    _not_his(stage, bob, subscription)

    stage.force_down(True)
    _told(stage, ada, "host_lost", hers, SOON_S)
    _told(stage, bob, "host_lost", his, SOON_S)
    state = ada.ask("GET", "/v1/servers/maintenance")[1]
    stage.say(f"ada: GET /v1/servers/maintenance: incarnation {state['incarnation']}, {state['servers']}")
    if [one["server_id"] for one in state["servers"]] != [hers] or not state["servers"][0]["host_lost"]["forced_down"]:
        raise Fault(f"ada sees {state['servers']}")
    stage.force_down(False)
    _told(stage, ada, "host_recovered", hers, SOON_S)
    stage.up()

    facts = closed(stage, servers, _EVENTS)
    facts.loose = LAST | {"service.forced_down", "service.force_down_lifted"}
    for owner, server_id in ((ada, hers), (bob, his)):
        _told(stage, owner, "maintenance_started", server_id, SOON_S)
    drain_live(stage, servers)
    for owner, server_id in ((ada, hers), (bob, his)):
        moving = _told(stage, owner, "moving", server_id, WORD_S)
        if moving["data"]["state"]["move"]["asked_for_by"] != "operator":
            raise Fault(f"{owner.name} is told that she asked for what the operator did: {moving}")
        _told(stage, owner, "moved", server_id, WORD_S)
        _told(stage, owner, "maintenance_ended", server_id, WORD_S)
    emptied(stage, facts)
    reopen(stage, facts)
    _resized(stage, ada, hers)
    _judge(stage, (ada, hers), (bob, his))
    return facts


def _settings(stage: Stage, port: int) -> dict[str, dict[str, str]]:
    """maintd with Keystone before its API, open to projects, and to an endpoint on this machine."""
    handle, name = tempfile.mkstemp(prefix="maintd-key-")
    os.write(handle, (new_key() + "\n").encode())
    os.close(handle)
    stage.undo("remove the key", lambda: Path(name).unlink(missing_ok=True))
    auth = stage.cloud.connection.config.auth
    keystone = {name: str(value) for name, value in auth.items()}
    return {
        "api": {"auth": "keystone"},
        "keystone_authtoken": {
            **keystone, "auth_type": "password", "www_authenticate_uri": keystone["auth_url"],
            "region_name": stage.cloud.connection.config.region_name or "",
        },
        "tenants": {"enabled": "true"},
        "subscriptions": {
            "key_file": name, "allowed_networks": "127.0.0.1/32", "allow_http": "true", "allowed_ports": str(port),
        },
    }  # fmt: skip


def _not_his(stage: Stage, bob: Owner, subscription: str) -> None:
    """Another's subscription is not there, and operators' things are forbidden."""
    asked = {
        f"/v1/subscriptions/{subscription}": 404,
        "/v1/hosts": 403,
        "/v1/status": 403,
        f"/v1/deliveries?subscription_id={subscription}": 200,
    }
    for path, wanted in asked.items():
        status, answer = bob.ask("GET", path)
        if status != wanted or answer.get("deliveries"):
            raise Fault(f"bob asks {path} and is answered {status} {answer}")
    stage.say("bob: ada's subscription is not there (404), hosts and status are forbidden (403)")


def _told(stage: Stage, owner: Owner, what: str, server_id: str, within_s: float) -> dict[str, Any]:
    event = owner.hears(what, within_s, server_id)
    if event is None:
        raise Fault(f"{owner.name} was not told {what} within {within_s:g} s; she was told {owner.read()}")
    stage.say(f"{owner.name}: {what} ({event['data']['change']})")
    return dict(event)


def _resized(stage: Stage, owner: Owner, server_id: str) -> None:
    """She resizes her server with her own token; that is told as hers."""
    before = len(owner.read())
    owner.connection.compute.resize_server(server_id, stage.other_flavor())
    stage.say(f"{owner.name} resizes her server")
    if not until(lambda: len(owner.read()) > before, WORD_S, 0.5):
        raise Fault("a resize was not told to its owner")
    moving = next(e for e in owner.events[before:] if e["type"] == "maintd.server.moving.v1")
    if moving["data"]["state"]["move"] and moving["data"]["state"]["move"]["asked_for_by"] != "owner":
        raise Fault(f"her own resize is told as {moving['data']}")
    stage.settled({server_id: ""}, lambda s: s["status"] == "VERIFY_RESIZE", "resized")
    if owner.hears("moved", WORD_S, server_id, "awaiting_confirmation") is None:
        raise Fault("the end of a resize was not told")
    owner.connection.compute.confirm_server_resize(server_id)
    stage.settled({server_id: ""}, lambda s: s["status"] == "ACTIVE", "confirmed")
    stage.say(f"{owner.name}: moving, asked for by the owner; moved, awaiting confirmation")


def _judge(stage: Stage, *owned: tuple[Owner, str]) -> None:
    """Each was told of one server, in pairs, without a gap; what was called is what can be read; nothing of others."""
    hosts = [service["host"] for service in stage.cloud.services()]
    for owner, server_id in owned:
        told = owner.read()
        numbers = [int(event["sequence"]) for event in told]
        strangers = [o.project_id for o, _ in owned if o is not owner] + [i for _, i in owned if i != server_id]
        leaked = [word for word in [*hosts, *strangers, "req-"] if word.encode() in owner.received]
        stage.say(f"{owner.name}: {len(owner.received)} bytes, {len(told)} events, numbers to {numbers[-1]}; {leaked=}")
        if leaked or numbers != list(range(1, len(numbers) + 1)) or {e["subject"] for e in told} != {server_id}:
            raise Fault(f"{owner.name} was told {told}, and could read {leaked}")
        types = [event["type"].split(".")[2] for event in told]
        for begins, ends in _PAIRS:
            if types.count(begins) != types.count(ends):
                raise Fault(f"{owner.name}: {types.count(begins)} {begins}, {types.count(ends)} {ends}")
        left = owner.ask("GET", "/v1/servers/maintenance")[1]
        if left["servers"] or left["incarnation"] != numbers[-1]:
            raise Fault(f"at the end {owner.name} sees {left}")
    ada = owned[0][0]
    if not until(lambda: len(ada.endpoint.events) >= len(ada.read()), 30.0, 0.5) or ada.endpoint.refused:
        raise Fault(f"ada was called {len(ada.endpoint.events)} times for {len(ada.events)} events")
    if {e["id"] for e in ada.endpoint.events} != {e["id"] for e in ada.events}:
        raise Fault("ada was called with other events than she can read")
    ids = [{event["id"] for event in owner.events} for owner, _ in owned]
    if ids[0] & ids[1]:
        raise Fault(f"both were told {ids[0] & ids[1]}")


STORIES = (tenants,)
