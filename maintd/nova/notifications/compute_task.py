"""Failures before any compute acted: no valid host, mostly. The only word of them that the bus has (facts 2.8).

The payload names neither host nor task_state, and its request_spec may be null. It comes after the instance.update
that takes the task_state back.

`compute_task.migrate_server.error`, cut down; published by a conductor:

    {"publisher_id": "nova-conductor:vm", "event_type": "compute_task.migrate_server.error", "priority": "ERROR",
     "timestamp": "2026-11-23 02:51:17.225794", "message_id": "…", "payload": {
       "nova_object.name": "ComputeTaskPayload", "nova_object.namespace": "nova", "nova_object.version": "1.0",
       "nova_object.data": {"instance_uuid": "096d6bc2-…", "request_spec": {…}, "state": "active",
         "reason": {"nova_object.name": "ExceptionPayload", "nova_object.version": "1.1", …,
           "nova_object.data": {"exception": "NoValidHost_Remote", "exception_message": "No valid host was found. …",
             "module_name": "…", "function_name": "…", "traceback": "…"}}}}}
"""

from __future__ import annotations

from maintd.domain.observations import Observation, TaskFailed
from maintd.nova.notifications.envelope import Notification
from maintd.nova.notifications.payload import Normaliser, because, fault, required, text, versioned


def _failed(task: str) -> Normaliser:
    def normalise(notification: Notification) -> tuple[Observation, ...]:
        data = versioned(notification.payload)
        return (
            TaskFailed(
                seen_at=notification.received_at,
                because=because(notification),
                server_id=required(data, "instance_uuid"),
                task=task,
                fault=fault(data, "reason"),
                vm_state=text(data, "state"),
                emitted_at=notification.timestamp,
            ),
        )

    return normalise


NORMALISERS: dict[str, Normaliser] = {
    f"compute_task.{task}.error": _failed(task) for task in ("build_instances", "migrate_server", "rebuild_server")
}
