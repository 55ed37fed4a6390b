"""How long a live migration, and the emptying of a host, may still take; with a band, or not at all.

Pure: from a curve, or from the moves of a drain, and a moment. It claims nothing that it does not know: what cannot be
estimated is None, with a sentence why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maintd.domain.model import Curve, Estimate, Migration, Policy


@dataclass(frozen=True, slots=True)
class DrainEstimate:
    """When the moves that have been asked for will be done. `unknown` is the sentence why where there is no estimate;
    `not_asked` are the servers on the host that nobody has asked to move, whose time is not in it."""

    estimate: Estimate | None
    unknown: str | None = None
    not_asked: int = 0


def of_migration(curve: Curve | None, policy: Policy, now: float) -> Estimate | None:
    """How long the copying may still take; None where nobody can know: nothing was seen yet, or it never ends so."""
    return None


def of_drain(
    host: str,
    moves: Sequence[Migration],
    ended: Sequence[Migration],
    servers: Sequence[str],
    curve: Callable[[str], Curve | None],
    policy: Policy,
    now: float,
) -> DrainEstimate:
    """When a host's moves will be done: `moves` are the open ones from it, `ended` those lately ended, `servers` the
    ids of the servers on it; `curve` gives a migration's, by its key."""
    return DrainEstimate(None, "nothing is estimated yet", 0)
