"""The REST side as openstacksdk and plain HTTP see it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openstack
import pytest

from maintd.clock import ManualClock, SystemClock
from maintd.simulator import Cloud, Timing
from maintd.simulator.rest import RestServer, status_of


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud(ManualClock(SystemClock().now()))
    made.fill(4, 6)
    return made


@pytest.fixture
def rest(cloud: Cloud) -> Iterator[RestServer]:
    with RestServer(cloud) as server:
        yield server
        assert server.api.crashes == []


class Http:
    """Plain requests with a token, one connection each."""

    def __init__(self, rest: RestServer) -> None:
        self.rest = rest

    def __call__(
        self, method: str, path: str, version: str = "2.95", body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection(urlsplit(self.rest.url).netloc, timeout=10)
        service = path.split("/")[1]
        sent = {"X-Auth-Token": self.rest.api.admin_token, "OpenStack-API-Version": f"{service} {version}"}
        connection.request(method, path, None if body is None else json.dumps(body), {**sent, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None, {k.lower(): v for k, v in answer.getheaders()}

    def get(self, path: str, version: str = "2.95") -> Any:
        status, body, _ = self("GET", path, version)
        assert status == 200, body
        return body


@pytest.fixture
def http_(rest: RestServer) -> Http:
    return Http(rest)


def connect(rest: RestServer, auth_type: str) -> Any:
    return openstack.connect(load_yaml_config=False, load_envvars=False, **rest.cloud_config(auth_type))


@pytest.mark.parametrize("auth_type", ["password", "admin_token", "none"])
def test_openstacksdk_lists_with_every_kind_of_login(cloud: Cloud, auth_type: str) -> None:
    """openstacksdk finds its endpoints and pages through the servers, logged in by password, by token or not at all."""
    with RestServer(cloud, serve_without_tokens=auth_type == "none") as rest:
        rest.faults.max_limit = 5
        connection = connect(rest, auth_type)
        assert len(list(connection.compute.servers(details=True, all_projects=True))) == 24
        on_one = list(connection.compute.servers(details=True, all_projects=True, compute_host="cmp-02"))
        assert {server.compute_host for server in on_one} == {"cmp-02"} and len(on_one) == 6
        [service] = connection.compute.services(binary="nova-compute", host="cmp-01")
        assert (service.status, service.state) == ("enabled", "up")
        assert len(list(connection.compute.hypervisors(details=True))) == 4


def test_openstacksdk_moves_a_server(cloud: Cloud, rest: RestServer) -> None:
    """Disable, live-migrate and abort through the sdk have the effects they have in Nova."""
    connection = connect(rest, "password")
    [service] = connection.compute.services(binary="nova-compute", host="cmp-01")
    connection.compute.disable_service(service, disabled_reason="maint")
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.knobs.set("live_migration", mode="slow", seconds=100)
    connection.compute.live_migrate_server(server_id, host=None, block_migration="auto")
    cloud.advance(cloud.now() + 10)
    [migration] = connection.compute.server_migrations(server_id)
    assert migration.status == "running" and 0 < migration.memory_remaining_bytes < migration.memory_total_bytes
    connection.compute.abort_server_migration(migration, server_id)
    cloud.settle()
    [row] = connection.compute.migrations(server_id=server_id)
    assert row.status == "cancelled" and row.migration_type == "live-migration"
    traits = connection.placement.get(
        f"/resource_providers/{cloud.hosts['cmp-01'].provider.uuid}/traits", microversion="1.6"
    ).json()["traits"]
    assert "COMPUTE_STATUS_DISABLED" in traits


def test_a_user_of_a_project_asks_in_its_name(cloud: Cloud, rest: RestServer) -> None:
    """A token is of the user's own project and roles, and a move she asks for is told as hers; a wrong password is
    refused."""
    ada = rest.api.add_user("ada", "secret", "tenant-a")
    connection = openstack.connect(load_yaml_config=False, load_envvars=False, **rest.cloud_config(user=ada))
    access = connection.session.auth.get_access(connection.session)
    assert (access.project_id, set(access.role_names)) == (ada.project_id, {"member", "reader"})

    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    connection.compute.live_migrate_server(server_id, host=None, block_migration="auto")
    cloud.settle()
    [row] = connect(rest, "password").compute.migrations(server_id=server_id)
    assert row.project_id == ada.project_id

    wrong = rest.cloud_config(user=ada)
    wrong["auth"]["password"] = "guess"
    with pytest.raises(openstack.exceptions.SDKException, match="401"):
        openstack.connect(load_yaml_config=False, load_envvars=False, **wrong).authorize()


def test_paging_has_a_next_link_until_the_end(cloud: Cloud, http_: Http) -> None:
    """A full page names the next one, filters kept; walking the links gives every server once, newest first."""
    seen: list[str] = []
    path = "/compute/v2.1/servers/detail?all_tenants=1&host=cmp-03&limit=4"
    while path:
        body = http_.get(path)
        seen += [server["id"] for server in body["servers"]]
        links = body.get("servers_links", [])
        path = links[0]["href"].partition(http_.rest.url)[2] if links else ""
    assert seen == [server.id for server in reversed(cloud.hosts["cmp-03"].servers.values())]


def test_soft_deleted_servers_are_left_out(http_: Http) -> None:
    """Neither the host filter nor status=SOFT_DELETED shows them; soft_deleted=1 and the hypervisor do."""
    cloud = http_.rest.api.cloud
    cloud.timing = Timing(reclaim_interval_s=100.0)
    server = next(iter(cloud.hosts["cmp-01"].servers.values()))
    cloud.delete(server.id)
    cloud.advance(cloud.now() + 5)
    assert server.state == "soft-delete"
    base = "/compute/v2.1/servers/detail?all_tenants=1"
    assert len(http_.get(f"{base}&host=cmp-01")["servers"]) == 5
    assert http_.get(f"{base}&status=SOFT_DELETED")["servers"] == []
    assert len(http_.get(f"{base}&host=cmp-01&soft_deleted=1")["servers"]) == 6
    ident = cloud.hosts["cmp-01"].provider.uuid
    hypervisor = http_.get(f"/compute/v2.1/os-hypervisors/{ident}?with_servers=true", "2.75")
    assert server.id in {row["uuid"] for row in hypervisor["hypervisor"]["servers"]}


def test_changes_since_shows_the_deleted_and_hides_the_never_updated(cloud: Cloud, http_: Http) -> None:
    """A deleted server is listed with its host; a row that was never updated is not found by changes-since."""
    began = cloud.now()
    cloud.advance(began + 60)
    doomed = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.delete(doomed)
    fresh = cloud.create("fresh")
    cloud.advance(cloud.now() + 5)
    fresh.updated_at = None
    since = "2000-01-01T00:00:00Z"
    listed = {
        row["id"]: row
        for row in http_.get(f"/compute/v2.1/servers/detail?all_tenants=1&changes-since={since}")["servers"]
    }
    assert listed[doomed]["status"] == "DELETED" and listed[doomed]["OS-EXT-SRV-ATTR:host"] == "cmp-01"
    assert fresh.id not in listed


def test_migration_filters_are_novas(cloud: Cloud, http_: Http) -> None:
    """The last of several statuses counts, `node` and `dest_compute` are refused from 2.59 on, paging is by uuid."""
    for server_id in list(cloud.hosts["cmp-01"].servers)[:3]:
        cloud.live_migrate(server_id)
    cloud.advance(cloud.now() + 2)
    path = "/compute/v2.1/os-migrations"
    assert [row["status"] for row in http_.get(f"{path}?status=queued&status=running")["migrations"]] == ["running"]
    assert len(http_.get(f"{path}?host=cmp-01&status=queued")["migrations"]) == 2
    for name in ("node", "dest_compute"):
        assert http_("GET", f"{path}?{name}=x", "2.59")[0] == 400
        assert http_("GET", f"{path}?{name}=x", "2.23")[0] == 200
    first = http_.get(f"{path}?limit=2")
    assert len(first["migrations"]) == 2
    rest_of_it = http_.get(first["migrations_links"][0]["href"].partition(http_.rest.url)[2])
    assert len(rest_of_it["migrations"]) == 1 and "migrations_links" not in rest_of_it
    assert "uuid" not in http_.get(path, "2.23")["migrations"][0]


def test_server_migrations_hide_what_nova_hides(cloud: Cloud, http_: Http) -> None:
    """While `accepted` and after the end the list is empty; byte counters are null until the first report."""
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.knobs.set("live_migration", mode="slow", seconds=50)
    cloud.live_migrate(server_id)
    cloud.advance(cloud.now() + 0.3)
    path = f"/compute/v2.1/servers/{server_id}/migrations"
    assert cloud.migrations_of[server_id][0].status == "accepted" and http_.get(path)["migrations"] == []
    cloud.advance(cloud.now() + 3)
    [row] = http_.get(path)["migrations"]
    assert row["status"] == "running" and row["memory_total_bytes"] is None
    cloud.settle()
    assert http_.get(path)["migrations"] == []


def test_changes_since_misses_migrations_never_updated(cloud: Cloud, http_: Http) -> None:
    """An evacuation's `accepted` row has no updated_at, so only a query by status finds it."""
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.kill_compute("cmp-01")
    cloud.set_service("cmp-01", forced_down=True)
    cloud.evacuate(server_id)
    path = "/compute/v2.1/os-migrations"
    assert http_.get(f"{path}?changes-since=2000-01-01T00:00:00Z")["migrations"] == []
    assert len(http_.get(f"{path}?status=accepted")["migrations"]) == 1


def test_post_copy_is_invisible_to_server_migrations(cloud: Cloud, http_: Http) -> None:
    """In post-copy only os-migrations shows the move, and it can no longer be aborted."""
    cloud.timing = Timing(permit_post_copy=True)
    cloud.knobs.set("live_migration", mode="stuck", seconds=2, post_copy_s=30)
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.live_migrate(server_id)
    cloud.advance(cloud.now() + 5)
    path = f"/compute/v2.1/servers/{server_id}/migrations"
    assert http_("POST", f"{path}/1/action", body={"force_complete": None})[0] == 202
    cloud.advance(cloud.now() + 5)
    assert http_.get(path)["migrations"] == []
    [row] = http_.get("/compute/v2.1/os-migrations")["migrations"]
    assert row["status"] == "running (post-copy)"
    assert http_("DELETE", f"{path}/1")[0] == 400
    cloud.settle()
    assert cloud.migrations[1].status == "completed"


def test_a_slow_answer_can_be_let_go(rest: RestServer, http_: Http) -> None:
    """Who is kept waiting by a slow endpoint is answered as soon as the faults are cleared; others never wait."""
    rest.faults.add(service="placement", slow_s=60.0)
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(http_("GET", "/placement/resource_providers", "1.14")[0]))
    waiting.start()
    assert http_("GET", "/compute/v2.1/os-services")[0] == 200
    assert answers == []
    rest.faults.clear()
    waiting.join(10.0)
    assert answers == [200]


def test_placement_holds_a_move_by_both_ids(cloud: Cloud, http_: Http) -> None:
    """In flight the migration's uuid holds the source and the server the destination; afterwards only the latter."""
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.live_migrate(server_id, "cmp-02")
    cloud.advance(cloud.now() + 1)
    migration = cloud.migrations_of[server_id][0]

    def consumers(host: str) -> set[str]:
        body = http_.get(f"/placement/resource_providers/{cloud.hosts[host].provider.uuid}/allocations", "1.28")
        assert all(share["consumer_generation"] == 1 for share in body["allocations"].values())
        return set(body["allocations"])

    assert migration.uuid in consumers("cmp-01") and server_id not in consumers("cmp-01")
    assert server_id in consumers("cmp-02")
    cloud.settle()
    assert migration.uuid not in consumers("cmp-01")


def test_provider_tree_and_names(cloud: Cloud, http_: Http) -> None:
    """in_tree gives the nested providers too and needs 1.14; an unknown name gives an empty list."""
    child = cloud.add_child_provider("cmp-01", "numa0")
    root = cloud.hosts["cmp-01"].provider
    base = "/placement/resource_providers"
    rows = http_.get(f"{base}?in_tree={root.uuid}", "1.14")["resource_providers"]
    assert [row["uuid"] for row in rows] == [root.uuid, child.uuid] and rows[1]["parent_provider_uuid"] == root.uuid
    assert http_("GET", f"{base}?in_tree={root.uuid}", "1.0")[0] == 400
    assert http_.get(f"{base}?name=nobody", "1.14")["resource_providers"] == []
    assert http_("GET", f"{base}/00000000-0000-4000-8000-000000000000/allocations", "1.28")[0] == 404


def test_a_service_with_several_nodes(cloud: Cloud, http_: Http) -> None:
    """Each compute node is a hypervisor with the service's servers, and a provider tree of its own."""
    node = cloud.add_node("cmp-01", "node-2")
    listed = http_.get("/compute/v2.1/os-hypervisors/detail", "2.75")["hypervisors"]
    assert ["cmp-01"] * 2 == [row["service"]["host"] for row in listed if row["service"]["host"] == "cmp-01"]
    shown = http_.get(f"/compute/v2.1/os-hypervisors/{node.uuid}?with_servers=true", "2.75")["hypervisor"]
    assert shown["hypervisor_hostname"] == "node-2"
    assert {row["uuid"] for row in shown["servers"]} == set(cloud.hosts["cmp-01"].servers)
    rows = http_.get(f"/placement/resource_providers?in_tree={node.uuid}", "1.14")["resource_providers"]
    assert [row["uuid"] for row in rows] == [node.uuid]
    assert http_.get(f"/placement/resource_providers/{node.uuid}/allocations", "1.28")["allocations"] == {}
    cloud.disable("cmp-01")
    traits = http_.get(f"/placement/resource_providers/{node.uuid}/traits", "1.6")["traits"]
    assert "COMPUTE_STATUS_DISABLED" in traits


def test_microversions_are_checked_and_echoed(rest: RestServer, http_: Http) -> None:
    """A version beyond the highest is 406; answers name the version they are in; 2.1 has no host_status."""
    status, body, headers = http_("GET", "/compute/v2.1/servers/detail?all_tenants=1", "2.69")
    assert status == 200 and headers["openstack-api-version"] == "compute 2.69"
    assert body["servers"][0]["host_status"] == "UP"
    assert http_("GET", "/compute/v2.1/servers/detail", "9.9")[0] == 406
    rest.faults.compute_max = (2, 60)
    assert http_("GET", "/compute/v2.1/servers/detail", "2.69")[0] == 406
    old = http_.get("/compute/v2.1/servers/detail?all_tenants=1", "2.1")["servers"][0]
    assert "host_status" not in old and "id" in old["flavor"]


def test_a_down_cell_is_silent(cloud: Cloud, http_: Http) -> None:
    """Its servers and migrations are just not there; its services say UNKNOWN; asking for its hypervisor fails."""
    server_id = next(iter(cloud.hosts["cmp-01"].servers))
    cloud.live_migrate(server_id)
    cloud.advance(cloud.now() + 2)
    cloud.lose_cell(["cmp-01"])
    assert http_.get("/compute/v2.1/servers/detail?all_tenants=1&host=cmp-01")["servers"] == []
    assert http_.get("/compute/v2.1/os-migrations?host=cmp-01")["migrations"] == []
    [row] = http_.get("/compute/v2.1/os-services?binary=nova-compute&host=cmp-01", "2.69")["services"]
    assert row == {"binary": "nova-compute", "host": "cmp-01", "status": "UNKNOWN"}
    ident = cloud.hosts["cmp-01"].provider.uuid
    assert http_("GET", f"/compute/v2.1/os-hypervisors/{ident}?with_servers=true", "2.75")[0] == 500
    assert len(http_.get(f"/placement/resource_providers/{ident}/allocations", "1.28")["allocations"]) == 6


def test_faults_strike_what_they_are_aimed_at(rest: RestServer, http_: Http) -> None:
    """A status, half a body, a dropped filter: each for the paths it names, as often as it says."""
    rest.faults.add(service="compute", path="/v2.1/os-migrations*", status=503, times=1)
    assert http_("GET", "/compute/v2.1/os-migrations")[0] == 503
    assert http_("GET", "/compute/v2.1/os-migrations")[0] == 200
    rest.faults.add(service="compute", path="*servers/detail*", cut=True)
    with pytest.raises(http.client.IncompleteRead):
        http_("GET", "/compute/v2.1/servers/detail?all_tenants=1")
    rest.faults.clear()
    rest.faults.drop_host_filter = True
    assert len(http_.get("/compute/v2.1/servers/detail?all_tenants=1&host=cmp-01")["servers"]) == 24
    rest.faults.clear()
    rest.faults.hide_host_fields = True
    body = http_.get("/compute/v2.1/servers/detail?all_tenants=1&host=cmp-01")
    assert "OS-EXT-SRV-ATTR:host" not in body["servers"][0]


def test_requests_without_a_good_token_are_refused(rest: RestServer, http_: Http) -> None:
    """No token, and a token that has expired, are 401; the sdk then fetches a new one by itself."""
    assert http_("GET", "/compute/v2.1/servers", headers={"X-Auth-Token": "nonsense"})[0] == 401
    connection = connect(rest, "password")
    assert len(list(connection.compute.services(binary="nova-compute"))) == 4
    rest.api.expire_tokens()
    assert len(list(connection.compute.services(binary="nova-compute"))) == 4


def test_services_go_down_without_heartbeats(cloud: Cloud, http_: Http) -> None:
    """A dead compute is `up` until service_down_time has passed; a forced-down one is down at once."""
    path = "/compute/v2.1/os-services?binary=nova-compute&host=cmp-01"
    cloud.kill_compute("cmp-01")
    cloud.advance(cloud.now() + 30)
    assert http_.get(path)["services"][0]["state"] == "up"
    cloud.advance(cloud.now() + 45)
    assert http_.get(path)["services"][0]["state"] == "down"
    ident = cloud.hosts["cmp-02"].service_id
    status, body, _ = http_("PUT", f"/compute/v2.1/os-services/{ident}", body={"forced_down": True})
    assert status == 200 and body["service"]["state"] == "down" and body["service"]["forced_down"] is True
    assert http_("PUT", f"/compute/v2.1/os-services/{ident}", body={"disabled_reason": "x"})[0] == 400


def test_every_write_an_operator_makes(cloud: Cloud, http_: Http) -> None:
    """Create, stop, shelve, migrate and confirm, resize and revert, delete: accepted, and done in the end."""
    status, body, headers = http_(
        "POST",
        "/compute/v2.1/servers",
        body={
            "server": {
                "name": "new",
                "flavorRef": cloud.flavors["m1.tiny"].id,
                "imageRef": "x",
                "networks": "none",
                "host": "cmp-04",
            }
        },
    )
    assert status == 202 and headers["location"].endswith(body["server"]["id"])
    cloud.settle()
    server = cloud.servers[body["server"]["id"]]
    assert (server.host, status_of(server)) == ("cmp-04", "ACTIVE")
    path = f"/compute/v2.1/servers/{server.id}"

    def act(name: str, value: Any = None) -> int:
        status, _, _ = http_("POST", f"{path}/action", body={name: value})
        cloud.settle()
        return status

    assert act("migrate") == 202 and status_of(server) == "VERIFY_RESIZE"
    assert act("confirmResize") == 204 and status_of(server) == "ACTIVE"
    assert act("resize", {"flavorRef": cloud.flavors["m1.large"].id}) == 202 and server.flavor.name == "m1.large"
    assert act("revertResize") == 202 and server.flavor.name == "m1.tiny"
    assert act("os-stop") == 202 and status_of(server) == "SHUTOFF"
    assert act("os-migrateLive", {"host": None, "block_migration": "auto"}) == 409
    assert act("shelve") == 202 and server.host is None
    assert act("unshelve") == 202 and server.host is not None
    assert act("evacuate", {}) == 400
    assert http_("DELETE", path)[0] == 204
    cloud.settle()
    assert http_("GET", path)[0] == 404


def _differences(real: Any, ours: Any, where: str) -> Iterator[str]:
    """Where the keys or the types of values differ; null on either side goes with anything, an empty list too."""
    if isinstance(real, dict) and isinstance(ours, dict):
        if "CONSUMER" in real:
            real, ours = real["CONSUMER"], next(iter(ours.values()))
        for key in sorted(real.keys() | ours.keys()):
            if key not in ours or key not in real:
                yield f"{where}.{key}: only {'real' if key in real else 'ours'}"
            elif not where.endswith(("cpu_info", "fault")):
                yield from _differences(real[key], ours[key], f"{where}.{key}")
    elif isinstance(real, list) and isinstance(ours, list):
        if real and ours:
            yield from _differences(real[0], ours[0], f"{where}[]")
    elif real is not None and ours is not None and real != type(ours).__name__:
        yield f"{where}: {real} is {ours!r}"


SHAPES = json.loads((Path(__file__).parent / "recorded" / "shapes.json").read_text())


@pytest.mark.parametrize(
    ("service", "version", "path", "real"), SHAPES, ids=[f"{row[0]}-{row[1]}-{row[2].split('?')[0]}" for row in SHAPES]
)
def test_answers_have_the_shapes_of_a_real_nova(service: str, version: str, path: str, real: Any) -> None:
    """Every key that a real Nova or Placement answers with is there in each microversion, and no other."""
    cloud = Cloud(ManualClock(1_800_000_000.0))
    cloud.fill(2, 2)
    host = cloud.hosts["cmp-01"]
    server_id = next(iter(host.servers))
    cloud.live_migrate(server_id)
    cloud.advance(cloud.now() + (1.5 if path.endswith("/migrations") else 60.0))
    with RestServer(cloud) as rest:
        asked = path.replace("SERVER", server_id).replace("HYPERVISOR", cloud.hosts["cmp-02"].provider.uuid)
        ours = Http(rest).get(f"/{service}{'/v2.1' if service == 'compute' else ''}{asked}", version)
    assert list(_differences(real, ours, path.split("?")[0])) == []
