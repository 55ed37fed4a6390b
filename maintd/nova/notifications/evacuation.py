"""Evacuations, which Nova calls rebuilds: told from a plain rebuild by who publishes.

An evacuated server's payload names the dead host in every message, rebuild.end included; the new host is only in the
publisher_id (and in a late instance.update, where those are on). A plain rebuild is published by the server's own
host: that is no step of any move (facts 2.1, 2.6). `rebuild_scheduled` is published as nova-conductor, but the host
part is the compute that was chosen.

`instance.evacuate`, cut down; the API accepted to evacuate a server from cmp-02:

    {"publisher_id": "nova-api:vm", "event_type": "instance.evacuate", "priority": "INFO",
     "timestamp": "2026-11-23 02:41:52.858558", "message_id": "…", "payload": {
       "nova_object.name": "InstanceActionPayload", "nova_object.namespace": "nova", "nova_object.version": "1.9",
       "nova_object.data": {"uuid": "14d4328a-…", "tenant_id": "abbb9c…", "display_name": "ev-1", "host": "cmp-02",
         "state": "active", "task_state": "rebuilding", "updated_at": "2026-11-23T02:41:46Z", "request_id": "req-…",
         "fault": null, …}}}
"""

from __future__ import annotations

from maintd.domain.model import Kind
from maintd.domain.observations import Observation, Step
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, instance, server_seen


def _asked(notification: Notification) -> tuple[Observation, ...]:
    """evacuate: nova-api accepted it; nobody knows a destination yet."""
    data, host, reporter, _ = instance(notification)
    return server_seen(notification, data, reporter=reporter, step=Step.EVACUATE, kind=Kind.EVACUATION, source=host)


def _rebuilding(step: Step) -> Normaliser:
    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data, host, reporter, here = instance(notification)
        if host is None or host == here:
            return server_seen(notification, data, reporter=reporter)
        return server_seen(
            notification,
            data,
            reporter=reporter,
            step=step,
            kind=Kind.EVACUATION,
            source=host,
            destination=here,
        )

    return normalise


NORMALISERS: dict[str, Normaliser] = {
    "instance.evacuate": _asked,
    "instance.rebuild_scheduled": _rebuilding(Step.REBUILD_SCHEDULED),
    "instance.rebuild.start": _rebuilding(Step.REBUILD_START),
    "instance.rebuild.end": _rebuilding(Step.REBUILD_END),
    "instance.rebuild.error": _rebuilding(Step.REBUILD_ERROR),
}
