"""`orphan_task`: the server's task says that it is being moved, and Nova shows no move that it could be.

**Rule.** The API was asked for the moves of the server, and showed none under way, while the server's task stays one
of a move (migrating, resize_..., rebuild...), for 120 s. A queue that was cancelled when its compute was stopped
leaves such a task behind. **Source.** facts 5.2 row 15.

Without the API nobody can know this, and nothing is said.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later, when_held

TASKS = ("migrating", "resize_", "rebuild")


def judge(case: Case) -> Judgement | Later | None:
    m, server = case.migration, case.server
    if m.unlisted_at is None or server is None or not (server.task_state or "").startswith(TASKS):
        return None
    return when_held("orphan_task", m.unlisted_at, case, task_state=server.task_state)
