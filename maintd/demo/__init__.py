"""Demonstrations: the daemon at work on this machine, told line by line as it happens, with nothing to set up.

Each story stands on a `Stage`: a simulated Nova (over real HTTP, with real notifications on an in-process bus), a real
daemon on SQLite, and real receivers that check signatures. A story says what the people in it do, waits for what has to
come, checks it, and fails with a sentence where it does not. Only times are shorter than the defaults, and the first
lines say which. Nothing is faked behind the events: what is printed was received.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from maintd.demo import drain, tenants

STORIES: Final[dict[str, Callable[[], int]]] = {"drain": drain.play, "tenants": tenants.play}
"""Each story, by its name: it plays itself, and returns the exit code."""
