"""What the store costs: a batch of notifications committed, and the fleet read back.

    python bench/store.py [--connection URL] [--hosts 10000] [--servers 200000] [--remembered 0] [--json]

A batch is 100 notifications as a busy cloud brings them: 100 message ids, 30 servers, 10 migrations of 100 under way, 3
events. Every
batch is committed by one writer under the lease, after `seen`, as intake does it. The tables are filled to size first;
`--remembered` puts as many message ids there beforehand. Without a connection it uses a fresh SQLite file in the
directory for temporary files: name one on the disk that counts. Reload is measured in a process of its own, so that
the memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator

from maintd.clock import SystemClock
from maintd.domain.events import CloudEvent
from maintd.domain.model import Entity, Host, Kind, Knowledge, Migration, Phase, Progress, Server
from maintd.store import Commit, Fence, Store, open_store

BATCH = 100


def fleet(hosts: int, servers: int) -> Iterator[Entity]:
    projects = [uuid.uuid4().hex for _ in range(max(1, servers // 50))]
    yield Knowledge(1.0, 2.0)
    for number in range(hosts):
        yield Host(f"compute-{number:05d}.example.net", str(uuid.uuid4()), up=True, nodes=(str(uuid.uuid4()),))
    for number in range(servers):
        yield server(number, hosts, projects)


def server(number: int, hosts: int, projects: list[str]) -> Server:
    return Server(
        str(uuid.UUID(int=number + 1)),
        random.choice(projects),
        f"server-{number}",
        f"compute-{number % hosts:05d}.example.net",
        vm_state="active",
        updated_at=1.7e9 + number,
        versioned_at=1.7e9 + number + 0.5,
        seen_at=1.7e9 + number + 0.6,
    )


def fill(store: Store, fence: Fence, hosts: int, servers: int, remembered: int) -> None:
    chunk: list[Entity] = []
    for one in fleet(hosts, servers):
        chunk.append(one)
        if len(chunk) == 5000:
            store.commit(Commit(fence, saved=chunk))
            chunk = []
    store.commit(Commit(fence, saved=chunk))
    for _ in range(remembered // 10000):
        store.commit(Commit(fence, message_ids=[str(uuid.uuid4()) for _ in range(10000)], at=time.time()))


def batches(count: int, hosts: int, servers: int, fence: Fence) -> Iterator[Commit]:
    projects = [uuid.uuid4().hex for _ in range(100)]
    sequence = 0
    moves = [(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(100)]
    for number in range(count):
        saved: list[Entity] = [server(random.randrange(servers), hosts, projects) for _ in range(30)]
        moves = [*moves[-99:], (str(uuid.uuid4()), str(uuid.uuid4()))]
        saved += [
            Migration(
                *move,
                Kind.LIVE,
                Phase.RUNNING,
                "compute-00001.example.net",
                "compute-00002.example.net",
                "running",
                migration_id=number,
                begun_at=1.7e9,
                progress=Progress(2**30, 2**29, 2**28),
                moved_at=1.7e9,
            )
            for move in random.sample(moves, min(10, len(moves)))
        ]
        events = []
        for _ in range(3):
            sequence += 1
            data = {"host": "compute-00001.example.net", "migration_key": str(uuid.uuid4()), "kind": "live-migration"}
            subject = "compute-00001.example.net"
            name = "maintd.migration.started.v1"
            events.append(CloudEvent(str(uuid.uuid4()), name, "/maintd/main", subject, time.time(), sequence, data))
        ids = [str(uuid.uuid4()) for _ in range(BATCH)]
        yield Commit(fence, saved, (), events, ids, (), time.time())


def reload(connection: str) -> dict[str, float]:
    store = open_store(connection, SystemClock())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    held = list(store.load_fleet())
    took = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"reload_s": took, "entities": len(held), "reload_mib": (after - before) / 1024, "process_mib": after / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connection")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--servers", type=int, default=200_000)
    parser.add_argument("--remembered", type=int, default=0)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reload-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reload_only:
        print(json.dumps(reload(options.connection)))
        return
    with tempfile.TemporaryDirectory() as directory:
        connection = options.connection or f"sqlite:///{directory}/bench.sqlite"
        store = open_store(connection, SystemClock())
        store.upgrade()
        fence = store.leases.acquire("fleet", f"bench {uuid.uuid4()}", 3600.0, time.time())
        if fence is None:
            sys.exit("The database is in use: another holds the fleet lease.")
        begun = time.perf_counter()
        fill(store, fence, options.hosts, options.servers, options.remembered)
        result = {"fill_s": time.perf_counter() - begun}
        commits: list[float] = []
        looks: list[float] = []
        work = list(batches(options.batches, options.hosts, options.servers, fence))
        processor = time.process_time()
        for commit in work:
            begun = time.perf_counter()
            store.seen(commit.message_ids)
            middle = time.perf_counter()
            store.commit(commit)
            commits.append(time.perf_counter() - middle)
            looks.append(middle - begun)
        quantiles = statistics.quantiles(commits, n=100)
        result |= {
            "commit_ms_p50": quantiles[49] * 1e3,
            "commit_ms_p99": quantiles[98] * 1e3,
            "commit_ms_mean": statistics.mean(commits) * 1e3,
            "seen_ms_mean": statistics.mean(looks) * 1e3,
            "per_notification_us": (statistics.mean(commits) + statistics.mean(looks)) * 1e6 / BATCH,
            "processor_us_per_notification": (time.process_time() - processor) * 1e6 / BATCH / options.batches,
        }
        store.leases.release(fence)
        store.close()
        command = [sys.executable, __file__, "--reload-only", "--connection", connection]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)  # noqa: S603
        result |= json.loads(ran.stdout)
        if options.connection is None:
            result["file_mib"] = os.path.getsize(f"{directory}/bench.sqlite") / 2**20
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:32}{value:12.2f}")


if __name__ == "__main__":
    main()
