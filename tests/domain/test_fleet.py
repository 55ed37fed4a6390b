"""The fleet in memory: its indices hold what its values say, and what was applied can be taken back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from maintd.domain.fleet import Fleet, Outcome
from maintd.domain.model import Drain, Host, Kind, Migration, Phase, Residue, Server, Value, Verification

HOSTS = ["a", "b", "c", None]


def some_value(rng: random.Random) -> Value:
    host, other = rng.choice(HOSTS), rng.choice(HOSTS)
    name = host or "a"
    kind = rng.randrange(6)
    if kind == 0:
        deleted = rng.choice([None, None, 5.0])
        return Server(f"s{rng.randrange(4)}", host=host, landing=other, deleted_at=deleted)
    if kind == 1:
        phase = rng.choice(list(Phase))
        key = f"m{rng.randrange(4)}"
        ended_at = 9.0 if phase.final else None
        return Migration(
            key, f"s{key[1:]}", Kind.LIVE, phase, host, other, migration_uuid=f"u{key}", ended_at=ended_at,
            stall_at=rng.choice([None, 3.0, 4.0]),
        )  # fmt: skip
    if kind == 2:
        return Host(name, disabled=rng.random() < 0.5)
    if kind == 3:
        return Residue(name, f"s{rng.randrange(3)}", "evacuated", 1.0, cleared_at=rng.choice([None, 2.0]))
    if kind == 4:
        return Drain(f"d{rng.randrange(3)}", name, 1.0, moved_at=float(rng.randrange(5)))
    return Verification(name, verify_at=rng.choice([None, 1.0, 2.0]))


def picture(fleet: Fleet) -> object:
    """All that can be asked of a fleet."""
    return (
        sorted(fleet.closed_hosts()),
        {h: sorted(fleet.servers_on(h)) for h in "abc"},
        {h: sorted(fleet.landing_on(h)) for h in "abc"},
        {h: [m.key for m in fleet.open_migrations_on(h)] for h in "abc"},
        {h: [r.key for r in fleet.residue_on(h)] for h in "abc"},
        {f"s{i}": sorted(m.key for m in fleet.migrations_of(f"s{i}")) for i in range(4)},
        sorted(m.key for m in fleet.open_migrations()),
        fleet.next_verify_at(),
        fleet.counts(),
    )


@given(st.integers())
def test_indices_are_what_a_fresh_fleet_would_have(seed: int) -> None:
    """After any changes the fleet answers as one that was filled with the final values only."""
    rng = random.Random(seed)
    fleet = Fleet()
    final: dict[tuple[type, str], Value] = {}
    for _ in range(30):
        value = some_value(rng)
        if rng.random() < 0.2:
            fleet.drop(value)
            final.pop((type(value), value.key), None)
        else:
            fleet.put(value)
            final[(type(value), value.key)] = value

    assert picture(Fleet(values=final.values())) == picture(fleet)
    assert Fleet(values=final.values()).next_due() == fleet.next_due()


@given(st.integers())
def test_undo_leaves_nothing_behind(seed: int) -> None:
    """A change that could not be kept is taken back to the last index."""
    rng = random.Random(seed)
    fleet = Fleet(values=[some_value(rng) for _ in range(15)])
    before, due = picture(fleet), fleet.next_due()
    undo = []
    for _ in range(5):
        undo += fleet.apply(Outcome(saved=(some_value(rng), some_value(rng)), removed=(some_value(rng),)))
    fleet.undo(undo)

    assert before == picture(fleet)
    assert due == fleet.next_due()
