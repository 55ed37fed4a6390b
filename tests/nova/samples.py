"""Notifications of a real Nova 34, cut to the fields that anybody reads: `samples.jsonl`, one for each event type seen.

Nova emits some types only where volumes, ports or several cells are; for those a sample is made of a real one of the
same payload class. Every sample can be changed in publisher, host and states, as the table of hosts needs.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from maintd.nova.notifications import NORMALISERS, Notification, read_wire

RECEIVED_AT = 1795402200.0
ACTION = "instance.power_off.start"
"""The real message from which messages of the same payload class are made."""

_CASES = ("plain", "cold", "compute", "disabled")
"""Which of several real samples is taken where none is named."""

_MADE_OF = {
    "libvirt.connect.error": "compute.exception",
    "compute_task.rebuild_server.error": "compute_task.migrate_server.error",
}


@cache
def _real() -> dict[tuple[str, str], dict[str, Any]]:
    lines = (Path(__file__).parent / "samples.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return {(line["message"]["event_type"], line["case"]): line["message"] for line in read}


def cases() -> list[tuple[str, str]]:
    """Every real sample, as (event type, case)."""
    return sorted(_real())


def message(event_type: str, case: str | None = None) -> dict[str, Any]:
    """The inner message of a sample, a fresh copy: a real one where there is one, otherwise made of its like."""
    for name in (case,) if case is not None else ("", *_CASES):
        if (found := _real().get((event_type, name))) is not None:
            return deepcopy(found)
    assert case is None and event_type in NORMALISERS, f"there is no sample {event_type} {case}"
    made = message(_MADE_OF.get(event_type, ACTION))
    if event_type == "libvirt.connect.error":
        made["payload"] = {
            "nova_object.name": "LibvirtErrorPayload",
            "nova_object.namespace": "nova",
            "nova_object.version": "1.0",
            "nova_object.data": {"ip": "192.0.2.7", "reason": made["payload"]},
        }
    return {**made, "event_type": event_type}


def data_of(inner: dict[str, Any]) -> dict[str, Any]:
    """The fields of a message's payload."""
    data: dict[str, Any] = inner["payload"]["nova_object.data"]
    return data


def wire(inner: dict[str, Any]) -> str:
    """The message as it stands on the wire: JSON within JSON."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)})


def notification(
    event_type: str, case: str | None = None, /, *, publisher: str | None = None, **fields: Any
) -> Notification:
    """A sample as the listener hands it on, from another publisher or with other payload fields where told so."""
    inner = message(event_type, case)
    if publisher is not None:
        inner["publisher_id"] = publisher
    data_of(inner).update(fields)
    return read_wire(wire(inner), received_at=RECEIVED_AT)
