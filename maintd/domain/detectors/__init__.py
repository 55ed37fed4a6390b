"""Detectors: each judges one reason for which a migration may be called stalled, in a file of its own.

A detector is a pure function of a `Case`. It claims only what it can know; where nobody can look, nothing is claimed.
It says since when its reason holds, what that rests on, and, where mere waiting may make it hold, when to look again.
What is published of it, and how often, is the reducer's affair (`stalls.py`). The reasons stand in the order of their
gravity in `model.STALL_AFTER_S`, and so do the detectors here.
"""

from __future__ import annotations

from collections.abc import Callable

from maintd.domain.detectors import (
    frozen,
    host_down,
    late,
    not_converging,
    not_started,
    orphan_task,
    queue_blocked,
    slow_step,
)
from maintd.domain.detectors.case import Case, Judgement, Later

DETECTORS: dict[str, Callable[[Case], Judgement | Later | None]] = {
    "host_down": host_down.judge,
    "orphan_task": orphan_task.judge,
    "frozen": frozen.judge,
    "not_converging": not_converging.judge,
    "not_started": not_started.judge,
    "queue_blocked": queue_blocked.judge,
    "slow_step": slow_step.judge,
    "late": late.judge,
}

_ABORT = "openstack --os-compute-api-version 2.65 server migration abort {server} {id}"
_FORCE = "openstack --os-compute-api-version 2.22 server migration force complete {server} {id}"

ADVICE = {
    "host_down": "nova-compute on {host} is down, and the migration stands still until it runs again: look at that "
    "host first",
    "orphan_task": "Nova shows no migration behind this task: look at the logs of nova-conductor and nova-compute, "
    "then reset it with: openstack server set --state active {server}",
    "frozen": "look at nova-compute and libvirt on the source and at the network between the hosts; it can be aborted "
    f"with: {_ABORT}",
    "not_converging": "the guest writes memory faster than it can be sent: quiet the guest; or let Nova end it (by "
    f"post-copy where nova.conf permits it, else by pausing the guest) with: {_FORCE}; or abort it with: {_ABORT}",
    "not_started": "look at nova-conductor and nova-scheduler for errors about this server",
    "queue_blocked": "the source works its queue one by one: look at nova-compute there",
    "slow_step": "look at nova-compute on the source and the destination for what this step waits for",
    "late": "it takes longer than its size explains: look at the network between the hosts",
}
"""What may help, by reason; only advice."""


def judge_all(case: Case) -> tuple[list[Judgement], float | None]:
    """Every reason that holds, the gravest first, and when to look again if nothing is seen by then."""
    found: list[Judgement] = []
    look_at: float | None = None
    for judge in DETECTORS.values():
        said = judge(case)
        if isinstance(said, Judgement):
            found.append(said)
        elif said is not None:
            look_at = said.at if look_at is None else min(look_at, said.at)
    return found, look_at
