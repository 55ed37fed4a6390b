"""Which host does a payload name, and what is to be believed of it: Nova's habits as one table.

S is the source of a move, D its destination, H a host without a move. Columns: event type, publisher, the payload's
host, and then what must come out: `trusted` (T or -), source, destination, and whatever else differs from nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from maintd.domain.model import Kind
from maintd.domain.observations import HostHinted, ServerSeen, ServiceSeen, Step, TaskFailed
from maintd.nova.notifications import NORMALISERS, normalise
from maintd.nova.notifications.envelope import read_time
from tests.nova.samples import RECEIVED_AT, cases, message, notification

S, D, H = "cmp-s", "cmp-d", "cmp-h"
LIVE, COLD, EVACUATION = {"kind": Kind.LIVE}, {"kind": Kind.COLD}, {"kind": Kind.EVACUATION}
DELETED, LOCALLY = {"deleted": True}, {"deleted": True, "local_delete": True}
NO_STEP, UNREPORTED = {"step": None}, {"reporter": None}

# fmt: off
TABLE: list[tuple[str, str, str | None, str, str | None, str | None, dict[str, Any]]] = [
    # event type                                  publisher            host  ?  source destination
    ("instance.live_migration_pre.start",          "nova-compute:D",    S,    "-", S,    D,    LIVE),
    ("instance.live_migration_pre.end",            "nova-compute:D",    S,    "-", S,    D,    LIVE),
    ("instance.live_migration_post.start",         "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_post_dest.start",    "nova-compute:D",    S,    "-", S,    D,    LIVE),
    ("instance.live_migration_post_dest.end",      "nova-compute:D",    D,    "T", None, D,    LIVE),
    ("instance.live_migration_post.end",           "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_rollback.start",     "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_rollback.end",       "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_rollback_dest.start", "nova-compute:D",    S,    "-", S,    D,    LIVE),
    ("instance.live_migration_rollback_dest.end",  "nova-compute:D",    S,    "-", S,    D,    LIVE),
    ("instance.live_migration_abort.start",        "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_abort.end",          "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_force_complete.start", "nova-compute:S",    S,    "-", S,    None, LIVE),
    ("instance.live_migration_force_complete.end", "nova-compute:S",    S,    "-", S,    None, LIVE),

    ("instance.resize_prep.start",                 "nova-compute:D",    S,    "-", S,    D,    COLD),
    ("instance.resize_prep.end",                   "nova-compute:D",    S,    "-", S,    D,    COLD),
    ("instance.resize_prep.start",                 "nova-compute:S",    S,    "-", S,    S,    COLD),
    ("instance.resize.start",                      "nova-compute:S",    S,    "-", S,    None, {}),
    ("instance.resize.end",                        "nova-compute:S",    D,    "-", S,    D,    {}),
    ("instance.resize.end",                        "nova-compute:S",    S,    "-", S,    None, {}),
    ("instance.resize.error",                      "nova-compute:D",    S,    "-", S,    D,    {}),
    ("instance.resize_finish.start",               "nova-compute:D",    D,    "-", None, D,    {}),
    ("instance.resize_finish.start",               "nova-compute:D",    S,    "-", None, D,    {}),
    ("instance.resize_finish.end",                 "nova-compute:D",    D,    "T", None, D,    {}),
    ("instance.resize_confirm.start",              "nova-compute:S",    D,    "-", S,    D,    {}),
    ("instance.resize_confirm.end",                "nova-compute:S",    D,    "-", S,    D,    {}),
    ("instance.resize_confirm.end",                "nova-compute:S",    S,    "-", S,    S,    {}),
    ("instance.resize_revert.start",               "nova-compute:S",    D,    "-", S,    D,    {}),
    ("instance.resize_revert.end",                 "nova-compute:S",    S,    "T", S,    None, {}),

    ("instance.evacuate",                          "nova-api:vm",       S,    "-", S,    None, EVACUATION),
    ("instance.rebuild_scheduled",                 "nova-conductor:D",  S,    "-", S,    D,    EVACUATION),
    ("instance.rebuild_scheduled",                 "nova-conductor:H",  H,    "-", None, None, NO_STEP),
    ("instance.rebuild.start",                     "nova-compute:D",    S,    "-", S,    D,    EVACUATION),
    ("instance.rebuild.end",                       "nova-compute:D",    S,    "-", S,    D,    EVACUATION),
    ("instance.rebuild.error",                     "nova-compute:D",    S,    "-", S,    D,    EVACUATION),
    ("instance.rebuild.start",                     "nova-compute:H",    H,    "-", None, None, NO_STEP),
    ("instance.rebuild.end",                       "nova-compute:H",    H,    "-", None, None, NO_STEP),
    ("instance.rebuild.error",                     "nova-compute:H",    H,    "-", None, None, NO_STEP),

    ("instance.create.start",                      "nova-compute:H",    None, "-", None, None, {"landing": H}),
    ("instance.create.end",                        "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.create.error",                      "nova-compute:H",    None, "-", None, None, {}),
    ("instance.delete.start",                      "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.delete.end",                        "nova-compute:H",    H,    "T", None, None, DELETED),
    ("instance.delete.start",                      "nova-api:vm",       H,    "-", None, None, {"local_delete": True}),
    ("instance.delete.end",                        "nova-api:vm",       H,    "T", None, None, LOCALLY),
    ("instance.delete.end",                        "nova-conductor:vm", H,    "T", None, None, LOCALLY),
    ("instance.delete.end",                        "nova-api:vm",       None, "T", None, None, DELETED),
    ("instance.shutdown.start",                    "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.shutdown.end",                      "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.soft_delete.start",                 "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.soft_delete.end",                   "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.restore.start",                     "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.restore.end",                       "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.shelve.start",                      "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.shelve.end",                        "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.shelve_offload.start",              "nova-compute:H",    H,    "-", None, None, {}),
    ("instance.shelve_offload.end",                "nova-compute:H",    None, "T", None, None, {}),
    ("instance.unshelve.start",                    "nova-compute:H",    None, "-", None, None, {"landing": H}),
    ("instance.unshelve.end",                      "nova-compute:H",    H,    "T", None, None, {}),
    ("instance.power_off.end",                     "nova-compute:D",    S,    "-", None, None, {}),
    ("instance.lock",                              "nova-api:vm",       H,    "-", None, None, {}),
    ("instance.exists",                            "nova-compute:D",    S,    "-", None, None, {}),
    ("instance.update",                            "nova-compute:vm",   H,    "T", None, None, UNREPORTED),
    ("instance.update",                            "nova-conductor:vm", H,    "T", None, None, {}),
    ("instance.update",                            "nova-compute:vm",   None, "T", None, None, UNREPORTED),
]
# fmt: on

_HOSTS = {"S": S, "D": D, "H": H}


@pytest.mark.parametrize(
    ("event_type", "publisher", "host", "believed", "source", "destination", "more"),
    TABLE,
    ids=[f"{row[0]} {row[1]} {row[2]}" for row in TABLE],
)
def test_host_of_each_event_type(
    event_type: str,
    publisher: str,
    host: str | None,
    believed: str,
    source: str | None,
    destination: str | None,
    more: dict[str, Any],
) -> None:
    """Each event type tells the hosts that Nova's table says it tells, and no more is believed than may be."""
    service, _, name = publisher.partition(":")
    name = _HOSTS.get(name, name)
    inner = notification(event_type, publisher=f"{service}:{name}", host=host)
    steps = {step.value: step for step in Step}
    expected = {
        "host": host,
        "trusted": believed == "T",
        "source": source,
        "destination": destination,
        "reporter": name if service == "nova-compute" else None,
        "step": steps.get(event_type.removeprefix("instance.")),
        "kind": None,
        "landing": None,
        "deleted": False,
        "local_delete": False,
        **more,
    }

    (seen,) = normalise(inner)

    assert isinstance(seen, ServerSeen)
    assert expected == {key: getattr(seen, key) for key in expected}


def test_every_step_has_its_event_type() -> None:
    """No step of a move is without a notification that tells it."""
    told = {row[0].removeprefix("instance.") for row in TABLE}

    assert {step.value for step in Step} <= told


@pytest.mark.parametrize(("event_type", "case"), cases())
def test_real_messages_are_read(event_type: str, case: str) -> None:
    """What a real Nova sent gives one observation, which names the message it came from and when Nova said it."""
    if event_type.startswith("scheduler."):
        assert normalise(notification_of_scheduler()) == ()
        return
    inner = message(event_type, case)

    (seen,) = normalise(notification(event_type, case))

    assert isinstance(seen, ServerSeen | ServiceSeen | TaskFailed | HostHinted)
    assert (seen.seen_at, seen.because.origin) == (RECEIVED_AT, "notification")
    assert (seen.because.event_type, seen.because.message_id) == (event_type, inner["message_id"])
    assert seen.because.request_id is not None
    if not isinstance(seen, HostHinted):
        assert seen.emitted_at == read_time(inner["timestamp"])


def notification_of_scheduler() -> Any:
    """The one ignored type among the real samples."""
    return notification("scheduler.select_destinations.start")


def test_every_normaliser_has_a_sample() -> None:
    """Nothing is normalised that was never tried with a sample."""
    for event_type in NORMALISERS:
        assert len(normalise(notification(event_type))) == 1


def test_cold_migration_and_resize_differ_in_the_flavor_only() -> None:
    """resize_prep with another flavor is a resize, with the same one a cold migration, with none it is not said."""
    (resize,) = normalise(notification("instance.resize_prep.start", "resize"))
    (cold,) = normalise(notification("instance.resize_prep.start", "cold"))
    (unsaid,) = normalise(notification("instance.resize_prep.start", new_flavor=None))

    assert [getattr(seen, "kind", "?") for seen in (resize, cold, unsaid)] == [Kind.RESIZE, Kind.COLD, None]


def test_confirm_between_cells_names_no_host() -> None:
    """A conductor confirming a resize between cells claims to be nova-compute; its stale row gives it away."""
    inner = notification(
        "instance.resize_confirm.start",
        publisher="nova-compute:conductor-1",
        host=S,
        state="active",
        task_state="resize_migrated",
    )

    (seen,) = normalise(inner)

    assert isinstance(seen, ServerSeen)
    assert (seen.step, seen.source, seen.destination, seen.reporter) == (Step.CONFIRM_START, None, None, None)


def test_local_soft_delete_is_a_delete() -> None:
    """delete.end from the API with state soft-delete is a server gone without its compute."""
    (seen,) = normalise(notification("instance.delete.end", publisher="nova-api:vm", host=H, state="soft-delete"))

    assert isinstance(seen, ServerSeen)
    assert (seen.deleted, seen.local_delete, seen.vm_state) == (True, True, "soft-delete")


def test_updates_tell_the_end_and_the_progress() -> None:
    """instance.update with state deleted is a delete; its progress counts while the server is migrating, not after."""
    (deleted,) = normalise(notification("instance.update", "deleted"))
    (moving,) = normalise(notification("instance.update", "progress", progress=42))
    (moved,) = normalise(notification("instance.update", "progress", progress=42, task_state=None))

    assert isinstance(deleted, ServerSeen) and isinstance(moving, ServerSeen) and isinstance(moved, ServerSeen)
    assert (deleted.deleted, deleted.local_delete) == (True, False)
    assert (moving.percent, moved.percent) == (42, None)
