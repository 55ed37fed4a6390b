"""What the rows share: children, brokers, daemons, receivers, and the few numbers that are made of many."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from maintd.clock import SystemClock
from tests.support.rabbitmq import Rabbit

ROOT = Path(__file__).resolve().parents[1]
EXCHANGE, TOPIC = "nova-bench", "versioned_notifications"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of the design, and how we stand to it. `numbers` is the machine-readable copy of all there is to say."""

    what: str
    bar: str
    measured: str
    held: bool
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large: `folder` is removed afterwards, `quick` is for a smoke test and proves nothing."""

    folder: Path
    quick: bool = False


def tell(text: str) -> None:
    """Progress, for people."""
    print(f"    {text}", flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def run(module: str, *arguments: object, timeout_s: float = 300.0) -> dict[str, Any]:
    """What `python -m MODULE ARGUMENTS…` prints as its last line, as JSON; its errors are shown."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextmanager
def broker() -> Iterator[str]:
    """The transport URL of a RabbitMQ of our own on a free port of the loopback; it ends with us."""
    node = Rabbit(Path(tempfile.mkdtemp(prefix="maintd-bench-rabbit-")))
    try:
        node.start()
        yield node.url
    finally:
        node.close()


def wait_until(true: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.02) -> None:
    """Return as soon as it is so, looking every so often; TimeoutError when it never gets so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(every_s)


class Receiver:
    """The cheapest webhook receiver there can be, so that what is measured is not it: answers 204, keeps the time.

    One thread per connection, HTTP/1.1 kept alive, no signatures checked (tests do that).
    """

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"
        threading.Thread(target=self._accept, name="receiver", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        clock = SystemClock()
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while stream.readline():
                length = 0
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = stream.read(length)
                self.heard.append((clock.now(), body))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """(when received, event) of everything that has come."""
        return [(at, json.loads(body)) for at, body in list(self.heard)]

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Daemon:
    """`maintd run`, as an operator would start it, in a process of its own."""

    def __init__(self, folder: Path, sections: dict[str, dict[str, object]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in values.items()) for name, values in sections.items()]
        config = folder / "maintd.conf"
        config.write_text("\n".join(text))
        config.chmod(0o600)
        self._log = folder / "maintd.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "maintd", "run", "--config-file", str(config)],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self) -> list[tuple[float, dict[str, Any]]]:
        """(when, line) of everything it has said."""
        told = []
        for line in self._log.read_text(errors="replace").splitlines():
            with suppress(ValueError, KeyError):
                one: dict[str, Any] = json.loads(line)
                told.append((datetime.fromisoformat(one["timestamp"]).timestamp(), one))
        return told

    def said(self, event: str, **values: object) -> dict[str, Any] | None:
        """The first line of its log with this event and these values."""
        for line in self._log.read_text(errors="replace").splitlines():
            if f'"{event}"' in line:
                with suppress(ValueError):
                    told: dict[str, Any] = json.loads(line.partition("{")[1] + line.partition("{")[2])
                    if told.get("event") == event and all(told.get(name) == value for name, value in values.items()):
                        return told
        return None

    def wait_said(self, event: str, timeout_s: float = 60.0, **values: object) -> dict[str, Any]:
        """The same, as soon as it is there."""
        wait_until(lambda: self._process.poll() is not None or self.said(event, **values) is not None, timeout_s, event)
        told = self.said(event, **values)
        if told is None:
            raise RuntimeError(f"the daemon has ended:\n{self._log.read_text(errors='replace')[-3000:]}")
        return told

    def status(self) -> dict[str, Any]:
        """What `maintd status` would ask."""
        return self.ask("/v1/status")

    def ask(self, path: str) -> dict[str, Any]:
        """What its read API answers."""
        with urllib.request.urlopen(f"{self.wait_said('started')['api']}{path}", timeout=10.0) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
        return told

    def wait_read(self, timeout_s: float) -> None:
        """Until it has read the whole cloud. Looks seldom: in a large one an answer is work."""
        began = time.time()

        def read() -> bool:
            at = self.status()["cloud"]["last_success_at"]
            return at is not None

        try:
            wait_until(read, timeout_s, "the cloud is read", every_s=1.0)
        except TimeoutError:
            told = [line for _, line in self.log()[-20:]]
            raise TimeoutError(f"after {time.time() - began:.0f} s the cloud is not read: {told}") from None

    def memory_mib(self) -> tuple[float, float]:
        """What it holds in memory now, and the most it ever held."""
        fields = {}
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
        return int(fields["VmRSS"][0]) / 1024, int(fields["VmHWM"][0]) / 1024

    def processor_s(self) -> float:
        """How much processor time it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_quiet(receiver: Receiver, timeout_s: float = 120.0) -> None:
    """Until events have come and, for two seconds, no more: everything that was published has been worked on."""
    deadline = time.monotonic() + timeout_s
    held, since = 0, time.monotonic()
    while not held or time.monotonic() - since < 2.0:
        if len(receiver.heard) != held:
            held, since = len(receiver.heard), time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError("events kept coming, or never came")
        time.sleep(0.02)


def sections(
    database: Path,
    receiver: str,
    *,
    transport_url: str = "",
    cloud: dict[str, Any] | None = None,
    settle_s: float = 15.0,
) -> dict[str, dict[str, object]]:
    """A daemon's configuration."""
    found: dict[str, dict[str, object]] = {
        "DEFAULT": {"installation": "bench", "log_format": "json"},
        "database": {"connection": f"sqlite:///{database}"},
        "drain": {"settle_s": settle_s},
        "api": {"listen": "127.0.0.1:0"},
        "metrics": {"listen": "127.0.0.1:0"},
        "webhooks": {"enabled": "hook"},
        "webhook:hook": {"url": receiver, "secret": "whsec_" + "QkVOQ0g" * 5 + "Q="},
    }
    if transport_url:
        found["bus"] = {"transport_url": transport_url, "exchange": EXCHANGE, "pool": "maintd-bench"}
    if cloud is not None:
        found["cloud"] = {"auth_type": "password", "region_name": "RegionOne", **cloud["auth"]}
    return found
