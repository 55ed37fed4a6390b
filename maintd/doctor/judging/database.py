"""Can the database be used, are its tables right, and who leads?"""

from __future__ import annotations

from collections.abc import Iterator

from maintd.doctor.facts import DatabaseFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import seconds

REACHABLE = Check(
    "database.reachable",
    "whether the database of `[database] connection` answers",
    means_unknown="SQLite's file is not there; the daemon makes it when it first starts.",
    means_error="The daemon does not start, or acknowledges nothing until it does.",
)
SCHEMA = Check(
    "database.schema",
    "whether its tables are as this maintd needs them",
    means_warning="SQLite's tables are older: the daemon brings them up to date when it starts.",
    means_error="The tables are of another version, and the daemon does not start.",
)
WRITABLE = Check(
    "database.writable",
    "whether a transaction may write (none of it is kept)",
    means_error="Nothing can be committed, so nothing is acknowledged.",
)
LEASE = Check(
    "database.lease",
    "who holds the fleet lease: the one daemon of the installation that listens, judges and asks Nova",
    means_unknown="Nobody leads: the daemon does not run, or not yet.",
)
CHECKS = (REACHABLE, SCHEMA, WRITABLE, LEASE)

START = "systemctl start maintd, if it should run."


def judge(facts: DatabaseFacts) -> Iterator[Finding]:
    if facts.missing:
        yield REACHABLE.unknown(f"{_upper(facts.label)} is not there yet; the daemon makes it when it first starts.")
        return
    if facts.trouble is not None:
        yield REACHABLE.error(facts.trouble, "[database] connection: mend what it names, then run maintd doctor again.")
        return
    yield REACHABLE.ok(f"{_upper(facts.label)} answers.")
    yield schema(facts)
    if facts.current == facts.needed:
        yield writable(facts)
        yield lease(facts)


def schema(facts: DatabaseFacts) -> Finding:
    """Are the tables of this version?"""
    if facts.current == facts.needed:
        return SCHEMA.ok(f"Its tables are at revision {facts.needed}, as this maintd needs.")
    found = "it has no tables yet" if facts.current is None else f"its tables are at revision {facts.current}"
    if facts.embedded:
        text = f"This maintd needs revision {facts.needed}, and {found}; the daemon brings them there when it starts."
        return SCHEMA.warning(text, "Restart the daemon, or with it stopped: maintd db upgrade")
    return SCHEMA.error(f"This maintd needs revision {facts.needed}, and {found}.", "maintd db upgrade")


def writable(facts: DatabaseFacts) -> Finding:
    """May we write?"""
    if facts.readonly is not None:
        return WRITABLE.error(facts.readonly, "Mend what it names; the daemon goes on by itself.")
    return WRITABLE.ok("A transaction may write.")


def lease(facts: DatabaseFacts) -> Finding:
    """Who leads? A daemon gives its lease back when it ends, and one that died loses it within seconds."""
    if facts.holder is None:
        return LEASE.unknown("Nobody holds the fleet lease: no maintd runs.", START)
    owner, left_s = facts.holder
    if left_s <= 0.0:
        return LEASE.unknown(f"Nobody holds the fleet lease: {owner} let it run out {seconds(-left_s)} ago.", START)
    return LEASE.ok(f"{owner} holds the fleet lease (for {seconds(left_s)} more, then it renews).")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
