"""The judges: facts in, findings out. One function per check, one module per thing that is looked at.

Pure: no I/O, no clock, no configuration. A judge says something about everything it was shown, ok included, and says
`unknown` where it was shown nothing; where a more basic check has failed already, what rests on it keeps quiet, so that
one fault makes one finding.
"""

from __future__ import annotations

from maintd.doctor.facts import Facts
from maintd.doctor.findings import UNFINISHED, Check, Finding
from maintd.doctor.judging import api, bus, clocks, computes, configuration, daemon, database, stream, webhooks

CHECKS: tuple[Check, ...] = (
    *configuration.CHECKS,
    *database.CHECKS,
    *daemon.CHECKS,
    *bus.CHECKS,
    *stream.CHECKS,
    *computes.CHECKS,
    *api.CHECKS,
    *clocks.CHECKS,
    *webhooks.CHECKS,
    UNFINISHED,
)
"""Every check there is, in the order in which their findings are told."""


def judge(facts: Facts) -> tuple[Finding, ...]:
    """Everything there is to say about these facts."""
    return (
        *configuration.judge(facts.config),
        *(database.judge(facts.database) if facts.database else ()),
        *(daemon.judge(facts.daemon, facts.database) if facts.daemon else ()),
        *(finding for one in facts.buses for finding in bus.judge(one, facts.database)),
        *(
            finding
            for one in facts.buses
            for finding in stream.judge(
                one,
                facts.api,
                facts.daemon,
                [b for b in facts.buses if b is not one],
                one_is_lost=_a_bus_is_lost(facts),
            )
        ),
        *computes.judge(
            facts.buses, facts.api, all_listened=not _a_bus_is_lost(facts) and all(bus.listened for bus in facts.buses)
        ),
        *(api.judge(facts.api) if facts.api else ()),
        *clocks.judge(facts.buses, facts.api),
        *webhooks.judge(facts.webhooks, facts.database),
        *(
            UNFINISHED.error(
                f"Looking at {what} has not ended within {given_s:.0f} s, and was given up.",
                "See whether it answers at all from this machine; then run maintd doctor again.",
                what,
            )
            for what, given_s in facts.unfinished
        ),
        *(
            UNFINISHED.error(
                f"Looking at {what} came to nothing by maintd's own fault: {fault}.",
                "Please report it; everything else was looked at.",
                what,
            )
            for what, fault in facts.failed
        ),
    )


def _a_bus_is_lost(facts: Facts) -> bool:
    """Whether there is a bus of which nothing is known: looking at it hangs, or failed by our own fault."""
    return any(what.startswith("bus ") for what, _ in (*facts.unfinished, *facts.failed))
