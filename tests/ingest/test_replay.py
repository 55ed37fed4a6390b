"""A recording in which migrations stall: the same bytes twice, and whatever its beginning leads to begins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maintd.domain.events import CloudEvent, instant_text
from maintd.domain.model import Because, Policy
from maintd.domain.observations import BusSeen
from maintd.ingest.recording import Recording, answer_line, bus_line
from maintd.ingest.replay import replay
from maintd.nova.answers import Answer
from tests.domain.precopy import GIB, Guest, Look, tell

BEGAN = 1_795_000_000.0
GUESTS = {
    "converges": Guest(8 * GIB, 0.5 * GIB, 0.1 * GIB, 2 * GIB, seed=1),
    "diverges": Guest(4 * GIB, 0.5 * GIB, 1.0 * GIB, 2 * GIB, seed=2),
    "freezes": Guest(16 * GIB, 0.2 * GIB, 0.1 * GIB, 2 * GIB, seed=3),
}


def answer(at: float, request: str, body: dict[str, Any]) -> str:
    return answer_line(Answer(at, "compute", request, "2.90", 200, body, asked_at=at))


def progress(number: int, name: str, look: Look, at: float) -> str:
    counters = {
        f"{what}_{which}_bytes": getattr(look.progress, f"{what}_{which}_bytes")
        for what in ("memory", "disk")
        for which in ("total", "processed", "remaining")
    }
    row = {
        "id": number,
        "uuid": f"u-{name}",
        "server_uuid": name,
        "status": "running",
        "source_compute": "a",
        "dest_compute": "b",
        "created_at": instant_text(BEGAN),
        "updated_at": instant_text(BEGAN + look.at),
        **counters,
    }
    return answer(at, f"GET /servers/{name}/migrations", {"migrations": [row]})


def services(at: float, state: str) -> str:
    row = {"id": "c-a", "binary": "nova-compute", "host": "a", "zone": "nova", "status": "enabled", "state": state,
           "updated_at": instant_text(at), "forced_down": False, "disabled_reason": None}  # fmt: skip
    return answer(at, "GET /os-services?binary=nova-compute", {"services": [row]})


def recorded() -> list[str]:
    """Three migrations for ten minutes, a bus that is cut meanwhile, and a source whose heartbeat goes and comes."""
    lines: list[tuple[float, str]] = []
    for number, (name, guest) in enumerate(GUESTS.items(), 1):
        looks = tell(guest, limit_s=600.0).looks
        for n in range(1, 120):
            seen = min(n, 12) if name == "freezes" and n < 60 else n - 47 if name == "freezes" else n
            if seen > len(looks):
                break
            at = BEGAN + 5.0 * n + number / 10
            lines.append((at, progress(number, name, looks[seen - 1], at)))
    for n in range(21):
        at = BEGAN + 30.0 * n
        lines.append((at, services(at, "down" if 8 <= n < 14 else "up")))
    for at, state in ((BEGAN, "connected"), (BEGAN + 100.0, "lost"), (BEGAN + 200.0, "connected")):
        lines.append((at, bus_line(BusSeen(at, Because("clock"), "default", state))))
    return [line for _, line in sorted(lines, key=lambda one: one[0])]


def played(path: Path, lines: list[str]) -> list[str]:
    path.write_text("".join(lines))
    events: list[CloudEvent] = list(replay(Recording([path]), Policy(), "main"))
    return [event.as_json() for event in events]


def test_stalls_are_told_alike_twice_and_what_comes_later_changes_nothing_of_them(tmp_path: Path) -> None:
    """Whatever is said, resumed and estimated rests on the lines before it alone, and on nothing else."""
    lines = recorded()
    whole = played(tmp_path / "r.jsonl", lines)
    assert whole == played(tmp_path / "r.jsonl", lines)
    for reason in ("frozen", "not_converging", "host_down"):
        assert any("migration.stalled" in event and f'"{reason}"' in event for event in whole), reason
    assert any("migration.resumed" in event for event in whole)

    for part in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8):
        begun = played(tmp_path / "r.jsonl", lines[: int(len(lines) * part)])
        assert begun == whole[: len(begun)]
    assert 0 < len(played(tmp_path / "r.jsonl", lines[: len(lines) // 2])) < len(whole)
