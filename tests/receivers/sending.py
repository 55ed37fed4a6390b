"""The sending side, whole (store, dispatcher, sockets), and the receiving side as a process."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import insert
from standardwebhooks import Webhook

from maintd.clock import Clock, SystemClock
from maintd.delivery.dispatcher import Dispatcher
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint
from maintd.delivery.sinks.webhook import WebhookSink
from maintd.domain.events import CloudEvent
from tests.delivery.databases import Database, eventually, new_database

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"t" * 32).decode()


def event(sequence: int, subject: str = "cmp-1", kind: str = "host.emptied") -> CloudEvent:
    """An event as it is published."""
    return CloudEvent(
        f"event-{sequence}", f"maintd.{kind}.v1", "/maintd/west", subject, 1_800_000_000.0, sequence, {"host": subject}
    )


class Sender:
    """A store and a dispatcher with one webhook; retries are tried at once."""

    def __init__(
        self,
        database: Database,
        url: str,
        secrets: tuple[str, ...] = (SECRET,),
        total_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        clock = clock or SystemClock()
        sink = WebhookSink(url, clock, total_s=total_s)
        self.dispatcher = Dispatcher(
            database.deliveries,
            [Endpoint("me", ("*",), Signer(secrets), sink)],
            clock,
            jitter=lambda: 0.0,
            poll_s=0.05,
        )
        self.dispatcher.start()

    def publish(self, *events: CloudEvent) -> None:
        """Commit events, and wake the dispatcher."""
        for one in events:
            values = {
                "sequence": one.sequence,
                "id": one.id,
                "type": one.type,
                "subject": one.subject,
                "time": one.time,
                "body": one.as_json(),
                "fanned_out": False,
            }
            self.database.write(
                lambda connection, values=values: connection.execute(insert(self.database.events_table).values(values))
            )
        self.dispatcher.wake()

    def settle(self, delivered: int) -> None:
        """Until so many deliveries are delivered, and no other is there."""
        eventually(lambda: self.database.deliveries.counts() == {("me", "delivered"): delivered}, 30.0)

    def outcomes(self, number: int = 0) -> list[str]:
        """What came of each attempt at a delivery."""
        deliveries = self.database.deliveries
        return [attempt.outcome for attempt in deliveries.attempts(deliveries.list()[number].id)]

    def redeliver(self) -> None:
        """Send everything finished again."""
        self.database.deliveries.redeliver(endpoint="me", now=SystemClock().now())
        self.dispatcher.wake()


@contextmanager
def sender(folder: Path, url: str, **more: Any) -> Iterator[Sender]:
    """A sender for the length of a with block."""
    with new_database("sqlite", folder) as database:
        made = Sender(database, url, **more)
        try:
            yield made
        finally:
            made.dispatcher.stop(0.1)


class Program:
    """A process whose lines are read as they come."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._out: queue.Queue[str] = queue.Queue()
        self._err: queue.Queue[str] = queue.Queue()
        for stream, lines in ((self.process.stdout, self._out), (self.process.stderr, self._err)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream: Any, lines: queue.Queue[str]) -> None:
        for line in stream:
            lines.put(line.decode().rstrip("\n"))

    def out(self, count: int = 1) -> list[str]:
        """The next lines on stdout; fails the test when they do not come."""
        return [self._out.get(timeout=30.0) for _ in range(count)]

    def err(self) -> str:
        """The next line on stderr."""
        return self._err.get(timeout=30.0)

    def silent(self) -> bool:
        """Whether every line on stdout was read."""
        return self._out.empty()

    def end(self, sign: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(15.0)


@contextmanager
def program(argv: list[str]) -> Iterator[Program]:
    """A process for the length of a with block; killed at the end if it still runs."""
    made = Program(argv)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


@contextmanager
def listening(*argv: str) -> Iterator[tuple[Program, str, str]]:
    """`maintd listen` on a port of its own: the process, its url, and what it said first."""
    with program(["-m", "maintd", "listen", "--listen", "127.0.0.1:0", *argv]) as made:
        said = made.err()
        yield made, said.partition("listening on ")[2].partition(";")[0], said


def ask(url: str, method: str, body: bytes, headers: dict[str, str]) -> tuple[int, Message, bytes]:
    """A request; the answer's status, headers and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20.0)
    try:
        connection.request(method, "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """POST; the status of the answer."""
    return ask(url, "POST", body, headers)[0]


def verification(url: str, *, secret: str = SECRET) -> tuple[str | None, bytes]:
    """Ask as a subscription's verification does, both ways: the origin allowed, and the answer to the challenge."""
    body = json.dumps({**event(0, kind="subscription.verify").as_dict(), "data": {"challenge": "c-1"}})
    handshake = ask(url, "OPTIONS", b"", {"WebHook-Request-Origin": "maintd.example"})
    challenge = ask(url, "POST", body.encode(), signed(body, secret))
    assert (204, 200) == (handshake[0], challenge[0])
    return handshake[1]["WebHook-Allowed-Origin"], challenge[2]


def signed(body: str, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Headers that sign a body, as another implementation than ours makes them."""
    moment = datetime.fromtimestamp(int(SystemClock().now() if at is None else at), UTC)
    return {
        "webhook-id": "msg-1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg-1", moment, body),
    }
