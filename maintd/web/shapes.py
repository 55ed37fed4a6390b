"""The domain's values as JSON: which of their fields the API promises, and under which name.

Not every field is shown: those that only serve the reducer's bookkeeping stay inside, so that they can change. Names
are those of the events (`host`, `migration_key`); times are RFC 3339 texts in UTC, null where unknown; Nova's words
are kept as they came.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

from maintd.domain.buses import unheard
from maintd.domain.events import instant_text, wire
from maintd.domain.model import Bus, Curve, Drain, Host, Migration, Residue, Server, Stall

_INSTANTS: Final = frozenset(
    "since stalled_since down_since memory_since flat_since blind_from deaf_from copying_from at".split()
)

_HOST: Final = (
    "service_uuid disabled disabled_reason forced_down up down_since closed closed_at found history_unknown"
    " emptied_at drain_id heard_on seen_at"
).split()
_SERVER: Final = (
    "server_id project_id name host landing vm_state task_state since fault failed_at hindrance updated_at seen_at"
).split()
_MIGRATION: Final = (
    "migration_id migration_uuid server_id kind phase status source destination begun_at moved_at updated_at ended_at"
    " stalled stalled_since aborted post_copy percent progress sampled_at request_id fault"
).split()
_DRAIN: Final = (
    "drain_id host started_at reason forced_down found requested servers_total moved_at stalled_at ended_at outcome"
    " removed"
).split()
_RESIDUE: Final = (
    "host server_id project_id kind since service_uuid migration_uuid detail cleared_at cleared_by"
).split()
_CURVE: Final = (
    "unit total disk_total began_at changed_at looks bandwidth disk_bandwidth copying_from"
    " first_pass_ended_at flat_since"
).split()
_POINT: Final = "at remaining disk_remaining processed".split()
_PASS: Final = "began_at size count clear".split()
_STALL: Final = (
    "migration_key server_id kind reason since said_at source destination published resumed_at ended_at outcome"
    " blocked_by"
).split()
_BUS: Final = "connected blind_from deaf_from reconnected_at last_message_at".split()


def is_instant(name: str) -> bool:
    """Whether a field of this name is a moment."""
    return name.endswith("_at") or name in _INSTANTS


def moment(at: float | None) -> str | None:
    """A moment as text; None and the core's 0.0 ("never yet") are null."""
    return None if not at else instant_text(at)


def pick(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a value, ready for JSON."""
    return {name: moment(getattr(value, name)) if is_instant(name) else wire(getattr(value, name)) for name in names}


def plain(value: Any) -> Any:
    """Nested mappings ready for JSON: numbers under the name of a moment become texts."""
    if isinstance(value, dict):
        return {
            key: moment(item) if is_instant(key) and isinstance(item, (int, float)) else plain(item)
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(value):
        return wire(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def host_shape(host: Host, buses: Iterable[Bus], watched: bool) -> dict[str, Any]:
    """A host. `empty` is null while it is open (nobody asks then), and while a bus that speaks for it is not heard or
    no maintd watches (nobody knows then). `checked_at` is the last verification pass."""
    return {
        "host": host.name,
        "empty": host.emptied if host.closed and watched and not unheard(host, buses) else None,
        "checked_at": None if host.finding is None else moment(host.finding.at),
        **pick(host, _HOST),
    }


def server_shape(server: Server) -> dict[str, Any]:
    return pick(server, _SERVER)


def migration_shape(migration: Migration) -> dict[str, Any]:
    return {"migration_key": migration.key, **pick(migration, _MIGRATION)}


def curve_shape(curve: Curve) -> dict[str, Any]:
    """What is kept of the looks at a live migration; sizes are in its `unit`, bandwidths in that per second.

    `passes` are those after the first, which sends all of memory, from `copying_from` on.
    """
    shape = pick(curve, _CURVE)
    shape["points"] = [pick(point, _POINT) for point in curve.points]
    shape["passes"] = [pick(one, _PASS) for one in curve.passes]
    return shape


def stall_shape(stall: Stall) -> dict[str, Any]:
    """A stall; `published` false where it was only noted (shadow mode)."""
    return {"stall_id": stall.key, **pick(stall, _STALL), "evidence": plain(stall.evidence)}


def drain_shape(drain: Drain) -> dict[str, Any]:
    return pick(drain, _DRAIN)


def residue_shape(residue: Residue) -> dict[str, Any]:
    return pick(residue, _RESIDUE)


def bus_shape(bus: Bus) -> dict[str, Any]:
    return {"bus": bus.name, **pick(bus, _BUS)}
