"""Daemons as processes: forked from the nursery (`runner`), or started as an operator would (`maintd run`)."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.rabbitmq import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """One daemon. `status` is None while it lives, then its exit status, or minus the signal that ended it."""

    def __init__(self, number: int, config: Path) -> None:
        self.number = number
        self.log = config.with_name(f"{config.stem}.log")
        self.has_bus = "[bus]" in config.read_text()
        self.pid: int | None = None
        self.api = ""
        self.metrics = ""
        self.status: int | None = None
        self.spawned = threading.Event()
        self.started = threading.Event()
        self.ended = threading.Event()

    def send(self, sign: int) -> None:
        """Send it a signal, unless it has ended."""
        assert self.spawned.wait(20.0), "the nursery does not fork"
        if self.status is None and self.pid is not None:
            try:
                os.kill(self.pid, sign)
            except ProcessLookupError:
                pass

    def wait_started(self, timeout_s: float = 60.0) -> Child:
        """Until it serves; fails the test when it ends before, or does not get there."""
        wait_until(lambda: self.started.is_set() or self.ended.is_set(), timeout_s, "the daemon to start")
        assert self.started.is_set(), f"the daemon ended with {self.status}:\n{self.tail()}"
        return self

    def stop(self, timeout_s: float = 15.0) -> float:
        """SIGTERM, and how long it took to end; fails when it did not end cleanly."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        assert self.ended.wait(timeout_s), f"still running {timeout_s:g} s after SIGTERM:\n{self.tail()}"
        assert self.status == 0, f"ended with {self.status}:\n{self.tail()}"
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        assert self.ended.wait(10.0)

    # what it says

    def get(self, path: str) -> Any:
        """The JSON at a path of its API (`/v1/...`) or its health endpoints; whatever the status."""
        base = self.api if path.startswith("/v1") else self.metrics
        parts = urlsplit(base)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse().read()
        finally:
            connection.close()
        return json.loads(answer)

    def connected(self) -> bool:
        """Whether it leads, hears every bus, and has read the cloud."""
        status = self.get("/v1/status")
        states = status["bus_states"]
        heard = bool(status["leading"]) and all(state == "connected" for state in states.values())
        heard = heard and bool(states) == self.has_bus
        return heard and (status["baselined_at"] is not None or not status["cloud"]["configured"])

    def wait_connected(self, timeout_s: float = 60.0) -> Child:
        """Until notifications are heard and the cloud has been read."""
        self.wait_started(timeout_s)
        wait_until(self.connected, timeout_s, "the daemon to hear its bus and to have read its cloud")
        return self

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines() if self.log.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": line})
        return [line for line in found if isinstance(line, dict)]

    def said(self, event: str, **values: Any) -> bool:
        """Whether it has logged this event with these values (texts: with these words in them)."""
        return any(
            line.get("event") == event and all(str(value) in str(line.get(name, "")) for name, value in values.items())
            for line in self.lines()
        )

    def tail(self, characters: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"


class Nursery:
    """The process that daemons are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._children: dict[int, Child] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.runner"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "nursery.log").open("ab"),
        )
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def spawn(
        self,
        config: Path,
        *,
        crash: tuple[str, int] | None = None,
        lease_s: float | None = 1.0,
        file_limit: int | None = None,
        shared_file: bool = False,
    ) -> Child:
        """A new daemon, at once."""
        assert self._ready.wait(60.0), (
            "the nursery has not imported maintd: " + (self._folder / "nursery.log").read_text()
        )
        number = next(self._numbers)
        child = Child(number, config)
        order = {
            "spawn": number,
            "config": str(config),
            "log": str(child.log),
            "crash": crash,
            "lease_s": lease_s,
            "file_limit": file_limit,
            "shared_file": shared_file,
        }
        stdin = self._process.stdin
        assert stdin is not None
        with self._lock:
            self._children[number] = child
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        return child

    def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set()
                continue
            with self._lock:
                child = self._children[next(told[word] for word in ("spawned", "started", "ended") if word in told)]
            if "spawned" in told:
                child.pid = told["pid"]
                child.spawned.set()
            elif "started" in told:
                child.api, child.metrics = told["api"], told["metrics"]
                child.started.set()
            else:
                child.status = told["status"]
                child.ended.set()

    def kill_all(self) -> None:
        """End every daemon that still runs."""
        with self._lock:
            left = [child for child in self._children.values() if child.status is None]
        for child in left:
            child.kill()

    def close(self) -> None:
        """End every daemon and the nursery."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20.0)


@contextmanager
def maintd_run(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`maintd run` as an operator starts it; its log beside the configuration. Killed at the end if it still runs."""
    with config.with_name(f"{config.stem}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "maintd", "run", "--config-file", str(config)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
