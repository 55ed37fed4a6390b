"""Ten thousand deliveries to a thousand endpoints, a tenth of them bad; how much that slows the other nine hundred.

Endpoints are subscriptions in a store, with the guard that theirs have; ten events of ten hosts are committed, which
each of them wants. The bad are a quarter each: nobody listens; the request is taken and never answered; the answer
drips and never ends; it comes after three seconds. Measured is, from the commit on, when each event arrived at each of
the nine hundred: with the bad ones, and, in turn and in the same run, without. The receivers are another process.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

from bench.support import ROOT, Row, Setting, quantile, spread, tell
from maintd import log
from maintd.clock import SystemClock
from maintd.delivery.dispatcher import Dispatcher
from maintd.delivery.egress import Egress
from maintd.delivery.subscribers import Care
from maintd.domain.events import CloudEvent
from maintd.store import Commit, Store, Subscription, Vault, open_store
from maintd.store.subscriptions import ACTIVE
from maintd.store.vault import new_key

EVENTS = 10
BAR = 1.2
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Heard:
    """When the good ones heard, in seconds after the commit, sorted; and what became of all deliveries by then."""

    after_s: list[float]
    attempts: int
    states: dict[str, int]

    @property
    def whole_s(self) -> float:
        return self.after_s[-1]


def measure(setting: Setting) -> Row:
    """With and without the bad ones, who goes first by turns; compared are the medians."""
    log.configure("error")
    good, bad, times = (90, 12, 1) if setting.quick else (900, 100, 5)
    folder = setting.folder / "deliveries"
    folder.mkdir()
    vault = Vault([new_key()])
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead_port = nobody.getsockname()[1]
    alone, mixed = folder / "alone.sqlite", folder / "mixed.sqlite"
    tell(f"{good} good and {bad} bad endpoints")
    _subscribe(alone, vault, [f"good/{n}" for n in range(good)])
    shutil.copy(alone, mixed)
    kinds = ("dead", "hanging", "dripping", "slow")
    _subscribe(mixed, vault, [f"{kinds[n % len(kinds)]}/{n}" for n in range(bad)])
    found: dict[str, list[Heard]] = {"alone": [], "mixed": []}
    for turn in range(times):
        both = (("alone", alone), ("mixed", mixed))
        for name, prepared in reversed(both) if turn % 2 else both:
            heard = _run(folder / f"{name}-{turn}.sqlite", prepared, vault, good, dead_port)
            found[name].append(heard)
            tell(
                f"{name}: {len(heard.after_s)} arrived within {heard.whole_s:.2f} s, p50 "
                f"{quantile(heard.after_s, 0.5):.2f} s, p99 {quantile(heard.after_s, 0.99):.2f} s; "
                f"{heard.attempts} attempts on record, {heard.states}"
            )
    ratios = {
        name: statistics.median(map(take, found["mixed"])) / statistics.median(map(take, found["alone"]))
        for name, take in (
            ("whole", lambda heard: heard.whole_s),
            ("p50", lambda heard: quantile(heard.after_s, 0.5)),
            ("p99", lambda heard: quantile(heard.after_s, 0.99)),
        )
    }
    return Row(
        f"{(good + bad) * EVENTS} deliveries to {good + bad} endpoints, {bad} dead, slow or hanging: the others' time",
        f"<= {BAR} x without the bad",
        f"{ratios['whole']:.2f} x (p50 {ratios['p50']:.2f} x, p99 {ratios['p99']:.2f} x)",
        ratios["whole"] <= BAR,
        {
            "ratios": ratios,
            **{
                name: {
                    "whole_s": spread([heard.whole_s for heard in runs]),
                    "p50_s": spread([quantile(heard.after_s, 0.5) for heard in runs]),
                    "p99_s": spread([quantile(heard.after_s, 0.99) for heard in runs]),
                    "deliveries_per_s": good * EVENTS / statistics.median(heard.whole_s for heard in runs),
                    "attempts": [heard.attempts for heard in runs],
                }
                for name, runs in found.items()
            },
        },
    )


def _store(path: Path, vault: Vault) -> Store:
    return open_store(f"sqlite:///{path}", SystemClock(), tables="upgrade", vault=lambda: vault)


def _subscribe(path: Path, vault: Vault, paths: list[str]) -> None:
    """Verified subscriptions to everything; where their receivers are is known when these run."""
    store = _store(path, vault)
    for name in paths:
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        store.subscriptions.add(
            Subscription(uuid.uuid4().hex, None, name, f"http://127.0.0.1:1/{name}", ("*",), state=ACTIVE,
                         secrets=(secret,))
        )  # fmt: skip
    store.close()


def _run(path: Path, prepared: Path, vault: Vault, good: int, dead_port: int) -> Heard:
    shutil.copy(prepared, path)
    store = _store(path, vault)
    times = path.with_suffix(".arrived")
    receivers = subprocess.Popen(
        [sys.executable, "-m", "bench.manners", str(good * EVENTS), str(times)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert receivers.stdout is not None
        port = int(receivers.stdout.readline())
        _point(store, port, dead_port)
        egress = Egress((IPv4Network("127.0.0.0/8"),), allow_http=True, allowed_ports=(port, dead_port))
        dispatcher = Dispatcher(
            store.deliveries, [], SystemClock(), subscriptions=store.subscriptions, care=Care(egress=egress)
        )
        dispatcher.start()
        try:
            began = _commit(store)
            dispatcher.wake()
            _wait_all(receivers)
        finally:
            dispatcher.stop(1.0)
        arrived = [float(line.split()[1]) - began for line in times.read_text().splitlines()]
        states: dict[str, int] = {}
        for (_, state), n in store.deliveries.counts().items():
            states[state] = states.get(state, 0) + n
        return Heard(sorted(arrived), sum(_attempts(store)), states)
    finally:
        receivers.kill()
        receivers.wait()
        store.close()


def _point(store: Store, port: int, dead_port: int) -> None:
    """Give every subscription the address of its receiver."""

    def at(one: Subscription) -> Subscription:
        url = f"http://127.0.0.1:{dead_port if one.name.startswith('dead') else port}/{one.name}"
        return replace(one, url=url)

    for one in store.subscriptions.all():
        store.subscriptions.change(one.id, at)


def _commit(store: Store) -> float:
    """Ten events in the log; when they were there."""
    clock = SystemClock()
    fence = store.leases.acquire("fleet", "bench", 600.0, clock.now())
    assert fence is not None
    data = {"because": {"origin": "clock"}, "host": "cmp", "reason": "x" * 1000}
    said = [
        CloudEvent(uuid.uuid4().hex, "maintd.service.disabled.v1", "/maintd/bench", f"cmp-{n}", clock.now(), n, data)
        for n in range(1, EVENTS + 1)
    ]
    store.commit(Commit(fence, events=said))
    return clock.monotonic()


def _wait_all(receivers: subprocess.Popen[str]) -> None:
    """Until the good ones have everything; a run that takes for ever is ended."""
    timer = threading.Timer(TIMEOUT_S, receivers.kill)
    timer.start()
    try:
        assert receivers.stdout is not None
        if receivers.stdout.readline().strip() != "all":
            raise TimeoutError(f"after {TIMEOUT_S:g} s not everything had arrived")
    finally:
        timer.cancel()


def _attempts(store: Store) -> list[int]:
    found: list[int] = []
    after = 0
    while page := store.deliveries.list(after=after, limit=1000):
        found += [delivery.attempts for delivery in page]
        after = page[-1].id
    return found
