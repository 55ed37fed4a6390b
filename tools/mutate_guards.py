#!/usr/bin/env python3
"""Takes away, one at a time, what stands between maintd and a false `host.emptied`, and sees that a test notices.

    tools/mutate_guards.py                      all of them; prints a table (a minute or two)
    tools/mutate_guards.py --only unconfirmed   those whose words have this in them
    tools/mutate_guards.py --list               only say what there is
    tools/mutate_guards.py --acceptance [ARGUMENTS of python -m tests.acceptance]
                                                tell each one's story on a real Nova too, with the guard taken away

The rows are those of facts 6.3 ("What could make a false `host.emptied`"), split into single guards. Each mutation
changes a copy of the tree, in a temporary folder; nothing here is touched. First the named tests must pass there as it
is. Then each mutation is made alone, and each of its tests must fail by an assertion: one that fails because the
mutated code does not run proves nothing, and is a mistake in this table. Where real Nova can show it, a story of
`tests/acceptance` is named; it must end with a fault.

Most guards are double, on purpose: without one of them the host mostly stays unproven by another. What is asked is that
nobody can lose one without being told. Where a story could not tell, "all of it" takes away every guard against one
danger together.

Exit codes: 0 every mutation was noticed; 1 one was not; 2 the table does not fit the tree.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info", "*.sqlite*"
)

EMPTINESS = "maintd/domain/emptiness.py"
PASSES = "maintd/domain/passes.py"
SERVERS = "maintd/domain/servers.py"
SERVICES = "maintd/domain/services.py"
REDUCER = "maintd/domain/reducer.py"
RESIDUE = "maintd/domain/residue.py"
ROWS = "maintd/domain/rows.py"
DRAFT = "maintd/domain/draft.py"
BUSES = "maintd/domain/buses.py"
STEPS = "maintd/domain/migrations.py"
ANSWERS = "maintd/nova/answers.py"
API = "maintd/nova/api.py"
SAYS_LIVE = "maintd/nova/notifications/live_migration.py"
SAYS_COLD = "maintd/nova/notifications/cold_migration.py"
SAYS_EVACUATION = "maintd/nova/notifications/evacuation.py"
SAYS_SERVER = "maintd/nova/notifications/server.py"

PROOF = "tests/domain/test_proof.py"
GUARDS = "tests/domain/test_guards.py"
FOUND = "tests/domain/test_found_by_stories.py"
TEST_BUSES = "tests/domain/test_buses.py"
F21 = "tests/facts/test_2_1_hosts_of_payloads.py"
F23 = "tests/facts/test_2_3_live_migrations.py"
F24 = "tests/facts/test_2_4_cold_migrations.py"
F25 = "tests/facts/test_2_5_between_cells.py"
F26 = "tests/facts/test_2_6_evacuations.py"
F27 = "tests/facts/test_2_7_deletes.py"
F61 = "tests/facts/test_6_1_what_occupies.py"
TEST_API = "tests/nova/test_api.py"
TEST_ANSWERS = "tests/nova/test_answers.py"


@dataclass(frozen=True)
class Change:
    """A text that is in a file exactly once, and what stands there instead."""

    path: str
    text: str
    becomes: str


@dataclass(frozen=True)
class Mutation:
    """One guard taken away. `danger` is the row of facts 6.3 it stands against."""

    danger: str
    guard: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]
    story: str | None = None


def mutation(
    danger: str, guard: str, path: str, text: str, becomes: str, *tests: str, story: str | None = None
) -> Mutation:
    """A mutation of one place."""
    return Mutation(danger, guard, (Change(path, text, becomes),), tests, story)


MUTATIONS: tuple[Mutation, ...] = (
    # -- servers and disks that a plain list does not show --
    mutation(
        "soft-deleted",
        "the server list is asked for soft-deleted servers",
        API,
        'query = [("all_tenants", "1"), ("soft_deleted", "1")]',
        'query = [("all_tenants", "1")]',
        f"{TEST_API}::test_soft_deleted_servers_are_listed",
    ),
    mutation(
        "soft-deleted",
        "a list that leaves soft-deleted servers out is not complete",
        ANSWERS,
        'and question.asks("all_tenants") and question.asks("soft_deleted")',
        'and question.asks("all_tenants")',
        f"{TEST_ANSWERS}::test_filtered_lists_are_not_complete",
    ),
    mutation(
        "soft-deleted",
        "a server in any state is in the way",
        EMPTINESS,
        "if r.read is Read.SERVERS for s in r.found if isinstance(s, ServerSeen)}",
        'if r.read is Read.SERVERS for s in r.found if isinstance(s, ServerSeen) and s.vm_state != "soft-delete"}',
        f"{F61}::test_6_1_02_soft_deleted",
    ),
    Mutation(
        "soft-deleted",
        "all of it: the bus, the list and the hypervisor call",
        (
            Change(SAYS_SERVER, '"instance.soft_delete.end": _as_it_is', '"instance.soft_delete.end": _deleted'),
            Change(
                EMPTINESS,
                "if r.read is Read.SERVERS for s in r.found if isinstance(s, ServerSeen)}",
                "if r.read is Read.SERVERS for s in r.found"
                ' if isinstance(s, ServerSeen) and s.vm_state != "soft-delete"}',
            ),
            Change(EMPTINESS, "hidden = on_hypervisor - set(listed)", "hidden: set[str] = set()"),
        ),
        (f"{F61}::test_6_1_02_soft_deleted", f"{F21}::test_2_1_27_soft_delete"),
        story="soft_delete",
    ),
    mutation(
        "hidden",
        "what only the hypervisor call lists is in the way",
        EMPTINESS,
        "hidden = on_hypervisor - set(listed)",
        "hidden: set[str] = set()",
        f"{F61}::test_6_1_09_unconfirmed_between_cells",
        f"{F25}::test_2_5_02_hidden_at_its_source",
    ),
    mutation(
        "unconfirmed resize",
        "a row that is finished holds its source",
        EMPTINESS,
        "for m in first_rows + later if m.status not in RELEASED_STATUSES}",
        'for m in first_rows + later if m.status not in RELEASED_STATUSES | {"finished"}}',
        f"{F61}::test_6_1_08_unconfirmed",
        f"{F24}::test_2_4_02_unconfirmed",
    ),
    Mutation(
        "unconfirmed resize",
        "all of it: what the bus says, what the row says, what the proof reads",
        (
            Change(STEPS, "Transition(C, Phase.AWAITING_CONFIRMATION)", "Transition(C, verdict=Phase.COMPLETED)"),
            Change(STEPS, '"finished": Phase.AWAITING_CONFIRMATION', '"finished": Phase.COMPLETED'),
            Change(
                EMPTINESS,
                "for m in first_rows + later if m.status not in RELEASED_STATUSES}",
                'for m in first_rows + later if m.status not in RELEASED_STATUSES | {"finished"}}',
            ),
        ),
        (f"{F24}::test_2_4_02_unconfirmed", f"{F21}::test_2_1_14_resize_finish"),
        story="cold",
    ),
    mutation(
        "evacuated residue",
        "a row that is done holds its source",
        EMPTINESS,
        'return row.status == "done" and (row.source != host or row.migration_uuid in accepted)',
        'return row.status == "done"',
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "evacuated residue",
        "the ledger is in the way",
        EMPTINESS,
        "out.extend(residue_blocker(r) for r in residue if r.server_id not in evacuated)",
        "pass",
        f"{F61}::test_6_1_13_evacuated_and_deleted",
        f"{F61}::test_6_1_12_deleted_while_it_was_down",
    ),
    Mutation(
        "evacuated residue",
        "all of it: the row, the ledger and the allocation",
        (
            Change(
                EMPTINESS,
                'return row.status == "done" and (row.source != host or row.migration_uuid in accepted)',
                'return row.status == "done"',
            ),
            Change(
                EMPTINESS,
                "out.extend(residue_blocker(r) for r in residue if r.server_id not in evacuated)",
                "pass",
            ),
            Change(EMPTINESS, "if held_for_s < policy.leftover_grace_s or coming:", "if False:"),
        ),
        (f"{F61}::test_6_1_11_evacuated", f"{F26}::test_2_6_03_until_its_compute_runs_again"),
        story="evacuate",
    ),
    mutation(
        "evacuated residue",
        "an evacuation is in the ledger from its first word on",
        SERVERS,
        "    remember_evacuation(d, o)\n",
        "",
        f"{F21}::test_2_1_17_evacuate",
    ),
    mutation(
        "evacuated residue",
        "only the row's own end clears it",
        ROWS,
        '    if o.status == "completed":\n        if left',
        '    if o.status in ("completed", "done"):\n        if left',
        f"{F26}::test_2_6_08_deleted_before_its_old_host_is_back",
    ),
    Mutation(
        "evacuated residue",
        "what an operator has looked at is what there was by then, in the row and in the ledger",
        (
            Change(RESIDUE, "if row.migration_uuid == left.migration_uuid or (looked", "if True or (looked"),
            Change(RESIDUE, "(old.cleared_at is not None and (later or", "(False and (later or"),
        ),
        (f"{GUARDS}::test_a_server_that_is_evacuated_again_after_somebody_looked",),
    ),
    mutation(
        "local delete",
        "the ledger is in the way",
        EMPTINESS,
        "residue_blocker(r) for r in residue if r.server_id not in evacuated)",
        "residue_blocker(r) for r in residue if r.server_id not in evacuated and r.kind == 'evacuated')",
        f"{F61}::test_6_1_12_deleted_while_it_was_down",
        f"{F27}::test_2_7_03_deleted_with_the_compute_down",
        story="delete_down",
    ),
    mutation(
        "local delete",
        "a delete that no compute says leaves residue",
        SAYS_SERVER,
        "        local_delete=reporter is None and host is not None,\n    )\n",
        "        local_delete=False,\n    )\n",
        f"{F21}::test_2_1_26_delete_local",
        f"{F21}::test_2_1_27_soft_delete_of_one_whose_host_is_down",
    ),
    mutation(
        "local delete",
        "its beginning is enough",
        SAYS_SERVER,
        "local_delete=reporter is None and host is not None)",
        "local_delete=False)",
        f"{F27}::test_2_7_03_deleted_with_the_compute_down",
    ),
    mutation(
        "local delete",
        "an operator clears it, not the host's return",
        SERVICES,
        "if d.policy.trust_reap and known.down",
        "if known.down",
        f"{F27}::test_2_7_05_reaped_in_silence",
        story="delete_down",
    ),
    mutation(
        "local force-delete",
        "a delete on a dead host that its compute does not tell of leaves residue",
        SERVERS,
        "if o.local_delete or (gone and o.reporter != host):",
        "if o.local_delete:",
        f"{F27}::test_2_7_04_forced_with_the_compute_down",
        f"{FOUND}::test_a_delete_on_a_down_host_that_only_an_update_tells_of_leaves_residue",
    ),
    mutation(
        "local force-delete",
        "a server that is missing from a dead host's list leaves residue",
        SERVERS,
        "if old is not None and unseen and not any(",
        "if old is not None and False and not any(",
        f"{F27}::test_2_7_04_forced_with_the_compute_down_and_found_missing",
        f"{F27}::test_2_7_04_found_out_when_its_host_is_back",
    ),
    mutation(
        "local force-delete",
        "who was found gone before the host was found down has left something there",
        RESIDUE,
        "    d.put(replace(held, departures=(*held.departures, Departure(server_id, kind, d.now + within_s))))\n",
        "",
        f"{FOUND}::test_who_was_found_gone_before_the_host_was_found_down_left_residue",
    ),
    Mutation(
        "local force-delete",
        "all of it: the row that is deleted, the row that is missing, whatever the order",
        (
            Change(SERVERS, "if o.local_delete or (gone and o.reporter != host):", "if o.local_delete:"),
            Change(SERVERS, "if old is not None and unseen and not any(", "if old is not None and False and not any("),
            Change(
                RESIDUE,
                "    d.put(replace(held, departures=(*held.departures, "
                "Departure(server_id, kind, d.now + within_s))))\n",
                "",
            ),
        ),
        (
            f"{F27}::test_2_7_04_forced_with_the_compute_down",
            f"{F61}::test_6_1_12_deleted_while_it_was_down",
        ),
        story="force_delete_down",
    ),
    mutation(
        "evacuated, then deleted",
        "the ledger outlives the server",
        EMPTINESS,
        "residue_blocker(r) for r in residue if r.server_id not in evacuated)",
        "residue_blocker(r) for r in residue if r.server_id not in evacuated and r.kind != 'evacuated')",
        f"{F26}::test_2_6_08_deleted_before_its_old_host_is_back",
        f"{F26}::test_2_6_08_deleted_with_nothing_heard_of_either",
        story="evacuate_delete",
    ),
    mutation(
        "evacuated, then deleted",
        "a move away from a dead host whose rows are gone leaves residue",
        PASSES,
        "    leave_vanished(d, host, v)\n",
        "",
        f"{GUARDS}::test_a_move_from_a_dead_host_whose_rows_are_gone",
    ),
    mutation(
        "evacuated, then deleted",
        "a server that turns up elsewhere than on its dead host was evacuated",
        SERVERS,
        "        left_a_dead_host(d, old_host, new.server_id)\n",
        "",
        f"{GUARDS}::test_a_server_that_turns_up_elsewhere",
    ),
    # -- answers that leave things out --
    mutation(
        "a cell that is down",
        "a service whose cell is unknown is in the way",
        EMPTINESS,
        "elif service.cell_unknown:",
        "elif False:",
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "a cell that is down",
        "a server without a host is an error, not a server that is nowhere",
        API,
        'if row["status"] == "UNKNOWN":\n',
        'if row["status"] == "UNKNOWN":\n        return None\n    if False:\n',
        f"{TEST_API}::test_a_server_of_a_silent_cell_is_not_somewhere_else",
    ),
    mutation(
        "a cell that is down",
        "a list of everything takes no server from a silent cell",
        SERVERS,
        "        if where in silent:\n",
        "        if False:\n",
        f"{GUARDS}::test_a_list_of_everything_while_a_cell_is_silent",
    ),
    mutation(
        "a filter dropped by policy",
        "each row is held against the host asked for",
        API,
        "            if row[field] != host:\n",
        "            if False:\n",
        f"{TEST_API}::test_a_dropped_host_filter_is_noticed",
    ),
    mutation(
        "a filter dropped by policy",
        "so it is where the answer is read, of a recording too",
        ANSWERS,
        "elif wanted is not None and server.host != wanted and not server.deleted:",
        "elif False:",
        f"{TEST_ANSWERS}::test_ignored_host_filter_is_noticed",
    ),
    mutation(
        "a filter dropped by policy",
        "migrations without hosts are an error",
        API,
        'if row["source_compute"] is None and row["dest_compute"] is None:',
        "if False:",
        f"{TEST_API}::test_hidden_hosts_are_noticed",
    ),
    mutation(
        "half a page",
        "a read counts only when its last page came",
        EMPTINESS,
        "order = [r.read for r in seen if r.complete]",
        "order = [r.read for r in seen]",
        f"{PROOF}::test_half_a_page_proves_nothing",
    ),
    mutation(
        "half a page",
        "a page without the one before it is none",
        ANSWERS,
        "return tuple(_without_page_before(o) for o in observations)",
        "return observations",
        f"{TEST_ANSWERS}::test_half_a_list_spoils_a_pass",
    ),
    mutation(
        "half a page",
        "a list cut without a link is found out",
        API,
        "if more.error or more.body[kind.field]:",
        "if more.error:",
        f"{TEST_API}::test_a_list_cut_short_by_hidden_rows_is_an_error",
    ),
    mutation(
        "an answer that did not come",
        "an error spoils the pass",
        EMPTINESS,
        "        if r.error:\n",
        "        if False:\n",
        f"{PROOF}::test_a_read_that_fails_spoils_the_pass_and_says_so",
    ),
    mutation(
        "an answer that did not come",
        "every node's provider tree and every provider's allocations are read",
        EMPTINESS,
        "    if providers - read_allocations:\n",
        "    if False:\n",
        f"{GUARDS}::test_a_provider_whose_allocations_were_not_read",
    ),
    # -- what is on its way --
    mutation(
        "a build between scheduling and claim",
        "what Placement holds here is explained or in the way",
        EMPTINESS,
        "for c in r.found} - explained)",
        "for c in ()} - explained)",
        f"{F61}::test_6_1_04_a_build_that_is_not_claimed",
        f"{F24}::test_2_4_05_revert",
    ),
    mutation(
        "a build between scheduling and claim",
        "a server that is nowhere and held here is coming",
        EMPTINESS,
        'return nowhere and (server.vm_state in (None, "building") or server.task_state is not None)',
        "return nowhere and server.task_state is not None",
        f"{GUARDS}::test_a_build_that_waits_long",
    ),
    mutation(
        "a build between scheduling and claim",
        "a living host counts as closed when the scheduler knows it",
        EMPTINESS,
        "        if DISABLED_TRAIT not in traits:\n",
        "        if False:\n",
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "a build between scheduling and claim",
        "an enabled service is in the way",
        EMPTINESS,
        "elif not (service.disabled or service.forced_down):",
        "elif False:",
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "an unshelve between scheduling and claim",
        "a server that is nowhere and has a task is coming",
        EMPTINESS,
        'return nowhere and (server.vm_state in (None, "building") or server.task_state is not None)',
        'return nowhere and server.vm_state in (None, "building")',
        f"{F61}::test_6_1_06_incoming_without_a_row",
    ),
    mutation(
        "a row without a destination",
        "an allocation that nothing explains is in the way for its grace",
        EMPTINESS,
        "if held_for_s < policy.leftover_grace_s or coming:",
        "if coming:",
        f"{F61}::test_6_1_15_an_allocation_left_over",
    ),
    mutation(
        "a row without a destination",
        "and for as long as its server is being moved, nobody says where to",
        EMPTINESS,
        "if held_for_s < policy.leftover_grace_s or coming:",
        "if held_for_s < policy.leftover_grace_s:",
        f"{GUARDS}::test_a_row_that_has_no_destination_yet",
    ),
    mutation(
        "a row of an unknown status",
        "what is not known to release a host holds it",
        EMPTINESS,
        "for m in first_rows + later if m.status not in RELEASED_STATUSES}",
        "for m in first_rows + later if m.status in HOLDING_STATUSES}",
        f"{F61}::test_6_1_07_a_status_that_nobody_knows",
    ),
    mutation(
        "an arrival after the proof",
        "whatever lands on an emptied host takes the proof back",
        REDUCER,
        "if host.emptied and name not in d.emptied and (here or landing or arriving):",
        "if host.emptied and name not in d.emptied and here:",
        f"{PROOF}::test_an_arrival_takes_emptied_back_at_once",
        f"{F21}::test_2_1_23_unshelve",
    ),
    Mutation(
        "an arrival after the proof",
        "all of it: what is heard, and what later passes find",
        (
            Change(
                REDUCER, "if host.emptied and name not in d.emptied and (here or landing or arriving):", "if False:"
            ),
            Change(PASSES, "        if host.emptied and there:\n", "        if False:\n"),
        ),
        (f"{PROOF}::test_an_arrival_takes_emptied_back_at_once",),
        story="refill",
    ),
    # -- what looks like a departure --
    mutation(
        "resize.end taken for a departure",
        "an unconfirmed move holds its source",
        REDUCER,
        "moves = [m for m in moves if m.source == name or m.phase in MOVING_PHASES]",
        "moves = [m for m in moves if m.phase in MOVING_PHASES]",
        f"{F21}::test_2_1_14_resize_finish",
        f"{F24}::test_2_4_02_unconfirmed",
    ),
    mutation(
        "resize.end taken for a departure",
        "resize.end is no verdict",
        STEPS,
        "Step.RESIZE_END: Transition(C, Phase.FINISHING, joins=True)",
        "Step.RESIZE_END: Transition(C, Phase.FINISHING, Phase.COMPLETED, joins=True)",
        f"{F21}::test_2_1_12_resize_end",
    ),
    mutation(
        "stale host in post.end",
        "post.end is not believed",
        SAYS_LIVE,
        "reporter=reporter, step=step, kind=Kind.LIVE, source=here)",
        "reporter=reporter, trusted=True, step=step, kind=Kind.LIVE, source=here)",
        f"{F21}::test_2_1_05_live_migration_post_end",
    ),
    mutation(
        "stale host in rebuild.end",
        "rebuild.end is not believed",
        SAYS_EVACUATION,
        "            kind=Kind.EVACUATION,\n            source=host,\n",
        "            kind=Kind.EVACUATION,\n            trusted=True,\n            source=host,\n",
        f"{F21}::test_2_1_19_rebuild_of_an_evacuation",
    ),
    mutation(
        "stale host in confirm.*",
        "the host that a confirmation frees is its publisher's",
        SAYS_COLD,
        "return server_seen(notification, data, reporter=reporter, step=step, source=here, destination=host)",
        "return server_seen(notification, data, reporter=reporter, step=step, source=host, destination=here)",
        f"{F21}::test_2_1_15_resize_confirm",
    ),
    mutation(
        "stale host in any copy",
        "what is not to be believed moves no server",
        SERVERS,
        "    if not o.trusted:\n        return (\n",
        "    if not o.trusted and o.step is None:\n        return (\n",
        f"{F21}::test_2_1_12_resize_end",
    ),
    mutation(
        "stale host in an old copy",
        "a copy older than what is known is not believed",
        SERVERS,
        "return (version, o.emitted_at) >= (held, known.versioned_at)",
        "return True",
        f"{F21}::test_2_1_32_an_older_copy_is_not_believed",
    ),
    mutation(
        "a post that failed at the destination",
        "failed rows are warnings in the proof",
        EMPTINESS,
        "        elif recent:",
        "        elif False:",
        f"{F61}::test_6_1_14_a_failed_move",
        f"{F24}::test_2_4_07_the_destination_cannot_finish",
        f"{F23}::test_2_3_10_the_destination_fails_to_take_over",
        story="finish_failure",
    ),
    mutation(
        "a leak taken for nothing",
        "an old allocation is a warning in the proof",
        EMPTINESS,
        'warnings.append(Note("leftover_allocation"',
        '[].append(Note("leftover_allocation"',
        f"{F61}::test_6_1_15_an_allocation_left_over",
        story="post_failure",
    ),
    # -- whose host it is --
    mutation(
        "a service with several nodes",
        "more than one node is in the way",
        EMPTINESS,
        "    if len(roots) > 1:\n",
        "    if False:\n",
        f"{GUARDS}::test_a_service_with_several_nodes",
    ),
    mutation(
        "two services of one name",
        "exactly one service is judged",
        EMPTINESS,
        "service = services[0] if len(services) == 1 else None",
        "service = services[0] if services else None",
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "a history that nobody knows",
        "a host found down waits for an operator's word",
        EMPTINESS,
        "if host.history_unknown and not policy.accept_residue:\n        out.append(_history_unknown(host))\n    buses",
        "buses",
        f"{PROOF}::test_a_host_found_down_needs_an_operators_word",
    ),
    mutation(
        "a history that nobody knows",
        "it is noted at first sight",
        SERVICES,
        "new = replace(new, history_unknown=True)",
        "pass",
        f"{PROOF}::test_a_host_found_down_needs_an_operators_word",
    ),
    mutation(
        "notifications that were missed",
        "a blind bus is in the way",
        EMPTINESS,
        "if missing_buses := unheard(host, buses):",
        "if (missing_buses := unheard(host, buses)) and False:",
        f"{PROOF}::test_a_blind_bus_blocks_until_it_is_healed",
    ),
    mutation(
        "notifications that were missed",
        "of two buses the lost one makes its own hosts unknown",
        BUSES,
        "return tuple(name for name in sick if name == host.heard_on)",
        "return ()",
        f"{TEST_BUSES}::test_of_two_buses_the_lost_one_makes_its_hosts_unknown",
    ),
    mutation(
        "notifications that were missed",
        "a bus that says nothing of what the API shows is deaf",
        BUSES,
        "            d.put(replace(bus, listen_by=d.now + LATE_S))",
        "            pass",
        f"{TEST_BUSES}::test_a_bus_that_says_nothing_of_what_the_api_shows_is_deaf",
    ),
    # -- answers that are not of one moment --
    mutation(
        "the API is right only in the end",
        "one pass is no proof",
        PASSES,
        "    if v.first is None or v.first_generation != v.generation:\n",
        "    if v.first is None:\n        v = replace(v, first=finding, first_generation=v.generation)\n"
        "    if v.first_generation != v.generation:\n",
        f"{PROOF}::test_two_empty_passes_settle_s_apart_prove_it",
        story="drain",
    ),
    mutation(
        "the API is right only in the end",
        "two passes are settle_s apart",
        PASSES,
        "if began_at - v.first_looked_at < d.policy.settle_s:",
        "if False:",
        f"{PROOF}::test_two_passes_too_close_prove_nothing",
    ),
    Mutation(
        "the API is right only in the end",
        "all of it: when the second pass is due, and when it counts",
        (
            Change(PASSES, "if began_at - v.first_looked_at < d.policy.settle_s:", "if False:"),
            Change(PASSES, "verify_at=looked_at + d.policy.settle_s,", "verify_at=d.now,"),
        ),
        (f"{PROOF}::test_two_passes_too_close_prove_nothing",),
        story="drain",
    ),
    mutation(
        "the API is right only in the end",
        "nothing was heard of the host during a pass",
        PASSES,
        "if v.begun_generation != v.generation or v.named_at > began_at:",
        "if False:",
        f"{GUARDS}::test_a_pass_that_was_disturbed_is_no_first_pass",
    ),
    mutation(
        "the API is right only in the end",
        "nothing was heard of the host between the passes",
        DRAFT,
        "if name and (name in closed or self._closes(name)):",
        "if False:",
        f"{PROOF}::test_a_notification_between_the_passes_begins_anew",
        f"{PROOF}::test_a_notification_during_a_pass_spoils_it",
    ),
    Mutation(
        "an arrival between two reads",
        "the migrations are read a second time, after Placement",
        (
            Change(EMPTINESS, "if order.count(Read.MIGRATIONS) < 2:", "if False:"),
            Change(
                EMPTINESS,
                "if not last(Read.ALLOCATIONS) < last(Read.MIGRATIONS) or not last(Read.MIGRATIONS)",
                "if not last(Read.MIGRATIONS)",
            ),
        ),
        (f"{PROOF}::test_a_pass_without_one_of_its_reads_proves_nothing",),
    ),
    mutation(
        "an arrival between two reads",
        "what the second reading shows counts",
        EMPTINESS,
        "for m in first_rows + later if m.status not in RELEASED_STATUSES}",
        "for m in first_rows if m.status not in RELEASED_STATUSES}",
        f"{PROOF}::test_each_thing_on_a_host_is_a_blocker_of_its_kind",
    ),
    mutation(
        "an arrival between two reads",
        "the migrations are read before the servers",
        EMPTINESS,
        "if not first(Read.MIGRATIONS) < min(first(Read.HYPERVISOR), first(Read.SERVERS)):",
        "if False:",
        f"{GUARDS}::test_servers_that_were_read_before_the_migrations",
    ),
    mutation(
        "an arrival between two reads",
        "Placement is read after the servers",
        EMPTINESS,
        "if not max(last(Read.HYPERVISOR), last(Read.SERVERS)) < first(Read.PROVIDERS):",
        "if False:",
        f"{PROOF}::test_reads_out_of_order_prove_nothing",
    ),
    mutation(
        "an arrival between two reads",
        "the questions are asked in that order",
        API,
        "        yield self.service(host, asking=asking)\n",
        "        yield self.service(host, asking=asking)\n"
        "        yield from self.migrations_of_host(host, asking=asking)\n",
        f"{TEST_API}::test_a_pass_asks_in_the_order_of_a_proof",
    ),
)


class Misfit(Exception):
    """The table does not fit the tree; the text says where."""


def misfits(root: Path = ROOT) -> list[str]:
    """What is wrong with the table: texts that are not there exactly once, tests that are not there."""
    out = []
    for m in MUTATIONS:
        for change in m.changes:
            found = (root / change.path).read_text().count(change.text)
            if found != 1:
                out.append(
                    f"{m.danger}, {m.guard}: the text is {found} times in {change.path}: {change.text.strip()!r}"
                )
        for test in m.tests:
            path, _, name = test.partition("::")
            if not (root / path).exists() or f"def {name}(" not in (root / path).read_text():
                out.append(f"{m.danger}, {m.guard}: there is no test {test}")
    return out


@contextmanager
def mutated(tree: Path, m: Mutation) -> Iterator[None]:
    """The tree with one mutation in it."""
    before = {change.path: (tree / change.path).read_text() for change in m.changes}
    for change in m.changes:
        text = (tree / change.path).read_text()
        if text.count(change.text) != 1:
            raise Misfit(f"{change.path} has the text {text.count(change.text)} times: {change.text.strip()!r}")
        (tree / change.path).write_text(text.replace(change.text, change.becomes))
    try:
        yield
    finally:
        for path, text in before.items():
            (tree / path).write_text(text)


def python(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the tree, on the tree's own maintd, without leaving compiled files that outlive a mutation."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    return subprocess.run(
        [sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


_SUMMARY = re.compile(r"^(FAILED|ERROR) (\S+?)(\[.*?\])?( - (.*))?$", re.MULTILINE)
_ASSERTS = (
    "assert",
    "AssertionError",
    "ValueError: not enough values to unpack",
    "ValueError: too many values to unpack",
)
"""How a test says no: `(one,) = several` is an assertion, too."""


@dataclass(frozen=True)
class Failed:
    """A test that failed: in which of its cases first, and why."""

    case: str
    reason: str

    @property
    def says_no(self) -> bool:
        """Whether it was an assertion."""
        return self.reason.startswith(_ASSERTS)


def run(tree: Path, tests: Sequence[str]) -> dict[str, Failed]:
    """The tests that failed; of one with several cases, one that failed by an assertion if there is any."""
    quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # the plugin takes longer than most of the tests
    done = python(tree, "-m", "pytest", "-q", "--tb=no", *quick, "-rfE", *tests)
    failed: dict[str, Failed] = {}
    for _, test, case, _, reason in _SUMMARY.findall(done.stdout):
        if test not in failed or not failed[test].says_no:
            failed[test] = Failed(case, reason)
    if done.returncode not in (0, 1) or (done.returncode == 1 and not failed):
        raise Misfit(f"pytest ended with {done.returncode}:\n{(done.stdout + done.stderr)[-1500:]}")
    return failed


def try_one(tree: Path, m: Mutation) -> tuple[str, list[str]]:
    """Which tests failed, for the table; and what is wrong."""
    with mutated(tree, m):
        failed = run(tree, m.tests)
    wrong = []
    for test in m.tests:
        if test not in failed:
            wrong.append(f"{test} does not notice")
        elif not failed[test].says_no:
            wrong.append(f"{test} fails for another reason: {failed[test].reason}")
    noticed = [test.partition("::")[2] + failed[test].case for test in m.tests if test in failed]
    return ", ".join(noticed) or "NONE", wrong


def story_faults(tree: Path, story: str, arguments: Sequence[str]) -> list[str]:
    """What is wrong after one telling of a story with the tree's maintd, on a real Nova."""
    done = python(tree, "-m", "tests.acceptance", "--story", story, *arguments)
    faults = re.findall(r"^  - (.*)$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or bool(faults) != bool(done.returncode):  # 1 is a traceback's exit code, too
        raise Misfit(f"the story {story} could not be told:\n{(done.stdout + done.stderr)[-1500:]}")
    return faults


def tell(tree: Path, m: Mutation, arguments: Sequence[str], sound: set[str]) -> tuple[str, list[str]]:
    """The fault with which the story ends when the guard is gone, for the table; and what is wrong.

    A story that ends with a fault as it is would prove nothing, so each is told without a mutation first (`sound`).
    """
    if m.story is None:
        return "-", []
    if m.story not in sound:
        if faults := story_faults(tree, m.story, arguments):
            raise Misfit(f"without any mutation the story {m.story} has faults already: {'; '.join(faults)}")
        sound.add(m.story)
    with mutated(tree, m):
        faults = story_faults(tree, m.story, arguments)
    if faults:
        return f"{m.story}: {faults[0]}", []
    return f"{m.story}: NOT NOTICED", [f"the story {m.story} ends without a fault"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="WORDS", help="mutations that have these words in danger, guard or story")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    parser.add_argument(
        "--acceptance",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENTS",
        help="tell the stories on a real Nova; the rest of the line goes to python -m tests.acceptance",
    )
    options = parser.parse_args(argv)
    chosen = [m for m in MUTATIONS if not options.only or options.only in f"{m.danger} {m.guard} {m.story or ''}"]
    if options.list:
        for m in chosen:
            print(f"{m.danger}: {m.guard}" + (f" (story: {m.story})" if m.story else ""))
        return 0
    if wrong := misfits():
        print("\n".join(wrong), file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="maintd-mutations-"))
    try:
        tree = folder / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        return report(tree, chosen, options.acceptance)
    except Misfit as misfit:
        print(misfit, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(tree: Path, chosen: Sequence[Mutation], acceptance: Sequence[str] | None) -> int:
    """Try them all and print the table."""
    where = python(tree, "-c", "import maintd; print(maintd.__file__)").stdout.strip()
    if not where.startswith(str(tree)):
        raise Misfit(f"the tests would run on {where}, not on the copy in {tree}")
    began = time.monotonic()
    if failed := run(tree, sorted({test for m in chosen for test in m.tests})):
        raise Misfit(f"without any mutation these fail already: {', '.join(failed)}")
    print("| what could make a false host.emptied | guard taken away | test that failed | story that failed |")
    print("|---|---|---|---|", flush=True)
    survived: list[str] = []
    sound: set[str] = set()
    for m in chosen:
        noticed, wrong = try_one(tree, m)
        told = "-" if m.story is None else f"({m.story})"
        if acceptance is not None:
            told, more = tell(tree, m, acceptance, sound)
            wrong += more
        print(f"| {m.danger} | {m.guard} | {noticed} | {told} |", flush=True)
        survived += [f"{m.danger}, {m.guard}: {sentence}" for sentence in wrong]
    took_s = time.monotonic() - began
    print(f"\n{len(chosen)} mutations in {took_s:.0f} s, {len(survived)} not noticed as they must be")
    for sentence in survived:
        print(f"  - {sentence}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
