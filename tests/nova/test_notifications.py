"""Payloads of all ages and none: what is read, what is nobody's business, and what belongs in quarantine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintd.domain.observations import HostHinted, ServerSeen, ServiceSeen, TaskFailed
from maintd.nova.notifications import (
    IGNORED,
    KNOWN_EVENT_TYPES,
    NORMALISERS,
    Notification,
    Unreadable,
    event_type_label,
    is_unversioned,
    normalise,
    read_wire,
)
from maintd.nova.notifications.envelope import read_time
from tests.nova.samples import data_of, message, notification, wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=8), child, max_size=3),
    max_leaves=8,
)


def _enveloped(message: Any) -> str:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})


def _bare(event_type: str, publisher: str, payload: Any) -> Notification:
    return Notification("m", event_type, publisher, 1.0, payload, None, 2.0)


def test_request_of_the_payload_is_preferred() -> None:
    """The request is the payload's; a payload before 1.6 has none, and then it is the envelope's."""
    inner = message("instance.power_off.start")
    data_of(inner)["request_id"] = "req-payload"
    inner["_context_request_id"] = "req-envelope"
    (new,) = normalise(read_wire(wire(inner), received_at=1.0))
    del data_of(inner)["request_id"]
    (old,) = normalise(read_wire(wire(inner), received_at=1.0))
    inner["_context_request_id"] = None
    (none,) = normalise(read_wire(wire(inner), received_at=1.0))

    assert ["req-payload", "req-envelope", None] == [seen.because.request_id for seen in (new, old, none)]


@pytest.mark.parametrize("version", ["1.0", "1.9", "1.13", "2.0", "2.1", "2.7"])
def test_versions_one_and_two_are_read(version: str) -> None:
    """Payloads of versions 1.x and 2.x are read alike, those without the newer fields too."""
    inner = message("instance.live_migration_pre.start")
    inner["payload"]["nova_object.version"] = version
    for field in ("updated_at", "request_id", "fault"):
        data_of(inner).pop(field, None)

    (seen,) = normalise(read_wire(wire(inner), received_at=1.0))

    assert isinstance(seen, ServerSeen)
    assert (seen.updated_at, seen.fault) == (None, None)


def test_version_three_is_quarantined() -> None:
    """A major version that nobody here knows is not guessed at."""
    inner = message("instance.update")
    inner["payload"]["nova_object.version"] = "3.0"

    with pytest.raises(Unreadable, match="version '3.0'"):
        normalise(read_wire(wire(inner), received_at=1.0))


def test_envelope_version_one_is_read_too() -> None:
    """The driver `messaging` sends the inner object bare; it means the same."""
    inner = message("instance.update")

    bare, wrapped = (read_wire(body, received_at=1.0) for body in (json.dumps(inner), wire(inner)))

    assert normalise(wrapped) == normalise(bare)


def test_times_are_read_to_what_they_are() -> None:
    """Payload times are whole seconds in UTC; the envelope's have microseconds, or none at all when they are zero."""
    (seen,) = normalise(notification("instance.power_off.start", updated_at="2026-11-23T02:48:47Z"))

    assert isinstance(seen, ServerSeen)
    assert seen.updated_at == 1795402127.0
    assert (read_time("2026-11-23 02:48:47"), read_time("2026-11-23 02:48:47.250000")) == (1795402127.0, 1795402127.25)


def test_fault_is_one_line() -> None:
    """Of an exception that crossed an RPC, with its traceback in the message, the first line is kept."""
    (failed,) = normalise(notification("compute_task.migrate_server.error"))
    (rebuilt,) = normalise(notification("instance.rebuild.error"))
    (hinted,) = normalise(notification("compute.exception"))
    (libvirt,) = normalise(notification("libvirt.connect.error"))

    assert isinstance(failed, TaskFailed) and isinstance(rebuilt, ServerSeen)
    assert isinstance(hinted, HostHinted) and isinstance(libvirt, HostHinted)
    assert failed.fault == "NoValidHost: No valid host was found."
    assert rebuilt.fault == "NovaException: driver: spawn told to fail on cmp-04"
    assert hinted.fault == libvirt.fault == "NovaException: driver: finish_migration told to fail on cmp-02"


@pytest.mark.parametrize(
    ("specs", "hindrance"),
    [(None, None), ({}, ""), ({"hw:cpu_policy": "dedicated", "hw:mem_encryption": "true"}, "hw:mem_encryption=true")],
)
def test_the_flavor_of_a_payload_may_hinder(specs: dict[str, str] | None, hindrance: str | None) -> None:
    """Every instance payload carries the flavor: its memory, and of its extra specs the worst one, are kept."""
    inner = {"memory_mb": 512} if specs is None else {"extra_specs": specs, "memory_mb": 512}
    flavor = {"nova_object.name": "FlavorPayload", "nova_object.data": inner}
    (seen,) = normalise(notification("instance.power_off.start", flavor=flavor))

    assert isinstance(seen, ServerSeen) and (seen.hindrance, seen.memory_mb) == (hindrance, 512)


def test_task_failures_name_server_and_task() -> None:
    """compute_task.*.error says which server's task failed, and the task by Nova's word."""
    seen = [normalise(notification(f"compute_task.{task}.error"))[0] for task in ("build_instances", "rebuild_server")]

    assert ["build_instances", "rebuild_server"] == [getattr(s, "task", None) for s in seen]
    assert data_of(message("compute_task.build_instances.error"))["instance_uuid"] == getattr(
        seen[0], "server_id", None
    )


def test_services_of_other_binaries_are_nobodys_business() -> None:
    """Only nova-compute services are hosts."""
    assert normalise(notification("service.update", "disabled", binary="nova-conductor")) == ()


def test_service_update_has_all_but_the_heartbeat() -> None:
    """A service notification tells disabled, reason and forced down; whether it is up it does not say."""
    (seen,) = normalise(notification("service.update", "disabled"))

    assert isinstance(seen, ServiceSeen)
    assert (seen.disabled, seen.forced_down, seen.up, seen.change) == (True, False, None, "updated")
    assert seen.disabled_reason and seen.service_uuid


def test_hints_come_from_computes_only() -> None:
    """An exception in another service says nothing of a host."""
    assert normalise(notification("compute.exception", publisher="nova-conductor:vm")) == ()


def test_unknown_types_give_nothing() -> None:
    """A type that Nova may add one day is no error, and has no label of its own."""
    assert normalise(_bare("instance.teleport.start", "nova-compute:h1", None)) == ()
    assert (event_type_label("instance.teleport.start"), event_type_label("instance.update")) == (
        "other",
        "instance.update",
    )


def test_ignored_types_are_known_and_give_nothing() -> None:
    """What is ignored is ignored by name, whatever its payload, and still counted under its name."""
    assert not IGNORED & set(NORMALISERS)
    assert KNOWN_EVENT_TYPES == IGNORED | set(NORMALISERS)
    for event_type in IGNORED:
        assert normalise(_bare(event_type, "nova-api:vm", None)) == ()


def test_unversioned_stream_is_recognised() -> None:
    """Nova's legacy messages have a bare payload and a publisher with a dot; they are named, and give nothing."""
    legacy = _bare("compute.instance.update", "compute.h1", {"instance_id": "i", "host": "h1"})
    same_name = _bare("scheduler.select_destinations.start", "scheduler.vm", {"request_spec": {}})

    assert is_unversioned(legacy) and is_unversioned(same_name)
    assert not is_unversioned(notification("instance.update"))
    assert normalise(legacy) == normalise(same_name) == ()


@pytest.mark.parametrize("payload", [None, [], "text", {}, {"nova_object.data": None}, {"nova_object.name": "X"}])
@pytest.mark.parametrize("event_type", sorted(NORMALISERS))
def test_malformed_payloads_are_quarantined(event_type: str, payload: Any) -> None:
    """A known type whose payload is not Nova's is unreadable, with a sentence; it is never read as something else."""
    with pytest.raises(Unreadable, match="payload"):
        normalise(_bare(event_type, "nova-compute:h1", payload))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uuid", None),
        ("uuid", ""),
        ("uuid", 7),
        ("host", ["h1"]),
        ("state", 1),
        ("task_state", {}),
        ("updated_at", "yesterday"),
        ("updated_at", 12),
        ("fault", "broken"),
        ("tenant_id", 3),
        ("progress", "half"),
    ],
)
def test_wrong_field_is_named(field: str, value: Any) -> None:
    """The sentence names the field that is not what Nova documents."""
    with pytest.raises(Unreadable, match=field if field != "fault" else "payload"):
        normalise(notification("instance.update", "progress", **{field: value}))


@pytest.mark.parametrize("publisher", ["", "nova-compute", "nova-compute:", ":h1"])
def test_publisher_without_a_host_is_quarantined(publisher: str) -> None:
    """A versioned message whose publisher is not <service>:<host> cannot be placed."""
    with pytest.raises(Unreadable, match="publisher"):
        normalise(notification("instance.live_migration_pre.start", publisher=publisher))


@settings(max_examples=300, deadline=None)
@given(
    event_type=st.sampled_from(sorted(KNOWN_EVENT_TYPES)) | st.text(max_size=12),
    publisher=st.sampled_from(["nova-compute:h1", "nova-api:vm", "compute.h1", ":"]) | st.text(max_size=8),
    payload=JSON
    | st.builds(lambda data: {"nova_object.data": data}, JSON)
    | st.builds(lambda v, data: {"nova_object.version": v, "nova_object.data": data}, JSON, JSON),
)
def test_garbage_raises_nothing_but_unreadable(event_type: str, publisher: str, payload: Any) -> None:
    """Whatever arrives, it is an observation, nothing, or unreadable; nothing else is ever raised."""
    try:
        normalise(_bare(event_type, publisher, payload))
    except Unreadable:
        pass


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_raise_nothing_but_unreadable(data: st.DataObject) -> None:
    """A real message with any field replaced by anything raises nothing but Unreadable either."""
    inner = message(data.draw(st.sampled_from(sorted(NORMALISERS))))
    fields = data_of(inner)
    field = data.draw(st.sampled_from(sorted(fields)))
    fields[field] = data.draw(JSON)
    try:
        normalise(read_wire(wire(inner), received_at=1.0))
    except Unreadable:
        pass


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.binary(max_size=30) | JSON.map(json.dumps) | JSON.map(_enveloped))
def test_garbage_on_the_wire_raises_nothing_but_unreadable(body: str | bytes) -> None:
    """Whatever a body holds, reading it gives a notification or Unreadable."""
    try:
        read_wire(body, received_at=1.0)
    except Unreadable:
        pass


@pytest.mark.parametrize("event_type", sorted(set(NORMALISERS) - {"compute.exception", "libvirt.connect.error"}))
def test_empty_payloads_are_quarantined(event_type: str) -> None:
    """A versioned payload without the fields that name what it is about is unreadable; only a hint needs none."""
    with pytest.raises(Unreadable):
        normalise(_bare(event_type, "nova-compute:h1", {"nova_object.data": {}}))
