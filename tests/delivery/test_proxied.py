"""The way through an egress proxy: what it is asked, what it is not told, and what is not told of it.

The proxy is a small real one on loopback: CONNECT opens a tunnel, anything else it answers itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from maintd.clock import ManualClock
from maintd.delivery.egress import NOT_ALLOWED, Egress
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.sinks import Message
from maintd.delivery.sinks.webhook import WebhookSink
from tests.delivery.certificates import self_signed, trust
from tests.delivery.receivers import answer, receiver, refusing_url

MESSAGE = Message("event-1", {"webhook-id": "event-1", "webhook-signature": "v1,x"}, b'{"id": "event-1"}')
GOSSIP = "squid at proxy-3.inside: (111) Connection refused to 10.0.0.5"


class Proxy:
    """Opens each tunnel to a receiver's port, whatever it is asked for; or answers with the bytes it was given."""

    def __init__(self, leads_to: int | None = None, says: bytes = b"") -> None:
        self.heads: list[str] = []
        self._leads_to, self._says = leads_to, says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://maintd:s3cr3t@127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = client.recv(1)
                if not byte:
                    return
                head += byte
            self.heads.append(head.decode())
            if self._leads_to is None:
                client.sendall(self._says)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self._leads_to)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join(10)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def proxy(leads_to: int | None = None, says: bytes = b"") -> Iterator[Proxy]:
    server = Proxy(leads_to, says)
    try:
        yield server
    finally:
        server.close()


def send(url: str, egress: Egress) -> Outcome:
    async def run() -> Outcome:
        sink = WebhookSink(url, ManualClock(0), egress=egress, total_s=5)
        await sink.open()
        try:
            return await sink.send(MESSAGE)
        finally:
            await sink.close()

    return asyncio.run(run())


def test_a_tunnel_to_a_name_that_only_the_proxy_looks_up(tmp_path: Path) -> None:
    """https goes through CONNECT, checked end to end; our own resolver is not asked, and the password stays here."""
    context, trusted = self_signed(tmp_path, "receiver.invalid")
    trust(trusted)
    with receiver(answer(200), tls=context) as server, proxy(server.port) as way:
        outcome = send("https://receiver.invalid/hook", Egress(proxy=way.url))

        assert Outcome(OutcomeKind.DELIVERED, 200) == outcome
        assert way.heads[0].startswith("CONNECT receiver.invalid:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic" in way.heads[0]
        assert "webhook-signature" not in way.heads[0]
        assert MESSAGE.body == server.received[0].body
        assert "proxy-authorization" not in server.received[0].headers


def test_a_tunnel_ends_at_whom_it_should(tmp_path: Path) -> None:
    """A proxy that leads elsewhere gets nothing: the certificate is for another name."""
    context, trusted = self_signed(tmp_path, "other.invalid")
    trust(trusted)
    with receiver(answer(200), tls=context) as server, proxy(server.port) as way:
        outcome = send("https://receiver.invalid/hook", Egress(proxy=way.url))

        assert Outcome(OutcomeKind.UNREACHABLE, detail="TLS certificate refused: it is for another name") == outcome
        assert [] == server.received


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1", "[64:ff9b::a9fe:a9fe]"])
def test_an_address_in_the_url_is_judged_before_the_proxy_is_asked(host: str) -> None:
    """What can be judged here is not left to the proxy."""
    with proxy() as way:
        assert Outcome(OutcomeKind.FORBIDDEN, detail=NOT_ALLOWED) == send(f"https://{host}/", Egress(proxy=way.url))
        assert [] == way.heads


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 403 " + GOSSIP.encode() + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nX-Squid-Error: " + GOSSIP.encode() + b"\r\nContent-Length: 6\r\n\r\ninside",
        b"HTTP/1.1 407 " + GOSSIP.encode() + b'\r\nProxy-Authenticate: Basic realm="inside"\r\n\r\n',
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_tunnel_that_is_refused(says: bytes) -> None:
    """That the proxy opens no tunnel is told in fixed words, whatever it says, and is no answer of the receiver."""
    with proxy(says=says) as way:
        outcome = send("https://receiver.invalid/", Egress(proxy=way.url))

    assert Outcome(OutcomeKind.UNREACHABLE, detail="the proxy gave no connection") == outcome
    assert 1 == len(way.heads)


def test_an_answer_in_clear_may_be_the_proxys() -> None:
    """By http the proxy may be who answers, so nothing of the answer is kept but its status."""
    says = f"HTTP/1.1 503 No\r\nContent-Length: {len(GOSSIP)}\r\n\r\n{GOSSIP}".encode()
    with proxy(says=says) as way:
        outcome = send("http://receiver.invalid/", Egress(allow_http=True, allowed_ports=(80,), proxy=way.url))

    assert Outcome(OutcomeKind.THROTTLED, 503) == outcome
    assert way.heads[0].startswith("POST http://receiver.invalid/ HTTP/1.1\r\n")


def test_a_proxy_that_is_down() -> None:
    """A proxy that cannot be reached is told without its address."""
    url = refusing_url().removesuffix("/hook")
    outcome = send("https://receiver.invalid/", Egress(proxy=url))

    assert Outcome(OutcomeKind.UNREACHABLE, detail="the proxy gave no connection") == outcome


def test_the_proxy_itself_is_exempt() -> None:
    """The operator's proxy may be inside, even in a network that is denied to receivers."""
    with proxy(says=b"HTTP/1.1 204 No\r\n\r\n") as way:
        egress = Egress((), (ip_network("127.0.0.0/8"),), True, (80,), way.url)

        assert OutcomeKind.DELIVERED is send("http://receiver.invalid/", egress).kind


def test_no_repr_shows_the_proxys_password() -> None:
    """A policy can be logged."""
    assert "s3cr3t" not in repr(Egress(proxy="http://maintd:s3cr3t@proxy:3128"))
