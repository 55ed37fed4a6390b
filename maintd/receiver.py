"""What `maintd listen` runs: a receiver of webhooks for a laptop, which says what came and answers as it should.

It verifies with the Standard Webhooks library, knows an event that it had before by its id, and sees by `sequence`
what came out of order or not at all. It can be told to misbehave, so that somebody can watch what maintd then does. A
body has to say its length and is never larger than 1 MiB; a client that says nothing for ten seconds is hung up on.

Before a subscription is sent anything it is verified. Both ways are answered: the handshake of CloudEvents' webhooks
(OPTIONS), which is never signed, and the challenge, which is an event like others but for its answer.

It keeps nothing: what it remembers of ids and numbers, and only so much of it, ends with the process. It acts on no
event, decides nothing about how an event is shown, and knows no API of a maintd.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, socket
from typing import Any, Final

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from maintd.delivery.signing import check_secret
from maintd.errors import OperatorError

VERIFY_TYPE: Final = "maintd.subscription.verify.v1"
"""The type of the event whose `data.challenge` is to be echoed."""
BODY_BYTES: Final = 1 << 20
SILENCE_S: Final = 10.0
REMEMBERED: Final = 10_000
"""Most ids, and most subjects, that are kept in mind; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an event stands to those that came before it.

    `again`: its id was accepted before. `late`: a later one of its source and subject was. `gap`: how many numbers of
    its source lie between the highest that came and this one; no fault by itself, see `Book`.
    """

    again: bool = False
    late: bool = False
    gap: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """An event, how it stands to the others (None where it was not accepted, as told), and what was answered.

    `challenge`: what it asked to have echoed, and was.
    """

    event: dict[str, Any]
    verified: bool
    answer: int
    standing: Standing | None
    challenge: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was no event, or of whom nobody knows."""

    answer: int
    why: str


@dataclass(slots=True)
class _Numbers:
    """Which numbers of one source came."""

    lowest: int
    highest: int
    came: int = 1


class Book:
    """Which events were accepted.

    Numbers run over all events of an installation. A webhook that asks for some types only never sees all of them, and
    two subjects are sent side by side; so a gap says only that something lies between, and `missing` in the end what
    never came. A `late` one is out of order.
    """

    def __init__(self) -> None:
        self.accepted = self.again = self.late = 0
        self._ids: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._newest: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._numbers: OrderedDict[str, _Numbers] = OrderedDict()

    def accept(self, event: dict[str, Any]) -> Standing:
        """Write an event down. One with no number of its own (a test event has 0) is never late and leaves no gap."""
        source, number = event["source"], int(event["sequence"])
        if (source, event["id"]) in self._ids:
            self.again += 1
            return Standing(again=True)
        self.accepted += 1
        _keep(self._ids, (source, event["id"]), None)
        if number == 0:
            return Standing()
        line = (source, event["subject"])
        newest = self._newest.get(line, 0)
        late = number < newest
        self.late += late
        _keep(self._newest, line, max(number, newest))
        return Standing(late=late, gap=self._gap(source, number))

    def _gap(self, source: str, number: int) -> int:
        numbers = self._numbers.get(source)
        if numbers is None:
            _keep(self._numbers, source, _Numbers(number, number))
            return 0
        gap = max(number - numbers.highest - 1, 0)
        numbers.lowest, numbers.highest = min(number, numbers.lowest), max(number, numbers.highest)
        numbers.came += 1
        return gap

    @property
    def missing(self) -> int:
        """Numbers between the lowest and the highest of each source that did not come."""
        return sum(max(n.highest - n.lowest + 1 - n.came, 0) for n in self._numbers.values())


def _keep(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)


class Receiver:
    """A server for webhooks. `heard`, `refused` and `agreed` (with the origin that asked whether it may send here) are
    called from its threads, one at a time."""

    def __init__(
        self,
        address: tuple[str, int],
        secrets: Sequence[str],
        heard: Callable[[Heard], None],
        refused: Callable[[Refused], None],
        agreed: Callable[[str], None],
        *,
        fail: int = 0,
        slow_s: float = 0.0,
    ) -> None:
        """Listens from now on; `fail` events are answered 503, each answer is held back `slow_s`.

        Raises OperatorError for a secret that is none and for an address that cannot be had.
        """
        for secret in secrets:
            check_secret(secret)
        self._webhooks = tuple(Webhook(secret) for secret in secrets)
        self._heard, self._refused, self._agreed = heard, refused, agreed
        self._fail, self._slow_s = fail, slow_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.book = Book()
        self.broken: BaseException | None = None
        """Why it ended by itself: nobody reads what it says."""
        try:
            self._server = _server(address, self)
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise OperatorError(f"Cannot listen on {_shown(address)}: {why}.") from None

    @property
    def url(self) -> str:
        """Where it is, as a webhook's url."""
        return f"http://{_shown(self._server.server_address[:2])}/"

    def start(self) -> None:
        """Serve, in a thread."""
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True).start()

    def wait(self) -> None:
        """Until `end`, or until nobody reads any more."""
        self._ended.wait()

    def end(self) -> None:
        """Stop waiting; answers that are held back go out now. From any thread, and from a signal's handler."""
        self._ended.set()

    def close(self) -> None:
        """Take no more requests."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """The answer to a body: 204, 200 with the challenge, 400, 401, or 503 as told."""
        if self._webhooks and not any(_verifies(webhook, body, headers) for webhook in self._webhooks):
            return self.refuse(401, "the signature is missing, wrong, or more than five minutes old"), b""
        try:
            event = _event(body)
        except (ValueError, TypeError, RecursionError):
            return self.refuse(400, "the body is not a CloudEvent of maintd"), b""
        with self._lock:
            if self._fail > 0:
                self._fail -= 1
                heard = Heard(event, bool(self._webhooks), 503, None)
            else:
                challenge = event["data"].get("challenge") if event["type"] == VERIFY_TYPE else None
                answer = 204 if challenge is None else 200
                heard = Heard(event, bool(self._webhooks), answer, self.book.accept(event), challenge)
            self._say(lambda: self._heard(heard))
        self._ended.wait(self._slow_s)
        return heard.answer, b"" if heard.challenge is None else json.dumps({"challenge": heard.challenge}).encode()

    def agree(self, origin: str) -> int:
        """Tell of a sender that asked whether it may send events here; the answer."""
        with self._lock:
            self._say(lambda: self._agreed(origin))
        return 204

    def refuse(self, answer: int, why: str) -> int:
        """Tell of a request that is refused; the answer."""
        with self._lock:
            self._say(lambda: self._refused(Refused(answer, why)))
        return answer

    def _say(self, say: Callable[[], None]) -> None:
        try:
            say()
        except OSError as error:  # whoever read our output has had enough, or the disk it goes to is full
            self.broken = error
            self._ended.set()


def _verifies(webhook: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        webhook.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # a header that is no header is a ValueError of the library's
        return False
    return True


def _event(body: bytes) -> dict[str, Any]:
    """A CloudEvent as maintd sends them. Raises ValueError or TypeError for anything else."""
    event = json.loads(body)
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise TypeError("no event")
    if not all(isinstance(event.get(name), str) for name in ("id", "source", "type", "subject", "time", "sequence")):
        raise TypeError("a member is missing")
    if not (event["sequence"].isascii() and event["sequence"].isdigit() and len(event["sequence"]) <= 20):
        raise ValueError("no sequence")
    return event


def _shown(address: Sequence[Any]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # who holds a connection open does not hold up the end

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A client that hangs up in the middle is no news."""


class _Server6(_Server):
    address_family = AF_INET6


def _server(address: tuple[str, int], receiver: Receiver) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = SILENCE_S
        server_version, sys_version = "maintd-listen", ""

        def do_OPTIONS(self) -> None:
            origin = " ".join(self.headers.get("WebHook-Request-Origin", "").split())
            if not origin:
                return self._answer(receiver.refuse(400, "OPTIONS without a WebHook-Request-Origin"))
            headers = {"WebHook-Allowed-Origin": origin, "Allow": "OPTIONS, POST"}
            return self._answer(receiver.agree(origin), headers=headers)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit() and len(length) <= 20):
                self._answer(receiver.refuse(411, "the request does not say how long it is"), last=True)
            elif int(length) > BODY_BYTES:
                self._answer(receiver.refuse(413, f"the body is larger than {BODY_BYTES} bytes"), last=True)
            elif len(body := self.rfile.read(int(length))) == int(length):
                status, said = receiver.take(body, dict(self.headers.items()))
                self._answer(status, said, {"Content-Type": "application/json"} if said else None)
            else:
                self.close_connection = True

        def _answer(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, last: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if last:
                self.send_header("Connection", "close")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    kind = {AF_INET: _Server, AF_INET6: _Server6}[AF_INET6 if ":" in address[0] else AF_INET]
    return kind(address, Handler)
