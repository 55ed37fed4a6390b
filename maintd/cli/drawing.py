"""The curve of a live migration, drawn with letters: what remains, its passes, and what Nova will do about it.

Everything comes from one answer of the API (`GET /v1/migrations/{key}`), and fits on a terminal of 80 columns without
colour, so that it can be pasted into a ticket. Nothing is computed here but the places of marks; the verdict and the
estimate are the daemon's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from maintd.terminal import about, amount, clean, say, seconds_of, span, table, utc

WIDTH: Final = 66
"""Columns of the curve itself; the scale stands to its left."""
SCALE: Final = 10
HEIGHT: Final = 8
PASSES_MAX: Final = 8
"""Only the last passes are listed; the curve shows all."""

Look = tuple[float, float]
"""When, and what remained."""


def draw(migration: Mapping[str, Any], now: float) -> None:
    """Print all that is known of how a migration proceeds: curve, passes, ramp, verdicts, estimate."""
    curve, nova = migration.get("curve"), migration.get("nova")
    if curve and len(curve["points"]) > 1:
        _curve(curve, nova)
        _passes(curve)
    elif not migration["ended_at"]:
        say("\nNothing was seen yet of how much remains.")
    if curve and nova and not migration["ended_at"]:
        _ramp(curve, nova, now)
    if not migration["ended_at"]:
        _verdicts(migration.get("stalls") or ())
        eta = migration.get("eta")
        say(f"\nTime left: {'unknown' if eta is None else 'about ' + about(eta)}.")


# --- the curve -------------------------------------------------------------------------------------------------------


def _curve(curve: Mapping[str, Any], nova: Mapping[str, Any] | None) -> None:
    at = [seconds_of(point["at"]) or 0.0 for point in curve["points"]]
    begin, end = min(at[0], seconds_of(curve["began_at"]) or at[0]), at[-1]
    memory = [(t, point["remaining"]) for t, point in zip(at, curve["points"], strict=True)]
    disk = [(t, point["disk_remaining"]) for t, point in zip(at, curve["points"], strict=True)]
    say(f"\nwhat remains of the memory, from {utc(begin)} to {utc(end)}:")
    _chart(memory, begin, end, curve["unit"])
    _all_marks(curve, nova, begin, end)
    first = seconds_of(curve["first_pass_ended_at"])
    later = [] if first is None else [(t, value) for t, value in memory if t >= first]
    if first is not None and len(later) > 2 and max(value for _, value in later) < max(v for _, v in memory) / 2:
        say(f"\nthe same since the first pass, from {utc(first)} on:")
        _chart(later, first, end, curve["unit"])
        _all_marks(curve, nova, first, end)
    if any(value for _, value in disk):
        say("\nwhat remains of the disks, over the whole time:")
        _chart(disk, begin, end, curve["unit"])
    say(f"\n{_speeds(curve)}")


def _all_marks(curve: Mapping[str, Any], nova: Mapping[str, Any] | None, begin: float, end: float) -> None:
    """Under the curve: when passes began (a dot: too short to be seen), the first ended, and the downtime rose."""
    _marks("pass", [(seconds_of(one["began_at"]), "^" if one["clear"] else ".") for one in curve["passes"]], begin, end)
    _marks("first ends", [(seconds_of(curve["first_pass_ended_at"]), "1")], begin, end)
    if nova:
        _marks("downtime", [(seconds_of(step["at"]), _name(n)) for n, step in enumerate(nova["downtime"])], begin, end)


def _name(step: int) -> str:
    """A step of the ramp, in one letter."""
    return "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[step % 36]


def _speeds(curve: Mapping[str, Any]) -> str:
    unit, speeds = curve["unit"], []
    if curve["bandwidth"] is not None:
        speeds.append(f"memory is copied at {amount(curve['bandwidth'], unit)}/s")
    if curve["disk_bandwidth"]:
        speeds.append(f"disks at {amount(curve['disk_bandwidth'], unit)}/s")
    first, began = seconds_of(curve["first_pass_ended_at"]), seconds_of(curve["copying_from"])
    took = "has not ended yet" if first is None else f"took {span(first - (began or first))}"
    text = "; ".join(filter(None, (", ".join(speeds), f"the first pass {took}")))
    return text[:1].upper() + text[1:] + "."


def _chart(looks: Sequence[Look], begin: float, end: float, unit: str) -> None:
    top = max(value for _, value in looks) or 1.0
    for number, row in enumerate(chart(looks, begin, end, HEIGHT, WIDTH)):
        scale = amount(top, unit) if number == 0 else amount(top / 2, unit) if number == HEIGHT // 2 else ""
        say(f"{scale:>{SCALE}} |{row}".rstrip())
    say(f"{amount(0, unit):>{SCALE}} +{'-' * WIDTH}")


def chart(looks: Sequence[Look], begin: float, end: float, height: int, width: int) -> list[str]:
    """The rows of a curve, the uppermost first: in each column a mark from the least to the greatest value in it.

    Between two looks the curve is a straight line. Nothing is drawn before the first look.
    """
    top = max((value for _, value in looks), default=0.0) or 1.0
    rows = [[" "] * width for _ in range(height)]
    step = (end - begin) / width or 1.0
    for column in range(width):
        values = _between(looks, begin + column * step, begin + (column + 1) * step)
        if values is None:
            continue
        low, high = (min(int(value / top * height), height - 1) for value in values)
        for row in range(low, high + 1):
            rows[height - 1 - row][column] = "*"
    return ["".join(row) for row in rows]


def _between(looks: Sequence[Look], begin: float, end: float) -> Look | None:
    """The least and the greatest value of the curve from one moment to another."""
    inside = [value for at, value in looks if begin <= at <= end]
    for edge in (begin, end):
        for (at, value), (later, other) in zip(looks, looks[1:], strict=False):
            if at <= edge <= later and later > at:
                inside.append(value + (other - value) * (edge - at) / (later - at))
                break
    return (min(inside), max(inside)) if inside else None


def _marks(name: str, marks: Sequence[tuple[float | None, str]], begin: float, end: float) -> None:
    """A line of marks under the curve, at their moments; nothing where none falls into it."""
    line = [" "] * WIDTH
    for at, mark in marks:
        if at is not None and begin <= at <= end:
            place = min(int((at - begin) / ((end - begin) or 1.0) * WIDTH), WIDTH - 1)
            line[place] = mark
    if any(mark != " " for mark in line):
        say(f"{name:>{SCALE}}  {''.join(line)}".rstrip())


# --- passes and ramp -------------------------------------------------------------------------------------------------


def _passes(curve: Mapping[str, Any]) -> None:
    passes, points, unit = curve["passes"], curve["points"], curve["unit"]
    began = [seconds_of(one["began_at"]) or 0.0 for one in passes]
    rows = []
    first = seconds_of(curve["copying_from"])
    if first is not None:
        rows.append([utc(first), amount(curve["total"], unit), _least(points, first, began, unit), "the whole memory"])
    for number, one in enumerate(passes):
        what = "" if one["clear"] else "a guess: too short to be seen"
        if one["count"] >= 1.5:
            what = f"{one['count']:.0f} of about this size"
        least = _least(points, began[number], began[number + 1 :], unit)
        rows.append([utc(began[number]), amount(one["size"], unit), least, what])
    if not rows:
        return
    left_out = len(rows) - PASSES_MAX
    say("\npasses, and the least that remained in each:" + (f" (after {left_out} earlier)" if left_out > 0 else ""))
    table(["BEGAN", "#HAD TO SEND", "#MINIMUM", "NOTE"], rows[-PASSES_MAX:], indent=2)


def _least(points: Sequence[Mapping[str, Any]], began: float, later: Sequence[float], unit: str) -> str:
    """The least that remained in a pass, until the next began."""
    until = later[0] if later else math.inf
    inside = [point["remaining"] for point in points if began <= (seconds_of(point["at"]) or 0.0) <= until]
    return "-" if not inside else amount(min(inside), unit)


def _ramp(curve: Mapping[str, Any], nova: Mapping[str, Any], now: float) -> None:
    steps, timeout, unit = nova["downtime"], nova["timeout"], curve["unit"]
    if steps:
        permitted = [step for step in steps if (seconds_of(step["at"]) or 0.0) <= now] or steps[:1]
        say("\nthe downtime that Nova permits, and the last pass that then fits:")
        table(
            ["", "FROM", "#DOWNTIME", "#LAST PASS UP TO"],
            ([_name(n) + (" now" if step is permitted[-1] else ""), utc(step["at"]),
              f"{step['downtime_seconds'] * 1000:.0f} ms",
              "-" if step["permits"] is None else amount(step["permits"], unit)] for n, step in enumerate(steps)),
            indent=2,
        )  # fmt: skip
        if curve["passes"]:
            say(f"  {_fits(curve['passes'][-1]['size'], steps, permitted[-1], unit)}")
    if timeout:
        does = {"abort": "aborts it", "force_complete": "forces it to complete (post-copy, else a pause)"}
        done = does.get(timeout["action"], clean(timeout["action"]))
        say(f"  If it is not done by {utc(timeout['at'])}, Nova {done}.")


def _fits(size: float, steps: Sequence[Mapping[str, Any]], permitted: Mapping[str, Any], unit: str) -> str:
    """From when on a pass of this size would be the last, as a sentence."""
    if steps[-1]["permits"] is None:
        return "What fits is not known before the bandwidth has been seen."
    last = f"A pass of {amount(size, unit)}, like the last,"
    if size <= permitted["permits"]:
        return f"{last} fits now."
    for step in steps:
        if size <= step["permits"]:
            return f"{last} fits from {utc(step['at'])} on."
    return f"{last} never fits: the guest has to write less."


# --- verdicts --------------------------------------------------------------------------------------------------------


def _verdicts(stalls: Sequence[Mapping[str, Any]]) -> None:
    if not stalls:
        say("\nIt is not called stalled.")
    for stall in stalls:
        reason, published = clean(stall["reason"]), stall["published"]
        say(f"\n{'STALLED' if published else 'noted'}: {reason} since {utc(stall['since'])}")
        say(f"  {'said' if published else 'noted, not said ([stall] observe_only),'} {utc(stall['said_at'])}")
        say(f"  what to do: docs/runbooks/{reason}.md")
        if stall["blocked_by"]:
            say(f"  blocked by migration {clean(stall['blocked_by'])}")
        evidence = stall["evidence"] or {}
        _evidence(evidence, evidence.get("unit") or "bytes", "  ")


_SIZES: Final = frozenset({"pass_size", "last_passes", "remaining", "throughput_per_second", "dirty_per_second"})


def _evidence(evidence: Mapping[str, Any], unit: str, indent: str) -> None:
    """What a verdict rests on, a line each: sizes and durations for people."""
    for name, value in evidence.items():
        if isinstance(value, Mapping):
            say(f"{indent}{clean(name)}:")
            _evidence(value, unit, indent + "  ")
        elif name != "unit":
            items = value if isinstance(value, list) else [value]
            say(f"{indent}{clean(name).replace('_', ' ')}: {', '.join(_shown(name, item, unit) for item in items)}")


def _shown(name: str, value: Any, unit: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if name in _SIZES or name.endswith("_bytes"):
            return amount(value, unit)
        if name.endswith("_seconds"):
            return f"{value:.3g} s" if value < 10 else span(value)
    return clean(value)
