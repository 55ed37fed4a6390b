"""What every normaliser needs: the data of a versioned payload, checked once, as a `ServerSeen`.

This is the hot path of intake, some tens of thousands of calls a second at the worst, so there is no schema validation
and no copying: a field is looked up, its type is checked, and that is all. What cannot be what Nova documents raises
`Unreadable` with a sentence. Which host a payload names, and whether it may be believed, is *not* decided here but in
the module of each event type, since it differs for each of them (facts 2.1).

Payload versions 1.x and 2.x are read; Nova promises that a minor version only adds fields, and a major one breaks
(`doc/source/admin/notifications.rst`). Fields that old versions do not have (`updated_at` before 1.5, `request_id`
before 1.6) may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from maintd.domain.hindrances import of_flavor
from maintd.domain.model import Because, Kind
from maintd.domain.observations import Observation, ServerSeen, Step
from maintd.nova.notifications.envelope import Notification, Unreadable, read_time

Normaliser = Callable[[Notification], tuple[Observation, ...]]

_FAULT_LIMIT = 500  # characters; Nova puts whole tracebacks into exception_message when the error crossed an RPC

_time_of = lru_cache(maxsize=8192)(read_time)  # payload times are whole seconds, so few texts serve many messages


@lru_cache(maxsize=65536)
def publisher(publisher_id: str) -> tuple[str, str]:
    """The service and the host in a publisher_id, `<service>:<host>`. Raises `Unreadable` where it is not that."""
    service, colon, host = publisher_id.partition(":")
    if not (service and colon and host):
        raise Unreadable(f"the publisher {publisher_id[:80]!r} is not <service>:<host>")
    return service, host


def versioned(payload: Any) -> dict[str, Any]:
    """The fields of a versioned payload. Raises `Unreadable` where it is none, or of a major version nobody knows."""
    try:
        data = payload["nova_object.data"]
        version = payload.get("nova_object.version", "1.0")
        known = version[:2] in ("1.", "2.")
    except (TypeError, KeyError, AttributeError, IndexError):
        raise Unreadable("the payload is no versioned object (it has no nova_object.data)") from None
    if not isinstance(data, dict):
        raise Unreadable("the payload's nova_object.data is no object")
    if not known:
        raise Unreadable(f"the payload has version {str(version)[:20]!r}, and only 1.x and 2.x are known")
    return data


def wrong(field: str, value: object) -> Unreadable:
    """The error for a field whose value is not what Nova documents."""
    return Unreadable(f"the payload's {field} is {str(value)[:80]!r}")


def text(data: dict[str, Any], field: str) -> str | None:
    """A text that may be null, missing or empty (then None). Raises `Unreadable` for anything else."""
    value = data.get(field)
    if value is None or isinstance(value, str):
        return value or None
    raise wrong(field, value)


def required(data: dict[str, Any], field: str) -> str:
    """A text that must be there. Raises `Unreadable` where it is not."""
    value = data.get(field)
    if isinstance(value, str) and value:
        return value
    raise wrong(field, value)


def moment(data: dict[str, Any], field: str) -> float | None:
    """A time in seconds since the epoch, None where null or missing. Raises `Unreadable` for anything else."""
    value = data.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return _time_of(value)
        except (ValueError, OverflowError):
            pass
    raise wrong(field, value)


def hindrance(data: dict[str, Any]) -> str | None:
    """What the payload's flavor says against moving the server live; None where it shows no extra specs."""
    flavor = data.get("flavor")
    inner = flavor.get("nova_object.data") if isinstance(flavor, dict) else None
    specs = inner.get("extra_specs") if isinstance(inner, dict) else None
    if not isinstance(specs, dict):
        return None
    return of_flavor(specs) if specs else ""


def memory_mb(data: dict[str, Any]) -> int | None:
    """The memory that the payload's flavor gives the server; None where it shows none."""
    flavor = data.get("flavor")
    inner = flavor.get("nova_object.data") if isinstance(flavor, dict) else None
    value = inner.get("memory_mb") if isinstance(inner, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else None


def metadata_keys(data: dict[str, Any]) -> tuple[str, ...] | None:
    """The names in the payload's metadata, sorted; None where it shows none."""
    metadata = data.get("metadata")
    if not metadata:
        return () if metadata == {} else None
    return tuple(sorted(map(str, metadata))) if isinstance(metadata, dict) else None


def fault(data: dict[str, Any], field: str = "fault") -> str | None:
    """What a nested ExceptionPayload says, cut to a readable length; None where there is no fault."""
    exception = data.get(field)
    if exception is None:
        return None
    return said(versioned(exception))


def said(exception: dict[str, Any]) -> str | None:
    """The name of an ExceptionPayload's exception and the first line of its message, as far as there are such."""
    name = (text(exception, "exception") or "").removesuffix("_Remote")
    lines = (text(exception, "exception_message") or "").strip().splitlines()
    message = lines[0].strip() if lines else ""
    if name and not message.startswith(name):
        message = f"{name}: {message}" if message else name
    return message[:_FAULT_LIMIT] or None


def because(notification: Notification, request_id: object = None) -> Because:
    """Why we know: this message; its request is the payload's where it tells one, else the envelope's."""
    request = request_id if request_id is not None else notification.request_id
    return Because(
        "notification",
        notification.event_type,
        notification.message_id,
        request if isinstance(request, str) and request else None,
    )


def server_seen(
    notification: Notification,
    data: dict[str, Any],
    *,
    reporter: str | None,
    trusted: bool = False,
    step: Step | None = None,
    kind: Kind | None = None,
    source: str | None = None,
    destination: str | None = None,
    landing: str | None = None,
    deleted: bool = False,
    local_delete: bool = False,
    percent: int | None = None,
) -> tuple[ServerSeen]:
    """The one observation of an instance payload: what all of them have in common, and what the caller knows of it."""
    return (
        ServerSeen(
            seen_at=notification.received_at,
            because=because(notification, data.get("request_id")),
            server_id=required(data, "uuid"),
            project_id=text(data, "tenant_id"),
            name=text(data, "display_name"),
            host=text(data, "host"),
            vm_state=text(data, "state"),
            task_state=text(data, "task_state"),
            updated_at=moment(data, "updated_at"),
            emitted_at=notification.timestamp,
            trusted=trusted,
            reporter=reporter,
            step=step,
            kind=kind,
            source=source,
            destination=destination,
            landing=landing,
            deleted=deleted,
            local_delete=local_delete,
            percent=percent,
            fault=fault(data) if data.get("fault") is not None else None,
            hindrance=hindrance(data),
            memory_mb=memory_mb(data),
            asked_by=text(data, "action_initiator_project"),
            metadata_keys=metadata_keys(data),
        ),
    )


def instance(notification: Notification) -> tuple[dict[str, Any], str | None, str | None, str]:
    """An instance payload's data, its host, the compute that reports (None for another service), the publisher's host.

    The publisher of an action is the compute executing it (facts 1.1), and often worth more than the payload's host.
    Not so for instance.update, and for cross-cell confirms and reverts, in which a conductor claims to be nova-compute.
    """
    data = versioned(notification.payload)
    service, here = publisher(notification.publisher_id)
    return data, text(data, "host"), here if service == "nova-compute" else None, here
