"""Messages that name a host and no server: something went wrong there, look again.

`compute.exception` is sent by every RPC method of a compute that raised, and is often all that a failed move leaves
on the bus; `libvirt.connect.error` comes again and again while libvirt does not answer, and a service.update
disabling the host follows. Neither proves anything (facts 2.8).

`compute.exception`, cut down:

    {"publisher_id": "nova-compute:cmp-04", "event_type": "compute.exception", "priority": "ERROR",
     "timestamp": "2026-11-23 02:44:17.503112", "message_id": "…", "payload": {
       "nova_object.name": "ExceptionPayload", "nova_object.namespace": "nova", "nova_object.version": "1.1",
       "nova_object.data": {"exception": "NovaException", "exception_message": "driver: post told to fail",
         "module_name": "nova.virt.fake", "function_name": "_op", "traceback": "…"}}}
"""

from __future__ import annotations

from typing import Any

from maintd.domain.observations import HostHinted, Observation
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, because, fault, publisher, said, versioned


def _hint(notification: Notification, what: str | None) -> tuple[Observation, ...]:
    service, host = publisher(notification.publisher_id)
    if service != "nova-compute":
        return ()
    return (HostHinted(notification.received_at, because(notification), host, what),)


def _exception(notification: Notification) -> tuple[Observation, ...]:
    return _hint(notification, said(versioned(notification.payload)))


def _libvirt(notification: Notification) -> tuple[Observation, ...]:
    data: dict[str, Any] = versioned(notification.payload)
    return _hint(notification, fault(data, "reason"))


NORMALISERS: dict[str, Normaliser] = {
    "compute.exception": _exception,
    "libvirt.connect.error": _libvirt,
}
