"""The webhook sink: one HTTP POST of one event, with a limit on everything a receiver could use against us.

The body is the stored bytes, so that what was signed is what is sent. Redirects are never followed, cookies never
kept, answers never decompressed and never read beyond 4 KB, proxy variables of the environment never used. One total
deadline holds whatever the receiver does, dripping bytes included. Each endpoint has a connection pool of its own:
two endpoints on one address cannot crowd each other out.

The status line decides; the rest of the answer is only read for people. So a receiver that says 200 and then hangs has
the event. Only who wants to know whether an endpoint agrees to be sent anything (`ask`, `consent`) reads more of it.

Configured webhooks are the operator's own: plain http, loopback and private networks are theirs to choose. For an
endpoint that somebody else has chosen there is an `Egress`, the policy for where a request may go. It is asked where
the socket is made, with the very address that is about to be dialled, whatever the look-up of the name said before.
Each request then has a connection of its own: none is used that was judged earlier, and what a receiver says too late,
or too much of, meets no other request. What went wrong is told in a few fixed words, so that nobody can explore our
networks through us; a name that leads nowhere and one that leads inside are one and the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from maintd import __version__
from maintd.clock import Clock
from maintd.delivery.egress import NOT_ALLOWED, Egress
from maintd.delivery.outcome import Outcome, OutcomeKind, kind_of_status, presentable
from maintd.delivery.signing import SECRET_PREFIX, Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.errors import OperatorError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TOTAL_S: Final = 10.0
"""From the name look-up to the last byte read."""
CONNECT_S: Final = 5.0
COURTESY_S: Final = 1.0
"""How long the rest of an answer may take once its status is known; a connection read to its end can be used again."""
ANSWER_BYTES: Final = 4096
RECEIVED_BYTES: Final = 65536
"""All that is taken from an endpoint that somebody else has chosen, in one attempt: TLS, headers and body."""
KEEPALIVE_S: Final = 4.0
"""Shorter than the five seconds after which common servers hang up, so that we rarely POST into a closing connection:
a POST is not repeated by the library, it would cost an attempt."""
CONTENT_TYPE: Final = "application/cloudevents+json"
ORIGIN: Final = "WebHook-Request-Origin"
ALLOWED_ORIGIN: Final = "WebHook-Allowed-Origin"
"""Headers of the CloudEvents webhook handshake: who asks to send, and who may."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request, with what was read of the answer: for a verification, not for people."""

    outcome: Outcome
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def webhook_endpoint(
    name: str,
    url: str,
    secrets: tuple[str, ...],
    event_types: tuple[str, ...],
    clock: Clock,
    *,
    connections: int = 8,
) -> Endpoint:
    """An endpoint for one configured webhook; `secrets` newest first, `connections` at most at a time.

    Raises OperatorError, naming the webhook, for a URL or a secret that cannot work.
    """
    try:
        return Endpoint(name, event_types, Signer(secrets), WebhookSink(url, clock, secrets, connections=connections))
    except OperatorError as error:
        raise OperatorError(f"[webhook:{name}] {error}") from None


class WebhookSink:
    """POSTs to one URL. Its repr shows neither URL nor secret."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        secrets: tuple[str, ...] = (),
        *,
        egress: Egress | None = None,
        origin: str | None = None,
        resolver: AbstractResolver | None = None,
        connections: int = 8,
        total_s: float = TOTAL_S,
        connect_s: float = CONNECT_S,
    ) -> None:
        """`secrets` are only needed to strike them out of answers; without `egress` every address is allowed. With an
        `origin` every request says who asks to send. Without a `resolver` names are looked up in the loop's executor.

        Raises OperatorError for a URL that cannot be used. One that the policy forbids is not an error here, for the
        policy may have changed since somebody gave the URL: every attempt then ends in that outcome.
        """
        self._egress = egress
        self._origin = {} if origin is None else {ORIGIN: origin}
        self._fault = egress.fault_of_url(url) if egress is not None else None
        self._url = URL() if self._fault is not None else _checked(url)
        self._clock = clock
        self._resolver = resolver
        self._connections = connections
        self._total_s = total_s
        self._connect_s = connect_s
        self._unsayable = _unsayable(self._url, secrets)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        guarded = self._egress is not None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                limit_per_host=self._connections,
                keepalive_timeout=None if guarded else KEEPALIVE_S,
                force_close=guarded,
                resolver=self._resolver or aiohttp.ThreadedResolver(),  # the system's own answers, /etc/hosts included
                socket_factory=_sockets_for(self._egress) if self._egress is not None else None,
            ),
            proxy=self._egress.proxy if self._egress else None,
            timeout=aiohttp.ClientTimeout(total=self._total_s, sock_connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={
                "Content-Type": CONTENT_TYPE,
                "User-Agent": f"maintd/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                **self._origin,
            },
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, message: Message) -> Outcome:
        return (await self.ask(message)).outcome

    async def ask(self, message: Message) -> Answer:
        """`send`, with the answer."""
        return await self._request("POST", message.headers, message.body)

    async def consent(self) -> Answer:
        """Ask, by OPTIONS, whether events may be sent: ALLOWED_ORIGIN in the answer says who may."""
        return await self._request("OPTIONS", {}, None)

    async def _request(self, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if self._session is None:
            raise RuntimeError("the sink is not open")
        if self._fault is not None:
            return Answer(Outcome(OutcomeKind.FORBIDDEN, detail=self._fault))
        try:
            async with self._session.request(
                method, self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return await self._judge(response)
        except aiohttp.ConnectionTimeoutError:
            return Answer(Outcome(OutcomeKind.UNREACHABLE, detail=f"no connection within {self._connect_s:g} s"))
        except TimeoutError:
            return Answer(Outcome(OutcomeKind.TIMED_OUT, detail=f"no answer within {self._total_s:g} s"))
        except (aiohttp.ClientError, OSError) as error:
            return Answer(self._failed(error))

    async def _judge(self, response: aiohttp.ClientResponse) -> Answer:
        """The outcome by status; the body, as far as it comes soon, is its detail."""
        kind = kind_of_status(response.status)
        answer = b""
        with contextlib.suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            async with asyncio.timeout(COURTESY_S):
                while len(answer) < ANSWER_BYTES:
                    part = await response.content.read(ANSWER_BYTES - len(answer))
                    if not part:
                        break
                    answer += part
        if not response.content.at_eof():
            response.close()  # not back to the pool: the rest of this answer must not meet the next request
        outcome = Outcome(
            kind,
            response.status,
            "" if self._by_proxy_in_clear else self._presentable(answer),
            retry_after_s(response.headers.get("Retry-After"), self._clock.now())
            if kind is OutcomeKind.THROTTLED
            else None,
        )
        return Answer(outcome, response.headers, answer)

    @property
    def _by_proxy_in_clear(self) -> bool:
        """Whether an answer may be the proxy's own, which would tell of our networks."""
        return self._egress is not None and self._egress.proxy is not None and self._url.scheme == "http"

    def _failed(self, error: aiohttp.ClientError | OSError) -> Outcome:
        if self._egress is not None:
            return _in_fixed_words(error)
        cause: Exception = error
        kind, what = OutcomeKind.BROKEN, "the connection gave no valid answer"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            kind, what, cause = OutcomeKind.UNREACHABLE, "TLS certificate refused", error.certificate_error
        elif isinstance(error, aiohttp.ClientConnectorError):
            kind, what, cause = OutcomeKind.UNREACHABLE, "no connection", error.os_error
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        return Outcome(kind, detail=self._presentable(f"{what}: {type(cause).__name__}: {why}"))

    def _presentable(self, said: str | bytes) -> str:
        """Fit for a table and a terminal: no secret, no control character, not long."""
        return presentable(said if isinstance(said, str) else said.decode("utf-8", "replace"), self._unsayable)


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds asked for by a Retry-After header (RFC 9110, 10.2.3: a number or a date), or None where it says nothing.

    A date in the past is no wait at all. Uncapped: how much patience is reasonable is for `retry` to say.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(at - now, 0.0)


def _checked(url: str) -> URL:
    try:
        parsed = URL(url)
        usable = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise OperatorError("The webhook's url is not an http:// or https:// address with a host.")
    return parsed


class _Forbidden(OSError):
    """The policy allows no connection to an address."""

    def __init__(self) -> None:
        super().__init__(NOT_ALLOWED)


class _BoundedSocket(socket.socket):
    """Takes RECEIVED_BYTES and no more, for whatever is sent before an answer's status (interim answers, headers) is
    parsed on the loop of all deliveries."""

    _left = RECEIVED_BYTES

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        taken = super().recv(min(bufsize, self._room()), flags)
        self._left -= len(taken)
        return taken

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0, /) -> int:
        taken = super().recv_into(buffer, min(nbytes or memoryview(buffer).nbytes, self._room()), flags)
        self._left -= taken
        return taken

    def _room(self) -> int:
        if self._left <= 0:
            raise ConnectionAbortedError("the receiver sends too much")
        return self._left


def _sockets_for(egress: Egress) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """What makes sockets, for allowed addresses only. Where there is a proxy, it is all that is dialled, and exempt."""

    def make(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if egress.proxy is None and not egress.permits(str(address[0])):
            raise _Forbidden
        return _BoundedSocket(family, kind, protocol)

    return make


_BAD_CERTIFICATE: Final = {
    10: "it has expired",
    18: "it is self-signed",
    19: "its issuer is not known here",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    62: "it is for another name",
}
"""OpenSSL's numbers (X509_V_ERR_...) of what goes wrong with certificates in practice."""


def _in_fixed_words(error: aiohttp.ClientError | OSError) -> Outcome:
    """What went wrong, told to whoever chose the endpoint: no address, no error text of the system or of the network.

    A name that does not exist is told as one whose address is not allowed, for which names exist inside is nobody's
    business; that look-ups do not work at the moment is told apart.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refusal):
            why = _BAD_CERTIFICATE.get(refusal.verify_code, "it cannot be verified")
            return Outcome(OutcomeKind.UNREACHABLE, detail=f"TLS certificate refused: {why}")
        case aiohttp.ClientSSLError():
            return Outcome(OutcomeKind.UNREACHABLE, detail="no TLS")
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Outcome(OutcomeKind.UNREACHABLE, detail="the proxy gave no connection")
        case aiohttp.ClientConnectorDNSError(os_error=socket.gaierror(errno=socket.EAI_AGAIN)):
            return Outcome(OutcomeKind.UNREACHABLE, detail="names cannot be looked up now")
        case aiohttp.ClientConnectorDNSError() | aiohttp.ClientConnectorError(os_error=_Forbidden()):
            return Outcome(OutcomeKind.FORBIDDEN, detail="the name leads to no address that is allowed")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return Outcome(OutcomeKind.UNREACHABLE, detail="connection refused")
        case aiohttp.ClientConnectorError():
            return Outcome(OutcomeKind.UNREACHABLE, detail="no connection")
    return Outcome(OutcomeKind.BROKEN, detail="the connection gave no valid answer")


def _unsayable(url: URL, secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Texts that no answer may bring into our tables: signing secrets, and the parts of the URL that often are one."""
    parts = [secret.removeprefix(SECRET_PREFIX) for secret in secrets]
    parts += [url.password or "", url.raw_query_string, url.query_string, url.raw_path, url.path]
    parts += [part for part in url.parts if len(part) >= 16]
    return tuple(sorted({part for part in parts if len(part) >= 6}, key=len, reverse=True))
