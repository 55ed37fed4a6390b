"""Hostile URLs, names and servers: whoever gives us an endpoint gets no request of ours inside, and costs us little.

Three tables, a sentence a row. URLs and names aim at a trap on loopback that must hear nothing; servers are real ones
on loopback, which the policy of their rows allows, and answer as no receiver should.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.delivery.egress import NOT_ALLOWED, Egress
from maintd.delivery.outcome import DETAIL_CHARS, Outcome, OutcomeKind
from maintd.delivery.retry import RETRY_AFTER_CAP_S, SCHEDULE_S, RetryAt, next_attempt
from maintd.delivery.sinks import Message
from maintd.delivery.sinks.webhook import WebhookSink
from tests.delivery.certificates import self_signed, trust
from tests.delivery.receivers import (
    Behaviour,
    Receiver,
    answer,
    dripping,
    endless,
    half_closing,
    raw,
    receiver,
    silent,
)

REDIRECTED, REFUSED, DELIVERED, BROKEN = (
    OutcomeKind.REDIRECTED,
    OutcomeKind.REFUSED,
    OutcomeKind.DELIVERED,
    OutcomeKind.BROKEN,
)
TIMED_OUT, THROTTLED, GONE, UNREACHABLE = (
    OutcomeKind.TIMED_OUT,
    OutcomeKind.THROTTLED,
    OutcomeKind.GONE,
    OutcomeKind.UNREACHABLE,
)

NOW = 1_800_000_000.0
MESSAGE = Message("event-1", {"webhook-id": "event-1", "webhook-signature": "v1,x"}, b'{"id": "event-1"}')
LOOPBACK = ip_network("127.0.0.1/32")
METADATA = "http://169.254.169.254/latest/meta-data/"

SHORT_S = 0.5
TOO_LATE = f"no answer within {SHORT_S} s"
WORDS = {
    "",
    "no TLS",
    "no connection",
    "connection refused",
    "no connection within 5 s",
    TOO_LATE,
    "the connection gave no valid answer",
    "the name leads to no address that is allowed",
    "names cannot be looked up now",
    "TLS certificate refused: it is self-signed",
}
"""All that may be told of an attempt that met no answer."""


def send(url: str, egress: Egress, times: int = 1, total_s: float = 10) -> list[Outcome]:
    async def run() -> list[Outcome]:
        sink = WebhookSink(url, ManualClock(NOW), egress=egress, total_s=total_s)
        await sink.open()
        try:
            return [await sink.send(MESSAGE) for _ in range(times)]
        finally:
            await sink.close()

    return asyncio.run(run())


@contextlib.contextmanager
def trap() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A port on which somebody listens at 127.0.0.1 and at ::1, and whether anybody came."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.setblocking(False)

        def sprung() -> bool:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                return True
            return False

        yield listener.getsockname()[1], sprung


# --- URLs ------------------------------------------------------------------------------------------------------------

NO_HOST, NOT_MADE, CHARACTER = "the host is neither", "the URL is not made like", "has no place in one"

URLS = [
    ("loopback in the usual notation", "http://127.0.0.1:{port}/", NOT_ALLOWED),
    ("another address of loopback", "http://127.9.9.9:{port}/", NOT_ALLOWED),
    ("loopback by its name", "http://localhost:{port}/", NO_HOST),
    ("loopback as one decimal number", "http://2130706433:{port}/", NO_HOST),
    ("loopback as one hexadecimal number", "http://0x7f000001:{port}/", NO_HOST),
    ("loopback as one octal number", "http://017700000001:{port}/", NO_HOST),
    ("loopback in two parts", "http://127.1:{port}/", NO_HOST),
    ("loopback in three parts", "http://127.0.1:{port}/", NO_HOST),
    ("loopback in two parts, one hexadecimal", "http://0x7f.1:{port}/", NO_HOST),
    ("loopback in hexadecimal and octal parts", "http://0x7f.0.0.01:{port}/", NO_HOST),
    ("loopback with zeros in front", "http://127.000.000.001:{port}/", NO_HOST),
    ("loopback with a number that overflows", "http://127.0.0.257:{port}/", NO_HOST),
    ("loopback with a dot at its end", "http://127.0.0.1.:{port}/", NO_HOST),
    ("loopback with an escape in it", "http://127.0.0.%31:{port}/", NO_HOST),
    ("a name with an escape in it", "http://local%68ost.example:{port}/", NO_HOST),
    ("loopback in digits with circles", "http://①②⑦.⓪.⓪.①:{port}/", CHARACTER),
    ("loopback in digits of full width", "http://１２７.0.0.1:{port}/", CHARACTER),
    ("loopback with full stops of another script", "http://127。0。0。1:{port}/", CHARACTER),
    ("a name of letters that become others", "http://ⓛocalhost.example:{port}/", CHARACTER),
    ("this host", "http://0.0.0.0:{port}/", NOT_ALLOWED),
    ("this host, short", "http://0:{port}/", NO_HOST),
    ("loopback of IPv6", "http://[::1]:{port}/", NOT_ALLOWED),
    ("loopback of IPv6 in full", "http://[0:0:0:0:0:0:0:1]:{port}/", NOT_ALLOWED),
    ("this host of IPv6", "http://[::]:{port}/", NOT_ALLOWED),
    ("loopback mapped into IPv6", "http://[::ffff:127.0.0.1]:{port}/", NOT_ALLOWED),
    ("loopback mapped into IPv6, hexadecimal", "http://[::ffff:7f00:1]:{port}/", NOT_ALLOWED),
    ("loopback compatible with IPv6", "http://[::127.0.0.1]:{port}/", NOT_ALLOWED),
    ("the metadata service", METADATA, NOT_ALLOWED),
    ("the metadata service through NAT64", "http://[64:ff9b::169.254.169.254]/", NOT_ALLOWED),
    ("the metadata service through NAT64 with a local prefix", "http://[64:ff9b:1::a9fe:a9fe]/", NOT_ALLOWED),
    ("the metadata service through 6to4", "http://[2002:a9fe:a9fe::1]/", NOT_ALLOWED),
    ("loopback behind Teredo", "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", NOT_ALLOWED),
    ("a metadata service of IPv6", "http://[fd00:ec2::254]/", NOT_ALLOWED),
    ("a metadata service on an address that looks public", "http://168.63.129.16/", NOT_ALLOWED),
    ("a metadata service among shared addresses", "http://100.100.100.200/", NOT_ALLOWED),
    ("a private network", "http://10.0.0.1/", NOT_ALLOWED),
    ("an address on the link", "http://[fe80::1]/", NOT_ALLOWED),
    ("an address on the link, with a zone", "http://[fe80::1%25lo]:{port}/", NO_HOST),
    ("loopback with a zone, unescaped", "http://[::1%lo]:{port}/", CHARACTER),
    ("a site-local address", "http://[fec0::1]/", NOT_ALLOWED),
    ("multicast", "http://224.0.0.1/", NOT_ALLOWED),
    ("broadcast", "http://255.255.255.255/", NOT_ALLOWED),
    ("IPv4 in brackets", "http://[127.0.0.1]:{port}/", NO_HOST),
    ("an address of a later version", "http://[v1.7f000001]:{port}/", NO_HOST),
    ("a user in front of the host", "http://receiver.example@127.0.0.1:{port}/", "holds a user or a password"),
    ("a host in front of a user", "http://127.0.0.1:{port}@receiver.example/", "holds a user or a password"),
    ("an at sign behind a backslash", "http://127.0.0.1:{port}\\@receiver.example/", CHARACTER),
    ("a fragment that looks like a host", "http://receiver.example#@127.0.0.1:{port}/", "no '#'"),
    ("two ports", "http://127.0.0.1:{port}:80/", NO_HOST),
    ("no port behind the colon", "http://127.0.0.1:/", NO_HOST),
    ("a port of other digits", "http://127.0.0.1:８０/", CHARACTER),
    ("a port that somebody else listens on", "http://receiver.example:22/", "the port is not allowed"),
    ("a port beyond the last", "http://receiver.example:65616/", "the port is not allowed"),
    ("no host", "http:///latest/meta-data/", NO_HOST),
    ("no slashes", "http:127.0.0.1:{port}/", NOT_MADE),
    ("three slashes", "http:///127.0.0.1:{port}/", NO_HOST),
    ("a space before it", " http://127.0.0.1:{port}/", CHARACTER),
    ("a line break in it", "http://127.0.0.1:{port}/\r\nHost: inside", CHARACTER),
    ("a line break in it, escaped", "http://receiver.example/%0d%0aHost:%20inside", "a control character"),
    ("a NUL in it", "http://127.0.0.1:{port}/\x00", CHARACTER),
    ("a tab in its scheme", "ht\ttp://127.0.0.1:{port}/", CHARACTER),
    ("half an escape", "http://receiver.example/%0", CHARACTER),
    ("a file", "file:///etc/passwd", NOT_MADE),
    ("another protocol", "gopher://127.0.0.1:{port}/_x", NOT_MADE),
    ("a socket of this machine", "unix:///run/mysqld/mysqld.sock", NOT_MADE),
    ("a name without a dot, which our search domains would complete", "http://keystone:{port}/", NO_HOST),
    ("a name with a label that is too long", f"http://{'a' * 64}.example/", NO_HOST),
    ("a name that is too long", f"http://{'a.' * 127}example/", NO_HOST),
    ("an endless URL", f"http://receiver.example/{'a' * 3000}", "longer than 2048"),
    ("a port of its own behind another scheme's name", "https://127.0.0.1:{port}/", NOT_ALLOWED),
]


@pytest.mark.parametrize(("url", "words"), [pytest.param(url, words, id=says) for says, url, words in URLS])
def test_hostile_urls(url: str, words: str) -> None:
    """A URL that aims inside, or that two parsers could read in two ways, is forbidden, and nobody is called."""
    with trap() as (port, sprung):
        outcome = send(url.format(port=port), Egress(allow_http=True, allowed_ports=(80, 443, port)))[0]

        assert OutcomeKind.FORBIDDEN is outcome.kind
        assert words in outcome.detail
        assert not sprung()


def test_clear_text_is_not_sent() -> None:
    """Without allow_http a URL of http is forbidden, at an address that is allowed too."""
    with receiver(answer(200)) as server:
        outcome = send(server.url, Egress((LOOPBACK,), allowed_ports=(server.port,)))[0]

    assert Outcome(OutcomeKind.FORBIDDEN, detail="http is not allowed, only https") == outcome
    assert 0 == server.connections


# --- names -----------------------------------------------------------------------------------------------------------


class Names:
    """Answers of a resolver that somebody else governs, a list for each look-up in turn; the last one stays."""

    def __init__(self, *answers: tuple[str, ...] | int) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, int):
            raise socket.gaierror(found, f"nothing known of {host}")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]


NAMES = [
    ("a name of loopback", ("127.0.0.1",)),
    ("a name of loopback in IPv6", ("::1",)),
    ("a name of loopback, mapped", ("::ffff:127.0.0.1",)),
    ("a name of this host", ("0.0.0.0",)),
    ("a name of this host in IPv6", ("::",)),
    ("a name of the metadata service", ("169.254.169.254",)),
    ("a name of it through NAT64", ("64:ff9b::a9fe:a9fe",)),
    ("a name of it through 6to4", ("2002:a9fe:a9fe::",)),
    ("a name of a shared address", ("100.64.0.1",)),
    ("a name of many addresses inside", ("127.0.0.1", "::1", "127.0.0.2", "::ffff:127.0.0.3")),
    ("a name of an address with a zone", ("fe80::1%lo",)),
    ("a name that does not exist, which is nobody's business", socket.EAI_NONAME),
    ("a name without addresses", socket.EAI_NODATA),
]


@pytest.mark.parametrize("answers", [pytest.param(answers, id=says) for says, answers in NAMES])
def test_hostile_names(answers: tuple[str, ...] | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads inside is forbidden where it is dialled, told like one that leads nowhere; nobody is called."""
    monkeypatch.setattr(socket, "getaddrinfo", Names(answers))
    with trap() as (port, sprung):
        outcome = send(f"http://rebind.example:{port}/", Egress(allow_http=True, allowed_ports=(port,)))[0]

        assert Outcome(OutcomeKind.FORBIDDEN, detail="the name leads to no address that is allowed") == outcome
        assert not sprung()


def test_a_name_that_leads_inside_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: what a name led to when it was looked at before is not what is judged, but what is dialled now."""
    with receiver(answer(200)) as server:
        names = Names(("127.0.0.1",), ("127.0.0.2",))
        monkeypatch.setattr(socket, "getaddrinfo", names)
        egress = Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,))

        kinds = [send(f"http://rebind.example:{server.port}/", egress)[0].kind for _ in range(2)]

        assert [OutcomeKind.DELIVERED, OutcomeKind.FORBIDDEN] == kinds
        assert ["rebind.example"] * 2 == names.asked
        assert 1 == server.connections


def test_a_name_that_leads_inside_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses those that are not allowed are passed over, and the one that is gets the request."""
    monkeypatch.setattr(socket, "getaddrinfo", Names(("127.0.0.2", "::1", "127.0.0.1")))
    with receiver(answer(200)) as server:
        egress = Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,))

        assert DELIVERED is send(f"http://rebind.example:{server.port}/", egress)[0].kind
        assert 1 == server.connections


def test_denied_wins_where_it_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is allowed and denied is denied, by name as by address."""
    monkeypatch.setattr(socket, "getaddrinfo", Names(("127.0.0.1",)))
    with trap() as (port, sprung):
        egress = Egress((LOOPBACK,), (ip_network("127.0.0.0/8"),), True, (port,))

        for host in ("127.0.0.1", "rebind.example"):
            assert OutcomeKind.FORBIDDEN is send(f"http://{host}:{port}/", egress)[0].kind
        assert not sprung()


def test_look_ups_that_fail_for_now_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """That our resolver does not answer is not blamed on the name."""
    monkeypatch.setattr(socket, "getaddrinfo", Names(socket.EAI_AGAIN))
    outcome = send("https://receiver.example/", Egress())[0]

    assert Outcome(OutcomeKind.UNREACHABLE, detail="names cannot be looked up now") == outcome


def test_forbidden_is_tried_again() -> None:
    """A name can come to lead elsewhere, and a policy can be changed: a forbidden attempt is not the last."""
    forbidden = Outcome(OutcomeKind.FORBIDDEN, detail=NOT_ALLOWED)

    assert isinstance(next_attempt(1, forbidden, NOW, NOW, 0.5), RetryAt)
    assert not forbidden.disables


# --- servers ---------------------------------------------------------------------------------------------------------


def forever(piece: bytes, head: bytes = b"HTTP/1.1 500 Said\r\n") -> Behaviour:
    """Send a beginning, then a piece again and again, as fast as it is taken."""

    def behave(connection: socket.socket, server: Receiver) -> None:
        connection.sendall(head)
        while not server.closing.is_set():
            connection.sendall(piece * 64)
            server.sent += len(piece) * 64

    return behave


def resetting(connection: socket.socket, server: Receiver) -> None:
    """Hang up in the rudest way: the close that follows is a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionAbortedError


def hanging_up(text: bytes) -> Behaviour:
    """Send some bytes and hang up."""

    def behave(connection: socket.socket, server: Receiver) -> None:
        connection.sendall(text)
        server.hang_up(connection)

    return behave


def holding(text: bytes) -> Behaviour:
    """Send some bytes and stay, so that all of them are seen."""

    def behave(connection: socket.socket, server: Receiver) -> None:
        connection.sendall(text)
        server.closing.wait(30)

    return behave


def said(status: int, *headers: str, body: str = "") -> bytes:
    lines = (f"HTTP/1.1 {status} Said", *headers, "", body)
    return "\r\n".join(lines).encode()


BOMB = gzip.compress(b"x" * 50_000_000)

CHUNKED, GZIPPED = "Transfer-Encoding: chunked", "Transfer-Encoding: gzip"
UNREAD = (REFUSED, BROKEN)
"""What is wrong comes behind the status line: whether that was read before depends on how the bytes arrived."""

SERVERS = [
    # Elsewhere.
    ("a redirect to the metadata service", answer(302, f"Location: {METADATA}\r\n"), REDIRECTED),
    ("a redirect that keeps the POST", answer(307, f"Location: {METADATA}\r\n"), REDIRECTED),
    ("a redirect for good", answer(308, "Location: http://[::1]:9779/metrics\r\n"), REDIRECTED),
    ("a redirect to a file", answer(301, "Location: file:///etc/passwd\r\n"), REDIRECTED),
    ("a redirect to itself, endlessly", answer(307, "Location: /hook\r\n"), REDIRECTED),
    ("a redirect without a place", answer(303), REDIRECTED),
    ("a redirect with a place that is no URL", answer(302, "Location: http://[\r\n"), REDIRECTED),
    ("a success with a Location", answer(201, f"Location: {METADATA}\r\n"), DELIVERED),
    ("a success with a Refresh", answer(200, f"Refresh: 0; url={METADATA}\r\n"), DELIVERED),
    ("a success with an Alt-Svc", answer(200, 'Alt-Svc: h2="169.254.169.254:80"\r\n'), DELIVERED),
    ("a success with a Link to fetch first", answer(200, f"Link: <{METADATA}>; rel=preload\r\n"), DELIVERED),
    ("a refusal for good with a Location", answer(410, f"Location: {METADATA}\r\n"), GONE),
    ("a proxy to be used instead", answer(305, "Location: http://127.0.0.1:3128/\r\n"), REDIRECTED),
    ("a password asked for", answer(401, 'WWW-Authenticate: Basic realm="x"\r\n'), REFUSED),
    ("a password asked for as by a proxy", answer(407, 'Proxy-Authenticate: Basic realm="x"\r\n'), REFUSED),
    ("another protocol offered", raw(said(101, "Upgrade: websocket", "Connection: Upgrade")), REFUSED),
    # Slow, or endless.
    ("silence", silent, TIMED_OUT),
    ("a status line that drips", dripping(b"HTTP/1.1 200 " + b"O" * 1000), TIMED_OUT),
    ("headers that drip", dripping(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 500), TIMED_OUT),
    ("a refusal whose body drips", dripping(said(500, "Content-Length: 999", body="x" * 999), 0.005), REFUSED),
    ("a status line without an end", forever(b"x", b"HTTP/1.1 200 "), BROKEN),
    ("a header without an end", forever(b"x", b"HTTP/1.1 200 OK\r\nX-A: "), BROKEN),
    ("headers without an end", forever(b"X-A: b\r\n"), BROKEN),
    ("a header name without an end", forever(b"x", b"HTTP/1.1 200 OK\r\nX-"), BROKEN),
    ("a body without an end", endless(500), REFUSED),
    ("a body without an end or a length", forever(b"x" * 999, said(500)), REFUSED),
    ("chunks without an end", forever(b"400\r\n" + b"x" * 1024 + b"\r\n", said(500, CHUNKED)), REFUSED),
    ("chunks of one byte", forever(b"1\r\nx\r\n", said(500, CHUNKED)), REFUSED),
    ("a chunk's size without an end", forever(b"0", said(500, CHUNKED)), UNREAD),
    ("a chunk's extension without an end", forever(b"x", said(500, CHUNKED, body="1;a=")), UNREAD),
    ("trailers without an end", forever(b"X-A: b\r\n", said(500, CHUNKED, body="0\r\n")), UNREAD),
    ("100 Continue without an end", forever(b"HTTP/1.1 100 Continue\r\n\r\n", b""), BROKEN),
    ("early hints without an end", forever(said(103, f"Link: <{METADATA}>; rel=preload"), b""), BROKEN),
    ("an answer that is under way without an end", forever(said(102), b""), BROKEN),
    ("a bomb that unpacks to 50 MB", answer(500, "Content-Encoding: gzip\r\n", BOMB), REFUSED),
    ("a bomb in the way it is transferred", raw(said(500, f"{GZIPPED}, chunked", body="3\r\n\x1f\x08\0\r\n")), REFUSED),
    ("a bomb of a kind that is not known", answer(500, "Content-Encoding: zstd, br, gzip, gzip\r\n", BOMB), REFUSED),
    # Lies.
    ("more announced than comes", hanging_up(said(500, "Content-Length: 5000", body="abc")), REFUSED),
    ("less announced than comes", raw(said(500, "Content-Length: 3", body="abcdef")), UNREAD),
    ("a length below nothing", raw(said(500, "Content-Length: -1", body="abc")), BROKEN),
    ("a length that is no number", raw(said(500, "Content-Length: 0x10", body="abc")), BROKEN),
    ("a length beyond all numbers", raw(said(500, f"Content-Length: {'9' * 400}")), BROKEN),
    ("two lengths", raw(said(500, "Content-Length: 3", "Content-Length: 30", body="abc")), BROKEN),
    ("a length and chunks", raw(said(500, "Content-Length: 3", CHUNKED, body="0\r\n\r\n")), UNREAD),
    ("chunks twice", raw(said(500, "Transfer-Encoding: chunked, chunked", body="0\r\n\r\n")), UNREAD),
    ("chunks that are no numbers", raw(said(500, CHUNKED, body="zz\r\n")), UNREAD),
    ("a chunk of a size below nothing", raw(said(500, CHUNKED, body="-1\r\nx")), UNREAD),
    ("a status of four digits", raw(b"HTTP/1.1 2000 OK\r\n\r\n"), BROKEN),
    ("a status that is no number", raw(b"HTTP/1.1 two OK\r\n\r\n"), BROKEN),
    ("a status below all", raw(b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"), REFUSED),
    ("a status beyond all", answer(999), REFUSED),
    ("a version that does not exist", raw(b"HTTP/9.9 200 OK\r\n\r\n"), BROKEN),
    ("a NUL in a header", raw(said(200, "X-A: a\0b")), BROKEN),
    ("a bare CR in a header", raw(said(200, "X-A: a\rContent-Length: 0")), BROKEN),
    ("a header folded over lines", raw(said(200, "X-A: a", " b")), DELIVERED),
    ("a space behind a header's name", raw(said(200, "Content-Length : 0")), DELIVERED),
    ("a header without a name", raw(said(200, ": a")), BROKEN),
    ("a line that is no header", raw(said(200, "nonsense")), BROKEN),
    # Not HTTP.
    ("the body alone, as in HTTP/0.9", raw(b"<html>hello</html>\r\n\r\n"), BROKEN),
    ("another protocol's greeting", raw(b"SSH-2.0-OpenSSH_9.2p1\r\n"), BROKEN),
    ("frames of HTTP/2", raw(b"\0\0\0\x04\0\0\0\0\0" * 3), BROKEN),
    ("nothing", hanging_up(b""), BROKEN),
    ("half a status line", half_closing, BROKEN),
    ("a reset", resetting, BROKEN),
    # What people read.
    ("colours and bells for a terminal", answer(500, body=b"\x1b[31m\x07\x9b2J\r\nSet-Cookie: a=b\0"), REFUSED),
    ("an answer in no encoding", answer(500, body=b"\xff\xfe\x80" * 900), REFUSED),
    ("a patience that outlives us", answer(503, f"Retry-After: {'9' * 4000}\r\n"), THROTTLED),
    ("a patience that is no number", answer(503, "Retry-After: NaN\r\n"), THROTTLED),
    ("a patience of the year 9999", answer(429, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n"), THROTTLED),
]  # fmt: skip


@pytest.mark.parametrize(("behave", "kind"), [pytest.param(behave, kind, id=says) for says, behave, kind in SERVERS])
def test_hostile_servers(behave: Behaviour, kind: OutcomeKind | tuple[OutcomeKind, ...]) -> None:
    """Whatever is answered, an attempt is one connection and one request, ends in time, reads little, says little."""
    with receiver(behave) as server:
        egress = Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,))
        began = time.monotonic()
        outcome = send(server.url, egress, total_s=SHORT_S if kind is TIMED_OUT else 10)[0]
        took_s = time.monotonic() - began

        assert outcome.kind in (kind if isinstance(kind, tuple) else (kind,))
        assert took_s < 5
        assert (1, 1) == (server.connections, len(server.received))
        assert server.sent < 20_000_000  # most of it lies in the buffers of the two kernels
    assert len(outcome.detail) <= DETAIL_CHARS
    assert outcome.detail.isprintable()
    assert outcome.status is not None or outcome.detail in WORDS
    if not outcome.delivered and kind is not GONE:
        following = next_attempt(1, outcome, NOW, NOW, 1.0)
        assert isinstance(following, RetryAt)
        assert following.at - NOW <= SCHEDULE_S[1] + RETRY_AFTER_CAP_S


def test_a_bomb_is_not_unpacked() -> None:
    """Of a compressed answer the first bytes are kept as they came."""
    with receiver(answer(500, "Content-Encoding: gzip\r\n", BOMB)) as server:
        outcome = send(server.url, Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,)))[0]

    assert REFUSED is outcome.kind
    assert outcome.detail
    assert "xxx" not in outcome.detail


def test_an_answer_before_the_request_is_read() -> None:
    """A server that answers whoever comes, and reads nothing, is heard all the same."""
    with receiver(raw(said(500, "Content-Length: 2", body="no")), reads=False) as server:
        outcome = send(server.url, Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,)))[0]

    assert outcome.kind in (REFUSED, BROKEN)  # a reset for the unread request can overtake the answer


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(raw(said(500, "Content-Length: 0") + said(200, "Content-Length: 0")), id="at once"),
        pytest.param(
            raw(said(500, "Content-Length: 0", "Connection: keep-alive", "Keep-Alive: timeout=9999")), id="kept"
        ),
        pytest.param(raw(said(500, "Content-Length: 0", "Set-Cookie: session=1; Path=/; Max-Age=9999")), id="cookie"),
        pytest.param(raw(said(500, "Content-Length: 0", 'Alt-Svc: http/1.1=":1"; persist=1')), id="Alt-Svc"),
        pytest.param(raw(said(500, "Content-Length: 0", "Strict-Transport-Security: max-age=9999")), id="HSTS"),
    ],
)
def test_nothing_of_an_answer_reaches_the_next_request(behave: Behaviour) -> None:
    """Two answers to one request, a wish to stay connected, cookies: the next request is made as the first was."""
    with receiver(behave) as server:
        names = ("host", "cookie", "content-length", "connection")
        outcomes = send(server.url, Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,)), times=2)

        first, second = server.received
        assert {"delivered"}.isdisjoint({outcome.kind.value for outcome in outcomes})
        assert [first.headers.get(name) for name in names] == [second.headers.get(name) for name in names]
        assert 2 == server.connections


def test_an_answer_that_comes_later_is_not_the_next_ones() -> None:
    """A success sent on a connection whose request was answered long ago answers no other request."""
    closed = []

    def behave(connection: socket.socket, server: Receiver) -> None:
        connection.sendall(said(500, "Content-Length: 0"))
        with contextlib.suppress(OSError):
            connection.settimeout(5)
            closed.append(connection.recv(1))
            connection.sendall(said(200, "Content-Length: 0"))

    with receiver(behave) as server:
        outcomes = send(server.url, Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,)), times=3)

        assert [REFUSED] * 3 == [outcome.kind for outcome in outcomes]
        assert {b""} == set(closed)


def test_a_flood_before_the_status_does_not_hold_up_others() -> None:
    """What floods us with interim answers is cut after 64 KB, long before its time is over."""
    with receiver(forever(said(102), b"")) as server:
        began = time.monotonic()
        outcome = send(server.url, Egress((LOOPBACK,), allow_http=True, allowed_ports=(server.port,)), total_s=30)[0]

        assert BROKEN is outcome.kind
        assert time.monotonic() - began < 5


# --- TLS -------------------------------------------------------------------------------------------------------------


def resolved(monkeypatch: pytest.MonkeyPatch, server: Receiver) -> tuple[str, Egress]:
    """The URL of a receiver by a name of its own, and a policy that allows it."""
    monkeypatch.setattr(socket, "getaddrinfo", Names(("127.0.0.1",)))
    return f"https://receiver.example:{server.port}/hook", Egress((LOOPBACK,), allowed_ports=(server.port,))


NO_TLS = {"no TLS", "no connection"}
"""Which of the two, depends on whether nonsense or the end of the connection is seen first."""


@pytest.mark.parametrize(
    ("behave", "details"),
    [
        pytest.param(holding(b"HTTP/1.1 400 Speak TLS not\r\n\r\n"), {"no TLS"}, id="plain HTTP on a port for TLS"),
        pytest.param(holding(b"\x16\x03\x03\x00\x02\x02\x28"), {"no TLS", TOO_LATE}, id="something like TLS"),
        pytest.param(holding(b"\x15\x03\x03\x00\x02\x02\x28"), {"no TLS"}, id="an alert"),
        pytest.param(forever(b"\x16\x03\x03\x40\x00" + b"\0" * 16384, b""), NO_TLS, id="a flood"),
        pytest.param(silent, {TOO_LATE}, id="silence"),
        pytest.param(resetting, NO_TLS, id="a reset"),
    ],
)
def test_hostile_tls(behave: Behaviour, details: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not speak TLS where it should is told so, without a word of what it said, and is not tried in clear."""
    with receiver(behave, reads=False) as server:
        outcome = send(*resolved(monkeypatch, server), total_s=SHORT_S if TOO_LATE in details else 10)[0]

        assert outcome.detail in details
        assert outcome.kind in (UNREACHABLE, TIMED_OUT)
        assert 1 == server.connections


def test_a_certificate_of_its_own_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for ends the attempt before anything is sent."""
    context, _ = self_signed(tmp_path, "receiver.example")
    with receiver(answer(200), tls=context) as server:
        outcome = send(*resolved(monkeypatch, server))[0]

        assert Outcome(UNREACHABLE, detail="TLS certificate refused: it is self-signed") == outcome
        assert [] == server.received


def test_a_certificate_for_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a certificate, trusted, of somebody else."""
    context, trusted = self_signed(tmp_path, "other.example")
    trust(trusted)
    with receiver(answer(200), tls=context) as server:
        outcome = send(*resolved(monkeypatch, server))[0]

        assert Outcome(UNREACHABLE, detail="TLS certificate refused: it is for another name") == outcome
        assert [] == server.received


def test_a_bomb_within_tls_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded in clear is bounded within TLS."""
    context, trusted = self_signed(tmp_path, "receiver.example")
    trust(trusted)
    with receiver(forever(said(102), b""), tls=context) as server:
        url, egress = resolved(monkeypatch, server)
        began = time.monotonic()

        assert BROKEN is send(url, egress, total_s=30)[0].kind
        assert time.monotonic() - began < 5
        assert 1 == len(server.received)
