"""The core over a modelled Nova: notifications repeated, reordered, late and lost; reads that fall anywhere between."""

from __future__ import annotations

import pytest

from maintd.domain import emptiness
from maintd.domain.model import Finding
from tests.domain.interleavings import play
from tests.domain.modelled_nova import FalseEmptied, Run


@pytest.mark.parametrize("block", range(10))
def test_no_emptied_is_false_and_none_is_missed(block: int) -> None:
    """Whatever is lost, late or repeated, host.emptied is said of empty hosts only, and of every one in the end."""
    results = [play(seed) for seed in range(1_000_000 + block * 40, 1_000_000 + block * 40 + 40)]

    assert [] == [(seed, false) for seed, _, false, _ in results if false]
    assert [] == [(seed, missed) for seed, _, _, missed in results if missed]
    assert sum(emptied for _, emptied, _, _ in results) > 10


def test_the_model_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that believed the list of servers alone would be caught by the model."""
    honest = emptiness.judge_pass

    def gullible(*args: object, **options: object) -> tuple[Finding, dict[str, float]]:
        finding, leftovers = honest(*args, **options)  # type: ignore[arg-type]
        kinds = ("incoming", "allocation", "unconfirmed_resize", "residue")
        return Finding(finding.at, tuple(b for b in finding.blockers if b.kind not in kinds)), leftovers

    monkeypatch.setattr(emptiness, "judge_pass", gullible)
    caught = 0
    for seed in range(150):
        try:
            Run(seed).play()
        except FalseEmptied:
            caught += 1

    assert caught > 5
