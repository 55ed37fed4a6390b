"""The webhook sink: one HTTP POST of one event, with a limit on everything a receiver could use against us.

The body is the stored bytes, so that what was signed is what is sent. Redirects are never followed, cookies never
kept, answers never decompressed and never read beyond 4 KB, proxy variables of the environment never used. One total
deadline holds whatever the receiver does, dripping bytes included. Each endpoint has a connection pool of its own:
two endpoints on one address cannot crowd each other out.

The status line decides; the rest of the answer is only read for people. So a receiver that says 200 and then hangs has
the event. It does not judge addresses: configured webhooks are the operator's own, and plain http, loopback and
private networks are theirs to choose.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from maintd import __version__
from maintd.clock import Clock
from maintd.delivery.outcome import Outcome, OutcomeKind, kind_of_status
from maintd.delivery.signing import SECRET_PREFIX, Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.errors import OperatorError

TOTAL_S: Final = 10.0
"""From the name look-up to the last byte read."""
CONNECT_S: Final = 5.0
COURTESY_S: Final = 1.0
"""How long the rest of an answer may take once its status is known; a connection read to its end can be used again."""
ANSWER_BYTES: Final = 4096
DETAIL_CHARS: Final = 500
KEEPALIVE_S: Final = 4.0
"""Shorter than the five seconds after which common servers hang up, so that we rarely POST into a closing connection:
a POST is not repeated by the library, it would cost an attempt."""
CONTENT_TYPE: Final = "application/cloudevents+json"


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
        connections: int = 8,
        total_s: float = TOTAL_S,
        connect_s: float = CONNECT_S,
    ) -> None:
        """`secrets` are only needed to strike them out of answers. Raises OperatorError for an unusable URL."""
        self._url = _checked(url)
        self._clock = clock
        self._connections = connections
        self._total_s = total_s
        self._connect_s = connect_s
        self._unsayable = _unsayable(self._url, secrets)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                limit_per_host=self._connections,
                keepalive_timeout=KEEPALIVE_S,
                resolver=aiohttp.ThreadedResolver(),  # the system's own answers, /etc/hosts included
            ),
            timeout=aiohttp.ClientTimeout(total=self._total_s, sock_connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={
                "Content-Type": CONTENT_TYPE,
                "User-Agent": f"maintd/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, message: Message) -> Outcome:
        if self._session is None:
            raise RuntimeError("the sink is not open")
        try:
            async with self._session.post(
                self._url, data=message.body, headers=message.headers, allow_redirects=False
            ) as response:
                return await self._judge(response)
        except aiohttp.ConnectionTimeoutError:
            return Outcome(OutcomeKind.UNREACHABLE, detail=f"no connection within {self._connect_s:g} s")
        except TimeoutError:
            return Outcome(OutcomeKind.TIMED_OUT, detail=f"no answer within {self._total_s:g} s")
        except aiohttp.ClientConnectorCertificateError as error:
            return self._failed(OutcomeKind.UNREACHABLE, "TLS certificate refused", error.certificate_error)
        except aiohttp.ClientConnectorError as error:
            return self._failed(OutcomeKind.UNREACHABLE, "no connection", error.os_error)
        except (aiohttp.ClientError, OSError) as error:
            return self._failed(OutcomeKind.BROKEN, "the connection gave no valid answer", error)

    async def _judge(self, response: aiohttp.ClientResponse) -> Outcome:
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
        return Outcome(
            kind,
            response.status,
            "" if kind is OutcomeKind.DELIVERED else self._presentable(answer.decode("utf-8", "replace")),
            retry_after_s(response.headers.get("Retry-After"), self._clock.now())
            if kind is OutcomeKind.THROTTLED
            else None,
        )

    def _failed(self, kind: OutcomeKind, what: str, error: BaseException) -> Outcome:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Outcome(kind, detail=self._presentable(f"{what}: {type(error).__name__}: {why}"))

    def _presentable(self, text: str) -> str:
        """Fit for a table and a terminal: no secret, no control character, not long."""
        for secret in self._unsayable:
            text = text.replace(secret, "[hidden]")
        return "".join(char if char.isprintable() else " " for char in text)[:DETAIL_CHARS].strip()


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


def _unsayable(url: URL, secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Texts that no answer may bring into our tables: signing secrets, and the parts of the URL that often are one."""
    parts = [secret.removeprefix(SECRET_PREFIX) for secret in secrets]
    parts += [url.password or "", url.raw_query_string, url.query_string, url.raw_path, url.path]
    parts += [part for part in url.parts if len(part) >= 16]
    return tuple(sorted({part for part in parts if len(part) >= 6}, key=len, reverse=True))
