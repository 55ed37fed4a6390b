"""Compute services: enabled or disabled, forced down or not, new, removed.

Sent only when one of these was assigned (even to the same value), never for a heartbeat: whether a service is *up*
only the API can say. The publisher is the service that the record describes, whoever saved it (facts 1.1, 2.8).
Services other than nova-compute are none of our business.

`service.update`, cut down, after `openstack compute service set --disable`:

    {"publisher_id": "nova-compute:cmp-01", "event_type": "service.update", "priority": "INFO",
     "timestamp": "2026-11-23 02:48:49.407956", "message_id": "…", "payload": {
       "nova_object.name": "ServiceStatusPayload", "nova_object.namespace": "nova", "nova_object.version": "1.1",
       "nova_object.data": {"host": "cmp-01", "binary": "nova-compute", "topic": "compute", "report_count": 458,
         "disabled": true, "disabled_reason": "kernel update", "availability_zone": null, "forced_down": false,
         "last_seen_up": "2026-11-23T02:48:44Z", "version": 74, "uuid": "4f67b546-…"}}}
"""

from __future__ import annotations

from typing import Any

from maintd.domain.observations import Observation, ServiceSeen
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, because, required, text, versioned, wrong


def _truth(data: dict[str, Any], field: str) -> bool:
    value = data.get(field)
    if isinstance(value, bool):
        return value
    raise wrong(field, value)


def _service(change: str) -> Normaliser:
    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data = versioned(notification.payload)
        if required(data, "binary") != "nova-compute":
            return ()
        return (
            ServiceSeen(
                seen_at=notification.received_at,
                because=because(notification),
                host=required(data, "host"),
                service_uuid=text(data, "uuid"),  # since payload 1.1
                disabled=_truth(data, "disabled"),
                disabled_reason=text(data, "disabled_reason"),
                forced_down=_truth(data, "forced_down"),
                change=change,
                emitted_at=notification.timestamp,
            ),
        )

    return normalise


NORMALISERS: dict[str, Normaliser] = {
    "service.create": _service("created"),
    "service.update": _service("updated"),
    "service.delete": _service("deleted"),
}
