"""`maintd stalls` and its report: what was said and noted, held against how the migrations ended."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from maintd.cli import main
from maintd.cli.stalls import score
from maintd.domain.model import Stall
from maintd.web.shapes import stall_shape
from tests.web.serving import AT, Served

NUMBERS = count()


def stall(reason: str = "frozen", **given: Any) -> Stall:
    """A stall that was said an hour ago."""
    number = next(NUMBERS)
    key = given.pop("migration_key", f"m{number}")
    return Stall(
        f"s{number:04}", key, "srv-1", "live-migration", reason, AT - 3700, AT - 3600, "cmp-1", "cmp-2", **given
    )


def ended(after_s: float, outcome: str = "completed", **given: Any) -> Stall:
    """A stall whose migration ended so long after the verdict."""
    return stall(ended_at=AT - 3600 + after_s, outcome=outcome, **given)


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command against the served API: (exit code, stdout, stderr)."""
    monkeypatch.setenv("MAINTD_API", served.url)

    def command(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_stalls_are_listed(served: Served, run) -> None:
    """One a line, with what came of it; those that were only noted are marked, and a filter narrows as the API does."""
    served.put(stall(), stall("late", resumed_at=AT - 60), ended(1200, "cancelled", published=False), ended(60))

    code, out, err = run("stalls")

    assert (0, "") == (code, err)
    rows = out.splitlines()[1:]
    assert ["completed after 60 s", "cancelled after 20 min", "moves again", "stands"] == [
        next(
            word for word in ("completed after 60 s", "cancelled after 20 min", "moves again", "stands") if word in row
        )
        for row in rows
    ]
    assert ["frozen", "frozen (noted)", "late", "frozen"] == [" ".join(row[22:].split("  ")[0].split()) for row in rows]
    assert out == run("stalls", "list")[1]
    assert 1 == len(json.loads(run("stalls", "--noted", "--json")[1])["stalls"])
    assert 3 == len(json.loads(run("stalls", "--published", "--json")[1])["stalls"])
    assert 1 == len(json.loads(run("stalls", "--reason", "late", "list", "--json")[1])["stalls"])
    assert "There is no such stall.\n" == run("stalls", "--since", "2026-01-01T00:00:00Z")[1]


@pytest.mark.parametrize(
    "argv", [("--reason", "lazy"), ("--since", "yesterday"), ("report", "--until", "x"), ("--noted", "--published")]
)
def test_what_is_not_understood_is_exit_code_2(run, argv: tuple[str, ...]) -> None:
    """A reason or a time that does not exist is a sentence."""
    code, out, err = run("stalls", *argv)

    assert (2, "", 1) == (code, out, err.count("\n"))


def test_a_report_holds_verdicts_against_the_ends() -> None:
    """Each reason by itself: said and noted, ended and how, how long after, and the two shares that were wrong."""
    stalls = [
        ended(60), ended(290), ended(301), ended(7200), ended(10, "failed"), ended(20, "cancelled", published=False),
        stall(migration_key="m1", resumed_at=AT), stall(migration_key="m1"), stall("host_down"),
    ]  # fmt: skip

    down, frozen = score(map(stall_shape, stalls))

    assert ("host_down", 1, 1, 0, 0, None) == (
        down["reason"], down["verdicts"], down["running"], down["ended"], down["completed"], down["wrong_share_soon"]
    )  # fmt: skip
    assert {
        "reason": "frozen", "verdicts": 8, "published": 7, "noted": 1, "migrations": 7, "resumed": 1, "ended": 6,
        "running": 2, "completed": 4, "failed": 1, "cancelled": 1, "completed_soon": 2,
        "completed_after_seconds": {"median": 295.5, "least": 60.0, "greatest": 7200.0},
        "wrong_share_soon": 0.3333, "wrong_share_at_most": 0.6667,
    } == frozen  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "of", "published", "advice"),
    [
        (0, 19, False, "too few to judge by"),
        (1, 20, False, "take not_converging out of [stall] observe_only"),
        (1, 20, True, "nothing is to be changed"),
        (3, 20, True, "some were wrong"),
        (5, 20, True, "put not_converging into [stall] observe_only, or raise [stall] not_converging_after_s."),
        (5, 20, False, "leave it in [stall] observe_only"),
    ],
)
def test_a_report_says_what_to_set(served: Served, run, wrong: int, of: int, published: bool, advice: str) -> None:
    """Few wrong verdicts: say it; many: only note it; too few to judge: wait."""
    reason = "not_converging"
    served.put(*(ended(60, reason=reason, published=published) for _ in range(wrong)))
    served.put(*(ended(900, "failed", reason=reason, published=published) for _ in range(of - wrong)))

    code, out, _ = run("stalls", "report")

    assert 0 == code
    assert f"{wrong / of:.0%} (at most {wrong / of:.0%}) of {of}" in out
    assert advice in out.rsplit("\nnot_converging: ", 1)[1]
    assert "nobody need have looked" in out


def test_a_report_of_nothing_is_a_sentence(served: Served, run) -> None:
    """For people a sentence, for scripts an empty list; --since narrows what is counted."""
    served.put(ended(60))

    assert "Nothing was called stalled, nor noted.\n" == run("stalls", "report", "--since", "2026-01-01T00:00:00Z")[1]
    assert [] == json.loads(run("stalls", "report", "--since", "2026-01-01T00:00:00Z", "--json")[1])["reasons"]
    (frozen,) = json.loads(run("stalls", "report", "--json")[1])["reasons"]
    assert 1 == frozen["verdicts"]


def test_nobody_there_is_exit_code_6(capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that does not run is a sentence."""
    assert 6 == main(["stalls", "report", "--api", "http://127.0.0.1:9"])
    assert 1 == capsys.readouterr().err.count("\n")
