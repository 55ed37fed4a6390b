"""Curves, stalls and estimates, asked as a script would ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maintd.domain import estimates
from maintd.domain.model import (
    Curve,
    Drain,
    Kind,
    Migration,
    NovaLive,
    Pass,
    Phase,
    Point,
    Policy,
    Server,
    Stall,
)
from maintd.web.progress import drain_estimate, eta_shape, foreseen
from tests.web.serving import AT, Served, closed

MIB = 1024 * 1024
GIB = 1024 * MIB

MOVE = Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-1", destination="cmp-2", begun_at=AT - 60)

CURVE = Curve(
    "m1", "srv-1", "cmp-1", "cmp-2",
    total=4 * GIB, began_at=AT - 60, changed_at=AT - 5, looks=13, bandwidth=100 * MIB, first_pass_ended_at=AT - 20,
    points=(
        Point(AT - 60, 4 * GIB, processed=0), Point(AT - 20, 0, processed=4 * GIB),
        Point(AT - 15, GIB, processed=4.2 * GIB), Point(AT - 5, 0.2 * GIB, processed=5 * GIB),
    ),
    copying_from=AT - 60, passes=(Pass(AT - 20, GIB), Pass(AT - 6, 300 * MIB, count=3, clear=False)),
)  # fmt: skip
"""Four GiB, copied once, and written to while they were copied."""

STALL = Stall(
    "s1", "m1", "srv-1", "live-migration", "not_converging", AT - 30, AT - 10, "cmp-1", "cmp-2",
    published=False, evidence={"peaks": [1.0, 1.1], "first_pass_ended_at": AT - 20},
)  # fmt: skip


def test_a_migration_shows_its_curve(served: Served) -> None:
    """Looks, passes, bandwidth and the first pass's end are there in full, moments as texts, sizes in the unit."""
    served.put(MOVE)
    served.hold(CURVE)

    status, answer = served.get("/v1/migrations/m1")

    assert 200 == status
    curve = answer["curve"]
    assert ("bytes", 4.0 * GIB, "2025-12-31T23:59:40.000000Z") == (
        curve["unit"], curve["total"], curve["first_pass_ended_at"]
    )  # fmt: skip
    assert 4 == len(curve["points"])
    assert {"at": "2025-12-31T23:59:00.000000Z", "remaining": 4 * GIB, "disk_remaining": 0.0, "processed": 0} == curve[
        "points"
    ][0]
    assert {
        "began_at": "2025-12-31T23:59:54.000000Z", "size": 300 * MIB, "count": 3, "clear": False
    } == curve["passes"][-1]  # fmt: skip


def test_a_list_has_no_curves(served: Served) -> None:
    """The list has an estimate and the stalls that stand of each; the curve is only in the answer about one."""
    served.put(MOVE, replace(MOVE, key="m2", server_id="srv-2"))
    served.hold(CURVE)
    served.hold(STALL)

    one, other = served.get("/v1/migrations")[1]["migrations"]

    assert "curve" not in one and "nova" not in one
    assert eta_shape(estimates.of_migration(CURVE, Policy(has_cloud=True), AT)) == one["eta"]
    (stall,) = one["stalls"]
    assert ("s1", "not_converging", False, "2025-12-31T23:59:30.000000Z", "2025-12-31T23:59:50.000000Z") == (
        stall["stall_id"], stall["reason"], stall["published"], stall["since"], stall["said_at"]
    )  # fmt: skip
    assert {"peaks": [1.0, 1.1], "first_pass_ended_at": "2025-12-31T23:59:40.000000Z"} == stall["evidence"]
    assert (None, []) == (other["eta"], other["stalls"])


def test_nothing_is_estimated_of_what_is_over(served: Served) -> None:
    """An ended migration has no estimate, a migration that nobody looked at has neither curve nor plan."""
    served.put(replace(MOVE, phase=Phase.COMPLETED, ended_at=AT - 1), replace(MOVE, key="m2"))

    assert (None, None, None) == tuple(served.get("/v1/migrations/m2")[1][name] for name in ("eta", "curve", "nova"))
    assert None is served.get("/v1/migrations/m1")[1]["eta"]


def test_a_host_shows_its_migrations_and_drain_with_estimates(served: Served) -> None:
    """GET /v1/hosts/{host}, /v1/drains and /v1/drains/{id} say the same of a drain: eta, why there is none, and how
    many servers nobody has asked to move."""
    drain = Drain("d1", "cmp-1", AT - 600)
    served.put(
        closed("cmp-1", drain_id="d1"), drain, MOVE, Server("srv-1", host="cmp-1"), Server("srv-9", host="cmp-1"),
        Server("srv-8", landing="cmp-1"), Drain("d0", "cmp-1", AT - 9000, ended_at=AT - 8000, outcome="cancelled"),
    )  # fmt: skip
    served.hold(CURVE)
    held = served.store.reading.host("cmp-1")
    assert held is not None
    wanted = drain_estimate(held, {"m1": CURVE}, Policy(has_cloud=True), AT)

    host = served.get("/v1/hosts/cmp-1")[1]
    old, new = served.get("/v1/drains")[1]["drains"]

    assert [] == host["migrations"][0]["stalls"]
    assert 1 == new["not_asked"]  # srv-9: srv-1 moves, and srv-8 is not there yet
    for shown in (host["drain"], new, served.get("/v1/drains/d1")[1]):
        assert (eta_shape(wanted.estimate), wanted.unknown, wanted.not_asked) == (
            shown["eta"], shown["eta_unknown"], shown["not_asked"]
        )  # fmt: skip
    assert (None, None, None) == (old["eta"], old["eta_unknown"], old["not_asked"])


def test_what_nova_will_do_is_said_beforehand(served: Served) -> None:
    """The ramp of the permitted downtime and the timeout are those that Nova computes from its defaults and the guest's
    size: 4 GiB make ten steps of 300 s, from 50 to 500 ms, and an end after 3,200 s."""
    served.put(MOVE)
    served.hold(CURVE)

    nova = served.get("/v1/migrations/m1")[1]["nova"]

    assert 4.0 == nova["gib"]
    steps = nova["downtime"]
    assert 11 == len(steps)
    assert ("2025-12-31T23:59:00.000000Z", 0.05) == (steps[0]["at"], steps[0]["downtime_seconds"])
    assert ("2026-01-01T00:49:00.000000Z", 0.5) == (steps[10]["at"], steps[10]["downtime_seconds"])
    assert round(0.5 * 100 * MIB) == steps[10]["permits"]
    assert {"at": "2026-01-01T00:52:20.000000Z", "action": "abort"} == nova["timeout"]


@pytest.mark.parametrize(
    ("curve", "gib"),
    [
        (replace(CURVE, total=0.5 * GIB), 2.0),
        (replace(CURVE, disk_total=0.5 * GIB), 6.0),
        (replace(CURVE, disk_total=20 * GIB), 24.0),
        (replace(CURVE, unit="percent", total=100.0), None),
        (replace(CURVE, total=0.0), None),
    ],
)
def test_novas_patience_is_counted_in_gib(curve: Curve, gib: float | None) -> None:
    """Memory counts at least 2 GiB, disks that are copied are added, and of percents nothing can be said."""
    plan = foreseen(MOVE, curve, NovaLive())

    assert gib == (None if plan is None else plan["gib"])


def test_nova_does_not_end_what_it_may_not() -> None:
    """Post-copy has no ramp and no timeout, one of 0 never comes, and what an unseen bandwidth permits is not known."""
    post_copy = foreseen(replace(MOVE, post_copy=True), CURVE, NovaLive())
    never = foreseen(MOVE, replace(CURVE, bandwidth=None), NovaLive(completion_timeout_s=0, timeout_action="abort"))

    assert {"gib": 4.0, "downtime": [], "timeout": None} == post_copy
    assert never is not None and None is never["timeout"]
    assert {None} == {step["permits"] for step in never["downtime"]}
    assert None is foreseen(replace(MOVE, kind=Kind.COLD), CURVE, NovaLive())


def test_another_controller_shows_what_is_stored(served: Served) -> None:
    """Who does not hold the fleet answers from the store: the same curve, stalls and estimates as were last kept."""
    drain = Drain("d1", "cmp-1", AT - 600)
    passed = replace(STALL, key="s0", resumed_at=AT - 5)
    served.put(
        closed("cmp-1", drain_id="d1"), drain, MOVE, CURVE, STALL, passed, replace(STALL, migration_key="m9", key="s9")
    )
    served.hold(CURVE, STALL)
    paths = ("/v1/migrations/m1", "/v1/migrations", "/v1/hosts/cmp-1", "/v1/drains", "/v1/drains/d1")
    leaders = [served.get(path) for path in paths]

    served.fleet = None

    assert leaders == [served.get(path) for path in paths]
    assert ["s1"] == [stall["stall_id"] for stall in served.get("/v1/migrations/m1")[1]["stalls"]]


def test_the_curve_of_what_is_over_is_kept(served: Served) -> None:
    """An ended migration still shows how it went, and nothing of it stands."""
    over = replace(CURVE, ended_at=AT - 1, outcome="completed")
    served.put(replace(MOVE, phase=Phase.COMPLETED, ended_at=AT - 1), over, replace(STALL, ended_at=AT - 1))

    answer = served.get("/v1/migrations/m1")[1]

    assert 4 == len(answer["curve"]["points"])
    assert (None, []) == (answer["eta"], answer["stalls"])


def test_a_drain_is_estimated_from_its_moves_that_have_ended(served: Served) -> None:
    """A move that waits in the queue of the host is given the time that those took that ended lately."""
    drain = Drain("d1", "cmp-1", AT - 600)
    over = replace(
        MOVE,
        key="m0",
        server_id="srv-0",
        phase=Phase.COMPLETED,
        begun_at=AT - 90,
        worked_from=AT - 80,
        ended_at=AT - 20,
    )
    waits = replace(MOVE, phase=Phase.QUEUED)
    served.put(closed("cmp-1", drain_id="d1"), drain, over, waits, Server("srv-1", host="cmp-1"))

    (shown,) = served.get("/v1/drains")[1]["drains"]

    assert None is shown["eta_unknown"]
    assert 60.0 == shown["eta"]["seconds"]
