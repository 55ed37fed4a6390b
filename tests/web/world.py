"""A store with something of everything in it, so that every answer has rows."""

from __future__ import annotations

from maintd.domain.model import (
    Bus,
    Curve,
    Drain,
    Host,
    Kind,
    Knowledge,
    Migration,
    Notice,
    Pass,
    Phase,
    Point,
    Progress,
    Project,
    Residue,
    Server,
    Stall,
)
from maintd.store import Attempt, Subscription
from tests.web.serving import AT, Served, closed, disabled, emptied, empty, occupied

GIB = float(2**30)


def fill(served: Served) -> None:
    """Hosts open, closed and empty; migrations under way and over; a stall, residue, events, tried deliveries; a server
    whose owner was told of it, and subscriptions."""
    curve = Curve(
        "m1",
        "srv-2",
        "cmp-2",
        "cmp-3",
        total=8 * GIB,
        began_at=AT - 120,
        changed_at=AT - 5,
        looks=9,
        copying_from=AT - 118,
        bandwidth=GIB / 10,
        first_pass_ended_at=AT - 40,
        points=(Point(AT - 20, 2 * GIB, processed=9 * GIB), Point(AT - 5, GIB, processed=10 * GIB)),
        passes=(Pass(AT - 40, 2 * GIB), Pass(AT - 18, GIB, 2.0, False)),
    )
    stall = Stall("s1", "m1", "srv-2", "live-migration", "frozen", AT - 95, AT - 35, "cmp-2", "cmp-3")
    served.put(
        empty("cmp-1"),
        closed("cmp-2", drain_id="d1", found=True),
        Host("cmp-3", up=False, down_since=AT - 60, forced_down=True, heard_on="default"),
        occupied("cmp-4", "incoming", "not_attempted"),
        Server("srv-1", project_id="p-1", host="cmp-2", vm_state="active", seen_at=AT - 60),
        Drain("d0", "cmp-1", AT - 9000, reason="old", servers_total=0, ended_at=AT - 8000, outcome="ended"),
        Drain("d1", "cmp-2", AT - 900, reason="maintenance", servers_total=3, stalled_at=AT - 7),
        Migration(
            "m1",
            "srv-2",
            Kind.LIVE,
            Phase.RUNNING,
            source="cmp-2",
            destination="cmp-3",
            percent=40,
            progress=Progress(int(8 * GIB), int(9 * GIB), int(GIB)),
            stalled="frozen",
            stalled_since=AT - 95,
        ),
        Migration("m0", "srv-3", Kind.COLD, Phase.FAILED, source="cmp-2", destination="cmp-3", ended_at=AT - 50),
        curve,
        stall,
        Residue("cmp-2", "srv-9", "evacuated", AT - 500),
        Bus("default", connected=True, last_message_at=AT - 1),
        Knowledge(AT - 86400, AT - 86000),
        Notice(
            "srv-1",
            "p-1",
            3,
            drain_id="d1",
            maintenance_since=AT - 900,
            move_key="m9",
            move_kind="live-migration",
            move_since=AT - 60,
            asked_for_by="operator",
            stalled="slow",
            lost_since=AT - 30,
            metadata_keys=("ha",),
        ),
        Project("p-1", 3, AT - 60),
    )
    for number, owner in enumerate((None, "p-1"), 1):
        served.store.subscriptions.add(
            Subscription(
                f"sub-{number}",
                owner,
                "ha",
                "https://ha.example/hook",
                ("maintd.*",),
                state="active",
                secrets=("whsec_" + "QUJD" * 8,),
                created_at=AT - 99,
                updated_at=AT - 99,
                verified_at=AT - 98,
            )
        )
    served.hold(curve, stall)
    served.publish(disabled("cmp-2"), emptied("cmp-1"))
    store = served.store.deliveries
    store.fan_out(lambda event_type: ("ha",), AT)
    (claimed,) = store.claim("ctl-1", AT, 30.0, 1)
    store.finish(claimed.id, "ctl-1", Attempt(AT, 0.25, 500, "refused", "no"), state="dead", due_at=None)
