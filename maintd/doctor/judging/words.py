"""Phrases that several judges use: counted things, lists cut to a readable length, and the lines for nova.conf."""

from __future__ import annotations

from collections.abc import Collection

NOVA_CONF = """\
On every Nova service that is concerned, in nova.conf, then restart it:
  [notifications]
  notification_format = versioned        # or both
  notify_on_state_change = vm_and_task_state
  [oslo_messaging_notifications]
  driver = messagingv2"""

NAMED = 8
"""Most names in one sentence; a script finds the others in what it asks itself."""


def counted(n: int, thing: str) -> str:
    """1 message, 2 messages."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def named(names: Collection[str]) -> str:
    """Some names, sorted; so many and the number of the others where there are too many."""
    some = sorted(names)
    if len(some) <= NAMED:
        return ", ".join(some)
    return f"{', '.join(some[:NAMED])} and {len(some) - NAMED} more"


def seconds(value: float) -> str:
    """A span of time, to a tenth where it is short."""
    if 0 <= value < 0.05:
        return "less than 0.1 s"
    return f"{value:.1f} s" if abs(value) < 10 else f"{value:.0f} s"


def dotted(version: tuple[int, int]) -> str:
    """A microversion as Nova writes it."""
    return f"{version[0]}.{version[1]}"
