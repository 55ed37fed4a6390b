"""What is made of the counters of a pre-copy: its passes, whether they shrink, and when it will end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintd.domain import curve as curves
from maintd.domain import estimates
from maintd.domain.detectors import not_converging
from maintd.domain.detectors.case import Case, Judgement
from maintd.domain.model import Curve, Kind, Migration, Phase, Policy, Stall
from tests.domain.precopy import GIB, Guest, Told, tell

M = Migration("k", "s", Kind.LIVE, Phase.RUNNING, "a", "b")
POLICY = Policy()


def watch(told: Told, unit: str = "bytes") -> list[tuple[Curve, bool]]:
    """The curve after each look, and whether it is called not converging then, one verdict standing until it passes."""
    out: list[tuple[Curve, bool]] = []
    curve: Curve | None = None
    standing: dict[str, Stall] = {}
    for look in told.looks:
        if unit == "bytes":
            new = curves.look(curve, M, look.at, progress=look.progress)
        else:
            new = curves.look(curve, M, look.at, percent=look.percent)
        assert new is not None
        curve = not_converging.watched(new)
        said = not_converging.judge(Case(M, POLICY, look.at, curve=curve, standing=standing))
        if isinstance(said, Judgement) and not standing:
            standing["not_converging"] = Stall(
                "1", "k", "s", "live-migration", said.reason, said.since, look.at, evidence=said.evidence
            )
        elif said is None:
            standing.clear()
        out.append((curve, bool(standing)))
    return out


def test_the_passes_are_found_as_they_were() -> None:
    """remaining + processed jumps at the end of a pass by what the next one has to send, to the byte."""
    told = tell(Guest(total=32 * GIB, bandwidth=0.2 * GIB, dirty=0.3 * GIB, writable=10 * GIB))
    curve = watch(told)[-1][0]
    jumps = [
        (b.progress.memory_remaining_bytes or 0)
        + (b.progress.memory_processed_bytes or 0)
        - (a.progress.memory_remaining_bytes or 0)
        - (a.progress.memory_processed_bytes or 0)
        for a, b in zip(told.looks, told.looks[1:], strict=False)
    ]
    large = [jump for jump in jumps if jump > 0.01 * GIB]

    assert [round(one.size) for one in curve.passes] == large
    assert all(one.clear for one in curve.passes)
    assert curve.first_pass_ended_at == pytest.approx(told.first_pass_ended_at, abs=1.0)


@pytest.mark.parametrize("unit", ["bytes", "percent"])
def test_what_converges_is_never_called(unit: str) -> None:
    """Two hundred guests that write at up to 0.78 of what the link carries, large and small, quick and slow."""
    rng = random.Random(20261127)
    for seed in range(200):
        total, bandwidth = rng.choice((2, 4, 8, 16, 32)) * GIB, rng.choice((0.11, 0.5, 1.1, 2.6)) * GIB
        dirty, writable = bandwidth * rng.uniform(0.02, 0.78), total * rng.uniform(0.05, 0.6)
        told = tell(Guest(total, bandwidth, dirty, writable, rng.uniform(0, 0.6), seed=seed))
        assert told.ended_at is not None
        assert not any(said for _, said in watch(told, unit)), (seed, dirty / bandwidth)


@pytest.mark.parametrize("unit", ["bytes", "percent"])
def test_what_never_ends_is_called_soon_and_stays_called(unit: str) -> None:
    """Sixty guests that write at 1.2 to 4 of what the link carries: called within seven passes and a minute."""
    rng = random.Random(7)
    for seed in range(60):
        total, bandwidth = rng.choice((4, 8, 16, 32)) * GIB, rng.choice((0.11, 0.5, 1.1)) * GIB
        writable = max(total * rng.uniform(0.1, 0.5), 2 * bandwidth)
        guest = Guest(total, bandwidth, bandwidth * rng.uniform(1.2, 4), writable, seed=seed)
        told = tell(guest)
        assert told.ended_at is None and told.first_pass_ended_at is not None
        called = [look.at for look, (_, said) in zip(told.looks, watch(told, unit), strict=True) if said]
        assert called and called[-1] == told.looks[-1].at, seed
        patience_s = (60 if unit == "bytes" else 180) + 7 * writable / bandwidth
        assert called[0] - told.first_pass_ended_at <= patience_s, seed


def test_a_guest_that_becomes_quiet_is_resumed() -> None:
    """The verdict stands while it writes, and passes when its passes shrink at last; then it ends."""
    guest = Guest(16 * GIB, 0.3 * GIB, 0.6 * GIB, 6 * GIB, quiet_from=400.0)
    told = tell(guest)
    verdicts = [said for _, said in watch(told)]

    assert told.ended_at is not None and True in verdicts
    called = verdicts.index(True)
    assert told.looks[called].at < 400.0 and not all(verdicts[called:])


def test_nothing_is_said_of_the_first_pass_or_of_disks() -> None:
    """A long disk copy and a long first pass show no sawtooth, and none is seen in them."""
    told = tell(Guest(32 * GIB, 0.11 * GIB, 0.01 * GIB, 4 * GIB, disk=40 * GIB))
    for look, (curve, said) in zip(told.looks, watch(told), strict=True):
        if look.at < (told.first_pass_ended_at or 0.0):
            assert not said and curve.first_pass_ended_at is None and not curve.passes


def test_evidence_says_what_nova_will_do() -> None:
    """The size of the passes, the speeds, the downtime they need, and when Nova permits it or gives up."""
    guest = Guest(4 * GIB, 0.5 * GIB, 1.0 * GIB, 2 * GIB, noise=0.01)
    told = tell(guest, limit_s=300.0)
    curve = watch(told)[-1][0]
    said = not_converging.judge(Case(M, POLICY, told.looks[-1].at, curve=curve))
    assert isinstance(said, Judgement)
    evidence = said.evidence

    assert evidence["throughput_per_second"] == pytest.approx(0.5 * GIB, rel=0.1)
    assert evidence["needs_downtime_seconds"] == pytest.approx(2 * 0.8 / 0.5, rel=0.3)
    nova = evidence["nova"]
    assert isinstance(nova, dict)
    assert nova["permits_it_in_seconds"] is None and nova["then"] == "abort"
    assert nova["then_in_seconds"] == pytest.approx(4 * 800 - 295, abs=1)
    assert nova["downtime_permitted_seconds"] == pytest.approx(0.05)


def test_a_curve_is_bounded() -> None:
    """However long a migration takes, what is kept of it is not; the first look stays, and the last ones stay whole."""
    told = tell(Guest(32 * GIB, 0.11 * GIB, 0.3 * GIB, 10 * GIB), limit_s=20_000.0)
    curve = watch(told)[-1][0]

    assert len(told.looks) > 3_900
    assert len(curve.points) <= curves.MAX_POINTS and len(curve.passes) <= curves.MAX_PASSES
    assert curve.points[0].at == told.looks[0].at
    assert [point.at for point in curve.points[-60:]] == [look.at for look in told.looks[-60:]]


def test_what_is_over_is_summed_up() -> None:
    """Sixty points are kept, the first and the last among them, and all passes."""
    curve = watch(tell(Guest(32 * GIB, 0.11 * GIB, 0.3 * GIB, 10 * GIB)))[-1][0]
    over = curves.ended(curve, 2000.0, "failed")

    assert len(curve.points) > 60 and len(over.points) == 60 and over.due
    assert (over.points[0], over.points[-1], over.passes) == (curve.points[0], curve.points[-1], curve.passes)
    assert (over.outcome, over.ended_at, over.falls, over.block) == ("failed", 2000.0, (), None)


def test_the_bus_is_not_heard_beside_the_api() -> None:
    """While the API gives counters, percentages add nothing; once it is silent for a minute they are all we have."""
    told = tell(Guest(32 * GIB))
    curve = watch(told)[3][0]
    at = curve.points[-1].at
    assert curves.look(curve, M, at + 5, percent=40) is None
    alone = curves.look(curve, M, at + 65, percent=40)
    assert alone is not None and alone.unit == "percent" and alone.points[-1].remaining == 60.0


def test_the_store_is_given_a_curve_now_and_then() -> None:
    """About every 30 s, and at the end; every look changes memory alone."""
    told = tell(Guest(32 * GIB, 0.11 * GIB, 0.01 * GIB, 4 * GIB))
    kept = [curve.points[-1].at for curve, _ in watch(told)[1:] if curve.due]
    gaps = [b - a for a, b in zip(kept, kept[1:], strict=False)]
    assert gaps and set(gaps) == {30.0}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 40.0), st.integers(0, 2**36), st.integers(0, 2**40), st.integers(0, 2**36)),
        max_size=60,
    ),
    st.sampled_from(["bytes", "percent"]),
)
def test_whatever_counters_say_a_curve_is_made_of_it(looks: list[tuple[float, int, int, int]], unit: str) -> None:
    """Counters that run backwards, stand still or are nonsense make a curve, a verdict, an estimate, and no error."""
    at, curve = 0.0, None
    for gap, left, processed, disk in looks:
        at += gap
        progress = replace(
            tell(Guest(), limit_s=6.0).looks[0].progress,
            memory_remaining_bytes=left,
            memory_processed_bytes=processed,
            disk_remaining_bytes=disk,
        )
        if unit == "bytes":
            new = curves.look(curve, M, at, progress=progress)
        else:
            new = curves.look(curve, M, at, percent=left % 101)
        curve = not_converging.watched(new) if new is not None else curve
        not_converging.judge(Case(M, POLICY, at, curve=curve))
        found = estimates.of_migration(curve, POLICY, at)
        assert found is None or 0 <= found.low_seconds <= found.seconds <= found.high_seconds


# -- estimates --------------------------------------------------------------------------------------------------------


def test_bands_hold_nine_times_in_ten() -> None:
    """Over the second half of each of two hundred migrations that end, 85 to 97 % of the bands hold the end."""
    rng = random.Random(5)
    held = asked = close = middles = 0
    for seed in range(200):
        total, bandwidth = rng.choice((4, 8, 16, 32)) * GIB, rng.choice((0.11, 0.5, 1.1)) * GIB
        guest = Guest(total, bandwidth, bandwidth * rng.uniform(0.01, 0.75), total * rng.uniform(0.05, 0.6),
                      rng.uniform(0, 0.6), seed=seed)  # fmt: skip
        told = tell(guest)
        assert told.ended_at is not None and told.first_pass_ended_at is not None
        question = (told.first_pass_ended_at + told.ended_at) / 2
        middle = None
        for curve, _ in watch(told):
            at = curve.points[-1].at
            found = estimates.of_migration(curve, POLICY, at)
            left = told.ended_at - at
            if at > told.ended_at / 2 and found is not None:
                asked += 1
                held += found.low_seconds <= left <= found.high_seconds
            if at <= question and found is not None:
                middle = at + found.seconds
        if middle is not None and told.ended_at - told.first_pass_ended_at >= 20:
            middles += 1
            close += abs(middle - told.ended_at) <= max(10.0, 0.3 * (told.ended_at - question))

    assert 0.85 <= held / asked <= 0.97
    assert close / middles >= 0.8


def test_what_does_not_converge_has_no_estimate() -> None:
    told = tell(Guest(8 * GIB, 0.5 * GIB, 1.5 * GIB, 4 * GIB))
    curve = watch(told)[-1][0]
    assert estimates.of_migration(curve, POLICY, told.looks[-1].at) is None


def test_before_anything_was_seen_there_is_no_estimate() -> None:
    assert estimates.of_migration(None, POLICY, 5.0) is None
    told = tell(Guest())
    assert estimates.of_migration(watch(told)[0][0], POLICY, 5.0) is None


def test_an_estimate_grows_old_with_the_clock() -> None:
    """What was to take 40 s takes 30 s ten seconds later, though nothing was looked at meanwhile."""
    curve = watch(tell(Guest(32 * GIB, 0.2 * GIB)))[10][0]
    at = curve.points[-1].at
    now, later = estimates.of_migration(curve, POLICY, at), estimates.of_migration(curve, POLICY, at + 10)
    assert now is not None and later is not None
    assert later.seconds == pytest.approx(now.seconds - 10, abs=0.01)


def test_what_stands_still_has_no_estimate() -> None:
    """Counters that have not changed for half a minute: the speed of before says nothing of an end."""
    told = tell(Guest(8 * GIB, 0.2 * GIB, 0.14 * GIB, 4 * GIB))
    curve = watch(Told(told.looks[:9]))[-1][0]
    last = told.looks[8]
    assert estimates.of_migration(curve, POLICY, last.at) is not None
    for n in range(1, 8):
        held = curves.look(curve, M, last.at + 5.0 * n, progress=last.progress)
        assert held is not None
        curve = held

    assert estimates.of_migration(curve, POLICY, last.at + 35.0) is None


def test_an_estimate_that_has_run_out_is_none() -> None:
    """Nobody has looked for half a minute since it should have ended at the latest: that is no estimate of nothing."""
    told = tell(Guest(32 * GIB, 0.2 * GIB))
    curve = watch(Told(told.looks[:11]))[-1][0]
    at = told.looks[10].at
    first = estimates.of_migration(curve, POLICY, at)
    assert first is not None and first.high_seconds > 0

    assert estimates.of_migration(curve, POLICY, at + first.high_seconds + 31.0) is None
