"""A small chaos, for a quick look; `make chaos` is the great one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.run import run
from tests.chaos.trouble import Plan


def test_a_few_kills(tmp_path: Path) -> None:
    """With maintd, the broker, receivers and the HA manager killed in mid-story, everything is told, once and in order,
    and the active role ends where it should."""
    plan = Plan(
        kills=3,
        lives_s=(4.0, 8.0),
        broker_s=(3.0, 6.0),
        receivers_s=(2.0, 8.0),
        away_s=(0.2, 1.0),
        manager_s=(3.0, 6.0),
    )

    result = run(9, tmp_path, plan, calm_s=180.0)

    assert [] == result.wrong
    assert 3 == result.broke["maintd killed"]
    assert 0 < result.told["events of a"]
