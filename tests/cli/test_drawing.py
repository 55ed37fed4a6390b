"""The curve of a live migration in the terminal, and estimates in every table that has them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from maintd.cli import main
from maintd.cli.drawing import chart
from maintd.domain.model import Curve, Drain, Kind, Migration, Pass, Phase, Point, Server, Stall
from maintd.terminal import about, amount
from tests.web.serving import AT, Served, closed

MIB = 1024 * 1024
GIB = 1024 * MIB

MOVE = Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-1", destination="cmp-2", begun_at=AT - 600)


def sawtooth(disk: float = 0.0) -> Curve:
    """Eight GiB at 100 MiB/s, of which 600 MiB are written to during each pass after the first; ten minutes of it."""
    bandwidth, at, size = 100.0 * MIB, AT - 600, 8.0 * GIB
    points: list[Point] = []
    passes: list[Pass] = []
    while at < AT:
        if size < GIB:
            passes.append(Pass(at, size, clear=False))
        points += [
            Point(at + s, size - s * bandwidth, max(0.0, disk - (at + s - AT + 600) * bandwidth))
            for s in range(int(size / bandwidth))
            if at + s <= AT
        ]
        at, size = at + size / bandwidth, 600.0 * MIB
    return Curve(
        "m1", "srv-1", "cmp-1", "cmp-2", total=8.0 * GIB, disk_total=disk, began_at=AT - 600, looks=len(points),
        bandwidth=bandwidth, disk_bandwidth=bandwidth if disk else None, copying_from=AT - 600,
        first_pass_ended_at=passes[0].began_at,
        points=tuple(points), passes=tuple(passes),
    )  # fmt: skip


STALL = Stall(
    "s1", "m1", "srv-1", "live-migration", "not_converging", AT - 200, AT - 100, "cmp-1", "cmp-2",
    published=False, blocked_by="m0",
    evidence={
        "unit": "bytes", "last_passes": [600.0 * MIB, 610.0 * MIB], "dirty\x1b": 92.5, "needs_downtime_seconds": 5.98,
        "nova": {"then": "abort", "then_in_seconds": 5800.0},
    },
)  # fmt: skip


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command against the served API, at the served moment: stdout."""
    monkeypatch.setenv("MAINTD_API", served.url)
    monkeypatch.setattr("maintd.cli.fleet.SystemClock", lambda: served.clock)

    def command(*argv: str) -> str:
        assert 0 == main(argv)
        return capsys.readouterr().out

    return command


@pytest.mark.parametrize("disk", [0.0, 20.0 * GIB])
def test_a_migration_is_drawn_in_eighty_columns(served: Served, run, disk: float) -> None:
    """Curve, passes, ramp, verdict and estimate fit on a terminal of 80 columns, in plain ASCII."""
    served.put(MOVE)
    served.hold(sawtooth(disk))
    served.hold(STALL)

    out = run("migrations", "show", "m1")
    drawn = out[out.index("what remains of the memory") :]

    assert 80 >= max(map(len, drawn.splitlines()))
    assert drawn.replace("dirty·", "").isascii()
    assert bool(disk) == ("what remains of the disks" in drawn)
    assert "Memory is copied at 100 MiB/s" in drawn and "; the first pass took 81 s." in drawn
    assert "the same since the first pass" in drawn
    assert "noted: not_converging since 2025-12-31 23:56:40Z" in drawn
    for line in (
        "blocked by migration m0",
        "what to do: docs/runbooks/not_converging.md",
        "last passes: 600 MiB, 610 MiB",
        "needs downtime seconds: 5.98 s",
        "nova:",
        "  then: abort",
        "  then in seconds: 1 h 36 min",
    ):
        assert f"  {line}\n" in drawn
    assert "Time left: " in drawn


def test_the_ramp_says_when_a_pass_would_fit(served: Served, run) -> None:
    """The step that holds now is marked, the last pass is compared with what fits, and Nova's end is said."""
    served.put(MOVE)
    served.hold(sawtooth())

    out = run("migrations", "show", "m1")

    rows = [line.split() for line in out.splitlines()]
    assert ["0", "2025-12-31", "23:50:00Z", "50", "ms", "5.0", "MiB"] in rows
    assert ["2025-12-31", "23:50:00Z", "8.0", "GiB", "93.0", "MiB", "the", "whole", "memory"] not in rows  # long gone
    assert ["1", "now", "2026-01-01", "00:00:00Z", "95", "ms", "9.5", "MiB"] in rows
    assert "A pass of 600 MiB, like the last, never fits" in out
    assert "If it is not done by 2026-01-01 01:36:40Z, Nova aborts it." in out

    small = replace(sawtooth(), passes=(Pass(AT - 60, 45.0 * MIB),))
    served.hold(small)
    assert "A pass of 45.0 MiB, like the last, fits from 2026-01-01 01:20:00Z on." in run("migrations", "show", "m1")
    served.hold(replace(small, passes=(Pass(AT - 60, 9.0 * MIB),)))
    assert "A pass of 9.0 MiB, like the last, fits now." in run("migrations", "show", "m1")


def test_percents_are_drawn_too(served: Served, run) -> None:
    """What only the bus told of is drawn in percent; of Nova's plans nothing can be said then."""
    points = tuple(Point(AT - 60 + n, 100.0 - n) for n in range(60))
    served.put(MOVE)
    served.hold(Curve("m1", "srv-1", unit="percent", total=100.0, began_at=AT - 60, points=points))

    out = run("migrations", "show", "m1")

    assert "     100 % |**" in out
    assert "the downtime that Nova permits" not in out
    assert None is json.loads(run("migrations", "show", "m1", "--json"))["nova"]


def test_what_nobody_looked_at_is_not_drawn(served: Served, run) -> None:
    """Without looks there is no curve, but a sentence; an ended migration without any has none at all."""
    served.put(MOVE, replace(MOVE, key="m2", phase=Phase.COMPLETED, ended_at=AT - 5))

    assert "Nothing was seen yet of how much remains." in run("migrations", "show", "m1")
    over = run("migrations", "show", "m2")
    assert "what remains" not in over and "Time left" not in over


def test_a_curve_is_a_line_without_gaps() -> None:
    """Every column between the first look and the last has a mark, and a jump is drawn from its foot to its top."""
    rows = chart([(0.0, 10.0), (9.0, 0.0), (9.0, 8.0), (20.0, 0.0)], 0.0, 20.0, 5, 20)

    assert 5 == len(rows) and {20} == set(map(len, rows))
    assert all(any(row[column] == "*" for row in rows) for column in range(20))
    assert "*" == rows[0][0] and "*" == rows[4][19]
    assert {"*"} == {row[9] for row in rows[1:]}
    assert [" " * 4] * 2 == chart([], 0.0, 1.0, 2, 4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((12 * 60, 8 * 60, 20 * 60), "12 min (8-20)"),
        ((40, 20, 70), "40 s (20-70)"),
        ((3600, 60, 4 * 3600), "60 min (60 s to 4 h 0 min)"),
        ((3 * 3600, 2 * 3600, 4 * 3600), "3 h 0 min (2 h 0 min to 4 h 0 min)"),
    ],
)
def test_an_estimate_is_said_with_its_band(seconds: tuple[float, float, float], text: str) -> None:
    """The unit is said once where it is the same."""
    assert text == about(dict(zip(("seconds", "low_seconds", "high_seconds"), seconds, strict=True)))


@pytest.mark.parametrize(
    ("size", "unit", "text"),
    [
        (0, "bytes", "0 B"), (1023, "bytes", "1023 B"), (1536, "bytes", "1.5 KiB"), (110 * MIB, "bytes", "110 MiB"),
        (8.04 * GIB, "bytes", "8.0 GiB"), (3 * 1024 * GIB, "bytes", "3.0 TiB"), (40.2, "percent", "40 %"),
        (0.25, "percent", "0.25 %"),
    ],
)  # fmt: skip
def test_sizes_are_said_shortly(size: float, unit: str, text: str) -> None:
    """Two or three digits and a unit."""
    assert text == amount(size, unit)


def test_tables_say_what_is_unknown(served: Served, run) -> None:
    """`drains`, `hosts` and `why` say when the moves will be done or why that is unknown; `migrations` the time left,
    with a stall that is only noted told apart."""
    served.put(
        closed("cmp-1", drain_id="d1"), Drain("d1", "cmp-1", AT - 600), MOVE, Server("srv-1", host="cmp-1"),
        Drain("d0", "cmp-0", AT - 9000, ended_at=AT - 8000, outcome="ended"),
        Migration("m2", "srv-2", Kind.COLD, Phase.RUNNING, source="cmp-1", destination="cmp-2", begun_at=AT),
    )  # fmt: skip
    served.hold(STALL)
    drain = json.loads(run("why", "cmp-1", "--json"))["drain"]
    assert None is drain["eta"] and drain["eta_unknown"]

    for noun in ("hosts", "drains"):
        row = next(line for line in run(noun).splitlines() if line.startswith("cmp-1"))
        assert f"unknown: {drain['eta_unknown'].rstrip('.')}" in row
    assert "cmp-0  ended" in run("drains") and 1 == run("drains").count("unknown")
    assert "When its moves will be done is unknown: " in run("why", "cmp-1")
    assert "When its moves will be done is unknown: " in run("drains", "show", "d1")
    one, other = (line for line in run("migrations").splitlines()[1:])
    assert "unknown: not_converging" in one and "(not_converging: noted)" in one
    assert "unknown" not in other

    served.put(replace(MOVE, stalled="frozen"))
    served.hold(replace(STALL, key="s2", reason="frozen", published=True))
    row = next(line for line in run("migrations").splitlines() if " live-migration " in line)
    assert "  frozen (not_converging: noted)  " in row
