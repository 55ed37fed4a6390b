"""A rolling upgrade whose moves take a minute or more: what the looks at byte counters cost while a hundred go on.

The story is that of `rolling`, with two servers on each host: most of the time all of the hundred copy, which is when
progress is asked for most. How far apart the looks at one server were is said beside the calls.
"""

from __future__ import annotations

from bench.rolling import roll
from bench.support import Row, Setting


def measure(setting: Setting) -> Row:
    """Drain a hundred hosts by slow moves."""
    if setting.quick:
        return roll(setting, "slow_moves", 40, 5, (1, 1), (8.0, 10.0))
    return roll(setting, "slow_moves", 300, 100, (2, 2), (60.0, 90.0))
