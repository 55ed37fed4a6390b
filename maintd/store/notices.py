"""What a project may see of its servers: the state of each that anything touches, as its owner was told it.

Notices are kept with the fleet (`fleet.py`); here they are read for one project and no other. What is held back for a
moment (`[tenants] jitter_s`) does not show here either: of such a server the state stands as it was in the newest event
that the project may see. Nothing here writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from maintd.domain.events import wire
from maintd.domain.model import Notice
from maintd.domain.tenant_events import state_of
from maintd.store.engine import Database
from maintd.store.events import hidden_from
from maintd.store.fleet import SHELVES
from maintd.store.tables import events, notices, projects

TOUCHES: Final = ("maintenance", "move", "host_lost")
"""The members of a state of which one at least is there where anything touches a server."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """The states of a project's servers by server id, as JSON objects; `incarnation` of the newest thing it may see."""

    incarnation: int
    states: tuple[dict[str, Any], ...]


class Notices:
    """`store.notices`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_project(self, project_id: str, now: float, after: str = "", limit: int = 100) -> Maintained:
        """At most `limit` servers of the project, from the one after `after`, all as of one moment."""
        return self._database.read(
            lambda connection: _of_project(connection, project_id, now, after, limit), as_one=True
        )


def _of_project(connection: Connection, project_id: str, now: float, after: str, limit: int) -> Maintained:
    e, n = events.c, notices.c
    hidden = {
        row.subject: row.incarnation
        for row in connection.execute(
            select(e.subject, e.incarnation).where(hidden_from(project_id, now)).order_by(e.incarnation.desc())
        )
    }  # by server the first that it may not see yet
    told = connection.execute(select(projects.c.incarnation).where(projects.c.project_id == project_id)).scalar() or 0
    shelf = SHELVES[Notice]
    page = (
        select(*(notices.c[name] for name in shelf.columns))
        .where(n.project_id == project_id, n.server_id > after)
        .order_by(n.server_id)
        .limit(limit + len(hidden))
    )
    states = {
        row.server_id: wire(state_of(shelf.entity(row)))
        for row in connection.execute(page)
        if row.server_id not in hidden
    }
    for server_id, first in hidden.items():
        before = (
            select(e.body)
            .where(e.project_id == project_id, e.subject == server_id, e.incarnation < first)
            .order_by(e.incarnation.desc())
            .limit(1)
        )
        body = connection.execute(before).scalar()
        state = json.loads(body)["data"]["state"] if body is not None and server_id > after else None
        if state is not None and any(state[name] for name in TOUCHES):
            states[server_id] = state
    seen = min(hidden.values()) - 1 if hidden else told
    return Maintained(seen, tuple(states[server_id] for server_id in sorted(states)[:limit]))
