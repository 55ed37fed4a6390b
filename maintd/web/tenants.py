"""What touches a project's servers now: the truth behind the tenant events, for whoever has missed some.

It is read from what owners were told (`store.notices`), so that it says nothing that no event has said, nor earlier.
"""

from __future__ import annotations

from typing import Any

from maintd.errors import OperatorError
from maintd.web.asking import AFTER, LIMIT, Asked, bad, for_operators, text
from maintd.web.operations import Answer, members, operation, ref


@operation(
    {
        200: Answer(
            "The project's servers that anything touches, by id.",
            members(
                {
                    "project_id": {"type": "string"},
                    "incarnation": {
                        "type": "integer",
                        "description": "of the newest thing that the project was told; the same until it is told more",
                    },
                    "servers": {"type": "array", "items": ref("ServerState")},
                    "next": {"type": ["string", "null"], "description": "give it as `after` for more; null at the end"},
                }
            ),
        )
    },
    query=(AFTER, LIMIT, for_operators(text("project_id", "whose servers; else the token's project's"))),
    errors={409: "Projects are told nothing here ([tenants] enabled)."},
)
def maintenance(asked: Asked) -> dict[str, Any]:
    """GET /v1/servers/maintenance: the present state of all servers of a project that anything touches.

    A server that is not in it is touched by nothing. Of two answers the one with the higher `incarnation` is newer.
    """
    if not asked.web.policy.tenants:
        raise OperatorError("Projects are told nothing here: set [tenants] enabled = true, and restart maintd.")
    project_id = asked["project_id"] or asked.caller.project_id
    if project_id is None:
        raise bad("Say whose servers: give project_id.")
    limit = asked["limit"]
    found = asked.web.store.notices.of_project(project_id, asked.web.clock.now(), asked["after"] or "", limit + 1)
    shown = found.states[:limit]
    return {
        "project_id": project_id,
        "incarnation": found.incarnation,
        "servers": list(shown),
        "next": shown[-1]["server_id"] if len(found.states) > limit else None,
    }
