"""The webhook sink against receivers on loopback, from the well-kept to the hostile."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from maintd.clock import ManualClock
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.sinks import Message
from maintd.delivery.sinks.webhook import WebhookSink, retry_after_s, webhook_endpoint
from maintd.errors import OperatorError
from tests.delivery.receivers import (
    Behaviour,
    answer,
    dripping,
    endless,
    half_closing,
    in_turn,
    receiver,
    refusing_url,
    silent,
)

NOW = 1_800_000_000.0
SECRET = "whsec_" + "c2VjcmV0" * 5
MESSAGE = Message("event-1", {"webhook-id": "event-1", "webhook-signature": "v1,x"}, '{"id": "é"}'.encode())


def send(url: str, times: int = 1, total_s: float = 30.0, secrets: tuple[str, ...] = ()) -> list[Outcome]:
    async def run() -> list[Outcome]:
        sink = WebhookSink(url, ManualClock(NOW), secrets, total_s=total_s)
        await sink.open()
        try:
            return [await sink.send(MESSAGE) for _ in range(times)]
        finally:
            await sink.close()

    return asyncio.run(run())


def outcome_of(behave: Behaviour, total_s: float = 30.0, secrets: tuple[str, ...] = ()) -> Outcome:
    with receiver(behave) as server:
        return send(server.url, total_s=total_s, secrets=secrets)[0]


def test_what_is_sent() -> None:
    """A POST of exactly the bytes given, as one structured CloudEvent, with the headers that sign it."""
    with receiver(answer(204)) as server:
        outcome = send(server.url)[0]
        request = server.received[0]

    assert Outcome(OutcomeKind.DELIVERED, 204) == outcome
    assert "POST /hook HTTP/1.1" == request.line
    assert MESSAGE.body == request.body
    assert "application/cloudevents+json" == request.headers["content-type"]
    assert ("event-1", "v1,x") == (request.headers["webhook-id"], request.headers["webhook-signature"])


def test_connections_are_used_again() -> None:
    """Several events to one receiver need one connection."""
    with receiver(answer(200, body=b"thanks")) as server:
        send(server.url, times=3)

        assert (3, 1) == (len(server.received), server.connections)


def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    """An event goes to the configured address or nowhere."""
    with receiver(answer(200)) as elsewhere, receiver(answer(307, f"Location: {elsewhere.url}\r\n")) as server:
        outcome = send(server.url)[0]

        assert (OutcomeKind.REDIRECTED, 307) == (outcome.kind, outcome.status)
        assert [] == elsewhere.received


def test_cookies_are_not_kept() -> None:
    """What a receiver sets is not sent back."""
    with receiver(answer(200, "Set-Cookie: a=b\r\n")) as server:
        send(server.url.replace("127.0.0.1", "localhost"), times=2)  # of bare addresses no jar keeps any

        assert "cookie" not in server.received[1].headers


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable, set for other programs, leads no event astray."""
    monkeypatch.setenv("http_proxy", refusing_url())

    assert OutcomeKind.DELIVERED is outcome_of(answer(200)).kind


def test_refused() -> None:
    """A port without a listener is unreachable, and the detail names neither path nor query."""
    outcome = send(refusing_url())[0]

    assert OutcomeKind.UNREACHABLE is outcome.kind
    assert "hook" not in outcome.detail


def test_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is unreachable, not an exception."""

    def unknown(*given: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert OutcomeKind.UNREACHABLE is send("http://receiver.invalid/hook")[0].kind


def test_silence_ends_at_the_deadline() -> None:
    """A receiver that never answers costs the deadline and no more."""
    began = time.monotonic()
    outcome = outcome_of(silent, total_s=0.2)

    assert OutcomeKind.TIMED_OUT is outcome.kind
    assert time.monotonic() - began < 2


def test_dripping_head_ends_at_the_deadline() -> None:
    """A receiver that sends its answer's head byte by byte cannot stretch the deadline."""
    began = time.monotonic()
    outcome = outcome_of(dripping(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000), total_s=0.2)

    assert OutcomeKind.TIMED_OUT is outcome.kind
    assert time.monotonic() - began < 2


def test_half_closing() -> None:
    """An answer cut in the middle is a broken one."""
    assert OutcomeKind.BROKEN is outcome_of(half_closing).kind


def test_nonsense() -> None:
    """What is not HTTP is a broken answer."""
    assert OutcomeKind.BROKEN is outcome_of(dripping(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", every_s=0)).kind


@pytest.mark.parametrize(("status", "kind"), [(200, OutcomeKind.DELIVERED), (500, OutcomeKind.REFUSED)])
def test_an_endless_body_is_cut(status: int, kind: OutcomeKind) -> None:
    """The status decides; of the body 4 KB are read and the connection is closed, not used again."""
    with receiver(endless(status)) as server:
        outcomes = send(server.url, times=2)

        assert [kind, kind] == [outcome.kind for outcome in outcomes]
        assert 2 == server.connections
        assert server.sent < 50_000_000
    assert all(len(outcome.detail) <= 500 for outcome in outcomes)


def test_a_dripping_body_does_not_undo_a_success() -> None:
    """Who says 200 has the event, however long the rest takes; we do not wait for it."""
    began = time.monotonic()
    outcome = outcome_of(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9999, every_s=0.005))

    assert OutcomeKind.DELIVERED is outcome.kind
    assert time.monotonic() - began < 3


def test_a_body_cut_short_does_not_undo_a_success() -> None:
    """Who says 200 and hangs up has the event."""

    def behave(connection, server) -> None:  # type: ignore[no-untyped-def]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        server.hang_up(connection)

    assert OutcomeKind.DELIVERED is outcome_of(behave).kind


def test_hanging_up_after_an_answer_costs_no_attempt() -> None:
    """A receiver that closes after each answer, without saying so, is still reached by the next event."""

    def behave(connection, server) -> None:  # type: ignore[no-untyped-def]
        answer(200)(connection, server)
        server.hang_up(connection)

    with receiver(behave) as server:

        async def run() -> list[OutcomeKind]:
            sink = WebhookSink(server.url, ManualClock(NOW))
            await sink.open()
            kinds = []
            for count in range(1, 4):
                kinds.append((await sink.send(MESSAGE)).kind)
                await asyncio.to_thread(server.wait_for, lambda count=count: server.hung_up == count)
                await asyncio.to_thread(lambda: None)  # one more turn of the loop, in which it reads the end
            await sink.close()
            return kinds

        assert [OutcomeKind.DELIVERED] * 3 == asyncio.run(run())


def test_details_are_presentable() -> None:
    """What a receiver answers is kept short, printable, and without our secrets should it repeat them."""
    body = f"bad\x00\x1b[31m signature with {SECRET} at /hook?token=12345678 ".encode() + b"x" * 9000
    with receiver(answer(400, body=body)) as server:
        outcome = send(server.url + "?token=12345678", secrets=(SECRET,))[0]

    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 500
    assert SECRET.removeprefix("whsec_") not in outcome.detail
    assert "12345678" not in outcome.detail
    assert outcome.detail.startswith("bad")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_throttled_with_retry_after(status: int) -> None:
    """The four statuses that mean 'not now' carry the wait that was asked for."""
    outcome = outcome_of(answer(status, "Retry-After: 120\r\n"))

    assert (OutcomeKind.THROTTLED, status, 120.0) == (outcome.kind, outcome.status, outcome.retry_after_s)


def test_retry_after_elsewhere_means_nothing() -> None:
    """On any other status Retry-After is not looked at."""
    assert outcome_of(answer(500, "Retry-After: 120\r\n")).retry_after_s is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("Fri, 15 Jan 2027 08:01:40 GMT", 100.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("9" * 400, 999999999999.0),
    ],
)
def test_retry_after_forms(value: str | None, seconds: float | None) -> None:
    """Seconds or a date are understood, the past is no wait, nonsense says nothing, and nothing raises."""
    assert seconds == retry_after_s(value, NOW)


def test_recovers_after_failures() -> None:
    """A sink that met failures delivers when the receiver is well again."""
    with receiver(in_turn(half_closing, answer(500), answer(200))) as server:
        kinds = [outcome.kind for outcome in send(server.url, times=3)]

    assert [OutcomeKind.BROKEN, OutcomeKind.REFUSED, OutcomeKind.DELIVERED] == kinds


@pytest.mark.parametrize("url", ["", "receiver.example/hook", "ftp://receiver.example/", "http://", "http://a:99999/"])
def test_unusable_urls(url: str) -> None:
    """A URL that cannot work is refused when the endpoint is made, naming the webhook."""
    with pytest.raises(OperatorError, match=r"\[webhook:ha\]"):
        webhook_endpoint("ha", url, (), ("*",), ManualClock())


def test_nothing_shows_url_or_secret() -> None:
    """The repr of an endpoint tells neither where it goes nor what signs it."""
    endpoint = webhook_endpoint("ha", "http://user:passw0rd@h.example/T0K3N", (SECRET,), ("*",), ManualClock())

    for hidden in ("passw0rd", "T0K3N", SECRET.removeprefix("whsec_")):
        assert hidden not in repr(endpoint)


def test_what_a_receiver_says_is_kept_when_it_takes_an_event_too() -> None:
    """The beginning of a 2xx answer is its detail, bounded and cleaned like that of any other."""
    outcome = outcome_of(answer(202, body=b"queued as\n4711 " + b"x" * 600))

    assert OutcomeKind.DELIVERED is outcome.kind
    assert outcome.detail.startswith("queued as 4711 xxx")
    assert 500 == len(outcome.detail)
