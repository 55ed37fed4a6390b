"""stalls: what was called stalled, or only noted, and how often that was worth saying.

`report` holds every verdict against how its migration ended. It is the way to judge the detector on one's own cloud
before one trusts it: a reason runs in shadow mode (`[stall] observe_only`) until its share of wrong verdicts is small
enough for whoever is paged by it. What is counted is verdicts: a migration that stalls, resumes and stalls again has
two. Nothing here knows who ended a migration: one that an operator forced counts as completed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from maintd.cli.common import Commands, Exit, ask_options, client, command, verbs
from maintd.terminal import print_json, say, seconds_of, span, table, utc

SOON_S: Final = 300.0
"""A migration that completes within this after the verdict needed nobody."""

ENOUGH: Final = 20
"""So many verdicts whose migration has ended are needed before a share of them means anything."""

GOOD, POOR = 0.05, 0.2
"""Up to this share of wrong verdicts a reason can be trusted; beyond that one it wakes people for nothing."""


def add(commands: Commands) -> None:
    stalls = command(
        commands, "stalls", "list stalls; report how right they were",
        do_stalls,
        description="Every time that a migration was called stalled, newest first, and what came of it. Those that "
        "were only noted ([stall] observe_only) are marked.",
        epilog="examples:\n  maintd stalls --reason frozen --since 2026-01-31T22:00:00Z\n  maintd stalls report",
    )  # fmt: skip
    ask_options(stalls)
    _span_options(stalls)
    stalls.add_argument("--reason", metavar="REASON", help="only those of this reason, such as frozen")
    which = stalls.add_mutually_exclusive_group()
    which.add_argument("--published", action="store_true", help="only those that were said")
    which.add_argument("--noted", action="store_true", help="only those that were noted and not said")
    in_stalls = verbs(stalls)
    ask_options(command(in_stalls, "list", "the same as the bare noun", do_stalls), inherited=True)
    report = command(
        in_stalls, "report", "hold the verdicts against how the migrations ended",
        do_report,
        description="For each reason: how often it was said or noted, how those migrations ended, and which share of "
        "the verdicts was wrong.",
        epilog="example:\n  maintd stalls report --since 2026-01-01T00:00:00Z",
    )  # fmt: skip
    ask_options(report, inherited=True)
    _span_options(report, inherited=True)


def _span_options(made: argparse.ArgumentParser, *, inherited: bool = False) -> None:
    default: Any = argparse.SUPPRESS if inherited else None
    made.add_argument(
        "--since", metavar="TIME", default=default, help="said at or after this time, such as 2026-01-31T22:00:00Z"
    )
    made.add_argument("--until", metavar="TIME", default=default, help="said before this time")


def _asked(args: argparse.Namespace) -> list[dict[str, Any]]:
    published = True if args.published else False if args.noted else None
    asked = {"reason": args.reason, "since": args.since, "until": args.until, "published": published}
    return list(client(args).pages("stalls", **asked))


def do_stalls(args: argparse.Namespace) -> int:
    rows = _asked(args)
    if args.json:
        print_json({"stalls": rows, "next": None})
    elif not rows:
        say("There is no such stall.")
    else:
        table(
            ["SAID", "REASON", "SINCE", "SERVER", "FROM", "TO", "RESUMED", "CAME OF IT", "MIGRATION"],
            ([utc(s["said_at"]), s["reason"] + ("" if s["published"] else " (noted)"), utc(s["since"]), s["server_id"],
              s["source"], s["destination"], utc(s["resumed_at"]), _came_of_it(s), s["migration_key"]] for s in rows),
        )  # fmt: skip
    return Exit.YES


def _came_of_it(stall: Mapping[str, Any]) -> str:
    if stall["ended_at"] is None:
        return "moves again" if stall["resumed_at"] else "stands"
    return f"{stall['outcome'] or 'ended'} after {span(_after(stall))}"


def _after(stall: Mapping[str, Any]) -> float:
    """Seconds from the verdict to the end of its migration."""
    return (seconds_of(stall["ended_at"]) or 0.0) - (seconds_of(stall["said_at"]) or 0.0)


def do_report(args: argparse.Namespace) -> int:
    scores = score(_asked(args))
    if args.json:
        print_json({"since": args.since, "until": args.until, "soon_seconds": SOON_S, "reasons": scores})
    elif not scores:
        say("Nothing was called stalled, nor noted.")
    else:
        _print(scores)
    return Exit.YES


# --- the score -------------------------------------------------------------------------------------------------------


def score(stalls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each reason, gravest first: how its verdicts compare with how the migrations ended."""
    from maintd.domain.model import STALL_AFTER_S

    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for stall in stalls:
        by_reason.setdefault(stall["reason"], []).append(stall)
    order = {reason: place for place, reason in enumerate(STALL_AFTER_S)}
    return [_scored(reason, by_reason[reason]) for reason in sorted(by_reason, key=lambda r: (order.get(r, 99), r))]


def _scored(reason: str, stalls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from statistics import median

    ended = [stall for stall in stalls if stall["ended_at"] is not None]
    outcomes = Counter(stall["outcome"] for stall in ended)
    after = sorted(_after(stall) for stall in ended if stall["outcome"] == "completed")
    soon = sum(seconds <= SOON_S for seconds in after)
    published = sum(stall["published"] for stall in stalls)
    return {
        "reason": reason,
        "verdicts": len(stalls),
        "published": published,
        "noted": len(stalls) - published,
        "migrations": len({stall["migration_key"] for stall in stalls}),
        "resumed": sum(stall["resumed_at"] is not None for stall in stalls),
        "ended": len(ended),
        "running": len(stalls) - len(ended),
        "completed": outcomes["completed"],
        "failed": outcomes["failed"],
        "cancelled": outcomes["cancelled"],
        "completed_after_seconds": None
        if not after
        else {"median": round(median(after), 1), "least": round(after[0], 1), "greatest": round(after[-1], 1)},
        "completed_soon": soon,
        "wrong_share_soon": round(soon / len(ended), 4) if ended else None,
        "wrong_share_at_most": round(len(after) / len(ended), 4) if ended else None,
    }


def _print(scores: Sequence[Mapping[str, Any]]) -> None:
    table(
        ["REASON", "#SAID", "#NOTED", "#RESUMED", "#COMPLETED", "AFTER", "#FAILED", "#CANCELLED", "#RUNNING", "WRONG"],
        ([s["reason"], s["published"], s["noted"], s["resumed"], s["completed"], _times(s["completed_after_seconds"]),
          s["failed"], s["cancelled"], s["running"], _shares(s)] for s in scores),
    )  # fmt: skip
    say()
    say(
        f"WRONG is the share of verdicts, among those whose migration has ended, after which it completed within "
        f"{span(SOON_S)}:\nnobody need have looked. In brackets the share after which it completed at all, "
        "which is the most that can\nhave been wrong: one that somebody forced or helped counts as completed, and "
        "so does one that stood still\nfor hours and then went on."
    )
    for one in scores:
        say(f"\n{one['reason']}: {_advice(one)}")


def _times(after: Mapping[str, float] | None) -> str:
    if after is None:
        return "-"
    return f"{span(after['median'])} ({span(after['least'])} to {span(after['greatest'])})"


def _shares(one: Mapping[str, Any]) -> str:
    if not one["ended"]:
        return "-"
    return f"{one['wrong_share_soon']:.0%} (at most {one['wrong_share_at_most']:.0%}) of {one['ended']}"


def _advice(one: Mapping[str, Any]) -> str:
    """What to set in the configuration, as a sentence."""
    reason, wrong = one["reason"], one["wrong_share_soon"]
    if one["ended"] < ENOUGH:
        return f"too few to judge by; wait until {ENOUGH} have ended. Leave [stall] observe_only as it is."
    if wrong <= GOOD:
        if not one["noted"]:
            return "it can be relied upon; nothing is to be changed."
        return f"it can be relied upon; take {reason} out of [stall] observe_only, so that it is said."
    remedy = f"raise [stall] {reason}_after_s"
    if wrong <= POOR:
        return f"some were wrong. If that is too much for whom it wakes, {remedy}, or let observe_only name it."
    if not one["published"]:
        return f"leave it in [stall] observe_only; to make it better, {remedy}."
    return f"put {reason} into [stall] observe_only, or {remedy}."
