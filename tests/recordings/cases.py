"""Which recording stands for what: the ways in which a server leaves a host, comes back, or seems to have left.

`CASES` is the list of ways, each with the recordings in which it happens; `REAL` says what was done in the recordings
of a real Nova, `stories.STORIES` what in those that were made. The table in `README.md` is drawn from them by
`make.py`; a test sees that every way has its recording and that the table is as drawn.
"""

from __future__ import annotations

from pathlib import Path

from tests.recordings.stories import STORIES

CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("live migration, done", ("drain-live", "drain-live-parallel", "lm-drained")),
    ("live migration, queued", ("lm-stuck", "lm-abort", "lm-drained")),
    ("live migration, stuck", ("lm-stuck",)),
    ("live migration, no valid host", ("lm-fail", "lm-failures")),
    ("live migration, pre-check failure", ("lm-precheck-failure",)),
    ("live migration, pre failure", ("lm-fail", "lm-failures")),
    ("live migration, rollback", ("lm-fail", "lm-failures")),
    ("live migration, abort of a running one", ("lm-abort",)),
    ("live migration, abort of a queued one", ("lm-abort",)),
    ("live migration, abort of a preparing one", ("lm-abort-preparing",)),
    ("live migration, force-complete", ("force-complete", "lm-force-complete")),
    ("live migration, post-copy", ("lm-post-copy",)),
    ("live migration, failure in post", ("lm-fail", "lm-post-failure")),
    ("live migration, driver crash", ("lm-fail", "lm-driver-crash")),
    ("live migration, source restarted", ("restart", "lm-source-restarted")),
    ("live migration, dropped from its source's queue", ("queue-dropped",)),
    ("cold migration, confirmed", ("drain-cold", "cold-confirmed")),
    ("cold migration or resize, unconfirmed", ("drain-cold", "resize-and-noise", "cold-confirmed", "cold-reverted")),
    ("resize on the same host", ("resize-same-host",)),
    ("cold migration, auto-confirmed", ("cold-auto-confirm",)),
    ("revert that brings a server back to a closed host", ("drain-cold", "revert", "cold-reverted")),
    ("cold migration, finish failure", ("drain-cold", "cold-finish-failure")),
    ("cold migration, failure on the source", ("drain-cold", "cold-source-failure")),
    ("delete while resized", ("drain-cold", "cold-deleted")),
    ("delete while resized, with the source down", ("cold-source-dead",)),
    ("evacuation, done", ("evacuate", "evac-restarted")),
    ("evacuation, new host known only from the API", ("evac-restarted",)),
    ("evacuation, failures", ("evacuate", "evac-failures")),
    ("evacuation, source restarted", ("evacuate", "evacuate-delete", "evac-restarted")),
    ("evacuation, then deleted before the source is back", ("evacuate-delete", "evac-then-deleted")),
    ("shelve", ("shelve-offload-unshelve", "unshelve-in-place")),
    ("offload", ("leave-otherwise", "shelve-offload-unshelve")),
    ("unshelve", ("leave-otherwise", "shelve-offload-unshelve")),
    ("unshelve in place", ("unshelve-in-place",)),
    ("unshelve that arrives on a closed host", ("unshelve-late",)),
    ("soft delete", ("soft-delete", "soft-delete-restore", "soft-delete-reclaim", "force-delete")),
    ("restore", ("soft-delete", "soft-delete-restore")),
    ("reclaim", ("soft-delete-reclaim",)),
    ("force delete", ("leave-otherwise", "force-delete")),
    ("force delete with the compute down", ("force-delete-unheard", "force-delete-down", "force-delete-unnoticed")),
    ("delete with the compute up", ("leave-otherwise", "delete-up")),
    ("local delete with the compute up", ("delete-up",)),
    ("local delete with the compute down", ("evacuate", "delete-down", "delete-unnoticed")),
    ("build scheduled before the host closed", ("late-build", "leave-otherwise", "build-late")),
    ("rescheduled build that arrives long after", ("build-rescheduled",)),
    ("server in ERROR", ("lm-fail", "drain-cold", "error", "error-servers")),
    ("cross-cell resize", ("cross-cell",)),
    ("host with several nodes", ("several-nodes",)),
    ("forced live migration onto a closed host", ("refill", "refilled")),
    ("host opened, and closed again", ("closed-again",)),
    ("what moves nothing", ("resize-and-noise",)),
)

REAL = {
    "drain-cold": "six servers are cold-migrated: confirmed, reverted, failed on either side, deleted unconfirmed",
    "drain-live": "five servers are live-migrated away, one at a time",
    "drain-live-parallel": "the same, several at a time, one of them cold",
    "error": "one of two servers is set to ERROR by an administrator, and later deleted; the other is live-migrated",
    "evacuate": "a dead host is evacuated; one rebuild fails, one server is deleted; nova-compute comes back",
    "evacuate-delete": "two servers are evacuated and deleted on their new hosts; then the dead host is back",
    "force-complete": "a live migration that would never end is forced to, another follows",
    "force-delete-unheard": "a compute is stopped, and before anybody has noticed two servers are deleted by force",
    "late-build": "a build waits in its compute's queue while the host is closed",
    "leave-otherwise": "servers are shelved, unshelved, deleted, deleted by force; two builds race the closing",
    "lm-abort": "a queued and a running live migration are aborted",
    "lm-fail": "live migrations fail in the driver, by a crash, at the beginning, in the end, and for want of a host",
    "lm-stuck": "a live migration stands still for forty seconds, and two wait behind it",
    "queue-dropped": "nova-compute is stopped with a live migration running and one queued, and started again",
    "refill": "a drained host is filled again by a forced live migration, and drained again",
    "resize-and-noise": "resizes confirmed and reverted, everything else a server can do, a service made and removed",
    "restart": "nova-compute is started anew in the middle of a live migration; then both servers are migrated away",
    "revert": "two servers are cold-migrated away and reverted, back to the closed host, then live-migrated away",
    "soft-delete": "two servers are soft-deleted; one is restored and live-migrated away, one deleted by force",
}


def drawn() -> str:
    """The table of `README.md`."""
    stands_for: dict[str, list[str]] = {}
    for case, stories in CASES:
        for name in stories:
            stands_for.setdefault(name, []).append(case)
    rows = [(name, done, "a real Nova") for name, done in REAL.items()]
    rows += [(name, story.done, "simulator") for name, story in STORIES.items()]
    lines = ["| recording | what is done | made by | stands for |", "|---|---|---|---|"]
    for name, done, by in rows:
        lines.append(f"| {name} | {done} | {by} | {'; '.join(stands_for.get(name, ['-']))} |")
    return "\n".join(lines) + "\n"


BEGINS, ENDS = "<!-- drawn by make.py from cases.py -->\n", "<!-- end -->\n"


def with_table(text: str) -> str:
    """The README with its table as it should be."""
    before, rest = text.split(BEGINS)
    return before + BEGINS + drawn() + ENDS + rest.split(ENDS)[1]


def draw(path: Path) -> None:
    """Write the table into the README."""
    path.write_text(with_table(path.read_text()))
