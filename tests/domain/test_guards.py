"""Guards of the proof (facts 6.3) that no fact of Nova is behind, but what answers may leave out or be too late for.

`tools/mutate_guards.py` takes each away in turn and sees that one of these, or of the facts' own tests, notices.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from maintd.domain.model import Kind
from maintd.domain.observations import HostHinted, Read, ServersListed, ServiceSeen
from tests.facts.scene import API, OTHER, VM, D, Question, S, Scene, node


def test_a_service_with_several_nodes() -> None:
    """A service with more than one node, as Ironic's have, is not judged: one blocker says so."""
    scene = Scene(empty=True)

    def of_two(questions: list[Question]) -> Iterator[Question]:
        for read, target, found in questions:
            yield read, target, found
            if target == node(S):
                yield read, "node-2", ("node-2",) if read is Read.PROVIDERS else ()

    scene.asks = of_two

    assert {"several_nodes"} == scene.finds()
    assert not scene.is_proven()


def test_a_provider_whose_allocations_were_not_read() -> None:
    """A provider of the host's tree that nobody asked for its allocations may hold anything: nothing is proven."""
    scene = Scene(empty=True)
    scene.asks = lambda questions: [
        (read, target, (*found, "nested") if read is Read.PROVIDERS else found) for read, target, found in questions
    ]

    assert {"unverified"} == scene.finds()
    assert not scene.is_proven()


def test_servers_that_were_read_before_the_migrations() -> None:
    """A move that ends between a list of servers and a later one of migrations is in neither: such a pass is spoilt."""
    scene = Scene(empty=True)
    scene.asks = lambda questions: [*questions[1:3], questions[0], *questions[3:]]

    assert {"unverified"} == scene.finds()
    assert not scene.is_proven()


def test_a_build_that_waits_long() -> None:
    """A build without a host that is held here keeps the host for as long as it waits, not just for a leak's grace."""
    scene = Scene(empty=True)
    scene.shows(OTHER, None, "building")
    scene.holds(OTHER)
    assert {"incoming"} == scene.finds()

    scene.wait(2 * scene.fleet.policy.leftover_grace_s)

    assert not scene.is_proven()


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.LIVE, "accepted"), (Kind.COLD, "pre-migrating"), (Kind.EVACUATION, "accepted")]
)
def test_a_row_that_has_no_destination_yet(kind: Kind, status: str) -> None:
    """A move that was sent here and whose row does not say so yet shows in Placement alone, for as long as it takes."""
    scene = Scene(empty=True)
    scene.shows(VM, D, task="migrating")
    scene.row(status, kind, D, None)
    scene.holds(VM)
    scene.reconcile()

    assert {"allocation"} == scene.finds()
    scene.wait(2 * scene.fleet.policy.leftover_grace_s)
    assert not scene.is_proven()
    scene.row(status, kind, D, S)
    assert {"incoming"} == scene.finds()
    assert not scene.is_proven()


def test_a_leak_is_none_the_more_for_a_move_elsewhere() -> None:
    """What Placement forgot takes no proof back when its server is moved elsewhere, before the row says where to."""
    scene = Scene(empty=True)
    scene.shows(VM, D)
    scene.holds(VM)
    scene.finds()
    scene.wait(scene.fleet.policy.leftover_grace_s)
    assert scene.is_proven()

    scene.row("accepted", Kind.LIVE, D, None)
    scene.reconcile()
    scene.finds()

    assert scene.host().emptied
    assert "host.occupied" not in scene.said()


def test_a_move_from_a_dead_host_whose_rows_are_gone() -> None:
    """A move away from a dead host that Nova shows no more was of a server that is deleted; its disks were not."""
    scene = Scene()
    scene.row("migrating", Kind.COLD)
    scene.reconcile()
    scene.shows(VM, D)
    scene.reconcile()
    scene.dies()
    scene.wait(5.0)

    scene.forgets(VM)
    scene.holds()

    assert not scene.is_proven()
    assert [VM] == [server_id for _, server_id in scene.residue()]


def test_a_server_that_turns_up_elsewhere() -> None:
    """A server of a dead host that is suddenly elsewhere was evacuated, though nobody told: its disks stayed."""
    scene = Scene()
    scene.dies()

    scene.shows(VM, D)
    scene.holds()
    scene.reconcile()

    assert [("evacuated", VM)] == scene.residue()
    assert not scene.is_proven()


def test_a_list_of_everything_while_a_cell_is_silent() -> None:
    """Nova leaves a silent cell's servers out of a list of everything without a word: they stay where they were."""
    scene = Scene()
    scene.wait(5.0)
    scene.see(ServiceSeen(scene.now, API, S, f"svc-{S}", cell_unknown=True, asked_at=scene.now))
    scene.wait(5.0)

    scene.see(ServersListed(scene.now, API, scene.now, None, frozenset()))

    assert S == scene.host_of()
    assert not scene.wants_pass()


def test_a_pass_that_was_disturbed_is_no_first_pass() -> None:
    """A pass amid which something was heard of the host counts for nothing: two more are needed."""
    scene = Scene(empty=True)

    def disturbed(questions: list[Question]) -> Iterator[Question]:
        yield from questions[:3]
        scene.see(HostHinted(scene.now, API, S))
        yield from questions[3:]

    scene.asks = disturbed
    scene.one_pass()
    scene.asks = list
    scene.wait(scene.fleet.policy.settle_s)
    scene.one_pass()
    assert [] == scene.emptied()
    scene.wait(scene.fleet.policy.settle_s)
    scene.one_pass()

    assert 1 == len(scene.emptied())


def test_a_server_that_is_evacuated_again_after_somebody_looked() -> None:
    """An operator has looked at what there was by then: a server that came back and was evacuated again counts anew."""
    scene = Scene()
    scene.dies()
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()
    scene.clears_residue()
    scene.is_back()
    scene.row("completed", Kind.EVACUATION)
    scene.shows(VM, S)
    scene.holds(VM)
    scene.reconcile()
    assert {"not_attempted"} == scene.finds()
    scene.dies()

    scene.row("done", Kind.EVACUATION, uuid="move-2")
    scene.shows(VM, D)

    assert {"residue"} == scene.finds()
    assert not scene.is_proven()
