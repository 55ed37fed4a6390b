"""What a log line looks like, to a machine, to the journal, and to somebody who must not see a secret."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from maintd import log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Put the process's logging back after each test."""
    root, ours = logging.getLogger(), logging.getLogger("maintd")
    before = root.handlers[:], root.level, ours.level, sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    sys.excepthook, threading.excepthook = before[3], before[4]


def lines(level: str = "info", form: str = "auto") -> io.StringIO:
    """Logging set up to write into a buffer that is no terminal."""
    out = io.StringIO()
    log.configure(level, form, out)
    return out


def test_without_a_terminal_each_line_is_an_object() -> None:
    """An event is one JSON object with its name, level, logger, time and values."""
    out = lines()

    log.get_logger("maintd.x").info("migration_stalled", host="cmp-1", after_s=90)

    said = json.loads(out.getvalue())
    assert said.pop("timestamp").endswith("Z")
    assert {"event": "migration_stalled", "host": "cmp-1", "after_s": 90, "level": "info", "logger": "maintd.x"} == said


def test_libraries_speak_the_same_way() -> None:
    """A line of a library that knows nothing of structlog is such an object too."""
    out = lines()

    logging.getLogger("oslo.messaging._drivers.impl_rabbit").error("gone: %s", "broker")

    said = json.loads(out.getvalue())
    assert ("gone: broker", "error") == (said["event"], said["level"])


def test_libraries_are_quiet_and_we_are_not() -> None:
    """At info, libraries speak from warning on; at debug from info on; at error everybody from error on."""
    for level, expected in (
        ("debug", ["ours debug", "ours info", "theirs info", "ours warning", "theirs warning"]),
        ("info", ["ours info", "ours warning", "theirs warning"]),
        ("warning", ["ours warning", "theirs warning"]),
        ("error", []),
    ):
        out = lines(level)
        for rank in ("debug", "info", "warning"):
            getattr(log.get_logger("maintd.x"), rank)(f"ours {rank}")
            getattr(logging.getLogger("amqp"), rank)(f"theirs {rank}")

        assert expected == [json.loads(line)["event"] for line in out.getvalue().splitlines()]


def test_a_terminal_gets_text() -> None:
    """On a terminal, and when text is asked for, a line is for eyes."""
    terminal, asked = Terminal(), io.StringIO()
    for out, form in ((terminal, "auto"), (asked, "text")):
        log.configure("info", form, out)
        log.get_logger("maintd").info("started", host="cmp-1")

        assert "started" in out.getvalue()
        assert "cmp-1" in out.getvalue()
        assert not out.getvalue().startswith("{")
    assert "\x1b" not in asked.getvalue()


def test_what_a_thread_bound_is_on_its_lines() -> None:
    """Context bound with structlog's contextvars appears on every line of that thread."""
    out = lines()

    with structlog.contextvars.bound_contextvars(bus="cell1"):
        log.get_logger("maintd").warning("slow")

    assert "cell1" == json.loads(out.getvalue())["bus"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("rabbit://nova:hunter2@h:5672/", "rabbit://***@h:5672/"),
        ("'mysql+pymysql://u:hunter2@h/d'", "'mysql+pymysql://***@h/d'"),
        ("rabbit://a:hunter2@h1:5672,b:hunter2@h2/v", "rabbit://***@h2/v"),
        ("secret whsec_aHVudGVyMg== wrong", "secret whsec_*** wrong"),
        ("https://keystone:5000/v3 asked by bob@example", "https://keystone:5000/v3 asked by bob@example"),
    ],
)
def test_secrets_are_cut_out_of_finished_lines(text: str, clean: str) -> None:
    """Passwords in URLs and webhook secrets are replaced, in JSON, in text and in a library's traceback."""
    assert clean == log.redact(text)
    for form in ("json", "text"):
        out = lines(form=form)
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logging.getLogger("kombu").exception("failed: %s", text)
        log.get_logger("maintd").error("failed", url=text)

        assert "hunter2" not in out.getvalue()
        assert "aHVudGVyMg" not in out.getvalue()


def test_the_journal_is_given_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When standard error is the journal's socket, each physical line begins with its priority; else none does."""
    with (tmp_path / "journal").open("w+") as out:
        told = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{told.st_dev}:{told.st_ino}")
        log.configure("debug", "text", out)
        for rank in ("debug", "info", "warning", "error", "critical"):
            getattr(log.get_logger("maintd"), rank)("word")
        try:
            raise RuntimeError
        except RuntimeError:
            log.get_logger("maintd").exception("broken")
        out.seek(0)
        found = [line[:3] for line in out.read().splitlines()]

    assert ["<7>", "<6>", "<4>", "<3>", "<2>"] == found[:5]
    assert {"<3>"} == set(found[5:])
    assert len(found) > 7
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    plain = lines(form="text")
    log.get_logger("maintd").error("word")
    assert not plain.getvalue().startswith("<")


def test_a_thread_that_dies_says_so() -> None:
    """An exception nobody caught in a thread is a line with the thread's name and the traceback."""
    out = lines()

    def die() -> None:
        raise RuntimeError("no")

    thread = threading.Thread(target=die, name="intake")
    thread.start()
    thread.join(5)

    said = json.loads(out.getvalue())
    assert ("thread_crashed", "intake", "critical") == (said["event"], said["thread"], said["level"])
    assert "RuntimeError: no" in said["exception"]


def test_standard_output_belongs_to_the_commands() -> None:
    """Whoever logs before logging is set up does not write to standard output."""
    code = "from maintd.log import get_logger; get_logger('maintd').error('early')"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "" == run.stdout
    assert "early" in run.stderr
