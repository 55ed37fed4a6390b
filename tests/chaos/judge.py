"""What must be true when all has calmed down, as pure functions of what was written down; each fault is a sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.receivers import Arrival
from tests.daemon.world import Event, kind_of
from tests.receivers.managing import State, has_to_go, is_free

Calls = Sequence[tuple[str, int, str]]
"""(begin, end or fail; the decision; the server), in order."""

ONCE = {
    "drain.started": "drain_id",
    "drain.ended": "drain_id",
    "drain.cancelled": "drain_id",
    "migration.started": "migration_key",
    "migration.completed": "migration_key",
    "migration.failed": "migration_key",
    "migration.cancelled": "migration_key",
    "migration.awaiting_confirmation": "migration_key",
}
"""Operators' events that are told once for what they are about, and what names it."""


def arrived(name: str, log: Sequence[Event], arrivals: Sequence[Arrival]) -> list[str]:
    """Everything in the log has come and been taken; nothing else came; what came again was the same; in order."""
    known = {event["id"]: event for event in log}
    wrong: list[str] = []
    if len(known) != len(log):
        wrong.append(f"{name}: an id stands twice in the log")
    taken = {arrival.event["id"] for arrival in arrivals if arrival.answer == 204}
    wrong += [f"{name}: missing: {_words(event)}" for event in log if event["id"] not in taken]
    newest: dict[str, str] = {}
    met: set[str] = set()
    for arrival in arrivals:
        event = arrival.event
        if event["id"] not in known:
            wrong.append(f"{name}: came and is in no log: {_words(event)}")
        elif event != known[event["id"]]:
            wrong.append(f"{name}: came with another body than in the log: {_words(event)}")
        if event["id"] in met:
            continue
        met.add(event["id"])
        before = newest.get(event["subject"], "")
        if event["sequence"] <= before:
            wrong.append(f"{name}: out of order: {_words(event)} first came after {before}")
        newest[event["subject"]] = max(before, event["sequence"])
    return wrong


def numbered(name: str, log: Sequence[Event]) -> list[str]:
    """A project's numbers go from 1 without a gap, and are those of its servers' states."""
    wrong = []
    numbers = [int(event["sequence"]) for event in log]
    if numbers != list(range(1, len(numbers) + 1)):
        gaps = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        wrong.append(f"{name}: numbers are missing or double: {gaps}")
    for event in log:
        data = event["data"]
        if not int(event["sequence"]) == data["incarnation"] == data["state"]["incarnation"]:
            wrong.append(f"{name}: two numbers for one event: {_words(event)}")
    return wrong


def told_once(name: str, log: Sequence[Event]) -> list[str]:
    """For each server what began has ended before it begins again, and each event's state agrees with what it says."""
    wrong: list[str] = []
    now: dict[str, dict[str, Any]] = defaultdict(lambda: {"maintenance": None, "move": None, "host_lost": None})
    for event in log:
        before, state = now[event["subject"]], event["data"]["state"]
        kind, change = kind_of(event).removeprefix("server."), event["data"]["change"]
        held = {what: before[what] is not None for what in before}
        may = {
            "maintenance_started": not held["maintenance"] if change == "started" else held["maintenance"],
            "maintenance_ended": held["maintenance"],
            "moving": not held["move"] if change == "started" else held["move"],
            "moved": held["move"],
            "move_failed": held["move"],
            "move_stalled": held["move"],
            "host_lost": not held["host_lost"] or (change == "forced_down" and not before["host_lost"]["forced_down"]),
            "host_recovered": held["host_lost"],
        }[kind]
        if not may:
            wrong.append(f"{name}: told twice, or ended without having begun: {_words(event)}")
        what = "maintenance" if "maintenance" in kind else ("host_lost" if kind.startswith("host") else "move")
        before[what] = (
            None
            if kind in ("maintenance_ended", "moved", "move_failed", "host_recovered")
            else (state[what] or {"forced_down": change == "forced_down"})
        )
    for server, held in now.items():
        last = next(event for event in reversed(log) if event["subject"] == server)
        for what, value in held.items():
            if (last["data"]["state"][what] is None) != (value is None):
                wrong.append(f"{name}: the last event about {server} says otherwise of {what} than those before it")
    return wrong


def no_more_than_was(name: str, log: Sequence[Event], most: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Nothing was told to begin more often than it truly did. `most`: type -> server -> how often."""
    told = Counter((kind_of(e), e["subject"]) for e in log if e["data"]["change"] in ("started", "lost", "forced_down"))
    return [
        f"{name}: {kind} of {server} was told {count} times and was {most[kind].get(server, 0)} times"
        for (kind, server), count in told.items()
        if kind in most and count > most[kind].get(server, 0)
    ]


def operators_told_once(log: Sequence[Event]) -> list[str]:
    """One drain, one migration: each told once, and no migration of Nova's under two keys."""
    wrong: list[str] = []
    keys: dict[str, set[str]] = defaultdict(set)
    said: Counter[tuple[str, str]] = Counter()
    for event in log:
        kind, data = kind_of(event), event["data"]
        if kind in ONCE:
            said[(kind, data[ONCE[kind]])] += 1
        if data.get("migration_uuid"):
            keys[data["migration_uuid"]].add(data["migration_key"])
    wrong += [f"operator: {kind} of {what} was told {count} times" for (kind, what), count in said.items() if count > 1]
    wrong += [f"operator: migration {uuid} has keys {sorted(found)}" for uuid, found in keys.items() if len(found) > 1]
    return wrong


def state_is_right(
    name: str, listed: Mapping[str, State], log: Sequence[Event], truth: Mapping[str, tuple[object, ...]]
) -> list[str]:
    """What is listed of a project's servers is the cloud's truth, and the newest event about each says the same."""
    shown = {
        server: (
            state["maintenance"] is not None,
            state["move"]["kind"] if state["move"] else None,
            state["host_lost"] is not None and state["host_lost"]["forced_down"],
        )
        for server, state in listed.items()
    }
    wrong = []
    if shown != dict(truth):
        wrong.append(f"{name}: listed is {shown}, and true is {dict(truth)} (being emptied, move, forced down)")
    newest = {event["subject"]: event["data"]["state"] for event in log}
    touched = {s: state for s, state in newest.items() if not is_free(state)}
    if touched != dict(listed):
        wrong.append(f"{name}: listed is {dict(listed)}, and the newest events say {touched}")
    return wrong


def role_is_right(pair: tuple[str, str], calls: Calls, listed: Mapping[str, State]) -> list[str]:
    """Never two calls at once, never two servers by one decision, never an old decision after a newer one; and in the
    end the role has nowhere better to be."""
    wrong: list[str] = []
    active, last, running = pair[0], 0, 0
    for said, term, server in calls:
        if said == "begin":
            if running:
                wrong.append(f"HA manager: decision {term} was begun while {running} was under way")
            running = term
            if term < last or (term == last and server != active) or (term > last and server == active):
                wrong.append(f"HA manager: decision {term} for {server} after {last} for {active}")
            active, last = server, term
        else:
            running = 0
    if running:
        wrong.append(f"HA manager: decision {running} was never done")
    (other,) = set(pair) - {active}
    free: State = {"maintenance": None, "move": None, "host_lost": None}
    if has_to_go(listed.get(active, free)) and is_free(listed.get(other, free)):
        wrong.append(f"HA manager: {active} is active, and should not be: {listed.get(active)}")
    return wrong


def _words(event: Event) -> str:
    data = event["data"]
    said = data.get("change") or data.get("host") or data.get("reason") or ""
    return f"{kind_of(event)} ({said}) of {event['subject']}, {event['sequence']}, id {event['id']}, at {event['time']}"
