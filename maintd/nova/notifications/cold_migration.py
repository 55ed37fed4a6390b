"""Cold migrations and resizes, from the preparation on the destination to the confirm or revert on the source.

Both have the very same messages; only resize_prep, whose payload has both flavors, tells them apart: the same flavor
is a cold migration. From resize.end on no payload names the source any more, only the publisher does: the host that a
confirm frees is the publisher, not the payload's host (facts 2.1).

Moves between cells (facts 2.5) cannot be told fully: conductor publishes their confirms and reverts under the name
nova-compute, with *its* host. Their confirm.start is known by the stale task_state of the source cell's row, and
names no host then; their confirm.end and revert.* do name the conductor's host as source, and the migration row must
correct it.

`instance.resize_prep.start`, cut down; published by the destination cmp-02, for a server on cmp-01:

    {"publisher_id": "nova-compute:cmp-02", "event_type": "instance.resize_prep.start", "priority": "INFO",
     "timestamp": "2026-11-23 02:49:43.352322", "message_id": "…", "payload": {
       "nova_object.name": "InstanceActionResizePrepPayload", "nova_object.namespace": "nova",
       "nova_object.version": "1.4",
       "nova_object.data": {"uuid": "3655bc84-…", "tenant_id": "abbb9c…", "display_name": "dc-1", "host": "cmp-01",
         "state": "active", "task_state": "resize_prep", "updated_at": "2026-11-23T02:49:38Z", "request_id": "req-…",
         "flavor": {"nova_object.data": {"flavorid": "78695216-…", …}, …},
         "new_flavor": {"nova_object.data": {"flavorid": "78695216-…", …}, …}, …}}}
"""

from __future__ import annotations

from typing import Any

from maintd.domain.model import Kind
from maintd.domain.observations import Observation, Step
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, instance, server_seen


def _flavor(data: dict[str, Any], field: str) -> str | None:
    try:
        flavor = data[field]["nova_object.data"]["flavorid"]
    except (KeyError, TypeError):
        return None
    return flavor if isinstance(flavor, str) else None


def _prepared(step: Step) -> Normaliser:
    """resize_prep.*: the destination speaks, the payload names the source and, alone of all, both flavors."""

    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, host, reporter, here = instance(notification)
        old, new = _flavor(data, "flavor"), _flavor(data, "new_flavor")
        kind = None if old is None or new is None else Kind.COLD if old == new else Kind.RESIZE
        return server_seen(notification, data, reporter=reporter, step=step, kind=kind, source=host, destination=here)

    return normalise


def _rejected(notification: Notification) -> tuple[Observation, ...]:
    """resize.error: a destination could not prepare; Nova may try another one."""
    data, host, reporter, here = instance(notification)
    return server_seen(notification, data, reporter=reporter, step=Step.RESIZE_ERROR, source=host, destination=here)


def _source_leaves(notification: Notification) -> tuple[Observation, ...]:
    """resize.start: the source is about to power off and copy."""
    data, _, reporter, here = instance(notification)
    return server_seen(notification, data, reporter=reporter, step=Step.RESIZE_START, source=here)


def _source_left(notification: Notification) -> tuple[Observation, ...]:
    """resize.end: the copy is done and the database names the destination; between cells it does not yet.

    The publisher's own host in the payload is a resize on the same host or one between cells: no destination is said.
    """
    data, host, reporter, here = instance(notification)
    destination = host if host != here else None
    return server_seen(
        notification, data, reporter=reporter, step=Step.RESIZE_END, source=here, destination=destination
    )


def _finishing(step: Step, trusted: bool) -> Normaliser:
    """resize_finish.*: the destination builds the guest; its .end has host and state as they are."""

    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, _, reporter, here = instance(notification)
        return server_seen(notification, data, reporter=reporter, trusted=trusted, step=step, destination=here)

    return normalise


def _confirming(step: Step) -> Normaliser:
    """resize_confirm.*: the source lets go; the payload's host is the destination."""

    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, host, reporter, here = instance(notification)
        if data.get("task_state") == "resize_migrated":  # between cells: a conductor speaks, of the source cell's row
            return server_seen(notification, data, reporter=None, step=step)
        return server_seen(notification, data, reporter=reporter, step=step, source=here, destination=host)

    return normalise


def _reverting(notification: Notification) -> tuple[Observation, ...]:
    """resize_revert.start: the destination's guest is gone already, though the payload still names its host."""
    data, host, reporter, here = instance(notification)
    return server_seen(notification, data, reporter=reporter, step=Step.REVERT_START, source=here, destination=host)


def _reverted(notification: Notification) -> tuple[Observation, ...]:
    """resize_revert.end: the server is back on the source, whether that host is closed or not."""
    data, _, reporter, here = instance(notification)
    return server_seen(notification, data, reporter=reporter, trusted=True, step=Step.REVERT_END, source=here)


NORMALISERS: dict[str, Normaliser] = {
    "instance.resize_prep.start": _prepared(Step.RESIZE_PREP_START),
    "instance.resize_prep.end": _prepared(Step.RESIZE_PREP_END),
    "instance.resize.start": _source_leaves,
    "instance.resize.end": _source_left,
    "instance.resize.error": _rejected,
    "instance.resize_finish.start": _finishing(Step.RESIZE_FINISH_START, trusted=False),
    "instance.resize_finish.end": _finishing(Step.RESIZE_FINISH_END, trusted=True),
    "instance.resize_confirm.start": _confirming(Step.CONFIRM_START),
    "instance.resize_confirm.end": _confirming(Step.CONFIRM_END),
    "instance.resize_revert.start": _reverting,
    "instance.resize_revert.end": _reverted,
}
