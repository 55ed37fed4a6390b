"""Placement's REST API on the simulated cloud: provider trees, allocations by provider or consumer, traits."""

from __future__ import annotations

from collections.abc import Iterable

from maintd.simulator.calls import IDENT, Answer, Call, dispatch, routes
from maintd.simulator.model import Cloud, Host, Provider, Refused
from maintd.simulator.notifications import Json


class Placement:
    """Answers calls under `/placement`; the cloud's lock is held meanwhile."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._routes = routes(
            ("GET", "/resource_providers", self._providers),
            ("GET", f"/resource_providers/{IDENT}", self._provider_show),
            ("GET", f"/resource_providers/{IDENT}/allocations", self._allocations),
            ("GET", f"/resource_providers/{IDENT}/traits", self._traits),
            ("GET", f"/allocations/{IDENT}", self._consumer),
        )

    def answer(self, call: Call, path: str) -> Answer:
        """The answer to one call. Raises `Refused` when the API would say no."""
        return dispatch(self._routes, call, path)

    def _tree(self, host: Host, within: Provider) -> list[Provider]:
        """The tree of a provider. Only the first node of a service can have children here."""
        return [within] if within in host.nodes else [host.provider, *host.children]

    def _all(self, host: Host) -> list[Provider]:
        return [host.provider, *host.children, *host.nodes]

    def _provider_body(self, call: Call, provider: Provider) -> Json:
        base = f"/resource_providers/{provider.uuid}"
        kinds = ["inventories", "usages"]
        for since, kind in (((1, 1), "aggregates"), ((1, 6), "traits"), ((1, 11), "allocations")):
            if call.version >= since:
                kinds.append(kind)
        body: Json = {
            "uuid": provider.uuid,
            "name": provider.name,
            "generation": provider.generation,
            "links": [{"rel": "self", "href": base}, *({"rel": kind, "href": f"{base}/{kind}"} for kind in kinds)],
        }
        if call.version >= (1, 14):
            body |= {"parent_provider_uuid": provider.parent, "root_provider_uuid": provider.root}
        return body

    def _providers(self, call: Call) -> Answer:
        allowed = {"name", "uuid"} | ({"in_tree"} if call.version >= (1, 14) else set())
        unknown = {key for key, _ in call.query} - allowed - {"member_of", "resources", "required"}
        if unknown:
            raise Refused(
                400,
                "Invalid query string parameters: Additional properties are not allowed "
                f"('{min(unknown)}' was unexpected)",
            )
        name, ident, tree = call.one("name"), call.one("uuid"), call.one("in_tree")
        rows: Iterable[Provider]
        if tree is not None:
            found = self._find_provider(tree)
            rows = [] if found is None else self._tree(*found)
        elif ident is not None:
            found = self._find_provider(ident)
            rows = [] if found is None else [found[1]]
        else:
            rows = (provider for host in self.cloud.hosts.values() for provider in self._all(host))
        return 200, {
            "resource_providers": [
                self._provider_body(call, row) for row in rows if name in (None, row.name) and ident in (None, row.uuid)
            ]
        }

    def _find_provider(self, ident: str) -> tuple[Host, Provider] | None:
        host = self.cloud.hosts_by_provider.get(ident)
        if host is not None:
            return host, next((node for node in host.nodes if node.uuid == ident), host.provider)
        for host in self.cloud.hosts.values():
            for child in host.children:
                if child.uuid == ident:
                    return host, child
        return None

    def _provider(self, ident: str) -> Provider:
        found = self._find_provider(ident)
        if found is None:
            raise Refused(404, f"Resource provider '{ident}' not found: No resource provider with uuid {ident} found")
        return found[1]

    def _provider_show(self, call: Call, ident: str) -> Answer:
        return 200, self._provider_body(call, self._provider(ident))

    def _allocations(self, call: Call, ident: str) -> Answer:
        provider = self._provider(ident)
        found: Json = {}
        for consumer, flavor in provider.allocations.items():
            found[consumer] = {
                "resources": {"DISK_GB": flavor.disk_gb, "MEMORY_MB": flavor.memory_mb, "VCPU": flavor.vcpus}
            }
            if call.version >= (1, 28):
                found[consumer]["consumer_generation"] = 1
        return 200, {"allocations": found, "resource_provider_generation": provider.generation}

    def _traits(self, call: Call, ident: str) -> Answer:
        if call.version < (1, 6):
            raise Refused(404, "The resource could not be found.")
        provider = self._provider(ident)
        return 200, {"traits": sorted(provider.traits), "resource_provider_generation": provider.generation}

    def _consumer(self, call: Call, ident: str) -> Answer:
        found = {
            provider.uuid: {
                "generation": provider.generation,
                "resources": {"DISK_GB": flavor.disk_gb, "MEMORY_MB": flavor.memory_mb, "VCPU": flavor.vcpus},
            }
            for host in self.cloud.hosts.values()
            for provider in self._all(host)
            if (flavor := provider.allocations.get(ident)) is not None
        }
        return 200, {"allocations": found}
