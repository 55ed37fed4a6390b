"""/v1/stalls, asked as a script would ask."""

from __future__ import annotations

from typing import Any

import pytest

from maintd.domain.model import Stall
from tests.web.serving import AT, Served


def stall(number: int, reason: str = "frozen", **given: Any) -> Stall:
    """A stall of ten minutes times its number ago."""
    return Stall(
        f"s{number}", f"m{number}", f"srv-{number}", "live-migration", reason, AT - number * 600 - 60,
        AT - number * 600, "cmp-1", "cmp-2", **given,
    )  # fmt: skip


def ids(answer: dict) -> list[str]:
    return [row["stall_id"] for row in answer["stalls"]]


def test_stalls_go_newest_first_page_by_page(served: Served) -> None:
    """Following `next` shows every stall once, those of one moment too, and it is null on the last page."""
    served.put(*(stall(n) for n in (3, 1, 2)))
    served.put(*(Stall(f"t{n}", "m9", "srv-9", "resize", "slow_step", AT, AT) for n in range(4)))
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        status, answer = served.get(f"/v1/stalls?limit=2&after={cursor}")
        assert 200 == status
        seen += ids(answer)
        cursor = answer["next"]

    assert ["t3", "t2", "t1", "t0", "s1", "s2", "s3"] == seen


def test_a_stall_is_shown_whole(served: Served) -> None:
    """Reason, since when, when it was said or noted, what came of it, and the evidence."""
    served.put(
        stall(1, published=False, resumed_at=AT - 300, ended_at=AT, outcome="completed", evidence={"since": AT, "n": 1})
    )

    (shown,) = served.get("/v1/stalls")[1]["stalls"]

    assert {
        "stall_id": "s1", "migration_key": "m1", "server_id": "srv-1", "kind": "live-migration", "reason": "frozen",
        "since": "2025-12-31T23:49:00.000000Z", "said_at": "2025-12-31T23:50:00.000000Z", "source": "cmp-1",
        "destination": "cmp-2", "published": False, "resumed_at": "2025-12-31T23:55:00.000000Z",
        "ended_at": "2026-01-01T00:00:00.000000Z", "outcome": "completed", "blocked_by": None,
        "evidence": {"since": "2026-01-01T00:00:00.000000Z", "n": 1},
    } == shown  # fmt: skip


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("reason=late", ["s2"]),
        ("published=false", ["s3"]),
        ("published=true", ["s1", "s2"]),
        ("since=2025-12-31T23:40:00Z", ["s1", "s2"]),
        ("until=2025-12-31T23:50:00Z", ["s2", "s3"]),
        (f"since={AT - 1300:.0f}&until={AT - 700}", ["s2"]),
    ],
)
def test_stalls_can_be_narrowed(served: Served, query: str, wanted: list[str]) -> None:
    """By reason, by whether it was said, and by when: at or after `since`, before `until`."""
    served.put(stall(1), stall(2, "late"), stall(3, published=False))

    assert wanted == ids(served.get(f"/v1/stalls?{query}")[1])


@pytest.mark.parametrize(
    "query",
    [
        "reason=lazy",
        "published=perhaps",
        "since=yesterday",
        "until=2025-12-31T23:50:00",
        "after=s1",
        "after=x/s1",
        "x=1",
    ],
)
def test_what_is_not_understood_is_refused(served: Served, query: str) -> None:
    """A misspelt filter is a 400 with a sentence, not the whole list."""
    status, answer = served.get(f"/v1/stalls?{query}")

    assert 400 == status
    assert answer["description"].endswith(".")
