"""What systemd is told: that we are ready, what we are doing, and that we are alive.

`Notifier` speaks sd_notify(3): a datagram to the socket named in $NOTIFY_SOCKET. Without that variable, that is
without systemd, it does nothing and nobody needs to care. A datagram that cannot be sent is no reason to stop working.

`Watchdog` decides whether we are alive. Each part that must move (intake, scheduler, delivery) says so by a tick; only
while all of them are fresh is systemd fed. A thread that merely fed it on a timer would feed a dead daemon, so `feed`
is to be called from a part that ticks itself. The same judgement answers /livez. It starts and stops nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping

from maintd.clock import Clock


class Notifier:
    """Says things to systemd; silent where there is none."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        told = os.environ if environment is None else environment
        self._socket = told.get("NOTIFY_SOCKET") or None
        self._watchdog_usec = told.get("WATCHDOG_USEC", "")
        self._watchdog_pid = told.get("WATCHDOG_PID", "")

    @property
    def watchdog_s(self) -> float | None:
        """How long systemd waits for a sign of life, in seconds; None when it does not wait for ours."""
        if self._watchdog_pid and self._watchdog_pid != str(os.getpid()):
            return None
        return int(self._watchdog_usec) / 1e6 if self._watchdog_usec.isdigit() and int(self._watchdog_usec) else None

    def ready(self) -> bool:
        """Start-up, or a reload, is done."""
        return self._say("READY=1")

    def reloading(self, clock: Clock) -> bool:
        """The configuration is being read again; `ready` ends it."""
        return self._say(f"RELOADING=1\nMONOTONIC_USEC={int(clock.monotonic() * 1e6)}")

    def stopping(self) -> bool:
        """The end has begun."""
        return self._say("STOPPING=1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._say(f"STATUS={' '.join(text.split())}")

    def alive(self) -> bool:
        """A sign of life; `Watchdog` gives it."""
        return self._say("WATCHDOG=1")

    def _say(self, text: str) -> bool:
        """Send; whether it went out."""
        if self._socket is None:
            return False
        # A leading '@' stands for the abstract namespace.
        address = f"\0{self._socket[1:]}" if self._socket.startswith("@") else self._socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
                way.settimeout(1.0)
                way.sendto(text.encode(), address)
        except OSError:
            return False
        return True


class Watchdog:
    """Knows which parts have ticked lately.

    `parts` gives, by name, for how many seconds a tick counts; a part has that long for its first one. Ticks come from
    any thread.
    """

    def __init__(self, clock: Clock, parts: Mapping[str, float], notifier: Notifier | None = None) -> None:
        self._clock = clock
        self._notifier = notifier or Notifier({})
        self._fresh_s = dict(parts)
        self._lock = threading.Lock()
        self._ticked = dict.fromkeys(self._fresh_s, clock.monotonic())

    def tick(self, part: str) -> None:
        """A part has moved. An unknown name is a mistake of ours: KeyError."""
        with self._lock:
            if part not in self._fresh_s:
                raise KeyError(part)
            self._ticked[part] = self._clock.monotonic()

    def stale(self) -> tuple[str, ...]:
        """The parts that have not ticked for longer than they may, by name."""
        with self._lock:
            now = self._clock.monotonic()
            return tuple(sorted(part for part, at in self._ticked.items() if now - at > self._fresh_s[part]))

    def feed(self) -> bool:
        """Give systemd a sign of life if every part is fresh; whether it was given."""
        return not self.stale() and self._notifier.alive()
