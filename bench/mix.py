"""Nova's notifications as a busy cloud sends them, and the fleet they are about, made once for all who measure.

The simulated Nova lives through random days: servers are built, moved in every way, resized, stopped and deleted. One
host in twenty is where operators work: it is closed and opened, and its compute may die. The messages are what the
simulated Nova says, given flavors and metadata of an ordinary size, so that they weigh 3.7 kB on average as real ones
do. The fleet as it was before the first message is written to a SQLite file through the store, as the daemon would
have.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maintd.clock import ManualClock, SystemClock
from maintd.domain.model import Entity, Host, Knowledge, Server
from maintd.simulator import Cloud
from maintd.simulator.bus import wire_body
from maintd.simulator.notifications import Json
from maintd.simulator.stories import random_day
from maintd.store import Commit, open_store

BYTES = 3700
"""The mean size of a message, measured on a real Nova."""

CLOSED_SHARE = 0.05
"""How many of the hosts operators work on."""

_EXTRA_SPECS = {
    "hw:cpu_policy": "shared", "hw:mem_page_size": "any", "hw:watchdog_action": "reset", "hw_rng:allowed": "True",
    "hw:numa_nodes": "1", "hw:boot_menu": "false", "hw:vif_multiqueue_enabled": "true", "trait:CUSTOM_GOLD": "required",
    "quota:disk_total_iops_sec": "2000", "quota:disk_total_bytes_sec": "209715200", "quota:cpu_shares": "2048",
    "quota:vif_outbound_average": "125000", "quota:vif_inbound_average": "125000", "resources:CUSTOM_LICENCE": "1",
    "aggregate_instance_extra_specs:ssd": "true",
}  # fmt: skip
_METADATA = {"owner": "team-storage", "environment": "production", "cost_centre": "4711", "backup": "daily@02:00"}


@dataclass(frozen=True, slots=True)
class Load:
    """A file of messages (routing key, tab, body) and the fleet they are about."""

    hosts: int
    servers: int
    count: int
    messages: Path
    database: Path

    def database_for(self, name: str) -> Path:
        """A copy of the fleet's database, to work on."""
        return Path(shutil.copy(self.database, self.database.with_name(f"{name}.sqlite")))

    def bodies(self) -> Iterator[tuple[str, str]]:
        """(routing key, wire body) of each message, in order."""
        with self.messages.open(encoding="utf-8") as file:
            for line in file:
                key, _, body = line.rstrip("\n").partition("\t")
                yield key, body


def prepare(folder: Path, *, hosts: int, servers: int, count: int, seed: int = 1) -> Load:
    """Make the fleet's database and the file of messages in a folder, unless they are there. Use `database_for`."""
    load = Load(hosts, servers, count, folder / "messages", folder / "fleet.sqlite")
    if load.messages.exists():
        return load
    folder.mkdir(parents=True, exist_ok=True)
    made: list[tuple[str, Json]] = []
    clock = ManualClock(float(int(time.time()) - 86400))
    cloud = Cloud(clock, lambda key, inner: made.append((key, inner)), seed=seed)
    cloud.fill(hosts, servers // hosts)
    keep(load.database, cloud)
    worked_on = tuple(random.Random(seed).sample(sorted(cloud.hosts), max(1, round(hosts * CLOSED_SHARE))))
    day = left = 0
    with load.messages.open("w", encoding="utf-8") as file:
        left = count
        while left > 0:
            random_day(cloud, seed=seed + day, seconds=600.0, acts=400, hosts=worked_on)
            day += 1
            for _ in range(60):
                cloud.advance(clock.now() + 10.0)
                for key, inner in made[:left]:
                    file.write(f"{key}\t{wire_body(_dressed(inner))}\n")
                left -= len(made)
                made.clear()
                if left <= 0:
                    break
    return load


def _dressed(inner: Json) -> Json:
    """The message with a flavor and metadata as operators and users set them."""
    data = inner["payload"].get("nova_object.data", {})
    flavor = data.get("flavor")
    if flavor and not flavor["nova_object.data"].get("extra_specs"):
        flavor["nova_object.data"]["extra_specs"] = _EXTRA_SPECS
    if data.get("metadata") == {}:
        data["metadata"] = _METADATA
    return inner


def _entities(cloud: Cloud) -> Iterator[Entity]:
    """What the daemon knows of a cloud that it has read over the API."""
    now = cloud.now()
    yield Knowledge(memory_since=now - 86400.0, baselined_at=now)
    for host in cloud.hosts.values():
        yield Host(host.name, host.service_id, up=True, seen_at=now, versioned_at=now, nodes=(host.provider.uuid,))
    for server in cloud.servers.values():
        yield Server(
            server.id,
            server.project_id,
            server.name,
            server.host,
            vm_state=server.state,
            updated_at=float(int(now - 3600.0)),
            seen_at=now,
        )


def keep(database: Path, cloud: Cloud) -> None:
    """Write a cloud to a database as a daemon knows it that has read it."""
    store = open_store(f"sqlite:///{database}", SystemClock(), tables="upgrade")
    fence = store.leases.acquire("fleet", uuid.uuid4().hex, 3600.0, time.time())
    assert fence is not None, "a fresh file has no other holder"
    chunk: list[Entity] = []
    for entity in _entities(cloud):
        chunk.append(entity)
        if len(chunk) == 5000:
            store.commit(Commit(fence, saved=chunk))
            chunk = []
    store.commit(Commit(fence, saved=chunk))
    store.leases.release(fence)
    store.close()


if __name__ == "__main__":
    began = time.perf_counter()
    made_of = prepare(Path(sys.argv[1]), hosts=int(sys.argv[2]), servers=int(sys.argv[3]), count=int(sys.argv[4]))
    sizes = [len(body) for _, body in made_of.bodies()]
    print(json.dumps({"took_s": time.perf_counter() - began, "mean_bytes": sum(sizes) / len(sizes)}))
