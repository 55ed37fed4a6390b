"""Answers of the REST APIs as observations. The bodies are a real Nova 34's and Placement's, cut to what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintd.domain.model import Because, Kind, Progress
from maintd.domain.observations import (
    MigrationSeen,
    MovesListed,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    ProgressSeen,
    Read,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
)
from maintd.nova.answers import Answer, Pages, PassTracker, normalise_answer
from maintd.nova.notifications.envelope import read_time

AT, ASKED = read_time("2026-11-23T06:20:00.500000"), read_time("2026-11-23T06:20:00")
NODE, PROVIDER = "dba29d8e-12f7-43ba-89cd-9e30ce25480d", "eaa1bc5b-90a3-4f22-b98a-2f091ab84dc9"
SERVER, OTHER = "203f494d-6af3-4cbc-9da0-39b66ba7492e", "62a4551c-aa46-4c3a-b63b-7293d64d83f2"
LIST = "GET /v2.1/servers/detail?all_tenants=1&soft_deleted=1"
NOT_FOUND = {"itemNotFound": {"code": 404, "message": f"Instance {SERVER} could not be found."}}


def ask(request: str, body: Any, **fields: Any) -> Answer:
    """An answer as it would come from Nova."""
    service = "placement" if "resource_providers" in request else "compute"
    return Answer(**{"at": AT, "service": service, "request": request, "microversion": "2.69", "status": 200,
                     "body": body, "asked_at": ASKED, **fields})  # fmt: skip


def verify(request: str, body: Any, **fields: Any) -> Answer:
    """The same, asked for in the third verification pass over cmp-02."""
    return ask(request, body, **{"purpose": "verify", "pass_number": 3, "host": "cmp-02", **fields})


def server_row(server_id: str = SERVER, **changes: Any) -> dict[str, Any]:
    row = {
        "id": server_id, "name": "web-1", "status": "ACTIVE", "tenant_id": "a568915e82864bf5b5dbb003352f9f1a",
        "created": "2026-11-23T06:12:22Z", "updated": "2026-11-23T06:12:25Z", "hostId": "d6e9d3e7655cee41",
        "OS-EXT-SRV-ATTR:host": "cmp-02", "OS-EXT-SRV-ATTR:hypervisor_hostname": "cmp-02.mini.test",
        "OS-EXT-STS:task_state": None, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1,
        "OS-SRV-USG:terminated_at": None, "host_status": "UP", "locked": False,
    }  # fmt: skip
    return {**row, **changes}


def service_row(host: str = "cmp-02", **changes: Any) -> dict[str, Any]:
    row = {
        "binary": "nova-compute", "host": host, "id": "d3cdbc29-4140-4d36-8230-419e1a35104a", "zone": "nova",
        "status": "disabled", "state": "up", "updated_at": "2026-11-23T06:19:01.000000",
        "disabled_reason": "kernel update", "forced_down": False,
    }  # fmt: skip
    return {**row, **changes}


def migration_row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": 17, "uuid": "6fc1c8c1-6d4f-4f6c-9e63-6d4e3c3c9a11", "instance_uuid": SERVER, "status": "running",
        "migration_type": "live-migration", "source_compute": "cmp-02", "source_node": "cmp-02.mini.test",
        "dest_compute": "cmp-04", "dest_node": "cmp-04.mini.test", "dest_host": "127.0.0.1",
        "created_at": "2026-11-23T06:12:50.000000", "updated_at": None, "new_instance_type_id": 2,
        "old_instance_type_id": 2, "user_id": "111aeb87aa05", "project_id": "a568915e8286",
    }  # fmt: skip
    return {**row, **changes}


def hypervisor_row(host: str = "cmp-02", node: str = NODE, **changes: Any) -> dict[str, Any]:
    service = {"id": "d3cdbc29-4140-4d36-8230-419e1a35104a", "host": host, "disabled_reason": None}
    return {"id": node, "hypervisor_hostname": f"{host}.mini.test", "state": "up", "status": "enabled",
            "service": service, **changes}  # fmt: skip


def following(body: dict[str, Any], key: str, marker: str) -> dict[str, Any]:
    """The body of a page that is not the last."""
    href = f"http://127.0.0.1:8774/v2.1/servers/detail?limit=2&marker={marker}"
    return {**body, f"{key}_links": [{"rel": "next", "href": href}]}


def types(observations: tuple[Observation, ...]) -> list[type]:
    return [type(o) for o in observations]


# -- servers --------------------------------------------------------------------------------------------------------


def test_servers_of_a_host_are_rows_and_a_complete_list() -> None:
    """A list of one host, of all projects and with soft-deleted servers, tells who is there and who is not."""
    body = {"servers": [server_row(), server_row(OTHER, **{"OS-EXT-STS:vm_state": "soft-delete"})]}

    seen = normalise_answer(ask(f"{LIST}&host=cmp-02", body))

    assert types(seen) == [ServerSeen, ServerSeen, ServersListed]
    first, second, listed = seen
    assert isinstance(first, ServerSeen) and isinstance(second, ServerSeen) and isinstance(listed, ServersListed)
    assert (first.server_id, first.host, first.vm_state, first.trusted) == (SERVER, "cmp-02", "active", True)
    assert (first.seen_at, first.asked_at, first.updated_at) == (AT, ASKED, read_time("2026-11-23T06:12:25Z"))
    assert (second.vm_state, second.deleted) == ("soft-delete", False)
    assert (listed.host, listed.asked_at, listed.server_ids) == ("cmp-02", ASKED, frozenset({SERVER, OTHER}))


def test_soft_deleted_behind_a_dead_computes_back_is_deleted() -> None:
    """Nova then really deletes the server and leaves its state `soft-delete`; that it has ended tells the two apart."""
    gone = {"OS-EXT-STS:vm_state": "soft-delete", "OS-SRV-USG:terminated_at": "2026-11-23T02:00:00.000000"}
    request = f"{LIST}&changes-since=2026-11-23T00:00:00Z"

    (server,) = normalise_answer(ask(request, {"servers": [server_row(**gone)]}))

    assert isinstance(server, ServerSeen) and server.deleted


@pytest.mark.parametrize(
    "query",
    [
        "all_tenants=1&host=cmp-02",
        "soft_deleted=1&host=cmp-02",
        "all_tenants=1&soft_deleted=0&host=cmp-02",
        "all_tenants=0&soft_deleted=1",
        "all_tenants=1&soft_deleted=1&status=ACTIVE",
        "all_tenants=1&soft_deleted=1&changes-since=2026-11-23T00:00:00Z",
        "all_tenants=1&soft_deleted=1&marker=x",
    ],
)
def test_filtered_lists_are_not_complete(query: str) -> None:
    """A list that leaves somebody out (soft-deleted servers, other projects, states) says nothing of who is gone."""
    seen = normalise_answer(ask(f"GET /servers/detail?{query}", {"servers": [server_row()]}))

    assert types(seen) == [ServerSeen]


def test_whole_cloud_is_listed_too() -> None:
    """A list without a host is that of the whole cloud."""
    (_, listed) = normalise_answer(ask(LIST, {"servers": [server_row()]}))

    assert isinstance(listed, ServersListed)
    assert listed.host is None


def test_now_is_no_version() -> None:
    """Nova prints now as `updated` of a server that never was; what is as new as the question is no version."""
    row = server_row(updated="2026-11-23T06:06:39Z")

    (seen, _) = normalise_answer(ask(LIST, {"servers": [row]}, asked_at=read_time("2026-11-23T06:06:40Z")))

    assert isinstance(seen, ServerSeen)
    assert seen.updated_at is None


def test_deleted_rows_are_deletes() -> None:
    """changes-since shows deleted servers, which keep their host."""
    row = server_row(status="DELETED", **{"OS-EXT-STS:vm_state": "deleted", "OS-EXT-SRV-ATTR:host": "cmp-05"})

    (seen,) = normalise_answer(
        ask("GET /servers/detail?all_tenants=1&changes-since=2026-11-23T00%3A00%3A00Z", {"servers": [row]})
    )

    assert isinstance(seen, ServerSeen)
    assert (seen.deleted, seen.host) == (True, "cmp-05")


def test_progress_and_fault_of_a_row() -> None:
    """Progress counts while the server is migrating only; a fault is its message."""
    rows = [
        server_row(progress=60, **{"OS-EXT-STS:task_state": "migrating"}),
        server_row(OTHER, progress=60, fault={"code": 500, "message": "no disk", "created": "2026-11-23T06:12:25Z"}),
    ]

    moving, failed, _ = normalise_answer(ask(LIST, {"servers": rows}))

    assert isinstance(moving, ServerSeen) and isinstance(failed, ServerSeen)
    assert [(moving.percent, moving.fault), (failed.percent, failed.fault)] == [(60, None), (None, "no disk")]


@pytest.mark.parametrize(
    ("flavor", "hindrance", "memory_mb"),
    [
        (None, None, None),
        ({"id": "1", "links": []}, None, None),
        ({"vcpus": 2}, None, None),
        ({"ram": 2048, "extra_specs": {}}, "", 2048),
        ({"ram": -1, "extra_specs": {"pci_passthrough:alias": "gpu:1"}}, "pci_passthrough:alias=gpu:1", None),
    ],
)
def test_the_flavor_of_a_row_may_hinder_and_tells_the_memory(
    flavor: dict[str, Any] | None, hindrance: str | None, memory_mb: int | None
) -> None:
    """Extra specs are in the embedded flavor where the right to see them is; else nothing is concluded."""
    row = server_row(SERVER) if flavor is None else server_row(SERVER, flavor=flavor)
    seen = normalise_answer(ask("GET /servers/detail?all_tenants=1", {"servers": [row]}))[0]

    assert isinstance(seen, ServerSeen) and (seen.hindrance, seen.memory_mb) == (hindrance, memory_mb)


def test_server_of_a_down_cell_is_listed_but_not_seen() -> None:
    """A stub of a cell that is down says no host: the server is not gone, and nothing of it is known."""
    stub = {"id": OTHER, "status": "UNKNOWN", "tenant_id": "a5", "created": "2026-11-23T06:12:22Z", "links": []}

    seen = normalise_answer(ask(LIST, {"servers": [server_row(), stub]}))

    assert types(seen) == [ServerSeen, ServersListed]
    assert isinstance(seen[1], ServersListed) and OTHER in seen[1].server_ids


def test_rows_without_a_host_complete_nothing() -> None:
    """Without the right to see hosts nothing is known of where a server is, and no list is complete."""
    row = server_row()
    del row["OS-EXT-SRV-ATTR:host"]

    assert normalise_answer(ask(LIST, {"servers": [row]})) == ()
    (read,) = normalise_answer(verify(f"{LIST}&host=cmp-02", {"servers": [row]}))
    assert isinstance(read, PassRead) and read.error is not None


def test_ignored_host_filter_is_noticed() -> None:
    """Nova drops a host filter without a word where the right to it is missing; the list then shows other hosts."""
    body = {"servers": [server_row(**{"OS-EXT-SRV-ATTR:host": "cmp-05"})]}

    (read,) = normalise_answer(verify(f"{LIST}&host=cmp-02", body))

    assert isinstance(read, PassRead)
    assert read.error == "Nova ignored the filter host=cmp-02: the right to filter is missing"


def test_one_server() -> None:
    """One server by its id is a row; Nova's own 404 says that it is gone, anybody else's says nothing."""
    request = f"GET /v2.1/servers/{SERVER}"

    (here,) = normalise_answer(ask(request, {"server": server_row()}))
    (gone,) = normalise_answer(ask(request, NOT_FOUND, status=404))

    assert isinstance(here, ServerSeen) and isinstance(gone, ServerSeen)
    assert (here.deleted, here.host) == (False, "cmp-02")
    assert (gone.deleted, gone.server_id, gone.host, gone.asked_at) == (True, SERVER, None, ASKED)
    assert normalise_answer(ask(request, NOT_FOUND, status=404, microversion=None)) == ()
    assert normalise_answer(ask(request, "<html>404</html>", status=404)) == ()
    assert normalise_answer(ask(request, {"server": server_row(OTHER)})) == ()


# -- services, hypervisors, migrations ------------------------------------------------------------------------------


def test_services_are_rows_and_a_complete_list() -> None:
    """os-services tells status, state and force-down of each compute; other binaries are left out."""
    rows = [
        service_row(),
        service_row("cmp-03", status="enabled", state="down", disabled_reason=None, forced_down=True),
        service_row("vm", binary="nova-conductor"),
    ]

    one, two, listed = normalise_answer(ask("GET /v2.1/os-services", {"services": rows}))

    assert isinstance(one, ServiceSeen) and isinstance(two, ServiceSeen) and isinstance(listed, ServicesListed)
    assert (one.host, one.disabled, one.disabled_reason, one.up, one.down_since) == (
        "cmp-02",
        True,
        "kernel update",
        True,
        None,
    )
    assert one.service_uuid == "d3cdbc29-4140-4d36-8230-419e1a35104a"
    assert (two.disabled, two.forced_down, two.up) == (False, True, False)
    assert two.down_since == read_time("2026-11-23T06:19:01.000000")
    assert listed.hosts == {"cmp-02", "cmp-03"}


@pytest.mark.parametrize(
    ("request_", "microversion", "complete"),
    [
        ("GET /os-services?binary=nova-compute", "2.69", True),
        ("GET /os-services?binary=nova-compute", "2.104", True),
        ("GET /os-services?binary=nova-compute", "2.53", False),
        ("GET /os-services?binary=nova-compute", None, False),
        ("GET /os-services?binary=nova-compute&host=cmp-02", "2.69", False),
        ("GET /os-services?binary=nova-conductor", "2.69", False),
    ],
)
def test_complete_service_lists(request_: str, microversion: str | None, complete: bool) -> None:
    """Complete is only a list of all computes that names those of cells that are down as well (2.69)."""
    seen = normalise_answer(ask(request_, {"services": [service_row()]}, microversion=microversion))

    assert (ServicesListed in types(seen)) == complete


def test_service_of_a_down_cell_is_unknown() -> None:
    """A stub of a cell that is down has nothing but a name: neither up nor down, nor open."""
    stub = {"binary": "nova-compute", "host": "cmp-09", "status": "UNKNOWN"}

    (seen, _) = normalise_answer(ask("GET /os-services", {"services": [stub]}))

    assert isinstance(seen, ServiceSeen)
    assert (seen.cell_unknown, seen.up, seen.service_uuid) == (True, None, None)


def test_two_services_of_one_name_are_not_folded() -> None:
    """Of a name that is in the list twice nothing is said, but that it is there; a pass sees both rows."""
    rows = [service_row("cmp-01"), service_row("cmp-02"), service_row("cmp-02", id=NODE, status="disabled")]
    one, listed = normalise_answer(ask("GET /v2.1/os-services", {"services": rows}))
    assert isinstance(one, ServiceSeen) and one.host == "cmp-01"
    assert isinstance(listed, ServicesListed) and listed.hosts == {"cmp-01", "cmp-02"}

    (read,) = normalise_answer(verify("GET /os-services?host=cmp-02", {"services": rows[1:]}))
    assert isinstance(read, PassRead) and 2 == len(read.found)


def test_hypervisors_tell_the_nodes_of_each_host() -> None:
    """A host may have several nodes; a list narrowed by a pattern tells nothing, as it may miss some."""
    body = {"hypervisors": [hypervisor_row(), hypervisor_row("cmp-03", "n2"), hypervisor_row("cmp-03", "n1")]}

    seen = normalise_answer(ask("GET /os-hypervisors/detail", body))

    assert [("cmp-02", (NODE,)), ("cmp-03", ("n1", "n2"))] == [
        (s.host, s.nodes) for s in seen if isinstance(s, NodesSeen)
    ]
    assert normalise_answer(ask("GET /os-hypervisors/detail?hypervisor_hostname_pattern=cmp", body)) == ()


def test_migration_rows() -> None:
    """A row of os-migrations has both hosts, Nova's status, and times that may be null."""
    rows = [migration_row(), migration_row(id=18, migration_type="evacuation", status="accepted", dest_compute=None)]

    live, evacuation = normalise_answer(ask("GET /v2.1/os-migrations?status=running", {"migrations": rows}))

    assert isinstance(live, MigrationSeen) and isinstance(evacuation, MigrationSeen)
    assert (live.kind, live.status, live.source, live.destination) == (Kind.LIVE, "running", "cmp-02", "cmp-04")
    assert (live.migration_id, live.server_id, live.updated_at) == (17, SERVER, None)
    assert live.created_at == read_time("2026-11-23T06:12:50.000000")
    assert (evacuation.kind, evacuation.destination) == (Kind.EVACUATION, None)


def test_the_whole_list_of_a_servers_migrations_says_so() -> None:
    """Empty as it may be; a list by status, or one of several pages that is not at its end, is none."""
    mine = f"GET /os-migrations?instance_uuid={SERVER}&limit=1000"
    assert normalise_answer(ask(mine, {"migrations": []})) == (
        MovesListed(AT, Because("api"), ASKED, SERVER, frozenset()),
    )
    by_status = normalise_answer(ask(mine + "&status=running", {"migrations": []}))
    assert by_status == ()
    link = [{"rel": "next", "href": f"http://n/os-migrations?instance_uuid={SERVER}&marker=m"}]
    assert normalise_answer(ask(mine, {"migrations": [], "migrations_links": link})) == ()


def test_progress_of_a_live_migration() -> None:
    """GET /servers/{id}/migrations has the byte counters, null before the first of them; one by id is the same."""
    row = {
        **migration_row(updated_at="2026-11-23T06:13:05.000000"),
        "server_uuid": SERVER,
        "memory_total_bytes": 1073741824,
        "memory_processed_bytes": 12345,
        "memory_remaining_bytes": 1000,
        "disk_total_bytes": None,
        "disk_processed_bytes": None,
        "disk_remaining_bytes": None,
    }
    del row["instance_uuid"], row["migration_type"]

    (listed,) = normalise_answer(ask(f"GET /v2.1/servers/{SERVER}/migrations", {"migrations": [row]}))
    (single,) = normalise_answer(ask(f"GET /v2.1/servers/{SERVER}/migrations/17", {"migration": row}))

    assert isinstance(listed, ProgressSeen)
    assert single == listed
    assert (listed.server_id, listed.migration_id, listed.source) == (SERVER, 17, "cmp-02")
    assert listed.progress == Progress(1073741824, 12345, 1000)


# -- what is no answer ----------------------------------------------------------------------------------------------

REQUESTS = {
    f"{LIST}&host=cmp-02": Read.SERVERS,
    f"GET /servers/{SERVER}": Read.CONSUMER,
    "GET /os-migrations?status=running": Read.MIGRATIONS,
    "GET /os-services?host=cmp-02": Read.SERVICE,
    f"GET /os-hypervisors/{NODE}?with_servers=true": Read.HYPERVISOR,
    f"GET /resource_providers?in_tree={PROVIDER}": Read.PROVIDERS,
    f"GET /resource_providers/{PROVIDER}/allocations": Read.ALLOCATIONS,
    f"GET /resource_providers/{PROVIDER}/traits": Read.TRAITS,
}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": None, "body": None, "error": "timed out after 10 s"}, "timed out after 10 s"),
        ({"status": None, "body": None}, "did not answer"),
        ({"status": 403, "body": {"forbidden": {"code": 403, "message": "Policy  says\nno"}}}, "403 (Policy says no)"),
        ({"status": 503, "body": "<html>"}, "answered 503"),
        ({"status": 404, "body": {"errors": [{"status": 404, "detail": "no such"}]}}, "404 (no such)"),
        ({"status": 200, "body": None}, "has no"),
        ({"status": 200, "body": {}}, "has no"),
        ({"status": 200, "body": []}, "has no"),
    ],
)
def test_failures_spoil_the_pass_and_say_nothing_else(request_: str, fields: dict[str, Any], said: str) -> None:
    """Of an answer that is none nothing is concluded; a verification pass hears why, and that it is not complete."""
    assert normalise_answer(ask(request_, **{"body": None, **fields})) == ()

    (read,) = normalise_answer(verify(request_, **{"body": None, **fields}))

    assert isinstance(read, PassRead)
    assert (read.read, read.found, read.complete) == (REQUESTS[request_], (), False)
    assert read.error is not None and said in read.error


@pytest.mark.parametrize(
    "changes",
    [{"migration_type": "teleport"}, {"migration_type": None}, {"id": "17"}, {"uuid": None}, {"created_at": "then"}],
)
def test_one_wrong_row_spoils_the_answer(changes: dict[str, Any]) -> None:
    """A row that cannot be read may be the one that matters, so the whole answer counts as none."""
    body = {"migrations": [migration_row(), migration_row(**changes)]}

    (read,) = normalise_answer(verify("GET /os-migrations", body))

    assert isinstance(read, PassRead)
    assert read.error is not None and next(iter(changes)) in read.error


@pytest.mark.parametrize(
    "request_",
    ["GET /v2.1/flavors", "GET /", "", "POST /v2.1/os-services", "GET /os-services/x/y", "GET http://[/os-services"],
)
def test_other_questions_give_nothing(request_: str) -> None:
    """A recording may hold questions that nobody here asks."""
    assert normalise_answer(verify(request_, {"services": []})) == ()


@pytest.mark.parametrize(
    "prefix", ["", "/v2.1", "/v2.1/a568915e82864bf5b5dbb003352f9f1a", "/compute/v2.1", "https://nova.example:8774/v2.1"]
)
def test_prefixes_of_paths_do_not_matter(prefix: str) -> None:
    """A path may stand behind a version, a project, a mount point or a whole URL."""
    seen = normalise_answer(ask(f"GET {prefix}/os-services?binary=nova-compute", {"services": [service_row()]}))

    assert types(seen) == [ServiceSeen, ServicesListed]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=8), child, max_size=3),
    max_leaves=8,
)
_KEYS = (
    "servers server services migrations migration hypervisors hypervisor resource_providers allocations traits".split()
)
_ROWS = [server_row(), service_row(), migration_row(), hypervisor_row(servers=[{"uuid": SERVER}])]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_garbage_is_never_raised(data: st.DataObject) -> None:
    """Whatever a body holds, half right or all wrong, it gives observations or nothing, never an exception."""
    row = dict(data.draw(st.sampled_from(_ROWS)))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(JSON)
    body = data.draw(JSON | st.dictionaries(st.sampled_from(_KEYS), JSON | st.just([row]) | st.just(row), max_size=3))
    request = data.draw(st.sampled_from(sorted(REQUESTS)) | st.text(max_size=12).map(lambda t: f"GET /{t}"))
    status = data.draw(st.sampled_from([200, 200, 404, 500, None]))
    answer = verify(request, body, status=status)

    assert isinstance(normalise_answer(answer), tuple)
    assert isinstance(Pages().observations(answer), tuple)


# -- verification passes --------------------------------------------------------------------------------------------


def test_reads_of_a_pass() -> None:
    """Each answer of a pass is one read with its target and what it showed; what is plain knowledge comes before it."""
    server, service, migration = server_row(), service_row(), migration_row()
    allocations = {"allocations": {SERVER: {"resources": {"VCPU": 1}, "consumer_generation": 1}}}
    reads = [
        (verify("GET /os-migrations?host=cmp-02", {"migrations": [migration]}), Read.MIGRATIONS, None, [MigrationSeen]),
        (
            verify(
                f"GET /os-hypervisors/{NODE}?with_servers=true",
                {"hypervisor": hypervisor_row(servers=[{"name": "instance-1", "uuid": SERVER}])},
            ),
            Read.HYPERVISOR,
            NODE,
            [SERVER],
        ),
        (verify(f"{LIST}&host=cmp-02", {"servers": [server]}), Read.SERVERS, None, [ServerSeen]),
        (
            verify(f"GET /resource_providers?in_tree={NODE}", {"resource_providers": [{"uuid": PROVIDER}]}),
            Read.PROVIDERS,
            NODE,
            [PROVIDER],
        ),
        (verify(f"GET /resource_providers/{PROVIDER}/allocations", allocations), Read.ALLOCATIONS, PROVIDER, [SERVER]),
        (
            verify(f"GET /resource_providers/{PROVIDER}/traits", {"traits": ["COMPUTE_NODE"]}),
            Read.TRAITS,
            PROVIDER,
            ["COMPUTE_NODE"],
        ),
        (verify(f"GET /servers/{SERVER}", {"server": server}), Read.CONSUMER, SERVER, [ServerSeen]),
        (
            verify("GET /os-services?binary=nova-compute&host=cmp-02", {"services": [service]}),
            Read.SERVICE,
            None,
            [ServiceSeen],
        ),
    ]
    for answer, read, target, found in reads:
        *plain, last = normalise_answer(answer)

        assert isinstance(last, PassRead)
        assert (last.host, last.pass_number, last.read, last.target) == ("cmp-02", 3, read, target)
        assert (last.seen_at, last.asked_at, last.complete, last.error) == (AT, ASKED, True, None)
        assert found == [type(f) if not isinstance(f, str) else f for f in last.found]
        assert plain == list(normalise_answer(replace(answer, purpose="reconcile")))


def test_empty_reads_are_answers() -> None:
    """Nothing found is found, and no error."""
    bodies = [
        ("GET /os-migrations", {"migrations": []}),
        (f"{LIST}&host=cmp-02", {"servers": []}),
        (f"GET /os-hypervisors/{NODE}?with_servers=true", {"hypervisor": hypervisor_row(servers=[])}),
        (f"GET /resource_providers/{PROVIDER}/allocations", {"allocations": {}, "resource_provider_generation": 2}),
    ]
    for request, body in bodies:
        last = normalise_answer(verify(request, body))[-1]

        assert isinstance(last, PassRead)
        assert (last.found, last.complete, last.error) == ((), True, None)


@pytest.mark.parametrize(
    ("request_", "row"),
    [
        (f"GET /os-hypervisors/{NODE}?with_servers=true", hypervisor_row()),
        (f"GET /os-hypervisors/{NODE}", hypervisor_row(servers=[])),
        (f"GET /os-hypervisors/{NODE}?with_servers=true", hypervisor_row("cmp-03", servers=[])),
        (f"GET /os-hypervisors/{NODE}?with_servers=true", hypervisor_row(node="another", servers=[])),
    ],
    ids=["no servers in it", "not asked for them", "another host's", "another node"],
)
def test_hypervisor_must_be_the_one_and_show_its_servers(request_: str, row: dict[str, Any]) -> None:
    """A hypervisor without a list of servers, or of another host, proves nothing."""
    (read,) = normalise_answer(verify(request_, {"hypervisor": row}))

    assert isinstance(read, PassRead) and read.error is not None


def test_service_read_shows_the_host_only() -> None:
    """Of a shared list of services, a pass sees its own host's rows."""
    body = {"services": [service_row("cmp-01"), service_row(), service_row("cmp-02", binary="nova-conductor")]}

    last = normalise_answer(verify("GET /os-services", body))[-1]

    assert isinstance(last, PassRead)
    assert ["cmp-02"] == [s.host for s in last.found if isinstance(s, ServiceSeen)]


def test_migrations_must_touch_the_host_asked_for() -> None:
    """Without the right to see hosts every row has none, and such a list says nothing of a host."""
    body = {"migrations": [migration_row(source_compute=None, dest_compute=None)]}

    (read,) = normalise_answer(verify("GET /os-migrations?host=cmp-02", body))

    assert isinstance(read, PassRead) and read.error is not None


def test_deleted_consumer_is_an_answer() -> None:
    """A consumer that Nova does not know is not an error: the allocation is a leftover."""
    last = normalise_answer(verify(f"GET /servers/{SERVER}", NOT_FOUND, status=404))[-1]

    assert isinstance(last, PassRead)
    assert last.error is None
    assert [True] == [f.deleted for f in last.found if isinstance(f, ServerSeen)]


def test_pass_begins_before_its_first_answer() -> None:
    """The first answer of a pass tells when the pass began; the rest of it, and other purposes, tell nothing."""
    tracker = PassTracker()
    answer = verify("GET /os-migrations", {"migrations": []})

    begun = [
        tracker.begun(ask("GET /os-services", {"services": []})),
        tracker.begun(answer),
        tracker.begun(answer),
        tracker.begun(replace(answer, host="cmp-03")),
        tracker.begun(replace(answer, pass_number=4, asked_at=None)),
    ]

    assert begun[0] is begun[2] is None
    assert [("cmp-02", 3, ASKED), ("cmp-03", 3, ASKED), ("cmp-02", 4, AT)] == [
        (b.host, b.pass_number, b.seen_at) for b in begun if isinstance(b, PassBegun)
    ]


def test_a_pass_number_may_come_again() -> None:
    """A host that was opened and closed again has its passes counted anew: what has ended does not hide a beginning."""
    tracker = PassTracker()
    first, last = verify("GET /os-migrations", {"migrations": []}), verify("GET /os-services", {"services": []})

    assert isinstance(tracker.begun(first), PassBegun)
    assert tracker.begun(last) is None
    assert isinstance(tracker.begun(first), PassBegun)
    assert tracker.begun(replace(first, error="it broke off")) is None
    assert isinstance(tracker.begun(first), PassBegun)


# -- pages ----------------------------------------------------------------------------------------------------------


def test_pages_make_one_list() -> None:
    """A list of two pages is complete with the second, and as old as the question for the first."""
    pages = Pages()
    first = ask(LIST, following({"servers": [server_row()]}, "servers", SERVER), asked_at=1.0)
    second = ask(f"{LIST}&marker={SERVER}", {"servers": [server_row(OTHER)]}, asked_at=2.0)

    assert types(pages.observations(first)) == [ServerSeen]
    seen = pages.observations(second)

    assert types(seen) == [ServerSeen, ServersListed]
    assert isinstance(seen[-1], ServersListed)
    assert (seen[-1].asked_at, seen[-1].server_ids) == (1.0, frozenset({SERVER, OTHER}))
    assert types(pages.observations(second)) == [ServerSeen]


def test_pages_of_different_lists_interleave() -> None:
    """Lists of two hosts may be read at once."""
    pages = Pages()
    done = []
    for marker, links in (("", True), (SERVER, False)):
        for host in ("cmp-02", "cmp-03"):
            row = server_row(SERVER if links else OTHER, **{"OS-EXT-SRV-ATTR:host": host})
            body: dict[str, Any] = {"servers": [row]}
            request = f"{LIST}&host={host}" + (f"&marker={marker}" if marker else "")
            done += pages.observations(ask(request, following(body, "servers", SERVER) if links else body))

    assert [("cmp-02", 2), ("cmp-03", 2)] == [(d.host, len(d.server_ids)) for d in done if isinstance(d, ServersListed)]


@pytest.mark.parametrize(
    "between",
    [
        ask(LIST, None, status=500),
        ask(LIST, None, status=None, error="timed out"),
        ask(f"{LIST}&marker=another", {"servers": []}),
        ask(f"{LIST}&marker={SERVER}", {"servers": "none"}),
    ],
)
def test_broken_lists_are_never_complete(between: Answer) -> None:
    """A page that failed or does not follow ends its list; the pages after it conclude nothing."""
    pages = Pages()
    pages.observations(ask(LIST, following({"servers": [server_row()]}, "servers", SERVER)))

    assert ServersListed not in types(pages.observations(between))
    seen = pages.observations(ask(f"{LIST}&marker={SERVER}", {"servers": [server_row(OTHER)]}))

    assert types(seen) == [ServerSeen]


def test_list_with_one_page_without_hosts_is_not_complete() -> None:
    """One page that does not say where its servers are spoils the list, whatever the others say."""
    row = server_row()
    del row["OS-EXT-SRV-ATTR:host"]
    pages = Pages()
    pages.observations(ask(LIST, following({"servers": [row]}, "servers", SERVER)))

    seen = pages.observations(ask(f"{LIST}&marker={SERVER}", {"servers": [server_row(OTHER)]}))

    assert types(seen) == [ServerSeen]


def test_half_a_list_spoils_a_pass() -> None:
    """A page of a pass whose predecessor is missing, as in a recording cut at its beginning, is an error."""
    first = verify(f"{LIST}&host=cmp-02", following({"servers": [server_row()]}, "servers", SERVER))
    second = verify(f"{LIST}&host=cmp-02&marker={SERVER}", {"servers": []})
    pages = Pages()

    whole = [pages.observations(page)[-1] for page in (first, second)]
    cut = Pages().observations(second)[-1]

    assert [(False, None), (True, None)] == [(r.complete, r.error) for r in whole if isinstance(r, PassRead)]
    assert isinstance(cut, PassRead)
    assert (cut.complete, cut.error) == (False, "the page before this one is missing")


def test_hypervisors_on_several_pages() -> None:
    """The nodes of a host are known only once all pages are there."""
    pages = Pages()
    first = following({"hypervisors": [hypervisor_row()]}, "hypervisors", NODE)

    assert pages.observations(ask("GET /os-hypervisors/detail?limit=1", first)) == ()
    seen = pages.observations(
        ask(f"GET /os-hypervisors/detail?limit=1&marker={NODE}", {"hypervisors": [hypervisor_row(node="n2")]})
    )

    assert [("cmp-02", (NODE, "n2"))] == [(s.host, s.nodes) for s in seen if isinstance(s, NodesSeen)]


def test_unfinished_lists_are_bounded() -> None:
    """Lists that nobody finishes do not pile up."""
    pages = Pages()
    for i in range(200):
        row = server_row(**{"OS-EXT-SRV-ATTR:host": f"h{i}"})
        pages.observations(ask(f"{LIST}&host=h{i}", following({"servers": [row]}, "servers", SERVER)))

    assert len(pages._open) <= 64


def test_one_page_means_the_same_to_both() -> None:
    """What fits on one page needs no accumulator."""
    for request, body in ((LIST, {"servers": [server_row()]}), ("GET /os-services", {"services": [service_row()]})):
        answer = ask(request, json.loads(json.dumps(body)))

        assert Pages().observations(answer) == normalise_answer(answer)
