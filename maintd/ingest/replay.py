"""A recording, reduced again on a virtual clock: the same input gives the same events, byte for byte.

Time is the recording's. Before each line, timers due at or before its moment fire, at their own moment; after the last
line nothing fires. Ids are counted. What a line means is decided by the very normalisers and the very reducer that the
daemon uses; there is no second way. Notifications already seen (by message id) count once, as they do live.

It keeps nothing, asks nobody, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count

from maintd.clock import ManualClock
from maintd.domain import estimates
from maintd.domain.events import CloudEvent
from maintd.domain.fleet import Fleet
from maintd.domain.model import Estimate, Knowledge, Policy
from maintd.domain.observations import BusSeen, Observation, ProgressSeen, ServerSeen
from maintd.ingest.admit import Admission
from maintd.nova.answers import Answer, Pages, PassTracker
from maintd.nova.notifications import Notification, normalise

REMEMBERED_IDS = 100_000
"""How many message ids are remembered against repetition."""


Looked = Callable[[float, str, "Estimate | None"], None]
"""Is told of each look at a migration's progress: when, of which server, and what is estimated then."""


def replay(
    lines: Iterable[tuple[float, object]],
    policy: Policy,
    installation: str,
    *,
    keep: Fleet | None = None,
    looked: Looked | None = None,
) -> Iterator[CloudEvent]:
    """The events that a recording leads to. `lines` are (moment, Notification | Answer | BusSeen), in time order.

    Anything else in a line is passed over. `keep`: a fleet to use in place of a new one, to look at afterwards.
    """
    numbers = count(1)
    clock = ManualClock()
    fleet = keep if keep is not None else Fleet(policy)
    admission = Admission(fleet, clock=clock, ids=lambda: f"{next(numbers):012d}", installation=installation)
    passes, pages = PassTracker(), Pages()
    handled: dict[str, None] = {}
    began = False
    for at, item in lines:
        if not began:
            began = True
            fleet.put(Knowledge(memory_since=at))
        while (due := fleet.next_due()) is not None and due <= at:
            clock.move_to(due)
            yield from admission.tick(due, at_due_time=True)
        clock.move_to(at)
        if isinstance(item, Notification):
            if item.message_id in handled:
                continue
            handled[item.message_id] = None
            if len(handled) > REMEMBERED_IDS:
                del handled[next(iter(handled))]
            yield from admission.admit_notifications((item,))
            if looked is not None and item.event_type == "instance.update":
                _tell(fleet, at, normalise(item), looked)
        elif isinstance(item, Answer):
            begun = passes.begun(item)
            observations = pages.observations(item)
            yield from admission.admit((begun, *observations) if begun is not None else observations)
            if looked is not None:
                _tell(fleet, at, observations, looked)
        elif isinstance(item, BusSeen):
            yield from admission.admit((item,))


def _tell(fleet: Fleet, at: float, observations: Iterable[Observation], looked: Looked) -> None:
    """What is estimated at each look at a migration that these observations were."""
    for seen in observations:
        if isinstance(seen, ProgressSeen) or (isinstance(seen, ServerSeen) and seen.percent is not None):
            open_ = next((m for m in reversed(fleet.migrations_of(seen.server_id)) if m.open), None)
            curve = fleet.curve(open_.key) if open_ is not None else None
            if curve is not None and curve.points and curve.points[-1].at == at:
                looked(at, seen.server_id, estimates.of_migration(curve, fleet.policy, at))
