"""From the bus to the webhook, while 500 notifications a second flow.

A real daemon, a real broker, a real receiver, a publisher in a process of its own. Every event that a notification has
caused names it (`because.message_id`), so each of them is a sample: from the moment its message was handed to the
broker until its webhook was read. Among them are *probes*, ten flips of a service each second on hosts that the rest is
not about; the others are what the mix itself causes.

The end of a migration that no step told, and that an instance.update only lets guess, waits 30 s for a better word by
design: how late those are is said beside it, and they are no samples.
"""

from __future__ import annotations

import statistics
import uuid
from pathlib import Path

from bench import mix, support
from bench.support import Daemon, Receiver, Row, Setting, quantile, sections, tell
from maintd.clock import ManualClock, SystemClock
from maintd.simulator import Cloud
from maintd.simulator.bus import wire_body
from maintd.simulator.notifications import Json

RATE = 500
BAR_P50_S, BAR_P99_S = 0.050, 0.250
PROBE_EVERY = 50
"""One message in so many is a flip of a service."""


def measure(setting: Setting) -> Row:
    """Publish at a steady rate for half a minute and look how old the events are when they arrive."""
    seconds = 3 if setting.quick else 30
    folder = setting.folder / "latency"
    load = mix.prepare(folder, hosts=200, servers=4_000, count=RATE * seconds)
    _mix_probes_in(load.messages)
    receiver = Receiver()
    with support.broker() as url:
        daemon = Daemon(folder, sections(load.database_for("latency"), receiver.url, transport_url=url))
        try:
            daemon.wait_said("bus_state", state="connected")
            before_s = daemon.processor_s()
            tell(f"{RATE}/s for {seconds} s")
            published = folder / "published"
            sent = support.run("bench.publisher", url, load.messages, RATE, published, timeout_s=seconds * 5 + 60)
            support.wait_quiet(receiver)
            busy = (daemon.processor_s() - before_s) / (sent["sent"] / RATE)
        finally:
            daemon.stop()
            receiver.close()
    out_at = {name: float(at) for name, _, at in (line.partition(" ") for line in published.read_text().splitlines())}
    delays: dict[str, list[float]] = {"all": [], "probes": [], "guessed": []}
    for at, event in receiver.events():
        because = event["data"]["because"]
        began_at = out_at.get(because["message_id"] or "")
        if began_at is not None and _guessed(event):
            delays["guessed"].append(at - began_at)
        elif began_at is not None:
            delays["all"].append(at - began_at)
            if event["type"].startswith("maintd.service."):
                delays["probes"].append(at - began_at)
    p50, p99 = quantile(delays["all"], 0.50), quantile(delays["all"], 0.99)
    tell(f"{len(delays['all'])} events; published {sent['rate']:.0f}/s; the daemon used {busy:.0%} of a processor")
    return Row(
        f"bus to webhook while {RATE} notifications/s flow, p50 / p99",
        f"<= {BAR_P50_S * 1e3:.0f} / {BAR_P99_S * 1e3:.0f} ms",
        f"{p50 * 1e3:.0f} / {p99 * 1e3:.0f} ms (greatest {max(delays['all']) * 1e3:.0f} ms)",
        p50 <= BAR_P50_S and p99 <= BAR_P99_S,
        {
            "p50_s": p50,
            "p99_s": p99,
            "greatest_s": max(delays["all"]),
            "mean_s": statistics.mean(delays["all"]),
            "probes": {"p50_s": quantile(delays["probes"], 0.5), "p99_s": quantile(delays["probes"], 0.99)},
            "events": len(delays["all"]),
            "guessed": {"events": len(delays["guessed"]), "greatest_s": max(delays["guessed"], default=0.0)},
            "published_per_s": sent["rate"],
            "processor_share": busy,
        },
    )


def _guessed(event: Json) -> bool:
    """Whether it tells the end of a migration that only an update let guess (and, with it, that there was one)."""
    moved = str(event["type"]).startswith("maintd.migration.")
    return moved and event["data"]["because"]["event_type"] == "instance.update"


def _mix_probes_in(messages: Path) -> None:
    """Replace one message in so many by a flip of one of ten services that nothing else is about."""
    flips: list[tuple[str, Json]] = []
    cloud = Cloud(ManualClock(SystemClock().now() - 7200.0), lambda key, inner: flips.append((key, inner)), seed=5)
    for number in range(10):
        cloud.add_host(f"probe-{number:02d}")
    lines = messages.read_text(encoding="utf-8").splitlines()
    for number, place in enumerate(range(0, len(lines), PROBE_EVERY)):
        host = f"probe-{number % 10:02d}"
        if number // 10 % 2 == 0:
            cloud.disable(host, "spare")
        else:
            cloud.enable(host)
        key, inner = flips[-1]
        inner["message_id"] = str(uuid.uuid4())
        lines[place] = f"{key}\t{wire_body(inner)}"
    messages.write_text("\n".join(lines) + "\n", encoding="utf-8")
