"""The stories, each a function: what an operator does, and what has to be heard. Returns the facts to be judged by.

`drain` is the main one. The others are the rarer ways of leaving a host, of coming back to it, and of seeming to have
left; each of them must end the same: one `host.emptied`, never early, and not before the thing is really over. What the
API does not show while it goes on, the story asks of maintd's blockers.

A family each: `live` (live migrations), `stalls` (live migrations that stand still, or never end), `cold` (cold
migrations and resizes), `dead` (a host whose nova-compute is down), `other` (servers that are built, shelved, deleted,
or broken), `buses` (a host that speaks on a second broker), `tenants` (what owners of servers are told).
"""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance.judge import Facts
from tests.acceptance.stage import Stage
from tests.acceptance.stories import buses, cold, dead, live, other, stalls, tenants

STORIES: dict[str, Callable[[Stage], Facts]] = {
    story.__name__: story for family in (live, stalls, cold, dead, other, buses, tenants) for story in family.STORIES
}
"""By name."""
