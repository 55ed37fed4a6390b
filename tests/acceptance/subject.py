"""The maintd under test: the real `maintd run`, a process of its own with files, ports and a queue of its own.

It is started and stopped as a service manager would, asked through its read API as a script would, and its queue is
taken from the broker by `maintd bus remove` as its manual says.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.cloud import Sentence, until

STOP_S = 10.0
"""How long maintd may take to end after SIGTERM."""

INSTALLATION = "acceptance"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Setup:
    """What maintd is told."""

    cloud: str
    transport_url: str = field(repr=False)
    webhook_url: str
    webhook_secret: str = field(repr=False)
    settle_s: float
    pool: str
    exchange: str = "nova"
    topic: str = "versioned_notifications"
    more: Path | None = None
    settings: Settings = field(default_factory=dict)


Settings = dict[str, dict[str, str]]
"""Options beyond that, by group: what a story wants otherwise than by default."""


class Maintd:
    """One maintd. `folder` is private to it and keeps its log when it is gone."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.setup = setup
        self.log = folder / "maintd.log"
        self.config = folder / "maintd.conf"
        self.api = f"http://127.0.0.1:{(port := free_port())}"
        self.token: Callable[[], str] = str  # of an administrator, where [api] auth is keystone
        self._health = f"http://127.0.0.1:{(health := free_port())}"
        self._process: subprocess.Popen[bytes] | None = None
        groups = {"drain": {"settle_s": f"{setup.settle_s:g}"}}
        for group, options in setup.settings.items():
            groups.setdefault(group, {}).update(options)
        text = "\n".join(
            [
                f"[DEFAULT]\ninstallation = {INSTALLATION}\nlog_format = json",
                f"[bus]\ntransport_url = {setup.transport_url}\nexchange = {setup.exchange}\ntopic = {setup.topic}",
                f"pool = {setup.pool}",
                f"[cloud]\ncloud = {setup.cloud}",
                f"[database]\nconnection = sqlite:///{folder / 'maintd.sqlite'}",
                *(
                    line
                    for group, options in groups.items()
                    for line in (f"[{group}]", *(f"{name} = {value}" for name, value in options.items()))
                ),
                f"[api]\nlisten = 127.0.0.1:{port}",
                f"[metrics]\nlisten = 127.0.0.1:{health}",
                "[webhooks]\nenabled = receiver",
                f"[webhook:receiver]\nurl = {setup.webhook_url}\nsecret = {setup.webhook_secret}",
                "",
            ]
        )
        with open(os.open(self.config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)

    def _command(self, *words: str) -> list[str]:
        files = [str(self.config)] + ([str(self.setup.more)] if self.setup.more else [])
        return [sys.executable, "-m", "maintd", *words, *(word for file in files for word in ("--config-file", file))]

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 120.0) -> None:
        """Start it, and wait until it hears the bus and has read the cloud. Raises Sentence when it does not."""
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(self._command("run"), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        process = self._process

        def going() -> bool:
            if process.poll() is not None:
                raise Sentence(f"maintd run ended at once with exit code {process.returncode}:\n{self.tail()}")
            ready = self._ask(self._health + "/readyz")
            status = self._ask(self.api + "/v1/status")
            return bool(ready and status and not ready["degraded"] and status.get("baselined_at"))

        if not until(going, timeout_s):
            ready = self._ask(self._health + "/readyz") or {}
            raise Sentence(f"maintd is not ready after {timeout_s:g} s: {ready.get('degraded')}\n{self.tail()}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def stop(self) -> list[str]:
        """End it as a service manager would; what was wrong with how it ended."""
        process, self._process = self._process, None
        if process is None:
            return []
        if process.poll() is not None:
            return [f"maintd died by itself, exit code {process.returncode}"]
        began = time.monotonic()
        process.terminate()
        try:
            code = process.wait(STOP_S + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return [f"maintd did not end within {STOP_S + 5.0:g} s of SIGTERM and was killed"]
        took_s = time.monotonic() - began
        faults = [f"maintd ended with exit code {code} after SIGTERM"] if code else []
        return faults + ([f"maintd took {took_s:.1f} s to end after SIGTERM"] if took_s > STOP_S else [])

    def remove_queue(self) -> list[str]:
        """Take our queue from the broker; what was wrong."""
        done = subprocess.run(self._command("bus", "remove"), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode or self.setup.pool not in done.stdout:
            return [f"maintd bus remove: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}"]
        return []

    def clear_residue(self, host: str) -> list[str]:
        """Say, as an operator who has looked does, that nothing is left on a host; what was wrong."""
        words = [sys.executable, "-m", "maintd", "residue", "clear", host, "--api", self.api]
        told = os.environ | {"OS_TOKEN": self.token()}
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=told)
        if done.returncode or "Cleared" not in done.stdout:
            return [f"maintd residue clear {host}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()}"]
        return []

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask(self, url: str) -> dict[str, Any] | None:
        try:
            request = urllib.request.Request(url, headers={"X-Auth-Token": self.token()})
            with urllib.request.urlopen(request, timeout=20.0) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, OSError, ValueError):
            return None

    def events(self) -> list[dict[str, Any]] | None:
        """The whole event log; None where it is not answered."""
        out: list[dict[str, Any]] = []
        after = "0"
        while page := self._ask(f"{self.api}/v1/events?limit=1000&after={after}"):
            if not page["events"]:
                return out
            out += page["events"]
            after = page["next"]
        return None

    def host(self, name: str) -> dict[str, Any]:
        """What maintd knows of a host, its blockers included."""
        return self._ask(f"{self.api}/v1/hosts/{name}") or {}

    def deliveries(self) -> list[dict[str, Any]]:
        return list((self._ask(f"{self.api}/v1/deliveries?limit=1000") or {}).get("deliveries", []))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Counters and gauges whose line begins so."""
        try:
            with urllib.request.urlopen(self._health + "/metrics", timeout=10.0) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(prefix))
        return {name: float(value) for name, value in pairs}

    # -- beside it ----------------------------------------------------------------------------------------------------

    def begin_record(self, file: Path) -> subprocess.Popen[bytes]:
        """`maintd record` to a file, through a queue of its own, until it is ended."""
        said = file.with_suffix(".log").open("wb")
        return subprocess.Popen(self._command("record", str(file)), stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    # -- the log ------------------------------------------------------------------------------------------------------

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def log_faults(self, secrets: list[str]) -> list[str]:
        """Secrets and tracebacks in what was logged."""
        text = self.log.read_text(errors="replace")
        faults = ["a secret stands in maintd's log"] if any(secret in text for secret in secrets if secret) else []
        if "Traceback (most recent call last)" in text:
            faults.append(f"a traceback stands in maintd's log ({self.log})")
        return faults
