"""Two projects and an operator: who is told what, when a host is taken out of service for good and another is lost.

Ada's project has subscribed with its own token; Bob's reads what it is told by cursor. Both have servers on the same
host, and neither learns of the other or of any host: at the end every byte that either received is searched for the
names of hosts, of the other's project and of its servers.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from maintd.config import ApiConfig, Config, SubscriptionsConfig, TenantsConfig, WebhookConfig
from maintd.demo.drain import summary
from maintd.demo.stage import SETTLE_S, Receiver, Stage, Teller, failed, stage
from maintd.demo.stage import play as play_story
from maintd.simulator import Cloud
from maintd.simulator.rest import RestServer, User
from maintd.store.vault import new_key

LIMIT_S: Final = 90.0
LEAVES, LOST, REST = "rack7-cmp-01", "rack7-cmp-02", "rack9-cmp-03"
PASSWORD: Final = "demo"  # noqa: S105 - of users of a simulated Keystone


@dataclass
class Owner:
    """Somebody of a project, with her token and all that the API ever answered her."""

    name: str
    project_id: str
    token: str
    api: str
    bytes: bytearray = field(default_factory=bytearray)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request."""
        request = urllib.request.Request(  # noqa: S310 - our own API, on loopback
            self.api + path,
            None if body is None else json.dumps(body).encode(),
            {"X-Auth-Token": self.token, "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                status, headers, answer = response.status, str(response.headers), response.read()
        except urllib.error.HTTPError as refused:
            status, headers, answer = refused.code, str(refused.headers), refused.read()
        self.bytes += headers.encode() + answer
        return status, json.loads(answer or b"{}")


def token_of(user: User, rest: RestServer) -> str:
    """A token of Keystone's, for a user's password."""
    domain = {"name": "Default"}
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user.name, "domain": domain, "password": user.password}},
            },
            "scope": {"project": {"name": user.project, "domain": domain}},
        }
    }
    request = urllib.request.Request(  # noqa: S310 - the simulated Keystone, on loopback
        f"{rest.url}/identity/v3/auth/tokens", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return str(response.headers["X-Subject-Token"])


def play() -> int:
    """Play the story; 0 when everybody heard what they must and nobody anything else."""
    return play_story(_played)


def _played() -> int:
    tell = Teller()
    names: dict[str, str] = {}
    users: dict[str, User] = {}

    def people(cloud: Cloud, rest: RestServer) -> None:
        for host in (LEAVES, LOST, REST):
            cloud.add_host(host)
        for name, project in (("ada", "project-a"), ("bob", "project-b")):
            users[name] = rest.api.add_user(name, PASSWORD, project)
        for host, name, user in (
            (LEAVES, "a-db-1", "ada"), (LOST, "a-db-2", "ada"), (LEAVES, "b-web-1", "bob"),
        ):  # fmt: skip
            server = cloud.add_server(host, name, project_id=users[user].project_id, metadata={"tier": "db"})
            names[server.id] = name
        cloud.knobs.set("live_migration", mode="converge", seconds=2, report_s=1)

    print("maintd demo: two projects and an operator; a simulated Nova and Keystone, the real daemon, real webhooks.")
    print(
        f"Shortened for the show: settle_s {SETTLE_S:g} (default 15), quick migrations. For the show only, endpoints of"
    )
    print("projects may be on loopback and plain http ([subscriptions] allowed_networks, allow_http).\n")
    operator = Receiver(
        "whsec_" + "b3BlcmF0b3Itb3BlcmF0b3Itb3BlcmF0b3I=", lambda e: tell("operator", summary(e, names))
    )
    ada = Receiver(None, lambda e: tell("ada", told(e, names)))

    def configured(config: Config, rest: RestServer, folder: Path) -> Config:
        key = folder / "subscriptions.key"
        key.write_text(new_key() + "\n")
        auth = rest.cloud_config()["auth"]
        keystone = {"www_authenticate_uri": auth["auth_url"], "auth_type": "password", **auth}
        return replace(
            config,
            api=ApiConfig(port=0, auth="keystone"),
            tenants=TenantsConfig(enabled=True),
            subscriptions=SubscriptionsConfig(
                key_file=key,
                allowed_networks=(ip_network("127.0.0.1/32"),),
                allow_http=True,
                allowed_ports=(ada.port,),
            ),
            webhooks=(
                WebhookConfig("operator", operator.url, operator.secret, ("maintd.drain.*", "maintd.service.*")),
            ),
            library={"keystone_authtoken": keystone},
        )

    try:
        with stage(tell, LIMIT_S, people, configured) as on:
            return _story(on, users, names, ada, operator)
    finally:
        ada.close()
        operator.close()


def told(event: dict[str, Any], names: dict[str, str]) -> str:
    """A tenant event in a line."""
    data = event["data"]
    kind = event["type"].removeprefix("maintd.").removesuffix(".v1")
    text = f"{names.get(data.get('server_id', ''), '')}: {data.get('change', '')}"
    return f"{kind:<28} {text}{_more(data.get('state') or {})}"


def _more(state: dict[str, Any]) -> str:
    said = []
    if state.get("maintenance"):
        said.append("its host is being emptied" + (", for good" if state["maintenance"]["removal"] else ""))
    if state.get("move"):
        said.append(f"{state['move']['kind']}, asked for by the {state['move']['asked_for_by']}")
    if state.get("host_lost"):
        how = [name for name in ("forced_down", "widespread") if state["host_lost"][name]]
        said.append(", ".join(["its host is lost", *how]).replace("_", " "))
    return f" ({'; '.join(said)})" if said else ""


def _story(on: Stage, users: dict[str, User], names: dict[str, str], heard: Receiver, operator: Receiver) -> int:
    tell, cloud, deadline = on.tell, on.cloud, on.deadline
    on.until("the daemon to have read the cloud", on.has_read_the_cloud)
    tell("maintd", "has read the cloud: 3 hosts, 3 servers of 2 projects")
    api = on.daemon.api_server.url
    ada, bob = (Owner(n, u.project_id, token_of(u, on.rest), api) for n, u in users.items())

    status, made = ada.ask("POST", "/v1/subscriptions", {"name": "ha", "url": heard.url})
    if status != 201:
        return failed(f"ada could not subscribe: {status} {made}")
    heard.secret = made["secret"]
    tell("ada", f"subscribes with her own token: {status}, {made['state']}; the secret is shown this once")
    path = f"/v1/subscriptions/{made['id']}"
    on.until("ada's endpoint to be verified", lambda: ada.ask("GET", path)[1]["state"] == "active")
    tell("maintd", "asks her endpoint whether it wants to be called, and is allowed to: the subscription is active")
    if "secret" in ada.ask("GET", path)[1]:
        return failed("a secret was shown again")
    for what, asked in (("reads ada's subscription", path), ("lists the hosts", "/v1/hosts")):
        status, answer = bob.ask("GET", asked)
        tell("bob", f"{what}: {status} {answer['title']}")
        if status not in (403, 404):
            return failed(f"bob could: {what}")
    status, answer = bob.ask(
        "POST", "/v1/subscriptions", {"name": "x", "url": f"http://169.254.169.254:{heard.port}/latest"}
    )
    tell("bob", f"subscribes an address inside: {status} {answer['description']}")
    if status != 400:
        return failed("an address inside was taken")

    tell("operator", f"openstack compute service set --disable --disable-reason 'maintenance: retired' {LEAVES} ...")
    cloud.disable(LEAVES, "maintenance: retired")
    heard.wait_for("server.maintenance_started", deadline)
    state = bob.ask("GET", "/v1/servers/maintenance")[1]
    tell("bob", f"GET /v1/servers/maintenance: incarnation {state['incarnation']}{_more(state['servers'][0])}")
    tell("operator", "asks Nova to move everything away")
    for server_id, name in names.items():
        if name in ("a-db-1", "b-web-1"):
            cloud.live_migrate(server_id, REST)
    heard.wait_for("server.maintenance_ended", deadline)
    after = 0
    events: list[dict[str, Any]] = []

    def bobs() -> list[dict[str, Any]]:
        nonlocal after
        answer = bob.ask("GET", f"/v1/events?after={after}&wait=1")[1]
        after = int(answer["next"])
        for event in answer["events"]:
            tell("bob", told(event, names))
        events.extend(answer["events"])
        return events

    on.until("bob's server to have moved", lambda: any(".maintenance_ended." in e["type"] for e in bobs()))

    tell("operator", f"{LOST} is dead: fences it, openstack compute service set --down {LOST} nova-compute")
    cloud.set_service(LOST, forced_down=True)
    heard.wait_for("server.host_lost", deadline)
    mine = ada.ask("GET", "/v1/servers/maintenance")[1]["servers"]
    touched = {names[one["server_id"]] for one in mine}
    tell("ada", f"GET /v1/servers/maintenance: {', '.join(sorted(touched))}: fails over to the other one of the pair")
    if touched != {"a-db-2"}:
        return failed(f"ada sees {touched} touched, and only a-db-2 is")
    cloud.set_service(LOST, forced_down=False)
    heard.wait_for("server.host_recovered", deadline)

    return _checked(on, ada, bob, heard, events, names, operator)


def _checked(
    on: Stage,
    ada: Owner,
    bob: Owner,
    heard: Receiver,
    bobs_events: list[dict[str, Any]],
    names: dict[str, str],
    operator: Receiver,
) -> int:
    """Nobody heard what is not theirs; all was signed, numbered and whole."""
    received = {"ada": bytes(ada.bytes + heard.bytes), "bob": bytes(bob.bytes)}
    other = {"ada": (bob, "b-"), "bob": (ada, "a-")}
    for name, read in received.items():
        somebody, prefix = other[name]
        strangers = [i for i, n in names.items() if n.startswith(prefix)]
        canaries = [LEAVES, LOST, REST, "rack7", "rack9", "retired", somebody.project_id, *strangers]
        found = [word for word in canaries if word.encode() in read]
        on.tell("check", f"{len(read)} bytes that {name} received name {'NO' if not found else found} host or stranger")
        if found:
            return failed(f"{name} could read {found}")
    numbers = [int(event["sequence"]) for event in heard.events]
    ids = {event["id"] for event in heard.events} & {event["id"] for event in bobs_events}
    on.tell("check", f"ada was sent {len(numbers)} events, numbers {numbers}; {len(ids)} ids in common with bob's")
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or ids:
        return failed("a number is missing, or an id is not a project's own")
    on.tell("check", f"every signature verified: {heard.refused + operator.refused} refused")
    return 0 if heard.refused + operator.refused == 0 else failed("a signature was not accepted")
