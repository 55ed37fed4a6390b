"""Holds what maintd said against what the cloud says. Pure: facts in, faults out, each a sentence; no fault is no word.

The cloud's side is Nova's migration rows after the fact, and the samples that a `Watcher` took meanwhile. Where the two
sides cannot both be true, maintd is at fault. Where the cloud itself failed (a migration that Nova gave up), the story
says so and expects maintd to tell the same.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema

from tests.acceptance.receiver import Heard
from tests.acceptance.watcher import Sample, Watcher

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"

PASSING = ("service.lost", "service.recovered")
"""Host events that the cloud's own load may cause, without anybody being at fault; they come in pairs."""

CHAINS: dict[tuple[str, str], tuple[str, ...]] = {
    ("live-migration", "completed"): ("started", "completed"),
    ("live-migration", "cancelled"): ("started", "cancelled"),
    ("live-migration", "failed"): ("started", "failed"),
    ("live-migration", "error"): ("started", "failed"),
    ("migration", "finished"): ("started", "awaiting_confirmation"),
    ("migration", "confirmed"): ("started", "awaiting_confirmation", "completed"),
    ("migration", "reverted"): ("started", "awaiting_confirmation", "cancelled"),
    ("migration", "error"): ("started", "failed"),
    ("evacuation", "done"): ("started", "completed"),
    ("evacuation", "completed"): ("started", "completed"),
    ("evacuation", "failed"): ("started", "failed"),
    ("evacuation", "error"): ("started", "failed"),
}
CHAINS |= {("resize", status): chain for (kind, status), chain in CHAINS.items() if kind == "migration"}
"""What has to be said of a migration, by Nova's type and last status of it."""

STATUSES: dict[str, frozenset[str]] = {
    "completed": frozenset({"completed", "confirmed", "done"}),
    "cancelled": frozenset({"cancelled", "reverted"}),
    "failed": frozenset({"failed", "error"}),
    "awaiting_confirmation": frozenset({"finished"}),
}
"""Nova's words that each event about the end of a migration may carry."""


@dataclass(slots=True)
class Facts:
    """One story, once: what was done, what Nova says of it, what maintd said. Times: seconds since the epoch."""

    host: str
    settle_s: float
    reason: str
    servers: dict[str, str]
    """By id, the names."""
    watcher: Watcher
    host_events: tuple[str, ...]
    """What has to be said of the host itself, in this order."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    where: dict[str, str | None] = field(default_factory=dict)
    """Where each server is in the end."""
    heard: Sequence[Heard] = ()
    requests: dict[str, str | None] = field(default_factory=dict)
    """Nova's request ids of what was done by hand, by the event that follows from it."""
    opened_at: float | None = None
    residue_accepted: bool = False
    """The operator accepts what evacuations leave: Nova goes on showing that, and it is not held against maintd."""
    loose: frozenset[str] = frozenset()
    """Host events whose place in the order is not fixed."""
    held_until: float | None = None
    """Until then something was here that no API shows: until an operator looked, or nova-compute came back."""
    warnings: frozenset[tuple[str, str]] = frozenset()
    """What each proof has to warn of, by kind and server, neither more nor less."""
    leaked: frozenset[str] = frozenset()
    """Who goes on holding something in Placement because Nova forgot to free it."""
    refilled_at: list[float] = field(default_factory=list)
    """When a server was sent back to the host after each time that it was emptied."""
    gaps: tuple[str, ...] = ()
    """What has to be said of the buses, in this order."""
    counted: tuple[int, int] | None = None
    """Fewest and most servers that may have been there when the host was closed, where that was a race."""

    @property
    def emptied(self) -> Heard | None:
        """The first proof."""
        return next(iter(self.emptieds), None)

    @property
    def emptieds(self) -> list[Heard]:
        return [h for h in self.heard if h.type == "host.emptied" and h.event["subject"] == self.host]


def instant(text: str) -> float:
    """RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def sequence(heard: Heard) -> int:
    return int(heard.event["sequence"])


def told(facts: Facts) -> list[str]:
    """Everything that can be held against one story's telling."""
    ours = [h for h in facts.heard if h.event.get("subject") == facts.host or h.data.get("server_id") in facts.servers]
    gaps = [h for h in facts.heard if h.type.startswith("bus.")] if facts.gaps else []
    strange = [h for h in facts.heard if h.type.startswith(("bus.", "subscription.", "services.")) and h not in gaps]
    faults = [f"{h.type} was published: {json.dumps(h.data)}" for h in strange]
    if tuple(h.type for h in gaps) != facts.gaps:
        faults.append(f"of the buses was said {[h.type for h in gaps]}, not {list(facts.gaps)}")
    faults += host_told(facts, [h for h in ours if not h.type.startswith("migration.")])
    faults += migrations_told(facts, [h for h in ours if h.type.startswith("migration.")])
    faults += proof(facts)
    faults += not_early(facts)
    return faults


# -- every event ------------------------------------------------------------------------------------------------------


def envelopes(heard: Iterable[Heard], installation: str) -> list[str]:
    """Each event against its schema and the rules that hold for all; then all of them together."""
    heard = list(heard)
    faults: list[str] = []
    for one in heard:
        event = one.event
        name = f"{event.get('type')} {event.get('id')}"
        schema = SCHEMAS / f"{event.get('type')}.json"
        if not schema.is_file():
            faults.append(f"{name}: there is no schema of this type")
            continue
        checker = jsonschema.Draft202012Validator(
            json.loads(schema.read_text()), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        faults += [f"{name}: {wrong.json_path}: {wrong.message}" for wrong in checker.iter_errors(event)]
        if event["source"] != f"/maintd/{installation}":
            faults.append(f"{name}: its source is {event['source']!r}")
        if one.webhook_id != event["id"]:
            faults.append(f"{name}: webhook-id is {one.webhook_id!r}")
        if one.content_type.partition(";")[0] != "application/cloudevents+json":
            faults.append(f"{name}: Content-Type is {one.content_type!r}")
        if instant(event["time"]) > one.received_at + 0.5:
            faults.append(f"{name}: decided at {event['time']}, after it was received")
    for event_id, times in Counter(h.event["id"] for h in heard).items():
        if times > 1:
            faults.append(f"event {event_id} came {times} times, though every request was answered 204")
    last: dict[str, Heard] = {}
    for one in heard:
        subject = one.event["subject"]
        before = last.get(subject)
        if before is not None and sequence(one) <= sequence(before):
            faults.append(f"of {subject}, {one.type} ({one.event['sequence']}) came after {before.type}, not in order")
        if before is not None and one.event["time"] < before.event["time"]:
            faults.append(f"of {subject}, {one.type} has a later sequence than {before.type} and an earlier time")
        last[subject] = one
    return faults


def same_as_log(heard: Iterable[Heard], log: Iterable[dict[str, Any]]) -> list[str]:
    """What was delivered is what the event log has, neither more nor less, and the same to the last member."""
    came, kept = {h.event["id"]: h.event for h in heard}, {event["id"]: event for event in log}
    faults = [f"{kept[i]['type']} {i} is in the event log and never came" for i in kept.keys() - came.keys()]
    faults += [f"{came[i]['type']} {i} came and is not in the event log" for i in came.keys() - kept.keys()]
    faults += [
        f"{came[i]['type']} {i} came otherwise than it is logged" for i in came if kept.get(i, came[i]) != came[i]
    ]
    return faults


# -- the host ---------------------------------------------------------------------------------------------------------


def host_told(facts: Facts, heard: Sequence[Heard]) -> list[str]:
    """What was said of the host: each thing exactly once, in order, of one drain, for the reasons given."""
    faults: list[str] = []
    ordered = sorted(heard, key=sequence)
    types = [h.type for h in ordered if h.type not in PASSING or h.type in facts.host_events]
    if Counter(types) != Counter(facts.host_events):
        for name in sorted({*types, *facts.host_events}):
            if types.count(name) != facts.host_events.count(name):
                faults.append(
                    f"{name} of {facts.host} came {types.count(name)} times instead of {facts.host_events.count(name)}"
                )
    elif [t for t in types if t not in facts.loose] != [t for t in facts.host_events if t not in facts.loose]:
        faults.append(f"of {facts.host}: {', '.join(types)}; the order is {', '.join(facts.host_events)}")
    passing = [h.type for h in ordered if h.type in PASSING and h.type not in facts.host_events]
    if passing.count("service.lost") != passing.count("service.recovered"):
        faults.append(f"of {facts.host}: {', '.join(passing)}, and nothing of the kind at the end")
    drains = {h.data.get("drain_id") for h in ordered if "drain_id" in h.data}
    if len(drains) > 1:
        faults.append(f"events of one drain name {len(drains)} drain ids: {drains}")
    for h in ordered:
        if h.data.get("host") != facts.host:
            faults.append(f"{h.type}: data.host is {h.data.get('host')!r}")
        because, wanted = h.data["because"], facts.requests.get(h.type)
        if because["origin"] == "notification" and wanted and because["request_id"] not in (wanted, None):
            faults.append(f"{h.type}: because of {because['request_id']}, and the request was {wanted}")
        if h.type in ("service.disabled", "drain.started") and h.data["reason"] != facts.reason:
            faults.append(f"{h.type}: reason {h.data['reason']!r} instead of {facts.reason!r}")
        if h.type == "drain.started":
            if h.data["found"]:
                faults.append("drain.started: found, though it was seen to begin")
            total, (fewest, most) = h.data["servers_total"], facts.counted or (len(facts.servers), len(facts.servers))
            if total is not None and not fewest <= total <= most:
                faults.append(f"drain.started: {total} servers, there were {most}")
        if h.type == "drain.ended" and h.data["removed"]:
            faults.append("drain.ended: removed, though the service is still there")
    return faults


# -- migrations -------------------------------------------------------------------------------------------------------


def migrations_told(facts: Facts, heard: Sequence[Heard]) -> list[str]:
    """Each of Nova's migrations was told from end to end, once, by the right names, and no other was."""
    faults: list[str] = []
    by_key: dict[str, list[Heard]] = defaultdict(list)
    for h in sorted(heard, key=sequence):
        by_key[h.data["migration_key"]].append(h)
    rows = {row["uuid"]: row for row in facts.rows}
    claimed: set[str] = set()
    for key, events in by_key.items():
        uuids = {h.data["migration_uuid"] for h in events} - {None}
        name = f"migration {key} of {facts.servers.get(events[0].data['server_id'], '?')}"
        if len(uuids) != 1 or not uuids <= rows.keys():
            faults.append(f"{name}: named {uuids or 'never'}; Nova's rows are {sorted(rows)}")
            continue
        uuid = uuids.pop()
        if uuid in claimed:
            faults.append(f"{name}: {uuid} was told under another key too")
        claimed.add(uuid)
        faults += [f"{name}: {fault}" for fault in _migration_told(facts, events, rows[uuid])]
    for uuid in rows.keys() - claimed:
        row = rows[uuid]
        faults.append(f"nothing was told of migration {uuid} ({row['migration_type']}, {row['status']})")
    return faults


def _migration_told(facts: Facts, events: Sequence[Heard], row: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    types = [h.type.removeprefix("migration.") for h in events]
    chain = CHAINS.get((row["migration_type"], row["status"]))
    if chain is None:
        return [f"Nova's last word is {row['status']}, which this runner does not know"]
    if tuple(t for t in types if t not in ("stalled", "resumed")) != chain:
        faults.append(f"{', '.join(types)} was told of a {row['migration_type']} that is {row['status']}")
    for h in events:
        wanted = {
            "migration_uuid": row["uuid"],
            "migration_id": row["id"],
            "server_id": row["instance_uuid"],
            "kind": row["migration_type"],
            "source": row["source_compute"],
            "destination": row["dest_compute"],
        }
        word = h.type.removeprefix("migration.")
        # The bus may be quicker than the API, which alone knows the row: then neither its ids nor its status are said.
        unsaid = word == "awaiting_confirmation" and h.data["status"] is None
        if (word == "started" or unsaid) and h.data["migration_uuid"] is None:
            wanted |= {"migration_uuid": None, "migration_id": None}
        for member, value in wanted.items():
            if h.data[member] != value:
                faults.append(f"{h.type}: {member} is {h.data[member]!r}, Nova says {value!r}")
        if word in STATUSES:
            if h.data["status"] not in STATUSES[word] and not unsaid:
                faults.append(f"{h.type}: status {h.data['status']!r}")
            if not 0 <= h.data["duration_seconds"] <= h.received_at - instant(events[0].event["time"]) + 120.0:
                faults.append(f"{h.type}: duration_seconds {h.data['duration_seconds']}")
    ends = [h for h in events if h.type.removeprefix("migration.") in STATUSES]
    if facts.emptieds and ends and row["source_compute"] == facts.host:
        if sequence(ends[-1]) > sequence(facts.emptieds[-1]):
            faults.append(f"{ends[-1].type} was published after host.emptied")
        if any(sequence(events[0]) < sequence(emptied) < sequence(ends[-1]) for emptied in facts.emptieds):
            faults.append(f"host.emptied was published before {ends[-1].type}")
    if row["status"] == "completed" and facts.where.get(row["instance_uuid"]) == facts.host:
        faults.append(f"the server is still on {facts.host}, though Nova calls the move completed")
    return faults


# -- the proof --------------------------------------------------------------------------------------------------------


def proof(facts: Facts) -> list[str]:
    """What each host.emptied shows for itself: two whole passes, far enough apart, that found nothing."""
    return [fault for emptied in facts.emptieds for fault in _proof(facts, emptied.data)]


def _proof(facts: Facts, data: dict[str, Any]) -> list[str]:
    faults = [] if data["scope"] == "nova" else [f"host.emptied: scope {data['scope']!r}"]
    passes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for read in data["proof"]:
        passes[read["pass"]].append(read)
    if len(passes) != 2:
        return [*faults, f"host.emptied: its proof has {len(passes)} passes"]
    for number, reads in passes.items():
        found = {read["read"] for read in reads}
        for wanted in (
            "os-migrations",
            "os-hypervisors",
            "servers",
            "resource_providers",
            "allocations",
            "os-services",
        ):
            if wanted not in found:
                faults.append(f"host.emptied: pass {number} has no {wanted}")
        for read in reads:
            if read["read"] in ("os-hypervisors", "servers", "allocations") and read["count"]:
                left_behind = facts.residue_accepted or read["count"] <= len(facts.leaked)
                if not (read["read"] == "allocations" and left_behind):
                    faults.append(f"host.emptied: pass {number} found {read['count']} of {read['read']}")
    first, second = (min(instant(read["at"]) for read in passes[n]) for n in sorted(passes))
    if second - first < facts.settle_s - 1.0:
        faults.append(f"host.emptied: its passes are {second - first:.2f} s apart, settle_s is {facts.settle_s:g}")
    warned = Counter((note["kind"], note["server_id"]) for note in data["warnings"])
    if warned.keys() != facts.warnings:
        faults.append(f"host.emptied: warnings {json.dumps(data['warnings'])}, not {sorted(facts.warnings)}")
    if data["residue"] and not facts.residue_accepted:
        faults.append(f"host.emptied: residue {json.dumps(data['residue'])}, which nobody has accepted")
    return faults


def _holding(facts: Facts, sample: Sample) -> list[str]:
    """What a look found that keeps the host from being empty."""
    held = sample.held - facts.leaked
    if not facts.residue_accepted:
        return sorted(held)
    # What an evacuation leaves until the compute is back: its row, done, and the server's claim on its old host too.
    return sorted(h for h in held if not h.endswith("(done)") and h not in facts.servers)


def last_held(facts: Facts, decided_at: float) -> Sample | None:
    """The last look before a moment that found something on the host."""
    looks = [s for what in ("nova", "placement") for s in facts.watcher.of(what) if s.asked_at <= decided_at]
    return max((s for s in looks if _holding(facts, s)), key=lambda s: s.asked_at, default=None)


def not_early(facts: Facts) -> list[str]:
    """Each host.emptied came at least settle_s after the last moment at which something is known to have been here, and
    nothing was here from then until the host was filled again or opened."""
    faults: list[str] = []
    for number, emptied in enumerate(facts.emptieds):
        until = facts.opened_at
        if number < len(facts.refilled_at):
            until = facts.refilled_at[number]
        faults += _not_early(facts, instant(emptied.event["time"]), until)
    return faults


def _not_early(facts: Facts, decided_at: float, until: float | None) -> list[str]:
    faults: list[str] = []
    last = last_held(facts, decided_at)
    if last is None:
        faults.append("the watcher never saw anything on the host: nothing is proven")
    elif decided_at - last.asked_at < facts.settle_s:
        faults.append(
            f"EARLY: host.emptied was decided {decided_at - last.asked_at:.3f} s after {last.what} last showed "
            f"{', '.join(_holding(facts, last))}; settle_s is {facts.settle_s:g}"
        )
    if facts.held_until is not None and decided_at - facts.held_until < facts.settle_s:
        faults.append(
            f"EARLY: host.emptied was decided {decided_at - facts.held_until:.3f} s after what no API shows was gone; "
            f"settle_s is {facts.settle_s:g}"
        )
    for sample in facts.watcher.held_between(decided_at, decided_at if until is None else until):
        if found := _holding(facts, sample):
            faults.append(f"EARLY: {sample.what} showed {', '.join(found)} after host.emptied")
    for what in ("nova", "placement"):
        looks = [s for s in facts.watcher.of(what) if decided_at - facts.settle_s <= s.asked_at <= decided_at]
        if len(looks) < max(2, facts.settle_s / 3):
            faults.append(
                f"the watcher looked at {what} only {len(looks)} times in the settling time: nothing is proven"
            )
    return faults


# -- how late ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delay:
    """From the last freed allocation to the webhook. `sure_s` is by how much less it may be: between two looks."""

    freed_at: float
    sure_s: float
    first_pass_s: float
    apart_s: float
    second_pass_s: float
    webhook_s: float
    slowest_look_s: float
    """How long the watcher's own slowest question took while maintd read its two passes: the cloud's part in it."""

    @property
    def total_s(self) -> float:
        return self.first_pass_s + self.apart_s + self.second_pass_s + self.webhook_s


def delay(facts: Facts) -> Delay | None:
    """How long host.emptied took, by its parts; None where it did not come. Counted from the last look at Placement
    that found something held, so never too short, or from when what no API shows was gone."""
    emptied = facts.emptied
    if emptied is None:
        return None
    decided_at = instant(emptied.event["time"])
    freed = facts.watcher.freed(decided_at)
    if freed is None:
        return None
    if facts.held_until is not None and facts.held_until > freed[0]:
        freed = (facts.held_until, max(facts.held_until, freed[1]))
    reads = emptied.data["proof"]
    numbers = sorted({read["pass"] for read in reads})
    begun = [min(instant(read["at"]) for read in reads if read["pass"] == n) for n in numbers]
    ended = [max(instant(read["at"]) for read in reads if read["pass"] == n) for n in numbers]
    looks = facts.watcher.of("placement") + facts.watcher.of("nova")
    return Delay(
        freed_at=freed[0],
        sure_s=freed[1] - freed[0],
        first_pass_s=begun[0] - freed[0],
        apart_s=begun[-1] - begun[0],
        second_pass_s=decided_at - begun[-1],
        webhook_s=emptied.received_at - decided_at,
        slowest_look_s=max(
            (
                s.answered_at - s.asked_at
                for s in looks
                if any(_meets(s, b, e) for b, e in zip(begun, ended, strict=True))
            ),
            default=0.0,
        ),
    )


def _meets(sample: Sample, begin: float, end: float) -> bool:
    return sample.asked_at <= end and sample.answered_at >= begin
