"""The versioned notifications of Nova as they stand on the wire, built from plain values.

For the simulator only: what Nova puts into an inner message (`message_id`, `publisher_id`, `payload`, `_context_*`),
with the object names, versions and fields of Nova 34 (2026.2). It keeps no state, asks no time and sends nothing;
when which of these is sent, with which (possibly stale) values, is the business of `model`.

Left empty here although real Nova fills them: image properties, addresses, block devices and key pairs. Nothing
that maintd reads depends on them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOPIC = "versioned_notifications"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size of server. `row` is Nova's old integer id, which migrations still name."""

    id: str
    name: str
    memory_mb: int
    disk_gb: int
    vcpus: int
    row: int


@dataclass(frozen=True, slots=True)
class Request:
    """Who asked. `periodic` requests come from Nova's own timers: their payloads carry no request id."""

    id: str
    user_id: str
    project_id: str
    periodic: bool = False


@dataclass(slots=True)
class Copy:
    """The values of an Instance object as one Nova process holds it, which may be older than the database."""

    id: str
    seq: int
    name: str
    project_id: str
    user_id: str
    flavor: Flavor
    image_id: str
    reservation_id: str
    created_at: float
    host: str | None = None
    node: str | None = None
    state: str = "building"
    task_state: str | None = None
    power_state: str = "pending"
    progress: int = 0
    availability_zone: str | None = None
    updated_at: float | None = None
    launched_at: float | None = None
    terminated_at: float | None = None
    deleted_at: float | None = None
    locked: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def seconds_text(at: float | None) -> str | None:
    """A payload's time: whole seconds, UTC, with Z; None stays None."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(round(at * 1e6) // 1_000_000))


def envelope_text(at: float) -> str:
    """An envelope's time as `str(utcnow())` gives it: no zone, and no fraction at all when it is exactly zero."""
    whole, micros = divmod(round(at * 1_000_000), 1_000_000)
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole))
    return f"{text}.{micros:06d}" if micros else text


def versioned(name: str, version: str, data: Json) -> Json:
    """One versioned object."""
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": data,
    }


def inner_message(
    *,
    message_id: str,
    unique_id: str,
    publisher_id: str,
    event_type: str,
    priority: str,
    payload: Json,
    at: float,
    request: Request,
) -> Json:
    """The inner message: what oslo.messaging wraps into `oslo.message`, with the request context beside it."""
    return {
        "message_id": message_id,
        "publisher_id": publisher_id,
        "event_type": event_type,
        "priority": priority,
        "payload": payload,
        "timestamp": envelope_text(at),
        "_unique_id": unique_id,
        "_context_user": request.user_id,
        "_context_project_id": request.project_id,
        "_context_project": request.project_id,
        "_context_is_admin": True,
        "_context_read_only": False,
        "_context_show_deleted": False,
        "_context_auth_token": None,
        "_context_request_id": request.id,
        "_context_global_request_id": None,
        "_context_roles": ["reader", "manager", "member", "admin"],
        "_context_user_id": request.user_id,
        "_context_read_deleted": "no",
        "_context_timestamp": envelope_text(at).replace(" ", "T"),
        "_context_user_name": "admin",
        "_context_project_name": "admin",
        "_context_service_catalog": [],
    }


def flavor_payload(flavor: Flavor) -> Json:
    return versioned(
        "FlavorPayload",
        "1.4",
        {
            "flavorid": flavor.id,
            "memory_mb": flavor.memory_mb,
            "vcpus": flavor.vcpus,
            "root_gb": flavor.disk_gb,
            "ephemeral_gb": 0,
            "name": flavor.name,
            "swap": 0,
            "rxtx_factor": 1.0,
            "vcpu_weight": 0,
            "disabled": False,
            "is_public": True,
            "extra_specs": {},
            "projects": None,
            "description": None,
        },
    )


def exception_payload(exception: str, message: str, *, module: str, function: str) -> Json:
    """ExceptionPayload: it names no server, which is why maintd can only take it as a hint."""
    return versioned(
        "ExceptionPayload",
        "1.1",
        {
            "module_name": module,
            "function_name": function,
            "exception": exception,
            "exception_message": message,
            "traceback": f"Traceback (most recent call last):\n{exception}: {message}\n",
        },
    )


def _instance(copy: Copy, request: Request) -> Json:
    return {
        "uuid": copy.id,
        "user_id": copy.user_id,
        "tenant_id": copy.project_id,
        "reservation_id": copy.reservation_id,
        "display_name": copy.name,
        "display_description": None,
        "host_name": copy.name,
        "host": copy.host,
        "node": copy.node,
        "os_type": None,
        "architecture": None,
        "availability_zone": copy.availability_zone,
        "flavor": flavor_payload(copy.flavor),
        "image_uuid": copy.image_id,
        "key_name": None,
        "kernel_id": "",
        "ramdisk_id": "",
        "created_at": seconds_text(copy.created_at),
        "launched_at": seconds_text(copy.launched_at),
        "terminated_at": seconds_text(copy.terminated_at),
        "deleted_at": seconds_text(copy.deleted_at),
        "updated_at": seconds_text(copy.updated_at),
        "state": copy.state,
        "power_state": copy.power_state,
        "task_state": copy.task_state,
        "progress": copy.progress,
        "ip_addresses": [],
        "block_devices": [],
        "metadata": dict(copy.metadata),
        "locked": copy.locked,
        "auto_disk_config": "MANUAL",
        "request_id": None if request.periodic else request.id,
        "action_initiator_user": None if request.periodic else request.user_id,
        "action_initiator_project": None if request.periodic else request.project_id,
        "locked_reason": None,
        "shares": None,
    }


def instance_action(copy: Copy, request: Request, fault: Json | None = None) -> Json:
    """InstanceActionPayload, the payload of nearly every `instance.*`."""
    return versioned("InstanceActionPayload", "1.9", {"fault": fault, **_instance(copy, request)})


def instance_create(copy: Copy, request: Request, fault: Json | None = None) -> Json:
    return versioned(
        "InstanceCreatePayload",
        "1.13",
        {
            "keypairs": [],
            "tags": [],
            "trusted_image_certificates": None,
            "instance_name": f"instance-{copy.seq:08x}",
            "fault": fault,
            **_instance(copy, request),
        },
    )


def instance_rebuild(copy: Copy, request: Request, fault: Json | None = None) -> Json:
    return versioned(
        "InstanceActionRebuildPayload",
        "1.10",
        {"trusted_image_certificates": None, "fault": fault, **_instance(copy, request)},
    )


def instance_resize_prep(copy: Copy, request: Request, new_flavor: Flavor) -> Json:
    return versioned(
        "InstanceActionResizePrepPayload",
        "1.4",
        {"new_flavor": flavor_payload(new_flavor), "fault": None, **_instance(copy, request)},
    )


def instance_exists(copy: Copy, request: Request, at: float) -> Json:
    return versioned("InstanceExistsPayload", "2.1", {"audit_period": _audit(at), **_instance(copy, request)})


def instance_update(copy: Copy, request: Request, old_state: str, old_task_state: str | None, at: float) -> Json:
    """InstanceUpdatePayload; `old_display_name` and block devices are always empty here."""
    data = _instance(copy, request)
    data["block_devices"] = None
    return versioned(
        "InstanceUpdatePayload",
        "2.1",
        {
            "state_update": versioned(
                "InstanceStateUpdatePayload",
                "1.0",
                {
                    "old_state": old_state,
                    "state": copy.state,
                    "old_task_state": old_task_state,
                    "new_task_state": copy.task_state,
                },
            ),
            "audit_period": _audit(at),
            "old_display_name": None,
            "tags": [],
            **data,
        },
    )


def _audit(at: float) -> Json:
    return versioned(
        "AuditPeriodPayload",
        "1.0",
        {
            "audit_period_beginning": time.strftime("%Y-%m-01T00:00:00Z", time.gmtime(at)),
            "audit_period_ending": seconds_text(at),
        },
    )


def service_status(
    *,
    host: str,
    binary: str,
    uuid: str,
    disabled: bool,
    disabled_reason: str | None,
    forced_down: bool,
    last_seen_up: float | None,
    report_count: int,
) -> Json:
    return versioned(
        "ServiceStatusPayload",
        "1.1",
        {
            "host": host,
            "binary": binary,
            "topic": binary.removeprefix("nova-"),
            "report_count": report_count,
            "disabled": disabled,
            "disabled_reason": disabled_reason,
            "availability_zone": None,
            "last_seen_up": seconds_text(last_seen_up),
            "forced_down": forced_down,
            "version": 74,
            "uuid": uuid,
        },
    )


def request_spec(copy: Copy, requested_host: str | None) -> Json:
    """RequestSpecPayload. It never names the host that was chosen, only one that was asked for."""
    destination = (
        None
        if requested_host is None
        else versioned("DestinationPayload", "1.0", {"host": requested_host, "node": None, "aggregates": None})
    )
    return versioned(
        "RequestSpecPayload",
        "1.1",
        {
            "instance_uuid": copy.id,
            "project_id": copy.project_id,
            "user_id": copy.user_id,
            "availability_zone": None,
            "flavor": flavor_payload(copy.flavor),
            "force_hosts": None,
            "force_nodes": None,
            "ignore_hosts": None,
            "instance_group": None,
            "image": None,
            "numa_topology": None,
            "pci_requests": None,
            "num_instances": 1,
            "requested_destination": destination,
            "retry": None,
            "scheduler_hints": {},
            "security_groups": ["default"],
        },
    )


def compute_task(copy: Copy, state: str, reason: Json) -> Json:
    """ComputeTaskPayload: a failure before any compute acted. It has no host and no task state."""
    return versioned(
        "ComputeTaskPayload",
        "1.0",
        {"instance_uuid": copy.id, "request_spec": request_spec(copy, None), "state": state, "reason": reason},
    )
