"""Recordings: what came in, one JSON object a line, in time order; written as it comes, and read back for a replay.

A recording is a contract (others make and read them), so it holds what came over the wire and nothing that we made of
it: a notification's body as the text it was, an answer's parsed body with its question, a change of a bus connection.
Readers ignore keys they do not know, and pass over kinds they do not know, counting them.

A line that cannot be what it says it is, is the operator's to mend: a sentence with file and line. A *notification*
that cannot be read is no fault of the file, since Nova or somebody else did send it: it comes out as the `Unreadable`
it is, to be counted. Neither time nor order is made up here, except that time never runs backwards: a line older than
the one before it is taken to have come at the same moment as that one.

    {"at": "2026-11-23T02:48:45.746109Z", "kind": "notification", "routing_key": "versioned_notifications.info",
     "body": "…"}
    {"at": "…", "kind": "api", "service": "compute", "request": "GET /os-services?binary=nova-compute",
     "microversion": "2.69", "status": 200, "body": {"services": […]}, "asked_at": "…", "purpose": "reconcile"}
    {"at": "…", "kind": "bus", "bus": "default", "state": "lost"}
"""

from __future__ import annotations

import heapq
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from maintd.domain.events import instant_text
from maintd.domain.model import Because
from maintd.domain.observations import BusSeen
from maintd.errors import OperatorError
from maintd.nova.answers import Answer
from maintd.nova.notifications.envelope import Notification, Unreadable, read_wire

Item = Notification | Answer | BusSeen | Unreadable

_SERVICES = ("compute", "placement")


class Recording:
    """The lines of one or several recordings, merged by their `at`; of equal moments the file named first comes first.

    Iterating yields (at, item) and reads the files as it goes; it may be done again, and begins anew. `skipped` then
    counts what was passed over: lines of each unknown kind, `cut_short` for a last line still being written; and
    `out_of_order` lines, older than the one before them, which are yielded. Raises OperatorError, a sentence that
    names file and line, for a file that cannot be read or is no recording.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [Path(path) for path in paths]
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[float, Item]]:
        self.skipped = Counter()
        files = [self._lines(path) for path in self.paths]
        return heapq.merge(*files, key=_moment_of)

    def _lines(self, path: Path) -> Iterator[tuple[float, Item]]:
        last = float("-inf")
        try:
            with path.open(encoding="utf-8", newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    read = self._line(path, number, line, last)
                    if read is not None:
                        last = read[0]
                        yield read
        except OSError as wrong:
            raise OperatorError(f"Cannot read the recording {path}: {wrong.strerror or wrong}.") from None
        except UnicodeDecodeError as wrong:
            raise OperatorError(
                f"{path} is no recording: it is not UTF-8 text ({wrong.reason}). "
                "Recordings are JSON Lines; a compressed one must be unpacked first."
            ) from None

    def _line(self, path: Path, number: int, line: str, last: float) -> tuple[float, Item] | None:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as wrong:
            if not line.endswith("\n"):
                self.skipped["cut_short"] += 1
                return None
            raise _bad(path, number, f"is not JSON ({wrong})") from None
        if not isinstance(fields, dict):
            raise _bad(path, number, "is not a JSON object")
        kind = fields.get("kind")
        if not isinstance(kind, str):
            raise _bad(path, number, 'has no "kind"')
        try:
            at = _instant(fields, "at")
            if at < last:
                self.skipped["out_of_order"] += 1
                at = last
            if kind == "notification":
                return at, _notification(fields, at)
            if kind == "api":
                return at, _answer(fields, at)
            if kind == "bus":
                return at, _bus(fields, at)
        except _WrongField as wrong:
            raise _bad(path, number, str(wrong)) from None
        self.skipped[kind] += 1
        return None


def _moment_of(line: tuple[float, Item]) -> float:
    return line[0]


def _bad(path: Path, number: int, what: str) -> OperatorError:
    return OperatorError(f"Line {number} of {path} {what}; remove the line, or record again with `maintd record`.")


# -- reading ----------------------------------------------------------------------------------------------------------


class _WrongField(ValueError):
    """The rest of a sentence that begins with "Line 3 of FILE"."""


def _text(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _WrongField(f'has a "{key}" that is no text')


def _needed(fields: dict[str, Any], key: str) -> str:
    value = _text(fields, key)
    if not value:
        raise _WrongField(f'has no "{key}"')
    return value


def _number(fields: dict[str, Any], key: str) -> int | None:
    value = fields.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _WrongField(f'has a "{key}" that is no whole number')


def _instant(fields: dict[str, Any], key: str) -> float:
    text = _needed(fields, key)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _WrongField(f'has an "{key}" that is no time like 2026-11-23T02:48:45.746109Z') from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _instant_if_any(fields: dict[str, Any], key: str) -> float | None:
    return None if fields.get(key) is None else _instant(fields, key)


def _notification(fields: dict[str, Any], at: float) -> Item:
    body = fields.get("body")
    if not isinstance(body, str):
        raise _WrongField('has no "body" (the wire text)')
    try:
        return read_wire(body, received_at=at, bus=_text(fields, "bus") or "default")
    except Unreadable as unreadable:
        return unreadable
    except RecursionError:
        return Unreadable("the body is nested too deeply")


def _answer(fields: dict[str, Any], at: float) -> Answer:
    service = _needed(fields, "service")
    if service not in _SERVICES:
        raise _WrongField(f'has a "service" that is neither {" nor ".join(_SERVICES)}')
    return Answer(
        at=at,
        service=service,
        request=_needed(fields, "request"),
        microversion=_text(fields, "microversion"),
        status=_number(fields, "status"),
        body=fields.get("body"),
        asked_at=_instant_if_any(fields, "asked_at"),
        purpose=_text(fields, "purpose"),
        pass_number=_number(fields, "pass"),
        host=_text(fields, "host"),
        error=_text(fields, "error"),
    )


def _bus(fields: dict[str, Any], at: float) -> BusSeen:
    return BusSeen(
        seen_at=at,
        because=Because("clock"),
        bus=_needed(fields, "bus"),
        state=_needed(fields, "state"),
        blind_from=_instant_if_any(fields, "blind_from"),
        detail=_text(fields, "detail"),
    )


# -- writing ----------------------------------------------------------------------------------------------------------


def notification_line(at: float, routing_key: str, body: str | bytes, bus: str = "default") -> str:
    """The line of a notification, with its newline. A body that is not UTF-8 keeps what can be shown of it."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    fields: dict[str, Any] = {"at": instant_text(at), "kind": "notification", "routing_key": routing_key}
    if bus != "default":
        fields["bus"] = bus
    return _line_of({**fields, "body": text})


def answer_line(answer: Answer) -> str:
    """The line of an API answer, with its newline; keys that say nothing are left out."""
    optional = {
        "asked_at": None if answer.asked_at is None else instant_text(answer.asked_at),
        "purpose": answer.purpose,
        "pass": answer.pass_number,
        "host": answer.host,
        "error": answer.error,
    }
    return _line_of(
        {
            "at": instant_text(answer.at),
            "kind": "api",
            "service": answer.service,
            "request": answer.request,
            "microversion": answer.microversion,
            "status": answer.status,
            "body": answer.body,
            **{key: value for key, value in optional.items() if value is not None},
        }
    )


def bus_line(seen: BusSeen) -> str:
    """The line of a bus whose state changed, with its newline."""
    fields: dict[str, Any] = {"at": instant_text(seen.seen_at), "kind": "bus", "bus": seen.bus, "state": seen.state}
    if seen.blind_from is not None:
        fields["blind_from"] = instant_text(seen.blind_from)
    if seen.detail is not None:
        fields["detail"] = seen.detail
    return _line_of(fields)


def _line_of(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=True) + "\n"


class RecordingWriter:
    """Writes lines to a stream, whole and one after the other, from any thread; every line is flushed.

    Order is the order of the calls. It closes nothing. Raises whatever the stream does when the disk is full.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def notification(self, at: float, routing_key: str, body: str | bytes, bus: str = "default") -> None:
        """Record a notification as it came."""
        self._write(notification_line(at, routing_key, body, bus))

    def answer(self, answer: Answer) -> None:
        """Record an answer of an API, or that there was none."""
        self._write(answer_line(answer))

    def bus(self, seen: BusSeen) -> None:
        """Record a change of a bus."""
        self._write(bus_line(seen))

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(line)
            self._stream.flush()
