"""Live migrations: which of the two hosts speaks, and which one the payload names.

The destination publishes pre.*, post_dest.* and rollback_dest.*; the source all others. The payload's host is the
source in every message but post_dest.end, the first to name the destination, and the only one whose host and state
may be believed: post.end comes last and still says the source and `migrating`, from a copy loaded before the move
(facts 2.1).

`instance.live_migration_pre.start`, cut down; published by cmp-05, while the server still is on cmp-01:

    {"publisher_id": "nova-compute:cmp-05", "event_type": "instance.live_migration_pre.start", "priority": "INFO",
     "timestamp": "2026-11-23 02:48:50.519210", "message_id": "…", "payload": {
       "nova_object.name": "InstanceActionPayload", "nova_object.namespace": "nova", "nova_object.version": "1.9",
       "nova_object.data": {"uuid": "27a3e82d-…", "tenant_id": "abbb9c…", "display_name": "dl-1", "host": "cmp-01",
         "node": "cmp-01.mini.test", "state": "active", "task_state": "migrating", "power_state": "running",
         "progress": 0, "updated_at": "2026-11-23T02:48:50Z", "request_id": "req-…", "fault": null, "flavor": {…}}}}
"""

from __future__ import annotations

from maintd.domain.model import Kind
from maintd.domain.observations import Observation, Step
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, instance, server_seen


def _destination_speaks(step: Step) -> Normaliser:
    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, host, reporter, here = instance(notification)
        source = host if host != here else None
        return server_seen(
            notification, data, reporter=reporter, step=step, kind=Kind.LIVE, source=source, destination=here
        )

    return normalise


def _source_speaks(step: Step) -> Normaliser:
    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, _, reporter, here = instance(notification)
        return server_seen(notification, data, reporter=reporter, step=step, kind=Kind.LIVE, source=here)

    return normalise


def _arrived(notification: Notification) -> tuple[Observation, ...]:
    """post_dest.end: the server is on the destination, in the database too; the source is named no longer."""
    data, _, reporter, here = instance(notification)
    return server_seen(
        notification,
        data,
        reporter=reporter,
        trusted=True,
        step=Step.LIVE_POST_DEST_END,
        kind=Kind.LIVE,
        destination=here,
    )


NORMALISERS: dict[str, Normaliser] = {
    "instance.live_migration_pre.start": _destination_speaks(Step.LIVE_PRE_START),
    "instance.live_migration_pre.end": _destination_speaks(Step.LIVE_PRE_END),
    "instance.live_migration_post.start": _source_speaks(Step.LIVE_POST_START),
    "instance.live_migration_post_dest.start": _destination_speaks(Step.LIVE_POST_DEST_START),
    "instance.live_migration_post_dest.end": _arrived,
    "instance.live_migration_post.end": _source_speaks(Step.LIVE_POST_END),
    "instance.live_migration_rollback.start": _source_speaks(Step.LIVE_ROLLBACK_START),
    "instance.live_migration_rollback.end": _source_speaks(Step.LIVE_ROLLBACK_END),
    "instance.live_migration_rollback_dest.start": _destination_speaks(Step.LIVE_ROLLBACK_DEST_START),
    "instance.live_migration_rollback_dest.end": _destination_speaks(Step.LIVE_ROLLBACK_DEST_END),
    "instance.live_migration_abort.start": _source_speaks(Step.LIVE_ABORT_START),
    "instance.live_migration_abort.end": _source_speaks(Step.LIVE_ABORT_END),
    "instance.live_migration_force_complete.start": _source_speaks(Step.LIVE_FORCE_START),
    "instance.live_migration_force_complete.end": _source_speaks(Step.LIVE_FORCE_END),
}
