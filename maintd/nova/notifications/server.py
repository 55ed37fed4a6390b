"""Everything else that happens to a server: birth, death, shelves, power, and the updates of its row.

No message here is a step of a migration, but a build or an unshelve is landing on the publisher's host before any
payload says so, a delete ends it all, and every other action shows a server on a host (facts 2.1). Only some of them
carry host and state as they are now: the `trusted` ones.

`instance.update` is special: it is published under the name of whatever process saved the row, so its publisher is no
compute; but it has the database's word at that save, and is the only one with a usable `progress`.

`instance.update`, cut down, of a live migration that has just ended:

    {"publisher_id": "nova-compute:vm", "event_type": "instance.update", "priority": "INFO",
     "timestamp": "2026-11-23 02:48:55.918849", "message_id": "…", "payload": {
       "nova_object.name": "InstanceUpdatePayload", "nova_object.namespace": "nova", "nova_object.version": "2.1",
       "nova_object.data": {"uuid": "27a3e82d-…", "tenant_id": "abbb9c…", "display_name": "dl-1", "host": "cmp-05",
         "state": "active", "task_state": null, "progress": 96, "updated_at": "2026-11-23T02:48:55Z",
         "state_update": {"nova_object.data": {"old_state": "active", "state": "active", "old_task_state": "migrating",
           "new_task_state": null}, …}, "request_id": "req-…", …}}}
"""

from __future__ import annotations

from maintd.domain.observations import Observation
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, instance, server_seen, wrong


def _happened(notification: Notification) -> tuple[Observation, ...]:
    """Any action: the server is, or was a moment ago, where the payload says."""
    data, _, reporter, _ = instance(notification)
    return server_seen(notification, data, reporter=reporter)


def _as_it_is(notification: Notification) -> tuple[Observation, ...]:
    """An action whose payload has host and state as they are now (facts 2.1, the rule below the table)."""
    data, _, reporter, _ = instance(notification)
    return server_seen(notification, data, reporter=reporter, trusted=True)


def _landing(notification: Notification) -> tuple[Observation, ...]:
    """create.start, unshelve.start: the payload has no host yet, but the publisher is where it will be."""
    data, _, reporter, here = instance(notification)
    return server_seen(notification, data, reporter=reporter, landing=here)


def _deleting(notification: Notification) -> tuple[Observation, ...]:
    """delete.start: what a compute does not say, though the payload has a host, begins a local delete (facts 2.7)."""
    data, host, reporter, _ = instance(notification)
    return server_seen(notification, data, reporter=reporter, local_delete=reporter is None and host is not None)


def _deleted(notification: Notification) -> tuple[Observation, ...]:
    """delete.end: gone. Where not a compute says so, though the payload has a host, it was a local delete: that compute
    was down, and guest and files are still there (facts 2.7). The state may even be `soft-delete`.
    """
    data, host, reporter, _ = instance(notification)
    return server_seen(
        notification,
        data,
        reporter=reporter,
        trusted=True,
        deleted=True,
        local_delete=reporter is None and host is not None,
    )


def _updated(notification: Notification) -> tuple[Observation, ...]:
    """instance.update: the database's word. Progress is a live migration's percentage, and stale at any other time."""
    data, _, _, _ = instance(notification)
    percent = None
    if data.get("task_state") == "migrating":
        percent = data.get("progress")
        if percent is not None and type(percent) is not int:
            raise wrong("progress", percent)
    return server_seen(
        notification,
        data,
        reporter=None,
        trusted=True,
        deleted=data.get("state") == "deleted",
        percent=percent,
    )


_ACTIONS = (
    "interface_attach interface_detach pause power_off power_on reboot rescue resume share_attach share_detach shelve "
    "shutdown snapshot suspend trigger_crash_dump unpause unrescue volume_attach volume_detach volume_swap"
).split()

NORMALISERS: dict[str, Normaliser] = {
    "instance.create.start": _landing,
    "instance.create.end": _as_it_is,
    "instance.create.error": _happened,
    "instance.delete.start": _deleting,
    "instance.delete.end": _deleted,
    "instance.soft_delete.start": _as_it_is,
    "instance.soft_delete.end": _as_it_is,
    "instance.restore.start": _as_it_is,
    "instance.restore.end": _as_it_is,
    "instance.shelve_offload.start": _happened,
    "instance.shelve_offload.end": _as_it_is,
    "instance.unshelve.start": _landing,
    "instance.unshelve.end": _as_it_is,
    "instance.update": _updated,
    "instance.exists": _happened,
    "instance.lock": _happened,
    "instance.unlock": _happened,
    # Nova has no .error of most of these today; it costs nothing to know the name.
    **{f"instance.{action}.{phase}": _happened for action in _ACTIONS for phase in ("start", "end", "error")},
}
