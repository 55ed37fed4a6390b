"""Recordings: what is written is what the contract says, and what is read is what was written."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintd.domain.model import Because
from maintd.domain.observations import BusSeen
from maintd.errors import OperatorError
from maintd.ingest.recording import Recording, RecordingWriter, answer_line, bus_line, notification_line
from maintd.nova.answers import Answer
from maintd.nova.notifications import Notification, Unreadable
from maintd.nova.notifications.envelope import read_time
from tests.nova.samples import message, wire

AT = "2026-11-23T02:48:45.746109Z"


def line(**fields: Any) -> str:
    return json.dumps({"at": AT, **fields}) + "\n"


def bus(at: str, state: str = "lost") -> str:
    return line(at=at, kind="bus", bus="default", state=state)


def recording(folder: Path, *lines: str, name: str = "r.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(lines))
    return path


def test_notification_line_is_the_contract() -> None:
    """A notification's line holds the time with microseconds, the routing key and the wire text as it came."""
    body = wire(message("instance.update"))

    written = notification_line(read_time(AT), "versioned_notifications.info", body)

    assert written.endswith("\n") and written.count("\n") == 1
    assert json.loads(written) == {
        "at": AT,
        "kind": "notification",
        "routing_key": "versioned_notifications.info",
        "body": body,
    }


def test_answer_line_is_the_contract() -> None:
    """An answer's line holds question and answer; status is null without one, keys that say nothing are left out."""
    good = Answer(
        read_time(AT), "compute", "GET /os-services", "2.69", 200, {"services": []}, 1795402125.5, "verify", 3, "cmp-02"
    )
    bad = Answer(read_time(AT), "placement", "GET /resource_providers", "1.14", error="timed out")

    assert json.loads(answer_line(good)) == {
        "at": AT,
        "kind": "api",
        "service": "compute",
        "request": "GET /os-services",
        "microversion": "2.69",
        "status": 200,
        "body": {"services": []},
        "asked_at": "2026-11-23T02:48:45.500000Z",
        "purpose": "verify",
        "pass": 3,
        "host": "cmp-02",
    }
    assert json.loads(answer_line(bad)) == {
        "at": AT,
        "kind": "api",
        "service": "placement",
        "request": "GET /resource_providers",
        "microversion": "1.14",
        "status": None,
        "body": None,
        "error": "timed out",
    }


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """All kinds survive writing and reading, other buses and blind times included."""
    stream = io.StringIO()
    writer = RecordingWriter(stream)
    answer = Answer(read_time(AT), "compute", "GET /x", None, None, None, 1.25, "progress", None, "h", "no answer")
    seen = BusSeen(read_time(AT), Because("clock"), "cell1", "blind", blind_from=2.5, detail="gone")
    body = wire(message("instance.update"))
    writer.notification(read_time(AT), "versioned_notifications.info", body, "cell1")
    writer.answer(answer)
    writer.bus(seen)

    (one, two, three) = Recording([recording(tmp_path, stream.getvalue())])

    assert isinstance(one[1], Notification)
    assert (one[1].event_type, one[1].bus, one[1].received_at) == ("instance.update", "cell1", read_time(AT))
    assert (two, three) == ((read_time(AT), answer), (read_time(AT), seen))


def test_writing_again_gives_the_same_line(tmp_path: Path) -> None:
    """Times keep their microseconds through any number of copies."""
    for second in range(50):
        at = f"2026-11-23T02:48:{second:02d}.{second * 19997 + 1:06d}Z"
        ((_, item),) = Recording([recording(tmp_path, bus(at))])
        assert isinstance(item, BusSeen)
        assert json.loads(bus_line(item)) == json.loads(bus(at))


def test_unknown_keys_and_kinds_are_passed_over(tmp_path: Path) -> None:
    """Readers ignore keys they do not know, and count kinds they do not know."""
    path = recording(
        tmp_path,
        line(kind="weather", sky="grey"),
        line(kind="bus", bus="default", state="lost", mood="bad"),
        "\n",
        line(kind="weather", sky="blue"),
    )
    read = Recording([path])

    assert [BusSeen] == [type(item) for _, item in read]
    assert read.skipped == {"weather": 2}


def test_unreadable_notifications_are_items(tmp_path: Path) -> None:
    """A body that is no notification was sent by somebody: it comes out as unreadable, and the rest is read."""
    bodies = ["not json", "[]", '{"oslo.version": "9", "oslo.message": "{}"}', "[" * 100_000]
    path = recording(tmp_path, *(line(kind="notification", body=body) for body in bodies), bus(AT))

    assert [Unreadable] * 4 + [BusSeen] == [type(item) for _, item in Recording([path])]


def test_files_are_merged_by_time(tmp_path: Path) -> None:
    """Several files are one stream in time order; of equal moments the file named first comes first."""
    one = recording(tmp_path, bus("2026-11-23T02:00:01Z", "a1"), bus("2026-11-23T02:00:03Z", "a3"), name="one.jsonl")
    two = recording(tmp_path, bus("2026-11-23T02:00:01Z", "b1"), bus("2026-11-23T02:00:02Z", "b2"), name="two.jsonl")

    states = [[getattr(item, "state", None) for _, item in Recording(files)] for files in ((one, two), (two, one))]

    assert states == [["a1", "b1", "b2", "a3"], ["b1", "a1", "b2", "a3"]]


def test_time_never_runs_backwards(tmp_path: Path) -> None:
    """A line older than the one before it came at that one's moment, and is counted."""
    path = recording(tmp_path, bus("2026-11-23T02:00:05Z"), bus("2026-11-23T02:00:04Z"), bus("2026-11-23T02:00:06Z"))
    read = Recording([path])

    moments = [(at, item.seen_at) for at, item in read if isinstance(item, BusSeen)]

    late = read_time("2026-11-23T02:00:05Z")
    assert moments == [(late, late), (late, late), (late + 1, late + 1)]
    assert read.skipped == {"out_of_order": 1}


def test_last_line_may_be_cut_short(tmp_path: Path) -> None:
    """A recording that is still being written, or whose writer died, is read up to its last whole line."""
    path = recording(tmp_path, bus(AT), bus(AT)[:20])
    read = Recording([path])

    assert [BusSeen] == [type(item) for _, item in read]
    assert read.skipped == {"cut_short": 1}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{\n", "is not JSON"),
        ("[]\n", "is not a JSON object"),
        ('{"at": "2026-11-23T02:48:45Z"}\n', 'has no "kind"'),
        ('{"kind": "bus", "bus": "b", "state": "s"}\n', 'has no "at"'),
        (line(at="soon", kind="bus", bus="b", state="s"), 'has an "at" that is no time'),
        (line(kind="bus", bus="b"), 'has no "state"'),
        (line(kind="notification", body={"a": 1}), 'has no "body"'),
        (line(kind="api", service="glance", request="GET /"), 'has a "service" that is neither'),
        (line(kind="api", service="compute"), 'has no "request"'),
        (line(kind="api", service="compute", request="GET /", status="200"), 'has a "status" that is no whole number'),
        (line(kind="api", service="compute", request="GET /", asked_at="then"), 'has an "asked_at" that is no time'),
    ],
)
def test_bad_lines_are_told_by_file_and_line(tmp_path: Path, bad: str, said: str) -> None:
    """A line that is not what it says is a sentence with the file, the line and what is wrong."""
    path = recording(tmp_path, bus(AT), bad, bus(AT))

    with pytest.raises(OperatorError) as raised:
        list(Recording([path]))

    assert f"Line 2 of {path} {said}" in str(raised.value)
    assert str(raised.value).endswith(".")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """A missing file, a folder and a compressed file are each a sentence that names the file."""
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (packed, "unpacked first")):
        with pytest.raises(OperatorError) as raised:
            list(Recording([path]))
        assert str(path) in str(raised.value) and said in str(raised.value)


def test_reading_again_begins_anew(tmp_path: Path) -> None:
    """A recording can be read twice, and counts afresh."""
    read = Recording([recording(tmp_path, bus(AT), line(kind="weather"))])

    assert list(read) == list(read)
    assert read.skipped == {"weather": 1}


def test_lines_of_many_threads_stay_whole() -> None:
    """Whoever writes at the same time, every line is whole."""
    stream = io.StringIO()
    writer = RecordingWriter(stream)

    def write() -> None:
        for _ in range(200):
            writer.notification(1.0, "versioned_notifications.info", "x" * 50)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 800 == sum(json.loads(text)["body"] == "x" * 50 for text in stream.getvalue().splitlines())


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["at", "kind", "service", "request", "body", "bus", "state", "status", "pass"]),
        st.sampled_from(["notification", "api", "bus", AT, "compute", 7, None, [], {}]) | st.text(max_size=5),
    )
)
def test_any_line_is_an_item_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    """Whatever stands in a line, it is read, passed over, or told in a sentence."""
    path = recording(tmp_path_factory.mktemp("r"), json.dumps(fields) + "\n")
    try:
        list(Recording([path]))
    except OperatorError as told:
        assert str(told).startswith("Line 1 of")
