"""A client of maintd's own API, for the commands: standard library only, so that they start at once.

One connection is kept and reused. It asks no proxy (the API is on this machine or on the next controller) and follows
no redirect (nobody should move the token elsewhere). Two things can go wrong: nobody answers (`Unreachable`), or maintd
answers with an error of its own (`ApiError`), whose sentence is fit to be shown.
"""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from maintd.errors import MaintdError, OperatorError

DEFAULT_URL: Final = "http://127.0.0.1:8779"

DEFAULT_FILE: Final = Path("/etc/maintd/maintd.conf")
"""As in config.py, which is not imported here: it costs half a second."""

TIMEOUT_S: Final = 10.0
"""How long an answer may take to begin, and to go on."""

ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024


class Unreachable(MaintdError):
    """No maintd answers at the URL."""


class ApiError(MaintdError):
    """maintd answered with an error; the message is its sentence."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status


def find_url(given: str | None = None, environ: Mapping[str, str] = os.environ, file: Path = DEFAULT_FILE) -> str:
    """Where the API is: `--api`, else MAINTD_API, else the default file's `[api] listen`, else the default."""
    return given or environ.get("MAINTD_API") or _listen_of(file) or DEFAULT_URL


def _listen_of(file: Path) -> str | None:
    """The URL of `[api] listen` in a file; None where it does not say, or may not be read (it can hold secrets)."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    group, listen = "", None
    for line in lines:
        if found := re.fullmatch(r"\[([^\]]+)\]\s*", line):
            group = found[1]
        elif group == "api" and (found := re.fullmatch(r"listen\s*[=:]\s*(\S+)\s*", line)):
            listen = found[1]
    if listen is None:
        return None
    host, _, port = listen.rpartition(":")
    anywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - an address to be reached, not listened on
    return f"http://{anywhere.get(host, host)}:{port}"


class Client:
    """Asks one maintd. Not thread-safe."""

    def __init__(self, url: str = DEFAULT_URL, timeout_s: float = TIMEOUT_S, token: str | None = None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise OperatorError(f"{url!r} is not the URL of an API; it looks like {DEFAULT_URL}.")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._token = token
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout_s)

    def get(self, *path: str, **params: Any) -> dict[str, Any]:
        """The answer to GET /v1/<path>; parameters that are None are left out. Raises Unreachable, ApiError."""
        query = {name: _text(value) for name, value in params.items() if value is not None}
        target = self._target(path) + ("?" + urlencode(query) if query else "")
        return self._ask("GET", target)

    def post(self, *path: str, **body: Any) -> dict[str, Any]:
        """The answer to POST /v1/<path>; members that are None are left out. Raises Unreachable, ApiError."""
        members = {name: value for name, value in body.items() if value is not None}
        return self._ask("POST", self._target(path), json.dumps(members).encode())

    def patch(self, *path: str, **body: Any) -> dict[str, Any]:
        """The answer to PATCH /v1/<path>, with the members that are to change. Raises Unreachable, ApiError."""
        return self._ask("PATCH", self._target(path), json.dumps(body).encode())

    def delete(self, *path: str) -> dict[str, Any]:
        """The answer to DELETE /v1/<path>. Raises Unreachable, ApiError."""
        return self._ask("DELETE", self._target(path))

    def pages(self, noun: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every row of a list, page by page."""
        after: str | None = None
        while True:
            page = self.get(noun, after=after, limit=None if noun == "residue" else 1000, **params)
            yield from page[noun]
            after = page["next"]
            if after is None:
                return

    def close(self) -> None:
        self._connection.close()

    def _target(self, path: tuple[str, ...]) -> str:
        return self._prefix + "/v1/" + "/".join(quote(part, safe="") for part in path)

    def _ask(self, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["X-Auth-Token"] = self._token
        fresh = self._connection.sock is None
        try:
            answer = self._exchange(method, target, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as wrong:
            # A kept connection may have been closed at the other end, which says nothing about the daemon.
            if fresh or method != "GET":
                raise self._unreachable(wrong) from wrong
            try:
                answer = self._exchange(method, target, body, headers)
            except (OSError, http.client.HTTPException) as again:
                raise self._unreachable(again) from again
        except (OSError, http.client.HTTPException) as wrong:
            raise self._unreachable(wrong) from wrong
        return self._read(*answer)

    def _exchange(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.request(method, target, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read(ANSWER_MAX_BYTES)
        except BaseException:
            self._connection.close()
            raise

    def _read(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(f"What answers at {self.url} is not maintd's API (HTTP status {status}).")
        if status >= 400:
            raise ApiError(status, str(answer.get("description") or answer.get("title") or f"HTTP status {status}"))
        return answer

    def _unreachable(self, wrong: Exception) -> Unreachable:
        reason = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
        return Unreachable(
            f"No maintd answers at {self.url} ({reason}). Is it running? --api or MAINTD_API give another address."
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
