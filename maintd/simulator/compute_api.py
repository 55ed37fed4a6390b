"""Nova's REST API on the simulated cloud: servers, migrations, services, hypervisors.

Shapes, filters and refusals per microversion as in Nova 34, traps included; the keys of the answers are held against a
real Nova's by tests/simulator. Who may ask and which microversion holds is settled before a call gets here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from maintd.simulator.calls import IDENT, Answer, Call, Faults, dispatch, routes, row_time
from maintd.simulator.model import Cloud, Host, Migration, Provider, Refused, Server
from maintd.simulator.notifications import Flavor, Json, seconds_text

POWER = {"pending": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}
PROGRESS_STATUSES = frozenset(
    {
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "MIGRATING",
        "REBUILD",
        "RESIZE",
        "VERIFY_RESIZE",
        "SHUTOFF",
        "HARD_REBOOT",
        "PASSWORD",
        "REBOOT",
        "UNKNOWN",
        "REVERT_RESIZE",
    }
) - {"DELETED"}
STATUSES = frozenset(
    {
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "MIGRATING",
        "PAUSED",
        "REBUILD",
        "RESCUE",
        "RESIZE",
        "REVERT_RESIZE",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SHUTOFF",
        "SOFT_DELETED",
        "SUSPENDED",
        "VERIFY_RESIZE",
        "UNKNOWN",
        "REBOOT",
        "HARD_REBOOT",
        "PASSWORD",
    }
)
SERVER_FILTERS = frozenset(
    {
        "all_tenants",
        "host",
        "node",
        "soft_deleted",
        "deleted",
        "status",
        "vm_state",
        "task_state",
        "changes-since",
        "changes-before",
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "name",
        "uuid",
        "project_id",
        "tenant_id",
        "user_id",
        "flavor",
        "image",
        "hostname",
        "tags",
        "ip",
        "availability_zone",
        "power_state",
        "locked",
        "reservation_id",
    }
)
MIGRATION_FILTERS = frozenset(
    {
        "host",
        "status",
        "source_compute",
        "migration_type",
        "instance_uuid",
        "hidden",
        "limit",
        "marker",
        "changes-since",
        "changes-before",
        "user_id",
        "project_id",
    }
)
SHOWN_LIVE = ("queued", "preparing", "running", "post-migrating")


def _moment(text: str) -> float:
    try:
        at = datetime.fromisoformat(text if len(text) > 4 else f"{text}-01-01")
    except ValueError:
        raise Refused(
            400, f"Invalid input for query parameters changes-since. Value: {text}. '{text}' is not a 'date-time'"
        ) from None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()


def status_of(server: Server) -> str:
    """The status that the API makes of vm_state and task_state."""
    task = server.task_state or ""
    state = server.state
    if state == "active":
        if task == "migrating":
            return "MIGRATING"
        if task.startswith("resize_"):
            return "RESIZE"
    if state == "paused" and task == "migrating":
        return "MIGRATING"
    if state == "stopped" and task.startswith("resize_"):
        return "RESIZE"
    if state == "resized":
        return "REVERT_RESIZE" if task == "resize_reverting" else "VERIFY_RESIZE"
    if state in ("active", "stopped", "error") and task.startswith("rebuild"):
        return "REBUILD"
    return {
        "active": "ACTIVE",
        "building": "BUILD",
        "stopped": "SHUTOFF",
        "soft-delete": "SOFT_DELETED",
        "deleted": "DELETED",
        "error": "ERROR",
        "paused": "PAUSED",
        "suspended": "SUSPENDED",
        "rescued": "RESCUE",
        "shelved": "SHELVED",
        "shelved_offloaded": "SHELVED_OFFLOADED",
    }.get(state, "UNKNOWN")


class Compute:
    """Answers calls under `/compute/v2.1`; the cloud's lock is held meanwhile."""

    def __init__(self, cloud: Cloud, faults: Faults) -> None:
        self.cloud = cloud
        self.faults = faults
        self._routes = routes(
            ("GET", "/servers/detail", self._servers),
            ("GET", "/servers", self._servers_short),
            ("POST", "/servers", self._create),
            ("GET", f"/servers/{IDENT}", self._server),
            ("DELETE", f"/servers/{IDENT}", self._delete),
            ("POST", f"/servers/{IDENT}/action", self._action),
            ("GET", f"/servers/{IDENT}/migrations", self._server_migrations),
            ("GET", f"/servers/{IDENT}/migrations/{IDENT}", self._server_migration),
            ("DELETE", f"/servers/{IDENT}/migrations/{IDENT}", self._abort),
            ("POST", f"/servers/{IDENT}/migrations/{IDENT}/action", self._force),
            ("GET", "/os-migrations", self._migrations),
            ("GET", "/os-services", self._services),
            ("PUT", f"/os-services/{IDENT}", self._service_put),
            ("DELETE", f"/os-services/{IDENT}", self._service_delete),
            ("GET", "/os-hypervisors/detail", self._hypervisors_detail),
            ("GET", "/os-hypervisors", self._hypervisors),
            ("GET", f"/os-hypervisors/{IDENT}", self._hypervisor),
            ("GET", "/flavors/detail", self._flavors),
            ("GET", "/flavors", self._flavors),
        )

    def answer(self, call: Call, path: str) -> Answer:
        """The answer to one call. Raises `Refused` when the API would say no."""
        return dispatch(self._routes, call, path)

    def _next(self, call: Call, name: str, path: str, marker: str) -> Json:
        rest = [(key, value) for key, value in call.query if key != "marker"] + [("marker", marker)]
        return {f"{name}_links": [{"rel": "next", "href": f"{call.base}/v2.1{path}?{urlencode(rest)}"}]}

    def _limit(self, call: Call) -> int:
        text = call.one("limit")
        if text is None:
            return self.faults.max_limit
        if not text.isdigit():
            raise Refused(
                400, f"Invalid input for query parameters limit. Value: {text}. '{text}' does not match '^[0-9]*$'"
            )
        return min(int(text), self.faults.max_limit)

    # Nova: servers

    def _wanted(self, call: Call) -> Iterator[Server]:
        """The servers that the filters leave, newest first, from behind the marker on."""
        unknown = {key for key, _ in call.query} - SERVER_FILTERS
        unknown = {key for key in unknown if not key.startswith("_")}
        if unknown and call.version >= (2, 73):
            raise Refused(400, f"'{min(unknown)}' does not match any of the regexes: '^_'")
        statuses = [value.upper() for key, value in call.query if key == "status"]
        if any(value not in STATUSES for value in statuses):
            if call.version >= (2, 38):
                raise Refused(400, "Invalid status value")
            return
        since_text, host = call.one("changes-since"), call.one("host")
        since = None if since_text is None else _moment(since_text)
        if self.faults.drop_host_filter:
            host = None
        deleted_only = call.flag("deleted") or statuses == ["DELETED"]
        soft = call.flag("soft_deleted")
        everyone = call.flag("all_tenants")
        project = call.one("project_id") or call.one("tenant_id")
        node, name = call.one("node"), call.one("name")
        marker = call.one("marker")
        cloud = self.cloud
        rows: Iterable[Server]
        if host is not None and since is None and not deleted_only:
            known = cloud.hosts.get(host)
            rows = sorted(known.servers.values(), key=lambda row: -row.seq) if known is not None else ()
            if marker is not None:
                behind = cloud.servers.get(marker) or cloud.deleted.get(marker)
                if behind is None:
                    raise Refused(400, f"marker [{marker}] not found")
                rows = [row for row in rows if row.seq < behind.seq]
        else:
            rows = cloud.page_of_servers(marker)
        for row in rows:
            if since is None:
                if deleted_only != (row.deleted_at is not None):
                    continue
                if row.state == "soft-delete" and not soft and not deleted_only:
                    continue
            elif row.updated_at is None or row.updated_at < since:
                continue
            if host is not None and row.host != host:
                continue
            if row.host is not None and row.host in cloud.hosts and cloud.hosts[row.host].in_down_cell:
                continue
            if (
                not everyone
                and row.project_id != cloud.admin_project
                or project is not None
                and (row.project_id != project)
            ):
                continue
            if statuses and status_of(row) not in statuses:
                continue
            if name is not None and re.search(name, row.name) is None:
                continue
            if node is not None and re.search(node, cloud.node_of(row.host) or "") is None:
                continue
            if any(
                call.one(key) not in (None, value)
                for key, value in (("uuid", row.id), ("vm_state", row.state), ("task_state", row.task_state or ""))
            ):
                continue
            yield row

    def _servers(self, call: Call) -> Answer:
        return 200, self._page(call, "/servers/detail", self._server_body)

    def _servers_short(self, call: Call) -> Answer:
        def short(call: Call, row: Server) -> Json:
            return {"id": row.id, "name": row.name, "links": self._links(call, "servers", row.id)}

        return 200, self._page(call, "/servers", short)

    def _page(self, call: Call, path: str, show: Callable[[Call, Server], Json]) -> Json:
        limit = self._limit(call)
        found: list[Json] = []
        for row in self._wanted(call):
            found.append(show(call, row))
            if len(found) >= limit:
                break
        answer: Json = {"servers": found}
        if found and len(found) == limit:
            answer |= self._next(call, "servers", path, found[-1]["id"])
        return answer

    def _links(self, call: Call, kind: str, ident: str) -> list[Json]:
        return [
            {"rel": "self", "href": f"{call.base}/v2.1/{kind}/{ident}"},
            {"rel": "bookmark", "href": f"{call.base}/{kind}/{ident}"},
        ]

    def _server_body(self, call: Call, row: Server) -> Json:
        cloud, version = self.cloud, call.version
        status = status_of(row)
        flavor: Json = {
            "id": row.flavor.id,
            "links": [{"rel": "bookmark", "href": f"{call.base}/flavors/{row.flavor.id}"}],
        }
        if version >= (2, 47):
            flavor = {
                "vcpus": row.flavor.vcpus,
                "ram": row.flavor.memory_mb,
                "disk": row.flavor.disk_gb,
                "ephemeral": 0,
                "swap": 0,
                "original_name": row.flavor.name,
                "extra_specs": {},
            }
        body: Json = {
            "accessIPv4": "",
            "accessIPv6": "",
            "addresses": {},
            "created": seconds_text(row.created_at),
            "flavor": flavor,
            "hostId": cloud.host_id(row.project_id, row.host),
            "id": row.id,
            "image": {
                "id": cloud.image_id,
                "links": [{"rel": "bookmark", "href": f"{call.base}/images/{cloud.image_id}"}],
            },
            "links": self._links(call, "servers", row.id),
            "metadata": dict(row.metadata),
            "name": row.name,
            "status": status,
            "tenant_id": row.project_id,
            "user_id": row.user_id,
            "updated": seconds_text(row.updated_at if row.updated_at is not None else cloud.now()),
            "OS-DCF:diskConfig": "MANUAL",
        }
        if status in PROGRESS_STATUSES:
            body["progress"] = row.progress
        body |= {
            "OS-EXT-AZ:availability_zone": row.availability_zone or "" if row.host is not None else "",
            "config_drive": "",
            "key_name": None,
            "OS-SRV-USG:launched_at": row_time(row.launched_at),
            "OS-SRV-USG:terminated_at": row_time(row.terminated_at),
        }
        if not self.faults.hide_host_fields:
            body |= {
                "OS-EXT-SRV-ATTR:host": row.host,
                "OS-EXT-SRV-ATTR:instance_name": f"instance-{row.seq:08x}",
                "OS-EXT-SRV-ATTR:hypervisor_hostname": cloud.node_of(row.host),
            }
            if version >= (2, 3):
                body |= {
                    "OS-EXT-SRV-ATTR:hostname": row.name,
                    "OS-EXT-SRV-ATTR:kernel_id": "",
                    "OS-EXT-SRV-ATTR:launch_index": 0,
                    "OS-EXT-SRV-ATTR:ramdisk_id": "",
                    "OS-EXT-SRV-ATTR:reservation_id": f"r-{row.id[:8]}",
                    "OS-EXT-SRV-ATTR:root_device_name": "/dev/sda",
                    "OS-EXT-SRV-ATTR:user_data": None,
                }
        body |= {
            "OS-EXT-STS:task_state": row.task_state,
            "OS-EXT-STS:vm_state": row.state,
            "OS-EXT-STS:power_state": POWER.get(row.power_state, 0),
            "os-extended-volumes:volumes_attached": [],
        }
        if row.state == "error":
            body["fault"] = {"code": 500, "created": body["updated"], "message": "told to fail"}
        if version >= (2, 9):
            body["locked"] = row.locked
        if version >= (2, 19):
            body["description"] = None
        if version >= (2, 26):
            body["tags"] = []
        if version >= (2, 63):
            body["trusted_image_certificates"] = None
        if version >= (2, 73):
            body["locked_reason"] = None
        if version >= (2, 96):
            body["pinned_availability_zone"] = None
        if version >= (2, 16):
            body["host_status"] = self._host_status(row)
        return body

    def _host_status(self, row: Server) -> str:
        host = self.cloud.hosts.get(row.host) if row.host is not None else None
        if host is None or row.deleted_at is not None:
            return ""
        if host.forced_down:
            return "DOWN"
        if not self.cloud.is_up(host):
            return "UNKNOWN"
        return "MAINTENANCE" if host.disabled else "UP"

    def _server(self, call: Call, server_id: str) -> Answer:
        row = self.cloud.find_server(server_id)
        if row.host is not None and self.cloud.hosts[row.host].in_down_cell:
            if call.version < (2, 69):
                raise Refused(500, "Unexpected API Error. The cell of this instance cannot be reached.")
            return 200, {
                "server": {
                    "id": row.id,
                    "created": seconds_text(row.created_at),
                    "status": "UNKNOWN",
                    "tenant_id": row.project_id,
                    "links": self._links(call, "servers", row.id),
                }
            }
        body = self._server_body(call, row)
        if call.version >= (2, 71):
            body["server_groups"] = []
        return 200, {"server": body}

    def _create(self, call: Call) -> Answer:
        asked = _object(call.body, "server")
        host = asked.get("host")
        zone = str(asked.get("availability_zone") or "")
        if host is None and ":" in zone:
            host = zone.split(":")[1]
        count = int(asked.get("max_count") or asked.get("min_count") or 1)
        flavor = str(asked.get("flavorRef", "m1.small")).rsplit("/", 1)[-1]
        name = str(asked.get("name") or "server")
        servers = [
            self.cloud.create(name if count == 1 else f"{name}-{n + 1}", flavor=flavor, host=host, request=call.request)
            for n in range(count)
        ]
        call.headers.append(("location", f"{call.base}/v2.1/servers/{servers[0].id}"))
        return 202, {
            "server": {
                "id": servers[0].id,
                "links": self._links(call, "servers", servers[0].id),
                "OS-DCF:diskConfig": "MANUAL",
                "security_groups": [{"name": "default"}],
                "adminPass": "simulator",
            }
        }

    def _delete(self, call: Call, server_id: str) -> Answer:
        self.cloud.delete(server_id, request=call.request)
        return 204, None

    def _action(self, call: Call, server_id: str) -> Answer:
        if not isinstance(call.body, dict) or len(call.body) != 1:
            raise Refused(400, "Malformed request body")
        action, value = next(iter(call.body.items()))
        options = value if isinstance(value, dict) else {}
        cloud, request = self.cloud, call.request
        host = options.get("host")
        match action:
            case "os-migrateLive":
                force = call.version < (2, 68) and options.get("force") in (True, "True", "true")
                cloud.live_migrate(server_id, host, request, force=force)
            case "migrate":
                cloud.migrate(server_id, host, request=request)
            case "resize":
                cloud.migrate(server_id, flavor=str(options.get("flavorRef", "")).rsplit("/", 1)[-1], request=request)
            case "confirmResize":
                cloud.confirm(server_id, request)
                return 204, None
            case "revertResize":
                cloud.revert(server_id, request)
            case "evacuate":
                cloud.evacuate(server_id, host, ends_stopped=call.version >= (2, 95), request=request)
                return 200, None if call.version >= (2, 14) else {"adminPass": "simulator"}
            case "shelve":
                cloud.shelve(server_id, request)
            case "shelveOffload":
                cloud.shelve_offload(server_id, request)
            case "unshelve":
                cloud.unshelve(server_id, request)
            case "os-stop":
                cloud.stop_server(server_id, request)
            case "os-start":
                cloud.start_server(server_id, request)
            case "forceDelete":
                cloud.delete(server_id, force=True, request=request)
            case "restore":
                cloud.restore(server_id, request)
            case "os-resetState":
                cloud.reset_state(server_id, str(options.get("state")), request)
            case _:
                raise Refused(400, f"There is no such action: {action}")
        return 202, None

    # Nova: migrations

    def _server_migration_body(self, call: Call, row: Migration) -> Json:
        body: Json = {
            "created_at": row_time(row.created_at),
            "dest_compute": row.destination,
            "dest_host": None,
            "dest_node": row.destination_node,
            "disk_processed_bytes": row.disk_processed,
            "disk_remaining_bytes": row.disk_remaining,
            "disk_total_bytes": row.disk_total,
            "id": row.id,
            "memory_processed_bytes": row.memory_processed,
            "memory_remaining_bytes": row.memory_remaining,
            "memory_total_bytes": row.memory_total,
            "server_uuid": row.server.id,
            "source_compute": row.source,
            "source_node": row.source_node,
            "status": row.status,
            "updated_at": row_time(row.updated_at),
        }
        if call.version >= (2, 59):
            body["uuid"] = row.uuid
        if call.version >= (2, 80):
            body |= {"user_id": row.user_id, "project_id": row.project_id}
        return body

    def _server_migrations(self, call: Call, server_id: str) -> Answer:
        if call.version < (2, 23):
            raise Refused(404, "The resource could not be found.")
        self.cloud.find_server(server_id)
        return 200, {
            "migrations": [
                self._server_migration_body(call, row)
                for row in self.cloud.migrations_of.get(server_id, ())
                if row.kind == "live-migration" and row.status in SHOWN_LIVE
            ]
        }

    def _server_migration(self, call: Call, server_id: str, migration_id: str) -> Answer:
        self.cloud.find_server(server_id)
        row = self.cloud.migrations.get(_number(migration_id))
        if row is None or row.server.id != server_id:
            raise Refused(404, f"Migration {migration_id} for server {server_id} could not be found.")
        if row.kind != "live-migration" or row.status not in SHOWN_LIVE:
            raise Refused(404, f"Migration {migration_id} for server {server_id} is not a live-migration in progress.")
        return 200, {"migration": self._server_migration_body(call, row)}

    def _abort(self, call: Call, server_id: str, migration_id: str) -> Answer:
        number = _number(migration_id)
        row = self.cloud.migrations.get(number)
        if call.version < (2, 65) and row is not None and row.status in ("queued", "preparing"):
            raise Refused(
                400,
                f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot abort "
                "the migration in this state.",
            )
        self.cloud.abort(server_id, number, call.request)
        return 202, None

    def _force(self, call: Call, server_id: str, migration_id: str) -> Answer:
        if not isinstance(call.body, dict) or "force_complete" not in call.body:
            raise Refused(400, "Malformed request body")
        self.cloud.force_complete(server_id, _number(migration_id), call.request)
        return 202, None

    def _migrations(self, call: Call) -> Answer:
        strict = call.version >= (2, 59)
        unknown = {key for key, _ in call.query} - MIGRATION_FILTERS
        if strict and unknown:
            raise Refused(400, f"Additional properties are not allowed ('{min(unknown)}' was unexpected)")
        host, status, source = call.one("host"), call.one("status"), call.one("source_compute")
        kind, server_id = call.one("migration_type"), call.one("instance_uuid")
        since_text = call.one("changes-since") if strict else None
        since = None if since_text is None else _moment(since_text)
        rows: Iterable[Migration]
        if server_id is not None:
            rows = reversed(self.cloud.migrations_of.get(server_id, []))
        else:
            rows = reversed(list(self.cloud.migrations.values()))
        marker = call.one("marker") if strict else None
        if marker is not None:
            rows = list(rows)
            at = next((n for n, row in enumerate(rows) if row.uuid == marker), None)
            if at is None:
                raise Refused(400, f"Marker {marker} could not be found.")
            rows = rows[at + 1 :]
        limit = self._limit(call) if strict else 10**9
        found: list[Json] = []
        more = False
        for row in rows:
            ends = [self.cloud.hosts.get(name) for name in (row.source, row.destination) if name is not None]
            if (
                host is not None
                and host not in (row.source, row.destination)
                or status is not None
                and row.status != status
                or source is not None
                and row.source != source
                or kind is not None
                and row.kind != kind
                or since is not None
                and (row.updated_at is None or row.updated_at < since)
                or any(end is not None and end.in_down_cell for end in ends)
            ):
                continue
            found.append(self._migration_body(call, row))
            if len(found) >= limit:
                more = strict
                break
        answer: Json = {"migrations": found}
        if more and found:
            answer |= self._next(call, "migrations", "/os-migrations", found[-1]["uuid"])
        return 200, answer

    def _migration_body(self, call: Call, row: Migration) -> Json:
        body: Json = {"id": row.id}
        if call.version >= (2, 59):
            body["uuid"] = row.uuid
        shown = not self.faults.hide_host_fields
        body |= {
            "source_compute": row.source if shown else None,
            "dest_compute": row.destination if shown else None,
            "source_node": row.source_node if shown else None,
            "dest_node": row.destination_node if shown else None,
            "dest_host": None,
            "old_instance_type_id": row.old_flavor.row,
            "new_instance_type_id": row.new_flavor.row,
            "instance_uuid": row.server.id,
            "status": row.status,
        }
        if call.version >= (2, 23):
            body["migration_type"] = row.kind
        if call.version >= (2, 80):
            body |= {"user_id": row.user_id, "project_id": row.project_id}
        body |= {"created_at": row_time(row.created_at), "updated_at": row_time(row.updated_at)}
        if call.version >= (2, 23) and row.kind == "live-migration" and row.status in SHOWN_LIVE:
            body["links"] = self._links(call, f"servers/{row.server.id}/migrations", str(row.id))
        return body

    # Nova: services and hypervisors

    def _services(self, call: Call) -> Answer:
        unknown = {key for key, _ in call.query} - {"binary", "host"}
        if call.version >= (2, 75) and unknown:
            raise Refused(400, f"Additional properties are not allowed ('{min(unknown)}' was unexpected)")
        binary, wanted = call.one("binary"), call.one("host")
        found: list[Json] = []
        for number, (name, host_name, ident) in enumerate(self.cloud.control_services, 2):
            if binary in (None, name) and wanted in (None, host_name):
                found.append(
                    {
                        "binary": name,
                        "host": host_name,
                        "id": ident if call.version >= (2, 53) else number,
                        "zone": "internal",
                        "status": "enabled",
                        "state": "up",
                        "updated_at": row_time(self.cloud.now()),
                        "disabled_reason": None,
                    }
                )
                if call.version >= (2, 11):
                    found[-1]["forced_down"] = False
        if binary in (None, "nova-compute"):
            if wanted is None:
                hosts = list(self.cloud.hosts.values())
            else:
                hosts = [self.cloud.hosts[wanted]] if wanted in self.cloud.hosts else []
            for host in hosts:
                if host.in_down_cell:
                    if call.version >= (2, 69) and wanted is None:
                        found.append({"binary": "nova-compute", "host": host.name, "status": "UNKNOWN"})
                    elif call.version >= (2, 69):
                        found.append({"binary": "nova-compute", "host": host.name, "status": "UNKNOWN"})
                else:
                    found.append(self._service_body(call, host))
        return 200, {"services": found}

    def _service_body(self, call: Call, host: Host) -> Json:
        seen = self.cloud.last_seen(host)
        body: Json = {
            "binary": "nova-compute",
            "host": host.name,
            "id": host.service_id if call.version >= (2, 53) else host.seq + 3,
            "zone": host.zone,
            "status": "disabled" if host.disabled else "enabled",
            "state": "up" if self.cloud.is_up(host) else "down",
            "updated_at": row_time(max(seen, host.changed_at)),
            "disabled_reason": host.disabled_reason,
        }
        if call.version >= (2, 11):
            body["forced_down"] = host.forced_down
        return body

    def _service_put(self, call: Call, ident: str) -> Answer:
        asked = call.body if isinstance(call.body, dict) else {}
        if call.version < (2, 53):
            if ident not in ("enable", "disable", "disable-log-reason", "force-down"):
                raise Refused(404, "Unknown action")
            name = str(asked.get("host"))
            if ident == "force-down":
                host = self.cloud.set_service(name, call.request, forced_down=bool(asked.get("forced_down")))
            else:
                host = self.cloud.set_service(
                    name, call.request, disabled=ident != "enable", reason=asked.get("disabled_reason")
                )
            return 200, {
                "service": {
                    "host": name,
                    "binary": "nova-compute",
                    "status": "disabled" if host.disabled else "enabled",
                }
            }
        known = self.cloud.hosts_by_service.get(ident)
        if known is None:
            raise Refused(404, f"Service {ident} could not be found.")
        status, down, reason = asked.get("status"), asked.get("forced_down"), asked.get("disabled_reason")
        if status is None and down is None or status not in (None, "enabled", "disabled"):
            raise Refused(400, "Must specify 'status' or 'forced_down'")
        if reason is not None and status != "disabled":
            raise Refused(400, "Specifying 'disabled_reason' requires that 'status' is 'disabled'.")
        self.cloud.set_service(
            known.name,
            call.request,
            disabled=None if status is None else status == "disabled",
            reason=reason,
            forced_down=down,
        )
        return 200, {"service": self._service_body(call, known)}

    def _service_delete(self, call: Call, ident: str) -> Answer:
        known = self.cloud.hosts_by_service.get(ident)
        if known is None:
            raise Refused(404, f"Service {ident} could not be found.")
        self.cloud.delete_service(known.name, call.request)
        return 204, None

    def _hypervisor_body(self, call: Call, host: Host, node: Provider, *, detail: bool, with_servers: bool) -> Json:
        cloud = self.cloud
        body: Json = {
            "id": node.uuid if call.version >= (2, 53) else host.seq,
            "hypervisor_hostname": node.name,
            "state": "up" if cloud.is_up(host) else "down",
            "status": "disabled" if host.disabled else "enabled",
        }
        if detail:
            body |= {
                "hypervisor_type": "QEMU",
                "hypervisor_version": 8002002,
                "host_ip": "127.0.0.1",
                "service": {
                    "id": host.service_id if call.version >= (2, 53) else host.seq + 3,
                    "host": host.name,
                    "disabled_reason": host.disabled_reason,
                },
            }
            if call.version >= (2, 88):
                body["uptime"] = None
            else:
                held: list[Flavor] = list(node.allocations.values())
                memory, disk = sum(f.memory_mb for f in held) + 512, sum(f.disk_gb for f in held)
                body |= {
                    "vcpus": 64,
                    "memory_mb": 65536,
                    "local_gb": 2048,
                    "vcpus_used": sum(f.vcpus for f in held),
                    "memory_mb_used": memory,
                    "local_gb_used": disk,
                    "free_ram_mb": 65536 - memory,
                    "free_disk_gb": 2048 - disk,
                    "current_workload": 0,
                    "running_vms": len(host.servers),
                    "disk_available_least": 0,
                    "cpu_info": {
                        "arch": "x86_64",
                        "model": "Nehalem",
                        "vendor": "Intel",
                        "features": ["pge", "clflush"],
                        "topology": {"cores": 1, "threads": 1, "sockets": 4},
                    },
                }
        rows = [*host.servers.values(), *host.hidden.values()]
        if with_servers and (rows or call.version >= (2, 75)):
            body["servers"] = [{"name": f"instance-{row.seq:08x}", "uuid": row.id} for row in rows]
        return body

    def _hypervisors_detail(self, call: Call) -> Answer:
        return self._hypervisor_list(call, "/os-hypervisors/detail", detail=True)

    def _hypervisors(self, call: Call) -> Answer:
        return self._hypervisor_list(call, "/os-hypervisors", detail=False)

    def _hypervisor_list(self, call: Call, path: str, *, detail: bool) -> Answer:
        pattern = call.one("hypervisor_hostname_pattern") if call.version >= (2, 53) else None
        hosts = [host for host in self.cloud.hosts.values() if not host.in_down_cell]
        rows = [(host, node) for host in hosts for node in (host.provider, *host.nodes)]
        if pattern is not None:
            if call.version < (3, 0) and (call.one("limit") or call.one("marker")):
                raise Refused(
                    400,
                    "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
                )
            rows = [(host, node) for host, node in rows if pattern in node.name]
            if not rows:
                raise Refused(404, f"No hypervisor matching '{pattern}' could be found.")
        paged = call.version >= (2, 33) and pattern is None
        limit = self._limit(call) if paged else 10**9
        marker = call.one("marker") if paged else None
        if marker is not None:
            at = next((n for n, (_, node) in enumerate(rows) if node.uuid == marker), None)
            if at is None:
                raise Refused(400, f"marker [{marker}] not found")
            rows = rows[at + 1 :]
        page = rows[:limit]
        answer: Json = {
            "hypervisors": [
                self._hypervisor_body(call, host, node, detail=detail, with_servers=call.flag("with_servers"))
                for host, node in page
            ]
        }
        if page and len(page) == limit:
            answer |= self._next(call, "hypervisors", path, page[-1][1].uuid)
        return 200, answer

    def _hypervisor(self, call: Call, ident: str) -> Answer:
        host = self.cloud.hosts_by_provider.get(ident)
        if host is None:
            raise Refused(404, f"Hypervisor with ID '{ident}' could not be found.")
        if host.in_down_cell:
            raise Refused(500, "Unexpected API Error. The cell of this hypervisor cannot be reached.")
        node = next((node for node in host.nodes if node.uuid == ident), host.provider)
        body = self._hypervisor_body(call, host, node, detail=True, with_servers=call.flag("with_servers"))
        return 200, {"hypervisor": body}

    def _flavors(self, call: Call) -> Answer:
        return 200, {
            "flavors": [
                {
                    "id": f.id,
                    "name": f.name,
                    "ram": f.memory_mb,
                    "disk": f.disk_gb,
                    "swap": 0,
                    "vcpus": f.vcpus,
                    "OS-FLV-EXT-DATA:ephemeral": 0,
                    "OS-FLV-DISABLED:disabled": False,
                    "os-flavor-access:is_public": True,
                    "rxtx_factor": 1.0,
                    "links": self._links(call, "flavors", f.id),
                    "description": None,
                    "extra_specs": {},
                }
                for f in self.cloud.flavors.values()
            ]
        }


def _object(body: Any, name: str) -> Json:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, dict):
        raise Refused(400, f"Invalid input for field/attribute {name}.")
    return value


def _number(text: str) -> int:
    if not text.isdigit():
        raise Refused(404, f"Migration {text} could not be found.")
    return int(text)
