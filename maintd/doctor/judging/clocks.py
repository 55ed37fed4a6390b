"""Do the clocks agree: this machine's, Nova's API's, the conductors' and those of whoever publishes?

An HTTP answer shows its server's clock to the second, so only what cannot be explained by that second and by the time
the answer took counts. A notification shows its publisher's clock: one that arrives before it was sent was sent by a
clock that is ahead; one that arrives late may be from a clock behind, or just be late. The best of all messages of a
publisher is what it is judged by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maintd.doctor.facts import ApiFacts, BusFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import named, seconds
from maintd.nova.shown import Reading

NAMES = {"compute": "Nova's API", "placement": "Placement's API"}

API = Check(
    "clock.api",
    "whether the clocks of this machine and of Nova's and Placement's API servers agree (by the Date of their answers)",
    means_unknown="Their answers have no Date.",
    means_warning="They differ by more than 2 s: what happened first may be told as last.",
    means_error="They differ by more than 30 s: times in events and in the proof are wrong.",
)
HEARTBEATS = Check(
    "clock.heartbeats",
    "whether the conductors' clocks, which write the computes' heartbeats, are ahead of the API server's",
    means_warning="They are, by more than 2 s.",
)
PUBLISHERS = Check(
    "clock.publishers",
    "whether the clocks of the hosts that publish agree with this machine's (by their notifications)",
    means_warning="Some are ahead by more than 2 s, or behind, or their notifications come late.",
)
CHECKS = (API, HEARTBEATS, PUBLISHERS)

TOLERATED_S = 2.0
"""What NTP may leave, and more than a bus or an API takes."""
GROSS_S = 30.0

_NTP = "Run chrony or another NTP client there and here; `chronyc tracking` shows how far off a clock is."


def judge(buses: Sequence[BusFacts], api: ApiFacts | None) -> Iterator[Finding]:
    if api is not None and api.trouble is None:
        yield from api_clocks(api)
        yield from heartbeats(api)
    yield from publishers(buses)


def skew_of(reading: Reading) -> float:
    """By how much a service's clock is ahead (negative: behind) at least; 0 where it may agree."""
    ahead_s, behind_s = reading.date - reading.at, reading.asked_at - (reading.date + 1.0)
    return ahead_s if ahead_s > 0 else -behind_s if behind_s > 0 else 0.0


def api_clocks(facts: ApiFacts) -> Iterator[Finding]:
    """Do the API servers and we agree on the time?"""
    for reading in facts.clocks:
        name, skew_s = NAMES.get(reading.service, reading.service), skew_of(reading)
        if abs(skew_s) <= TOLERATED_S:
            yield API.ok(f"The clock of {name} agrees with this machine's, as far as a Date shows.", reading.service)
            continue
        text = f"The clock of {name} is {_off(skew_s)} this machine's."
        if abs(skew_s) > GROSS_S:
            yield API.error(text, _NTP, reading.service)
        else:
            yield API.warning(text, _NTP, reading.service)
    if not facts.clocks and any(tried.status is not None for tried in facts.tried):
        yield API.unknown("No answer of the API had a Date, so its clock is not known.", None)


def heartbeats(facts: ApiFacts) -> Iterator[Finding]:
    """Is a heartbeat from the future?"""
    reading = next((one for one in facts.clocks if one.service == "compute"), None)
    latest = max((one.updated_at for one in facts.computes if one.updated_at is not None), default=None)
    if reading is None or latest is None:
        return
    ahead_s = latest - (reading.date + 1.0)
    if ahead_s > TOLERATED_S:
        yield HEARTBEATS.warning(f"The clock of a conductor is {_off(ahead_s)} that of Nova's API.", _NTP)
    else:
        yield HEARTBEATS.ok("No heartbeat of a compute is from the future.")


def publishers(buses: Sequence[BusFacts]) -> Iterator[Finding]:
    """Is anybody's notification from the future, or always late?"""
    delays: dict[str, float] = {}
    for bus in buses:
        for host, delay_s in (bus.heard.delays if bus.heard is not None else {}).items():
            delays[host] = min(delay_s, delays.get(host, delay_s))
    if not delays:
        return
    ahead = {host: delay for host, delay in delays.items() if delay < -TOLERATED_S}
    late = {host: delay for host, delay in delays.items() if delay > TOLERATED_S}
    if ahead:
        most = -min(ahead.values())
        yield PUBLISHERS.warning(f"Clocks ahead of this machine's (by up to {seconds(most)}): {named(ahead)}.", _NTP)
    if late:
        most = max(late.values())
        yield PUBLISHERS.warning(
            f"Clocks behind this machine's, or notifications that come late (by up to {seconds(most)}): {named(late)}.",
            _NTP,
        )
    if not ahead and not late:
        yield PUBLISHERS.ok(f"The clocks of {len(delays)} publishing hosts agree with this machine's.")


def _off(skew_s: float) -> str:
    return f"{seconds(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'}"
