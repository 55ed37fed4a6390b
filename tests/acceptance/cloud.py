"""The operator's hands and eyes: Nova and Placement through openstacksdk, and nothing of maintd.

Questions are plain calls with a version said out loud, because what maintd is judged by is the API's own answer. Where
the cloud says no, `CloudSays` carries its words. One `Cloud` for each thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import openstack
import openstack.exceptions
from keystoneauth1 import exceptions as keystone

T = TypeVar("T")

COMPUTE, PLACEMENT = "compute", "placement"
FINAL = frozenset({"completed", "confirmed", "reverted", "cancelled", "failed", "error"})
"""Statuses in which a migration holds neither of its hosts. An evacuation that is `done` still holds its source."""


class Sentence(Exception):
    """Something is missing or not as it must be before the story can be told; the message says what to do."""


class CloudSays(Exception):
    """An answer that is not a success."""

    def __init__(self, request: str, status: int, text: str) -> None:
        super().__init__(f"{request} -> {status} {' '.join(text.split())[:300]}")
        self.status = status


class Cloud:
    """A cloud by its name in clouds.yaml. Raises Sentence when it cannot be used at all."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.connection = openstack.connect(cloud=name)
            self._proxies = {COMPUTE: self.connection.compute, PLACEMENT: self.connection.placement}
            newest = {service: proxy.get_endpoint_data() for service, proxy in self._proxies.items()}
        except (openstack.exceptions.SDKException, keystone.ClientException) as wrong:
            raise Sentence(
                f"The cloud {name!r} cannot be used: {' '.join(str(wrong).split())[:300]} "
                "(clouds.yaml is looked for where OS_CLIENT_CONFIG_FILE says, else here, else in ~/.config/openstack)"
            ) from wrong
        self._newest: dict[str, tuple[float, ...]] = {
            service: tuple(data.max_microversion) if data is not None and data.max_microversion else (0, 0)
            for service, data in newest.items()
        }

    # -- asking -------------------------------------------------------------------------------------------------------

    def call(self, service: str, method: str, path: str, version: str, body: Any = None) -> tuple[Any, str | None]:
        """The parsed answer and Nova's request id. `version` is a microversion, or the newest there is below it."""
        wanted = min(tuple(int(n) for n in version.split(".")), self._newest[service])
        # A server may close a connection just when it is used again. Only what makes a server is not asked twice.
        again = 0 if (method, path) == ("POST", "/servers") else 3
        try:
            response = self._proxies[service].request(
                path,
                method,
                json=body,
                microversion=".".join(map(str, wanted)),
                raise_exc=False,
                connect_retries=again,
            )
        except keystone.ClientException as wrong:
            raise CloudSays(f"{method} {path}", 0, str(wrong)) from wrong
        if response.status_code >= 400:
            raise CloudSays(f"{method} {path}", response.status_code, response.text)
        found = response.json() if response.content else {}
        return found, response.headers.get("x-openstack-request-id")

    def get(self, path: str, version: str = "2.69", service: str = COMPUTE) -> Any:
        return self.call(service, "GET", path, version)[0]

    # -- hosts --------------------------------------------------------------------------------------------------------

    def services(self) -> list[dict[str, Any]]:
        return list(self.get("/os-services?binary=nova-compute")["services"])

    def service(self, host: str) -> dict[str, Any]:
        for service in self.services():
            if service["host"] == host:
                return service
        raise Sentence(f"The cloud has no nova-compute service on host {host!r}.")

    def nodes(self, host: str) -> list[str]:
        """Uuids of the compute nodes of a host; each is the root of a provider tree."""
        rows = self.get("/os-hypervisors/detail", "2.75")["hypervisors"]
        return [row["id"] for row in rows if row["service"]["host"] == host]

    def providers(self, node: str) -> list[str]:
        path = f"/resource_providers?in_tree={node}"
        return [row["uuid"] for row in self.get(path, "1.14", PLACEMENT)["resource_providers"]]

    def set_service(self, host: str, **what: Any) -> str | None:
        """Change a compute service as `openstack compute service set` does; the request's id is returned."""
        return self.call(COMPUTE, "PUT", f"/os-services/{self.service(host)['id']}", "2.69", what)[1]

    def holders(self, nodes: list[str]) -> frozenset[str]:
        """Who holds something of Placement's on any provider of these nodes."""
        held: set[str] = set()
        for node in nodes:
            for provider in self.providers(node):
                held |= self.get(f"/resource_providers/{provider}/allocations", "1.28", PLACEMENT)["allocations"].keys()
        return frozenset(held)

    # -- servers ------------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        host: str,
        image: str,
        flavor: str,
        network: str,
        group: str | None = None,
        within: Any = None,
    ) -> str:
        """Ask for a server on a host, in a server group if one is named; its id. `within`: a connection whose project
        it is to be, of somebody who may choose the host."""
        if self._newest[COMPUTE] < (2, 74):
            raise Sentence("This Nova cannot be asked for a server on a given host: it needs microversion 2.74.")
        networks = network if network in ("none", "auto") else [{"uuid": network}]
        body = {"name": name, "imageRef": image, "flavorRef": flavor, "networks": networks, "host": host}
        asked: dict[str, Any] = {"server": body}
        if group is not None:
            asked["os:scheduler_hints"] = {"group": group}
        if within is not None:
            answer = within.compute.post("/servers", json=asked, microversion="2.74")
            if answer.status_code >= 400:
                raise CloudSays("POST /servers", answer.status_code, answer.text)
            return str(answer.json()["server"]["id"])
        return str(self.call(COMPUTE, "POST", "/servers", "2.74", asked)[0]["server"]["id"])

    def affinity(self, name: str) -> str:
        """Make a server group whose members stay together; its id."""
        body = {"server_group": {"name": name, "policy": "affinity"}}
        return str(self.call(COMPUTE, "POST", "/os-server-groups", "2.69", body)[0]["server_group"]["id"])

    def drop_group(self, group: str) -> None:
        self.call(COMPUTE, "DELETE", f"/os-server-groups/{group}", "2.69")

    def server(self, server_id: str) -> dict[str, Any] | None:
        """A server as Nova shows it; None when there is none."""
        try:
            return dict(self.get(f"/servers/{server_id}")["server"])
        except CloudSays as no:
            if no.status == 404:
                return None
            raise

    def act(self, server_id: str, action: str, detail: Any = None, version: str = "2.67") -> str | None:
        return self.call(COMPUTE, "POST", f"/servers/{server_id}/action", version, {action: detail})[1]

    def live_migrate(self, server_id: str, to: str | None = None) -> str | None:
        """To this host if the scheduler agrees, else let Nova choose."""
        return self.act(server_id, "os-migrateLive", {"host": to, "block_migration": "auto"})

    def force_live_migrate(self, server_id: str, to: str) -> str | None:
        """To this host, closed or not, without asking the scheduler, as Nova up to Stein did it."""
        return self.act(server_id, "os-migrateLive", {"host": to, "block_migration": "auto", "force": True}, "2.67")

    def cold_migrate(self, server_id: str, to: str | None = None) -> str | None:
        return self.act(server_id, "migrate", {"host": to} if to else None, "2.56")

    def evacuate(self, server_id: str, to: str | None = None) -> str | None:
        return self.act(server_id, "evacuate", {"host": to} if to else {}, "2.68" if to else "2.67")

    def unshelve(self, server_id: str, to: str | None = None) -> str | None:
        return self.act(server_id, "unshelve", {"host": to} if to else None, "2.91" if to else "2.67")

    def migration(self, server_id: str) -> dict[str, Any] | None:
        """The live migration of a server that is queued, preparing or running; None when there is none."""
        under_way = self.get(f"/servers/{server_id}/migrations", "2.65")["migrations"]
        return dict(under_way[0]) if under_way else None

    def abort(self, server_id: str, number: int) -> str | None:
        return self.call(COMPUTE, "DELETE", f"/servers/{server_id}/migrations/{number}", "2.65")[1]

    def force_complete(self, server_id: str, number: int) -> str | None:
        path = f"/servers/{server_id}/migrations/{number}/action"
        return self.call(COMPUTE, "POST", path, "2.65", {"force_complete": None})[1]

    def rows(self, server_id: str) -> list[dict[str, Any]]:
        """Every migration of a server, oldest first."""
        rows = self.get(f"/os-migrations?instance_uuid={server_id}", "2.80")["migrations"]
        return sorted(rows, key=lambda row: int(row["id"]))

    def drop_allocation(self, consumer: str) -> None:
        """Take from Placement what Nova has leaked."""
        self.call(PLACEMENT, "DELETE", f"/allocations/{consumer}", "1.28")

    def delete_softly(self, server_id: str) -> str | None:
        """What `openstack server delete` does; it is for good where Nova keeps no soft-deleted servers."""
        return self.call(COMPUTE, "DELETE", f"/servers/{server_id}", "2.69")[1]

    def delete(self, server_id: str, timeout_s: float = 120.0) -> bool:
        """Delete a server for good; whether it is gone."""

        def gone() -> bool:
            server = self.server(server_id)
            if server is not None and server["status"] == "SOFT_DELETED":
                self.act(server_id, "forceDelete")
            return server is None

        try:
            self.call(COMPUTE, "DELETE", f"/servers/{server_id}", "2.69")
        except CloudSays as no:
            if no.status == 404:
                return True
        return bool(until(gone, timeout_s, every_s=0.5))

    # -- what to make servers of --------------------------------------------------------------------------------------

    def image(self, wanted: str | None) -> str:
        """An image by name or id, else the smallest active one."""
        images = [i for i in self.connection.image.images() if i.status == "active"]
        if wanted is not None:
            images = [i for i in images if wanted in (i.id, i.name)]
        if not images:
            raise Sentence(f"There is no active image {wanted or ''!r}; say which with IMAGE=NAME.")
        return str(min(images, key=lambda i: i.size or 0).id)

    def flavor(self, wanted: str | None) -> str:
        """A flavor by name or id, else the smallest one."""
        flavors = list(self.connection.compute.flavors())
        if wanted is not None:
            flavors = [f for f in flavors if wanted in (f.id, f.name)]
        if not flavors:
            raise Sentence(f"There is no flavor {wanted or ''!r}; say which with FLAVOR=NAME.")
        return str(min(flavors, key=lambda f: (f.ram, f.vcpus, f.disk)).id)

    def other_flavor(self, flavor: str) -> str:
        """The smallest flavor but this one, to resize to."""
        flavors = [f for f in self.connection.compute.flavors() if f.id != flavor and f.disk >= self._disk(flavor)]
        if not flavors:
            raise Sentence("This story resizes, and there is no second flavor with as large a disk.")
        return str(min(flavors, key=lambda f: (f.ram, f.vcpus, f.disk)).id)

    def _disk(self, flavor: str) -> int:
        return int(next(f.disk for f in self.connection.compute.flavors() if f.id == flavor))

    def network(self, wanted: str) -> str:
        """`none`, `auto`, or the id of a network by name or id."""
        if wanted in ("none", "auto"):
            return wanted
        found = self.connection.network.find_network(wanted)
        if found is None:
            raise Sentence(f"There is no network {wanted!r}; NETWORK is none, auto, or a network's name.")
        return str(found.id)


def until(true: Callable[[], T], timeout_s: float, every_s: float = 0.3) -> T | None:
    """What `true()` returned as soon as that is something; None when it never was in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > deadline:
            return None
        time.sleep(every_s)
