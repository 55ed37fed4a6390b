"""maintd listen: what it accepts, what it refuses, what it says of each event, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maintd import receiver
from maintd.cli import main
from maintd.clock import SystemClock
from maintd.delivery import subscription_events
from maintd.receiver import REMEMBERED, Book, Standing
from tests.receivers.sending import (
    OTHER_SECRET,
    ROOT,
    SECRET,
    ask,
    event,
    listening,
    post,
    sender,
    signed,
    verification,
)


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    file = tmp_path / "whsec.txt"
    file.write_text(f"{SECRET}\n")
    return str(file)


def test_what_maintd_sends_is_verified_and_printed(tmp_path: Path, secret_file: str) -> None:
    """Real deliveries are accepted at the first attempt and printed in order, a line each, whole with --json."""
    with listening("--secret-file", secret_file, "--json") as (listen, url, said), sender(tmp_path, url) as sending:
        sending.publish(event(1), event(2), event(3))
        sending.settle(3)
        told = [json.loads(line) for line in listen.out(3)]

        assert "signatures are verified" in said and SECRET not in said
        assert ["delivered"] == sending.outcomes()
        assert [event(n).as_dict() for n in (1, 2, 3)] == [line.pop("event") for line in told]
        assert [{"answer": 204, "verified": True, "again": False, "late": False, "gap": 0}] * 3 == told


def test_what_comes_again_and_what_is_passed_over_is_said(tmp_path: Path, secret_file: str) -> None:
    """An event that is redelivered is printed as one that came before; numbers that were never sent are counted."""
    with listening("--secret-file", secret_file) as (listen, url, _), sender(tmp_path, url) as sending:
        sending.publish(event(1))
        sending.settle(1)
        sending.publish(event(5))
        sending.settle(2)
        first, second = listen.out(2)
        sending.redeliver()
        third, fourth = listen.out(2)

        assert re.fullmatch(r"2027-01-15 08:00:00Z  host\.emptied +cmp-1", first)
        assert second.endswith("[gap 3]")
        assert third.endswith("[again]") and fourth.endswith("[again]")
        assert 0 == listen.end(signal.SIGINT)
        assert "accepted 2, came again 2, late 0; 3 numbers between did not come" in listen.err()


def test_it_fails_as_often_as_told(tmp_path: Path, secret_file: str) -> None:
    """With --fail 2 an event is answered 503 twice, tried again by maintd, and no repetition when it is taken."""
    with (
        listening("--secret-file", secret_file, "--fail", "2", "--json") as (listen, url, _),
        sender(tmp_path, url) as sending,
    ):
        sending.publish(event(1))
        sending.settle(1)
        told = [json.loads(line) for line in listen.out(3)]

        assert ["throttled", "throttled", "delivered"] == sending.outcomes()
        assert [(503, None), (503, None), (204, False)] == [(line["answer"], line["again"]) for line in told]


def test_it_is_slow_as_told(tmp_path: Path, secret_file: str) -> None:
    """With --slow longer than the sender waits, the sender tries again what was taken, and it is said to come again."""
    with (
        listening("--secret-file", secret_file, "--slow", "600") as (listen, url, _),
        sender(tmp_path, url, total_s=0.3) as sending,
    ):
        sending.publish(event(1))
        first, second = listen.out(2)

        assert not first.endswith("[again]") and second.endswith("[again]")
        assert "timed_out" == sending.outcomes()[0]
        assert 0 == listen.end(signal.SIGTERM)


def test_bad_requests_are_refused(secret_file: str) -> None:
    """A bad, foreign, old or missing signature is 401, what is no event 400, too large 413; none is printed."""
    good = event(1).as_json()
    now = SystemClock().now()
    broken = {**signed(good), "webhook-signature": "nonsense"}
    with listening("--secret-file", secret_file) as (listen, url, _):
        answers = [
            post(url, good.encode(), {}),
            post(url, good.encode(), signed(good, OTHER_SECRET)),
            post(url, good.encode() + b" ", signed(good)),
            post(url, good.encode(), signed(good, at=now - 400)),
            post(url, good.encode(), signed(good, at=now + 400)),
            post(url, good.encode(), broken),
            post(url, b"\xff", signed(good)),
            *(post(url, body.encode(), signed(body)) for body in ("", "[]", '{"id": 1}', "[" * 100_000)),
            post(url, b"", {"Content-Length": str((1 << 20) + 1)}),
        ]
        assert [401] * 7 + [400] * 4 + [413] == answers
        assert [f"maintd: answered {answer}" for answer in answers] == [
            listen.err().rpartition(":")[0] for _ in answers
        ]
        assert 204 == post(url, good.encode(), signed(good))
        assert "cmp-1" in listen.out()[0] and listen.silent()


def test_whoever_asks_whether_to_send_here_is_told_yes(secret_file: str) -> None:
    """The handshake is answered with the origin that asks, a signed challenge with itself, and both are said."""
    with listening("--secret-file", secret_file) as (listen, url, _):
        assert ("maintd.example", b'{"challenge": "c-1"}') == verification(url)
        assert "maintd: answered 204: maintd.example may send events here (handshake)." == listen.err()
        assert "subscription.verify" in (said := listen.out()[0]) and said.endswith("[challenge echoed]")


def test_a_challenge_that_is_not_signed_is_not_echoed(secret_file: str) -> None:
    """A forged challenge is 401, OPTIONS without an origin 400; an origin cannot touch the terminal or the answer."""
    body = json.dumps({**event(0, kind="subscription.verify").as_dict(), "data": {"challenge": "c-1"}})
    with listening("--secret-file", secret_file) as (listen, url, _):
        assert (401, b"") == ask(url, "POST", body.encode(), signed(body, OTHER_SECRET))[::2]
        assert "answered 401" in listen.err()
        assert 400 == ask(url, "OPTIONS", b"", {})[0]
        assert "answered 400" in listen.err()
        odd = ask(url, "OPTIONS", b"", {"WebHook-Request-Origin": "a\x1b[2J\r\n Set-Cookie: b"})
        assert (204, None) == (odd[0], odd[1]["Set-Cookie"])
        assert "\x1b" not in listen.err()


def test_any_of_several_secrets_will_do(tmp_path: Path) -> None:
    """While a secret is changed, the file holds the old and the new one."""
    file = tmp_path / "whsec.txt"
    file.write_text(f"{OTHER_SECRET}\n\n{SECRET}\n")
    body = event(1).as_json()
    with listening("--secret-file", str(file)) as (_, url, _said):
        assert [204, 204] == [post(url, body.encode(), signed(body, secret)) for secret in (SECRET, OTHER_SECRET)]


def test_without_a_secret_it_says_that_nothing_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is taken from the environment: at the start and on every line it says that nothing is verified."""
    monkeypatch.setenv("MAINTD_SECRET", SECRET)
    with listening() as (listen, url, said):
        assert 204 == post(url, event(1).as_json().encode(), {})
        assert "NOTHING IS VERIFIED" in said
        assert listen.out()[0].endswith("[not verified]")


def test_what_is_printed_cannot_touch_the_terminal() -> None:
    """Control characters in an event do not reach the terminal, nor does an event that is odd end it."""
    odd = {**event(1).as_dict(), "subject": "cmp\x1b[2J", "time": "soon", "data": {"blockers": 5, "reason": "\ud800"}}
    with listening() as (listen, url, _):
        assert 204 == post(url, json.dumps(odd).encode(), {})
        assert "\x1b" not in listen.out()[0]


def test_a_silent_client_does_not_hold_up_the_others_nor_the_end(secret_file: str) -> None:
    """Somebody who sends half a request keeps neither an event nor Ctrl-C waiting."""
    body = event(1).as_json()
    with listening("--secret-file", secret_file) as (listen, url, _):
        port = int(url.rpartition(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
            assert 204 == post(url, body.encode(), signed(body))
            assert 0 == listen.end(signal.SIGINT)


def test_a_reader_that_hangs_up_ends_it() -> None:
    """When nobody reads what it prints any more (`| head`), it ends by itself, as other commands do, without a word."""
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "maintd", "listen", "--listen", "127.0.0.1:0"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, text=True,
    ) as listen:  # fmt: skip
        os.close(read)
        os.close(write)
        assert listen.stderr is not None
        url = listen.stderr.readline().partition("listening on ")[2].partition(";")[0]
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may end before it has answered
            post(url, event(1).as_json().encode(), {})
        assert (141, "") == (listen.wait(15.0), listen.stderr.read())


@pytest.mark.parametrize(
    ("content", "word", "code"),
    [
        (None, "cannot be read: No such file", 2),
        ("", "empty", 2),
        ("hunter2", "whsec_", 1),
        ("whsec_hunter2!", "base64", 1),
        ("x" * 5000, "too long", 2),
    ],
)
def test_a_bad_secret_file_is_one_sentence(
    content: str | None, word: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret file that cannot be used is said to be so, and nothing of its text is shown."""
    file = tmp_path / "whsec.txt"
    if content is not None:
        file.write_text(content)

    assert code == main(["listen", "--listen", "127.0.0.1:0", "--secret-file", str(file)])

    out, err = capsys.readouterr()
    assert ("", 1) == (out, err.count("\n"))
    assert word in err and "hunter2" not in err


@pytest.mark.parametrize(
    ("argv", "word", "code"),
    [
        (("--listen", "8780"), "HOST:PORT", 2),
        (("--listen", "127.0.0.1:port"), "HOST:PORT", 2),
        (("--listen", "127.0.0.1:99999"), "HOST:PORT", 2),
        (("--listen", "192.0.2.1:8780"), "Cannot listen on 192.0.2.1:8780", 1),
        (("--listen", "no.such.host.invalid:8780"), "Cannot listen on", 1),
        (("--fail", "-1"), "--fail", 2),
        (("--slow", "-1"), "--slow", 2),
        (("--slow", "nan"), "--slow", 2),
    ],
)
def test_a_mistake_is_one_sentence(
    argv: tuple[str, ...], word: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be listened on, and numbers that make no sense, are said in one line."""
    assert code == main(["listen", *argv])

    out, err = capsys.readouterr()
    assert ("", 1, True) == (out, err.count("\n"), err.startswith("maintd: "))
    assert word in err


def test_a_port_that_is_taken_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else's port is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert 1 == main(["listen", "--listen", f"127.0.0.1:{port}"])
    assert f"maintd: Cannot listen on 127.0.0.1:{port}: Address already in use.\n" == capsys.readouterr().err


def test_late_is_told_from_new_by_source_and_subject() -> None:
    """An older number of the same source and subject is late; of another it is none; test events have no order."""
    book = Book()
    told = [
        book.accept(event(*arguments).as_dict())
        for arguments in ((3, "cmp-1"), (1, "cmp-1"), (2, "cmp-2"), (0, "cmp-2"))
    ]

    assert [Standing(), Standing(late=True), Standing(), Standing()] == told
    assert (4, 0, 1, 0) == (book.accepted, book.again, book.late, book.missing)


def test_memory_is_bounded() -> None:
    """However many events come, only so many ids are kept in mind: the newest."""
    book = Book()
    for number in range(1, REMEMBERED + 2):
        book.accept(event(number, f"cmp-{number}").as_dict())

    assert Standing(again=True) == book.accept(event(REMEMBERED + 1).as_dict())
    assert not book.accept(event(1).as_dict()).again


def test_the_challenge_is_known_by_the_type_it_is_sent_under() -> None:
    """`maintd listen` shares no code with the sender; the name of the challenge is one all the same."""
    assert subscription_events.VERIFY == receiver.VERIFY_TYPE
