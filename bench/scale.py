"""What a notification costs in a large cloud, against a small one: normalise, reduce, apply, commit.

Two children, each with its fleet loaded from SQLite, take turns on messages about their own cloud; the mix of types is
the same. Batches have the size they have under load. No broker: what is measured is what could depend on the size.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from bench import mix
from bench.support import ROOT, Row, Setting, tell

BAR = 1.2
BATCH = 100
SMALL, LARGE = (100, 2_000), (10_000, 200_000)


def measure(setting: Setting) -> Row:
    """Rounds of messages in turn through a small and a large fleet."""
    large = (500, 10_000) if setting.quick else LARGE
    rounds, of_each = (3, 500) if setting.quick else (10, 1_000)
    loads = {}
    for name, (hosts, servers) in (("small", SMALL), ("large", large)):
        tell(f"making a cloud of {hosts} hosts and {servers} servers")
        # One round more than is counted: the first fills caches.
        loads[name] = mix.prepare(setting.folder / name, hosts=hosts, servers=servers, count=(rounds + 1) * of_each)
    children = {name: _Child(load) for name, load in loads.items()}
    try:
        rates: dict[str, list[dict[str, float]]] = {name: [] for name in children}
        for number in range(rounds + 1):
            for name in ("small", "large") if number % 2 == 0 else ("large", "small"):
                took = children[name].round(of_each)
                if number:
                    rates[name].append(took)
    finally:
        for child in children.values():
            child.close()
    wall = {name: statistics.median(one["wall_us"] for one in got) for name, got in rates.items()}
    work = {name: statistics.median(one["processor_us"] for one in got) for name, got in rates.items()}
    ratios = [b["wall_us"] / a["wall_us"] for a, b in zip(rates["small"], rates["large"], strict=True)]
    ratio = statistics.median(ratios)
    tell(f"processor time for each: small {work['small']:.0f} us, large {work['large']:.0f} us")
    return Row(
        f"a notification at {large[0]} hosts / {large[1]} servers against {SMALL[0]} / {SMALL[1]}",
        f"<= {BAR} x",
        f"{ratio:.2f} x ({wall['large']:.0f} us against {wall['small']:.0f} us)",
        ratio <= BAR,
        {"ratio": ratio, "ratios": ratios, "processor_ratio": work["large"] / work["small"], "rounds": rates},
    )


class _Child:
    """A process with a fleet of one size, told what to do line by line."""

    def __init__(self, load: mix.Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.scale", str(load.database_for("scale")), str(load.messages)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def round(self, count: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)


def main(database: str, messages: str) -> None:
    from maintd.clock import SystemClock
    from maintd.domain.fleet import Fleet
    from maintd.domain.model import Policy
    from maintd.ingest.admit import Admission
    from maintd.ingest.keeper import StoreKeeper
    from maintd.nova.notifications import Notification, read_wire
    from maintd.store import open_store

    clock = SystemClock()
    store = open_store(f"sqlite:///{database}", clock)
    fence = store.leases.acquire("fleet", "bench", 3600.0, clock.now())
    assert fence is not None, "nobody else uses the file"
    admission = Admission(
        Fleet(Policy(has_cloud=True), store.load_fleet()),
        clock=clock,
        ids=lambda: uuid.uuid4().hex,
        installation="bench",
        keeper=StoreKeeper(store, fence, clock, lambda took_s: None),
    )
    waiting = (line.partition("\t")[2] for line in Path(messages).open(encoding="utf-8"))
    _say({})
    for line in sys.stdin:
        now = clock.now()
        batches: list[list[Notification]] = []
        while sum(map(len, batches)) < int(line):
            batches.append([read_wire(next(waiting), received_at=now) for _ in range(BATCH)])
        gc.collect()
        at, processor_at = time.perf_counter(), time.process_time()
        for batch in batches:
            admission.admit_notifications(batch)
        took, worked = time.perf_counter() - at, time.process_time() - processor_at
        _say({"wall_us": took / int(line) * 1e6, "processor_us": worked / int(line) * 1e6})
    store.close()


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
