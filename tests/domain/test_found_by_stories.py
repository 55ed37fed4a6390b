"""What random stories over the simulated Nova found wrong (`python -m tests.domain.interleavings`), told small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maintd.domain.model import Because, Kind, Migration, Phase
from maintd.domain.observations import (
    BaselineCompleted,
    DrainRequested,
    MigrationSeen,
    Observation,
    PassRead,
    Read,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    Step,
    TimerDue,
)
from tests.domain.test_proof import API, H, Story, emptied

SERVER = "5d1f5ba9-0aac-4fcd-a012-1cc5870f05d9"


def proven(story: Story) -> bool:
    """Whether the host is proven empty by as many passes as it asks for now, and never if it asks for none."""
    for _ in range(4):
        held = story.fleet.verification(H)
        if held is None or held.verify_at is None:
            return False
        story.now = max(story.now, held.verify_at)
        if emptied(story.verify()):
            return True
    return False


def there(story: Story, **over: object) -> ServerSeen:
    """The server, on the host, as a row of the API shows it."""
    fields: dict[str, object] = {
        "host": H, "vm_state": "active", "updated_at": 900.0, "emitted_at": story.now, "trusted": True,
        "asked_at": story.now,
    }  # fmt: skip
    return ServerSeen(story.now, server_id=SERVER, **({"because": API} | fields | over))  # type: ignore[arg-type]


def test_a_server_that_moved_and_was_deleted_unheard_has_left_its_first_host() -> None:
    """Nova shows it deleted, and on its last host: the host where we still hold it is looked at all the same."""
    story = Story().closed()
    story.see(there(story))
    story.now += 100
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 50))

    assert proven(story)


def down(story: Story) -> ServiceSeen:
    """The host's service, forced down, as it is read a moment later."""
    story.now += 1
    return story.service(forced_down=True, up=False)


def down_and_up(story: Story) -> None:
    """The host's service is down for a minute; half a minute later."""
    story.see(down(story))
    story.now += 60
    story.see(story.service())
    story.now += 30


def update(story: Story, **over: object) -> ServerSeen:
    """An instance.update of the server, which no compute signs."""
    because = Because("notification", "instance.update", "m2", "req-2")
    return there(story, **({"asked_at": None, "updated_at": story.now, "because": because} | over))


def row(story: Story, status: str, kind: Kind = Kind.LIVE, **over: object) -> MigrationSeen:
    """A row of a move from the host to another, as the API shows it."""
    seen = MigrationSeen(
        story.now, API, SERVER, 17, "uuid-17", kind, status, H, "cmp-02", None, story.now - 10, None, story.now
    )
    return replace(seen, **over)  # type: ignore[arg-type]


def residue(story: Story) -> list[tuple[str, str]]:
    return [(r.server_id, r.kind) for r in story.fleet.residue_on(H)]


def test_a_delete_on_a_down_host_that_only_an_update_tells_of_leaves_residue() -> None:
    """The update is signed by nobody; that the compute took part would have to be said by the compute."""
    story = Story().closed()
    story.see(there(story), down(story))
    story.now += 10
    story.see(update(story, vm_state="deleted", deleted=True))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)

    story.see(update(story, vm_state="deleted", deleted=True, reporter=H, trusted=True))

    assert residue(story) == []


@pytest.mark.parametrize("left", ["deleted", "unlisted", "elsewhere"])
def test_who_was_found_gone_before_the_host_was_found_down_left_residue(left: str) -> None:
    """The services are asked every half minute, so a delete or an evacuation is often seen before the dead host is."""
    story = Story().closed()
    story.see(there(story))
    story.now += 100
    seen: dict[str, Observation] = {
        "deleted": there(story, vm_state="deleted", deleted=True, updated_at=story.now - 5),
        "unlisted": ServersListed(story.now, API, story.now, H, frozenset()),
        "elsewhere": there(story, host="cmp-02", updated_at=story.now - 5),
    }
    story.see(seen[left])
    assert residue(story) == []
    story.now += 20
    story.see(down(story))

    assert [server for server, _ in residue(story)] == [SERVER]


def test_who_was_deleted_by_the_compute_itself_left_nothing() -> None:
    """An update says so first, as always; the compute's own delete.end says that it took part."""
    story = Story().closed()
    story.see(there(story))
    story.now += 100
    story.see(update(story, vm_state="deleted", deleted=True))
    story.see(update(story, vm_state="deleted", deleted=True, reporter=H))
    story.see(down(story))

    assert residue(story) == []


def test_who_was_found_gone_before_the_host_was_seen_up_left_nothing() -> None:
    """A host that was alive after the delete took part in it, however soon it goes down then."""
    story = Story().closed()
    story.see(there(story))
    story.now += 100
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=story.now - 5))
    story.now += 20
    story.see(story.service())
    story.now += 20
    story.see(down(story))

    assert residue(story) == []


def test_a_move_that_failed_in_the_second_in_which_the_drain_began_is_warned_of() -> None:
    """It was the move itself that began the drain, and Nova dates rows in whole seconds, rounded down."""
    story = Story().closed()
    story.now += 10.7
    story.see(DrainRequested(story.now, API, H))
    failed = row(story, "error", Kind.RESIZE, updated_at=float(int(story.now)), created_at=float(int(story.now)))

    def with_row(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(failed,))

    story.verify(with_row)
    story.now += 20
    (said,) = emptied(story.verify(with_row))

    assert [(note.kind, note.server_id) for note in said.warnings] == [("failed_migration", SERVER)]


@pytest.mark.parametrize("request_id", ["req-2", "req-another"])
def test_a_late_beginning_of_what_the_api_has_ended_begins_nothing(request_id: str) -> None:
    """A server has one move at a time: what was said before the row's last change is of that move, or of one before."""
    story = Story().closed()
    story.see(there(story))
    story.now += 10
    story.see(update(story, task_state="migrating", emitted_at=story.now))
    story.now += 10
    ended_at = story.now - 1
    story.see(row(story, "completed", updated_at=ended_at))  # in whole seconds: it was a little later
    story.now += 5
    because = Because("notification", "instance.live_migration_pre.start", "m3", request_id)
    story.see(
        update(
            story, because=because, step=Step.LIVE_PRE_START, kind=Kind.LIVE, source=H, destination="cmp-02",
            reporter="cmp-02", emitted_at=ended_at + 0.07, updated_at=story.now - 15, trusted=False,
        )
    )  # fmt: skip

    assert not list(story.fleet.open_migrations())
    assert proven(story)


def test_an_evacuation_that_failed_says_nothing_of_the_next() -> None:
    """The first attempt's failure clears what was noted of it; the second is only ever seen as a row, and counts."""
    story = Story().closed()
    story.see(there(story), down(story))
    story.now += 5
    story.see(
        update(story, because=Because("notification", "instance.evacuate", "m4", "req-4"), step=Step.EVACUATE, source=H)
    )
    story.now += 5
    story.see(
        update(
            story, because=Because("notification", "instance.rebuild.error", "m5", "req-4"), step=Step.REBUILD_ERROR,
            source=H, reporter="cmp-02", trusted=False, emitted_at=story.now,
        )
    )  # fmt: skip
    assert residue(story) == []
    story.now += 20
    story.see(row(story, "done", Kind.EVACUATION, updated_at=story.now - 1))

    assert residue(story) == [(SERVER, "evacuated")]


def test_a_revert_whose_source_died_is_never_a_leftover() -> None:
    """Nova calls it reverted before the source has taken the server back; its disks are here, and only Placement says
    so, for as long as it takes."""
    story = Story().closed()
    story.see(down(story))
    reverted = row(story, "reverted", Kind.COLD, updated_at=story.now - 50, created_at=story.now - 100)

    def stuck(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(reverted,))
        reads["allocations"] = replace(reads["allocations"], found=("uuid-17",))
        reads["service"] = replace(reads["service"], found=(story.service(forced_down=True, up=False),))

    for _ in range(5):
        assert not emptied(story.verify(stuck))
        story.now += 200

    assert {"incoming"} == {b.kind for b in story.blockers()}


def test_a_reverted_server_that_was_deleted_before_it_was_back_left_residue() -> None:
    """With the server Nova forgets the move, and frees what its dead source held."""
    story = Story().closed()
    story.see(there(story))
    story.now += 60
    story.see(row(story, "finished", Kind.COLD), there(story, host="cmp-02", vm_state="resized"))
    story.see(down(story), row(story, "reverted", Kind.COLD, updated_at=story.now - 5))
    story.now += 30
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_a_row_that_has_ended_ends_what_late_messages_made_of_it() -> None:
    """What was begun anew by messages from before the row's end ends with the row, when it is shown again."""
    story = Story().closed()
    story.see(there(story))
    story.now += 10
    said_at = story.now
    story.see(row(story, "running", updated_at=said_at - 5), row(story, "completed", updated_at=said_at))
    ghost = Migration("ghost", SERVER, Kind.LIVE, Phase.FINISHING, H, "cmp-02", emitted_at=said_at - 1)
    story.fleet.put(ghost)
    story.now += 60
    story.see(row(story, "completed", updated_at=said_at))

    assert not list(story.fleet.open_migrations())


def test_a_move_that_nova_never_named_ends_when_its_server_is_shown_idle() -> None:
    """An update said `migrating`, and a conductor died: no row, no further word, and a task that is gone."""
    story = Story().closed()
    story.see(there(story))
    story.now += 10
    story.see(update(story, task_state="migrating", emitted_at=story.now))
    story.now += 60
    story.see(there(story, host="cmp-02", updated_at=story.now - 30))
    due = story.fleet.next_due()
    assert due is not None
    story.now = due
    taken = story.fleet.take_due(due)
    assert taken is not None
    story.see(TimerDue(due, subject=taken[1]))

    assert not list(story.fleet.open_migrations())
    assert proven(story)


@pytest.mark.parametrize("told_by", ["row", "update", "server"])
def test_a_server_deleted_in_the_middle_of_its_revert_left_residue(told_by: str) -> None:
    """It was deleted where it had been moved to; its source was about to take it back, and keeps its files."""
    story = Story().closed()
    story.see(there(story))
    story.now += 60
    story.see(row(story, "finished", Kind.COLD), there(story, host="cmp-02", vm_state="resized"))
    story.now += 30
    task: dict[str, object] = {"host": "cmp-02", "vm_state": "resized", "task_state": "resize_reverting"}
    told: dict[str, Observation] = {
        "row": row(story, "reverting", Kind.COLD, updated_at=story.now - 1),
        "update": update(story, emitted_at=story.now, **task),
        "server": there(story, **task),
    }
    story.see(told[told_by])
    story.now += 5
    story.see(update(story, host="cmp-02", vm_state="deleted", deleted=True, reporter="cmp-02"))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_revert_that_is_heard_of_after_the_delete_leaves_residue_too() -> None:
    """Messages come in any order: that it had been on its way back is learnt when it is gone."""
    story = Story().closed()
    story.see(there(story))
    story.now += 60
    story.see(row(story, "finished", Kind.COLD), there(story, host="cmp-02", vm_state="resized"))
    story.now += 30
    story.see(update(story, host="cmp-02", vm_state="deleted", deleted=True, reporter="cmp-02", emitted_at=story.now))
    story.now += 5
    late: dict[str, object] = {"host": "cmp-02", "vm_state": "resized", "task_state": "resize_reverting"}
    story.see(update(story, **late, trusted=False, reporter="cmp-02", emitted_at=story.now - 10))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_move_that_no_list_ever_shows_is_none() -> None:
    """A late word of a revert made a move that has no row, while lists show the row that it was about as long over."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    begun = Because("notification", "instance.resize_revert.start", "m-1", "req-1")
    story.see(
        ServerSeen(
            story.now, begun, SERVER, host="cmp-02", step=Step.REVERT_START, source=H, destination="cmp-02",
            reporter=H, emitted_at=story.now - 1,
        )
    )  # fmt: skip
    over = MigrationSeen(
        story.now, API, SERVER, 3, "u3", Kind.COLD, "reverted", H, "cmp-02", None, story.now - 60, story.now - 9
    )
    story.see(replace(over, asked_at=story.now))
    assert 1 == len(list(story.fleet.open_migrations()))
    story.now += 40
    story.see(replace(over, seen_at=story.now, asked_at=story.now))

    assert [] == list(story.fleet.open_migrations())


def test_a_revert_that_nobody_told_of_and_that_never_arrived() -> None:
    """Its row alone was read, reverted a moment ago, with the server still elsewhere; deleted there, it left its disks
    on the source, and nothing is told of a move that was over before it was known.
    """
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.now += 1
    said = story.see(
        MigrationSeen(
            story.now, API, SERVER, 3, "u3", Kind.COLD, "reverted", H, "cmp-02", None, story.now - 60, story.now - 9,
            asked_at=story.now,
        )
    )  # fmt: skip
    assert [] == [event.TYPE for event in said if event.TYPE.startswith("migration.")]
    story.now += 20
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_a_revert_that_a_pass_saw_and_that_never_arrived() -> None:
    """A pass saw that Placement holds the source for a reverted move; the next sees nothing of the server at all."""
    story = Story().closed()
    over = MigrationSeen(
        story.now, API, SERVER, 3, "u3", Kind.COLD, "reverted", H, "cmp-02", None, story.now - 900, story.now - 900
    )

    def held(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(over,))
        reads["allocations"] = replace(reads["allocations"], found=("u3",))

    story.verify(held)
    assert ["incoming"] == [b.kind for b in story.blockers()]
    story.now += 30

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


@pytest.mark.parametrize("status", ["reverting", "finished"])
def test_a_move_that_waited_for_its_source_and_that_no_list_shows_any_more_left_something_there(status: str) -> None:
    """Its server was deleted, since Nova shows no row of it: whether its source had taken it back by then, or confirmed
    that it keeps nothing, nobody has said. The host was up all the time, and a whole pass finds nothing."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), row(story, status, Kind.RESIZE))
    story.now += 60
    story.verify()

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_move_that_was_first_seen_completed_has_arrived() -> None:
    """Forced onto a host that is thought dead, its row read when it was over, its server then deleted there unheard:
    the server was there last, and is noted.
    """
    story = Story().closed()
    story.see(down(story), there(story, host="cmp-02"))
    story.now += 20
    story.see(
        MigrationSeen(
            story.now, API, SERVER, 3, "u3", Kind.LIVE, "completed", "cmp-02", H, None, story.now - 9, story.now - 5
        )
    )
    held = story.fleet.server(SERVER)
    assert held is not None and held.host == H
    story.now += 20
    story.see(ServersListed(story.now, API, story.now, H, frozenset()))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_a_revert_that_did_not_arrive_is_remembered_though_its_server_is_known_to_be_elsewhere() -> None:
    """Between two passes that saw it, the server was looked at, on the other host still; then it is deleted there."""
    story = Story().closed()
    story.see(there(story, host="cmp-02", vm_state="resized"))
    over = row(story, "reverted", Kind.COLD)

    def held(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(over,))
        reads["allocations"] = replace(reads["allocations"], found=("uuid-17",))

    story.verify(held)
    story.now += 5
    story.see(there(story, host="cmp-02", vm_state="soft-delete"))
    story.now += 5
    story.verify(held)
    story.now += 30

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_an_unconfirmed_move_whose_server_is_found_gone_left_something_on_a_source_that_turns_out_to_be_down() -> None:
    """Nobody was there to confirm it or to take the server back; that the source is down is learnt after the delete."""
    story = Story().closed()
    story.see(there(story), row(story, "finished", Kind.RESIZE))
    story.see(there(story, host="cmp-02", vm_state="resized"))
    story.now += 20
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5))
    story.see(down(story))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


@pytest.mark.parametrize("told", ["before", "after", "never"])
def test_an_unconfirmed_move_whose_server_is_gone_left_something_unless_its_source_has_confirmed_it(told: str) -> None:
    """Nova has it confirmed before it deletes the server, and the source says so. Else it may have been reverted
    unheard, and deleted before the source had taken it back."""
    story = Story().closed()
    story.see(there(story), row(story, "finished", Kind.RESIZE))
    story.see(there(story, host="cmp-02", vm_state="resized"))
    story.now += 20
    confirmed = ServerSeen(
        story.now, Because("notification", "instance.resize_confirm.end", "m-1", "req-1"), SERVER, host="cmp-02",
        step=Step.CONFIRM_END, source=H, destination="cmp-02", reporter=H, emitted_at=story.now,
    )  # fmt: skip
    gone = there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5)
    story.see(*{"before": (confirmed, gone), "after": (gone, confirmed), "never": (gone,)}[told])
    for _ in range(2):
        story.now += 61
        story.see(story.service())

    assert residue(story) == ([(SERVER, "deleted_while_down")] if told == "never" else [])
    assert proven(story) == (told != "never")


def test_a_row_that_is_told_late_does_not_bring_a_server_to_where_it_has_left_again() -> None:
    """It came to the host and went back, both unheard; the list has the row of its coming, which was over long ago."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), row(story, "running", source="cmp-02", destination=H))
    story.now += 100
    story.see(there(story, host="cmp-02", updated_at=story.now - 20))
    story.see(row(story, "completed", source="cmp-02", destination=H, updated_at=story.now - 60))

    held = story.fleet.server(SERVER)
    assert held is not None and held.host == "cmp-02"
    assert proven(story)


def test_where_a_server_was_deleted_is_believed_when_it_is_told_later() -> None:
    """It was only not found where it had last been seen; its row says afterwards that it had moved to a host that was
    dead by then."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.see(down(story))
    fell_at = story.now
    story.now += 30
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    assert residue(story) == []
    story.now += 20
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=fell_at + 20))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_what_was_deleted_before_its_host_went_down_is_no_residue_however_late_it_is_told() -> None:
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.now += 30
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    gone_at = story.now - 10
    story.now += 600
    story.see(story.service(up=False, down_since=story.now))
    story.now += 20
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=gone_at))

    assert residue(story) == []


def test_an_older_row_does_not_bring_a_server_to_where_a_younger_one_says_it_has_left() -> None:
    """It was moved here and away again and the second move was reverted, all unheard; the list has the younger row
    first. The server is not back yet when it is deleted, and nothing shows of it any more."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.see(row(story, "accepted", migration_uuid="uuid-16", migration_id=16, source="cmp-02", destination=None))
    story.now += 30
    story.see(row(story, "reverted", Kind.COLD, updated_at=story.now - 1))
    came = row(story, "completed", migration_uuid="uuid-16", migration_id=16, source="cmp-02", destination=H)
    story.see(replace(came, updated_at=story.now - 25))

    held = story.fleet.server(SERVER)
    assert held is not None and held.host == "cmp-02"
    story.now += 5
    story.see(down(story))
    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_server_that_is_back_from_a_revert_is_not_expected_any_more() -> None:
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.now += 30
    story.see(row(story, "reverted", Kind.COLD, updated_at=story.now - 1))
    assert story.fleet.verification(H).not_back == (SERVER,)  # type: ignore[union-attr]
    story.now += 5
    because = Because("notification", "instance.delete.end", "m3", "req-3")
    story.see(
        there(story, deleted=True, vm_state="deleted", reporter=H, asked_at=None, because=because, updated_at=story.now)
    )
    story.now += 5

    assert proven(story)
    assert residue(story) == []


def test_a_deleted_server_whose_last_host_is_told_later_left_something_if_that_turns_out_to_be_down() -> None:
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.now += 30
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.now += 2
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=story.now - 5))
    story.see(down(story))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_a_revert_that_vanishes_in_the_middle_of_a_pass_is_not_lost() -> None:
    """Its row is shown when the pass begins and not when it ends, and Placement has let go in between."""
    story = Story().closed()
    story.see(there(story, host="cmp-02", vm_state="resized"))
    over = row(story, "reverted", Kind.COLD)

    def held(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(over,))
        reads["allocations"] = replace(reads["allocations"], found=("uuid-17",))

    def going(reads: dict[str, PassRead]) -> None:
        reads["before"] = replace(reads["before"], found=(over,))

    story.verify(held)
    story.now += 10
    story.verify(going)
    story.now += 10

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_what_was_cleared_does_not_cover_an_evacuation_that_was_asked_for_later() -> None:
    """The server came back to the host after an operator had looked, was evacuated again, and is elsewhere by now."""
    story = Story().closed()
    story.see(down(story), there(story))
    story.now += 10
    story.see(there(story, host="cmp-02", updated_at=story.now - 5))
    assert residue(story) == [(SERVER, "evacuated")]
    story.see(ResidueCleared(story.now, Because("operator"), H, "operator"))
    story.now += 30
    story.see(there(story, updated_at=story.now - 5), story.service())
    story.now += 60
    story.see(there(story, host="cmp-02", updated_at=story.now - 5))
    story.see(row(story, "done", Kind.EVACUATION, created_at=story.now - 20, updated_at=story.now - 6))

    assert residue(story) == [(SERVER, "evacuated")]


def test_an_evacuation_that_is_told_to_have_failed_when_its_server_is_gone_does_not_clear_what_that_left() -> None:
    """It was deleted on its dead host meanwhile; that it was still there when the evacuation failed is no comfort."""
    story = Story().closed()
    story.see(down(story), there(story))
    evacuating = Because("notification", "instance.rebuild.start", "m4", "req-4")
    failed = Because("notification", "instance.rebuild.error", "m5", "req-4")
    begun = there(
        story, step=Step.REBUILD_START, kind=Kind.EVACUATION, source=H, destination="cmp-02", reporter="cmp-02",
        because=evacuating, asked_at=None, trusted=False,
    )  # fmt: skip
    story.see(begun)
    story.now += 20
    story.see(ServersListed(story.now, API, story.now, H, frozenset()))
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.see(replace(begun, step=Step.REBUILD_ERROR, because=failed, emitted_at=begun.emitted_at + 3))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_where_an_evacuated_server_had_gone_left_something_if_it_is_deleted_and_that_host_is_down() -> None:
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    story.see(row(story, "pre-migrating", Kind.EVACUATION, source="cmp-02", destination=H))
    begun = there(
        story, host="cmp-02", step=Step.REBUILD_START, kind=Kind.EVACUATION, source="cmp-02", destination=H, reporter=H,
        because=Because("notification", "instance.rebuild.start", "m6", "req-6"), asked_at=None, trusted=False,
    )  # fmt: skip
    story.see(begun)
    story.now += 20
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.see(down(story))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_what_was_on_its_way_to_a_host_that_was_down_when_it_was_deleted_may_have_left_something() -> None:
    """It was forced onto the dead host, evacuated from there and deleted, unheard; the host is up again by now."""
    story = Story().closed()
    story.see(story.service(up=False, down_since=story.now))
    story.see(there(story, host="cmp-02"), row(story, "running", source="cmp-02", destination=H))
    story.now += 30
    gone_at = story.now
    story.now += 10
    story.see(story.service())
    story.now += 10
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=gone_at))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_delete_shortly_before_its_host_was_seen_forced_down_may_have_left_something() -> None:
    """Of a host that is forced down Nova does not say since when it is; its compute may still send heartbeats."""
    story = Story()
    story.see(story.service(disabled=False, disabled_reason=None), there(story, host="cmp-02"))
    story.now += 30
    gone_at = story.now - 5
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.now += 15
    story.see(replace(down(story), down_since=story.now))
    story.now += 5
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=gone_at))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_source_that_died_just_before_its_server_was_found_gone_keeps_what_that_left() -> None:
    """Nova calls it up for another minute; what it was to confirm or take back was never cleaned up."""
    story = Story().closed()
    story.see(there(story), row(story, "finished", Kind.RESIZE))
    story.see(there(story, host="cmp-02", vm_state="resized"))
    story.now += 20
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 2))
    story.now += 5
    story.see(story.service())
    story.now += 30
    story.see(story.service(up=False, down_since=story.now - 40))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_delete_while_the_host_was_forced_down_is_told_after_that_was_lifted() -> None:
    """It fell into the minute before the force-down was seen; by now the host is up again."""
    story = Story()
    story.see(story.service(disabled=False, disabled_reason=None), there(story))
    story.now += 30
    gone_at = story.now
    story.now += 20
    story.see(down(story))
    story.now += 60
    story.see(story.service())
    story.now += 50
    story.see(there(story, vm_state="deleted", deleted=True, updated_at=gone_at))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_host_that_was_still_called_up_and_had_died_before_somebody_was_found_gone_keeps_what_that_left() -> None:
    """Nova calls it down at last, and says that its last heartbeat was before the server was found gone."""
    story = Story().closed()
    story.see(there(story))
    died_at = story.now + 10
    story.now += 15
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.now += 5
    story.see(story.service())
    assert residue(story) == []
    story.now += 30
    story.see(story.service(up=False, down_since=died_at))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_host_that_died_after_somebody_was_found_gone_keeps_nothing_of_that() -> None:
    story = Story().closed()
    story.see(there(story))
    story.now += 15
    story.see(there(story, host=None, vm_state=None, deleted=True, updated_at=None))
    story.now += 5
    story.see(story.service())
    story.now += 30
    story.see(story.service(up=False, down_since=story.now - 10))

    assert residue(story) == []


def test_a_late_word_of_an_earlier_move_ends_none_that_was_only_read() -> None:
    """After a time in which nobody listened the rows are read first: one move is over and the next, from where that
    led, is under way. Then comes what the first had said. (Found by chaos, `tests/chaos`.)"""
    story = Story()
    story.see(there(story, host="cmp-02"))
    began_at = story.now - 3.0
    next_ = {"migration_id": 18, "migration_uuid": "uuid-18", "source": "cmp-02", "destination": "cmp-03"}
    story.see(row(story, "completed", created_at=began_at - 5), row(story, "running", created_at=began_at, **next_))
    late = update(
        story, host="cmp-02", reporter="cmp-02", step=Step.LIVE_POST_DEST_START, kind=Kind.LIVE, source=H,
        destination="cmp-02", emitted_at=began_at - 1,
    )  # fmt: skip
    story.see(late)

    open_ = [m for m in story.fleet.migrations_of(SERVER) if m.open]
    assert [18] == [m.migration_id for m in open_]
    story.see(replace(late, emitted_at=began_at + 1.5, step=Step.LIVE_PRE_START))  # a new one, which did begin later
    assert [None] == [m.migration_id for m in story.fleet.migrations_of(SERVER) if m.open]


@pytest.mark.parametrize(
    ("kind", "status", "there"),
    [
        (Kind.LIVE, "completed", "cmp-02"),
        (Kind.LIVE, "cancelled", H),
        (Kind.LIVE, "failed", H),
        (Kind.LIVE, "error", H),
        (Kind.COLD, "confirmed", "cmp-02"),
        (Kind.RESIZE, "reverted", H),
        (Kind.RESIZE, "error", H),
        (Kind.EVACUATION, "done", "cmp-02"),
        (Kind.EVACUATION, "failed", H),
    ],
)
def test_a_server_that_only_the_row_of_an_ended_move_names_is_where_the_row_says(
    kind: Kind, status: str, there: str
) -> None:
    """Nova removes the rows with the server, so it exists; all of its messages were lost."""
    story = Story()
    story.see(row(story, status, kind))
    assert story.fleet.server(SERVER) is None  # before the cloud was read, everybody is a stranger

    story.see(BaselineCompleted(story.now, API, story.now), row(story, status, kind))

    known = story.fleet.server(SERVER)
    assert known is not None and (there, None) == (known.host, known.project_id)


def test_a_stranger_that_is_gone_from_a_down_host_left_residue() -> None:
    """Built unheard and resized in vain, deleted behind the host's back: only the row of the resize had named it."""
    story = Story().closed()
    story.see(BaselineCompleted(story.now, API, story.now), down(story))
    story.now += 20
    story.see(row(story, "error", Kind.RESIZE, destination=None))
    story.now += 1
    story.see(ServersListed(story.now, API, story.now, H, frozenset()))

    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_a_stranger_whose_resize_failed_may_have_been_on_either_host() -> None:
    """Nova writes one word for a resize that failed before its server had gone over, and after."""
    story = Story().closed()
    story.see(BaselineCompleted(story.now, API, story.now))
    story.see(row(story, "error", Kind.RESIZE, source="cmp-02", destination=H))
    story.now += 5
    story.see(down(story))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_stranger_that_is_seen_elsewhere_is_there() -> None:
    """What the row said gives way to what its own row says."""
    story = Story().closed()
    story.see(BaselineCompleted(story.now, API, story.now), row(story, "failed"))
    story.now += 5
    story.see(there(story, host="cmp-02", project_id="p1"))

    known = story.fleet.server(SERVER)
    assert known is not None and ("cmp-02", "p1") == (known.host, known.project_id)


def test_a_move_that_was_only_asked_for_when_it_was_last_looked_at_may_have_arrived_on_a_dead_host() -> None:
    """Its row was read a moment before it began, and nothing was heard after that until its server was deleted."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), down(story))
    story.see(row(story, "accepted", source="cmp-02", destination=H))
    story.now += 60
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_the_row_of_an_evacuation_ends_what_was_heard_of_it_from_another_host() -> None:
    """Asked for twice, the server had been rebuilt on one host when it was evacuated to the next: the computes name
    that host, the row the first one."""
    story = Story()
    story.see(there(story))
    heard = update(
        story, reporter="cmp-03", step=Step.REBUILD_START, kind=Kind.EVACUATION, source=H, destination="cmp-03",
        task_state="rebuild_spawning",
    )  # fmt: skip
    story.see(heard)
    assert [m.source for m in story.fleet.open_migrations()] == [H]
    story.now += 10
    done = row(story, "done", Kind.EVACUATION, source="cmp-09", destination="cmp-03", updated_at=story.now)
    story.see(done)

    assert list(story.fleet.open_migrations()) == []
    assert residue(story) == [(SERVER, "evacuated")]


def test_a_late_word_of_an_earlier_request_is_none_of_the_move_under_way() -> None:
    """The next move is known by an update only; a step of the one before it must not say where that goes."""
    story = Story()
    story.see(there(story, host="cmp-02"))
    first = Because("notification", "instance.live_migration_pre.start", "m3", "req-first")
    began = update(
        story, host="cmp-02", reporter=H, step=Step.LIVE_PRE_START, kind=Kind.LIVE, source="cmp-02", destination=H,
        because=first,
    )  # fmt: skip
    story.see(began)
    story.now += 5
    story.see(row(story, "cancelled", source="cmp-02", destination=H, created_at=1000.0, updated_at=story.now))
    story.now += 20
    story.see(update(story, host="cmp-02", task_state="migrating"))
    late = replace(began, seen_at=story.now, step=Step.LIVE_PRE_END, emitted_at=began.emitted_at + 3)
    story.see(late)

    (under_way,) = story.fleet.open_migrations()
    assert under_way.destination is None


def test_the_late_end_of_an_earlier_evacuation_clears_nothing_of_the_next() -> None:
    """The first failed, the second did not; what was said of the first's failure came last, after the row of the
    second."""
    story = Story().closed()
    story.see(there(story), down(story))
    step = {"kind": Kind.EVACUATION, "source": H, "destination": "cmp-02", "reporter": "cmp-02"}
    begun_at = story.now
    story.see(update(story, step=Step.REBUILD_SCHEDULED, **step))
    story.now += 7
    story.see(update(story, step=Step.EVACUATE, **step | {"destination": None}))
    story.now += 2
    story.see(there(story, host="cmp-02", updated_at=story.now - 1))
    second = {"migration_id": 18, "migration_uuid": "uuid-18", "created_at": begun_at + 7}
    story.see(row(story, "done", Kind.EVACUATION, updated_at=story.now - 1, **second))
    story.see(row(story, "failed", Kind.EVACUATION, created_at=begun_at, updated_at=begun_at + 2))
    story.now += 8
    story.see(update(story, step=Step.REBUILD_ERROR, emitted_at=begun_at + 2, updated_at=begun_at + 1, **step))

    assert residue(story) == [(SERVER, "evacuated")]


@pytest.mark.parametrize(("last", "left"), [("reverted", [(SERVER, "deleted_while_down")]), ("confirmed", [])])
def test_who_is_gone_from_the_whole_cloud_after_a_revert_left_its_disks(last: str, left: list[tuple[str, str]]) -> None:
    """Its source never took it back; that it was deleted where it was nobody has said, and a start of maintd does not
    remember whom it had waited for."""
    story = Story().closed()
    story.see(there(story))
    story.see(row(story, "migrating", Kind.COLD, created_at=story.now))
    story.now += 5
    story.see(there(story, host="cmp-02", vm_state="resized", updated_at=story.now - 1))
    story.see(row(story, last, Kind.COLD, updated_at=story.now))
    story.now += 90
    story.see(ServersListed(story.now, API, story.now, None, frozenset()))

    assert residue(story) == left


def test_a_resize_onto_a_dead_host_whose_row_is_gone_may_have_left_something_there() -> None:
    """Its server was never seen to have arrived; that its row is gone says that it was deleted, not where it was."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), down(story))
    story.see(row(story, "finished", Kind.RESIZE, source="cmp-02", destination=H))
    story.now += 5

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


@pytest.mark.parametrize("by", ["the list of everything", "a pass"])
def test_a_build_that_was_on_its_way_to_a_host_that_then_died_may_have_arrived_there(by: str) -> None:
    """Deleted behind the dead host's back, unheard; the host is up again before anybody looked."""
    story = Story().closed()
    story.see(update(story, host=None, vm_state="building", landing=H, reporter=H))
    down_and_up(story)
    if by == "the list of everything":
        story.see(ServersListed(story.now, API, story.now, None, frozenset()))

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


@pytest.mark.parametrize(
    ("source", "by"), [("cmp-02", "the list of everything"), ("cmp-02", "a pass"), (H, "the list of everything")]
)
def test_a_move_of_who_is_gone_from_everywhere_may_have_left_something_on_a_host_that_was_down(
    source: str, by: str
) -> None:
    """On its way to the host, or there and waiting to be confirmed, when that died; the host is up again by now."""
    story = Story().closed()
    other = H if source == "cmp-02" else "cmp-02"
    story.see(there(story, host="cmp-02"), row(story, "finished", Kind.RESIZE, source=source, destination=other))
    down_and_up(story)
    if by == "the list of everything":
        story.see(ServersListed(story.now, API, story.now, None, frozenset()))

    assert not proven(story)
    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_an_unconfirmed_move_whose_server_was_deleted_while_its_source_was_down_left_something_there() -> None:
    """Nobody was there to confirm it; by the time that the API tells of it, the source is up again."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), row(story, "finished", Kind.RESIZE))
    down_and_up(story)
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 50))

    assert residue(story) == [(SERVER, "deleted_while_down")]


@pytest.mark.parametrize(
    ("kind", "shown", "left"),
    [
        (Kind.LIVE, False, [(SERVER, "deleted_while_down")]),
        (Kind.LIVE, True, []),
        (Kind.EVACUATION, True, [(SERVER, "evacuated")]),
    ],
)
def test_who_left_unheard_while_the_host_was_down_and_is_deleted_before_its_rows_were_read_left_something(
    kind: Kind, shown: bool, left: list[tuple[str, str]]
) -> None:
    """Evacuated while nobody listened; when that is seen the host is up again, and was when it was asked after next."""
    story = Story().closed()
    story.see(there(story), down(story))
    story.now += 60
    story.see(story.service())
    story.now += 20
    story.see(there(story, host="cmp-02", updated_at=story.now - 40))
    for _ in range(4):
        story.now += 30
        story.see(story.service())
    over = row(story, "completed" if kind is Kind.LIVE else "done", kind, created_at=story.now - 160)

    def look(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(over,) if shown else ())

    story.see(*([over] if shown else []))
    story.verify(look)

    assert residue(story) == left


def test_where_a_move_led_left_something_if_that_was_down_before_its_server_is_found_deleted_elsewhere() -> None:
    """It may have arrived unheard, and been evacuated from there while nobody listened; the delete came later."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"), row(story, "running", source="cmp-02", destination=H))
    story.see(down(story))
    story.now += 60
    story.see(story.service())
    story.now += 90
    story.see(there(story, host="cmp-03", vm_state="deleted", deleted=True, updated_at=story.now - 5))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_resize_on_its_own_host_takes_no_server_away_from_a_dead_one() -> None:
    """It was under way when its host died; that the server was deleted elsewhere later takes an evacuation."""
    story = Story().closed()
    story.see(there(story), row(story, "pre-migrating", Kind.RESIZE, destination=H))
    down_and_up(story)
    story.see(there(story, host="cmp-03", vm_state="deleted", deleted=True, updated_at=story.now - 10))

    assert (SERVER, "evacuated") in residue(story)


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.LIVE, "completed"), (Kind.EVACUATION, "done"), (Kind.COLD, "confirmed")]
)
@pytest.mark.parametrize("known_on", ["cmp-02", "cmp-03"])
def test_a_move_of_which_only_the_ended_row_was_seen_leads_where_its_server_may_have_left_something(
    kind: Kind, status: str, known_on: str
) -> None:
    """The server came unheard, from where it was known to be or from yet another host; then its host died, and it was
    deleted there. Its rows go with it, so the one that was seen is all that tells of it."""
    story = Story().closed()
    story.see(there(story, host=known_on))
    story.now += 100
    story.see(down(story))
    story.see(row(story, status, kind, source="cmp-02", destination=H, updated_at=story.now - 30))
    assert not proven(story)

    story.see(there(story, host=None, vm_state=None, updated_at=None, deleted=True))
    assert residue(story) == [(SERVER, "deleted_while_down")]
    assert not proven(story)


def test_of_two_rows_the_younger_one_says_where_a_server_is_whichever_is_read_first() -> None:
    """Rows are read by host, so an older one may come after a younger one, or before it."""
    for order in (1, -1):
        story = Story().closed()
        story.see(there(story, host="cmp-02"))
        story.now += 100
        on = row(story, "completed", source="cmp-02", destination="cmp-03", updated_at=story.now - 50)
        here = row(story, "completed", source="cmp-03", destination=H, updated_at=story.now - 20)
        here = replace(here, migration_id=18, migration_uuid="uuid-18")
        story.see(*(on, here)[::order])

        assert story.fleet.server(SERVER).host == H  # type: ignore[union-attr]


def test_an_evacuation_that_its_source_completes_long_after_does_not_take_its_server_back() -> None:
    """The row is touched when the source begins again; its server has gone on from there meanwhile."""
    story = Story().closed()
    story.see(there(story, host="cmp-03"))
    story.now += 100
    story.see(row(story, "completed", Kind.EVACUATION, source="cmp-02", destination=H, updated_at=story.now - 5))

    assert story.fleet.server(SERVER).host == "cmp-03"  # type: ignore[union-attr]
    assert proven(story)


def test_what_came_late_does_not_show_that_a_server_outlived_its_hosts_death() -> None:
    """An update that was said while the host was down arrives when it is up again; the server was deleted in between,
    and is only found missing."""
    story = Story().closed()
    story.see(there(story), down(story))
    said_at = story.now + 10
    story.now += 60
    story.see(story.service())
    story.see(update(story, host=H, emitted_at=said_at, updated_at=said_at - 1))
    story.now += 20
    story.see(there(story, host=None, vm_state=None, updated_at=None, deleted=True))

    assert residue(story) == [(SERVER, "deleted_while_down")]


def test_a_move_made_of_late_messages_ends_beside_one_that_has_a_row() -> None:
    """The server's real move is the second one, still open; the first is over, and its row says so."""
    story = Story().closed()
    story.see(there(story, host="cmp-02"))
    ghost = Migration("1", SERVER, Kind.COLD, Phase.AWAITING_CONFIRMATION, H, "cmp-02", emitted_at=story.now)
    story.fleet.put(replace(ghost, begun_at=story.now, moved_at=story.now))
    real = Migration("2", SERVER, Kind.RESIZE, Phase.REVERTING, "cmp-02", "cmp-03", begun_at=story.now)
    story.fleet.put(replace(real, migration_uuid="uuid-17"))
    story.now += 60
    over = row(story, "confirmed", Kind.COLD, created_at=story.now - 90, updated_at=story.now - 70)
    story.see(replace(over, migration_id=16, migration_uuid="uuid-16"))

    assert [m.migration_uuid for m in story.fleet.open_migrations()] == ["uuid-17"]


@pytest.mark.parametrize("destination", [H, "cmp-03"])
def test_a_confirmation_that_comes_late_clears_no_host_but_the_one_that_was_left(destination: str) -> None:
    """A resize on its own host left nothing behind, and after an earlier move the server had come back: what a delete
    on the dead host left is left all the same."""
    story = Story().closed()
    story.see(there(story), row(story, "finished", Kind.RESIZE, destination=H), down(story))
    story.now += 20
    story.see(update(story, vm_state="deleted", deleted=True, local_delete=True))
    story.see(
        ServerSeen(
            story.now, Because("notification", "instance.resize_confirm.end", "m-1", "req-1"), SERVER,
            host=destination, step=Step.CONFIRM_END, source=H, destination=destination, reporter=H,
            emitted_at=story.now - 15,
        )
    )  # fmt: skip

    assert residue(story) == [(SERVER, "deleted_while_down")]


@pytest.mark.parametrize(
    ("number", "status", "left"),
    [(18, "completed", []), (18, "failed", ["evacuated"]), (5, "completed", ["evacuated"]), (None, "", ["evacuated"])],
)
def test_an_evacuation_whose_server_was_evacuated_meanwhile_from_the_same_host_left_it_here(
    number: int | None, status: str, left: list[str]
) -> None:
    """A second evacuation that was asked for before the first was over names the first one's source, though the server
    had been rebuilt here: what is here nobody cleans up. Where a later row says how it has left, it has left."""
    story = Story().closed()
    here = row(story, "done", Kind.EVACUATION, source="cmp-02", destination=H)
    on = replace(here, kind=Kind.LIVE, source=H, destination="cmp-03", status=status, migration_uuid="uuid-18")
    rows = (here,) if number is None else (here, replace(on, migration_id=number))

    def held(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=rows)
        reads["allocations"] = replace(reads["allocations"], found=(SERVER,))
        elsewhere = there(story, host="cmp-03")
        asked = PassRead(story.now, API, H, story.passes, Read.CONSUMER, story.now, SERVER, (elsewhere,))
        after, service = reads.pop("after"), reads.pop("service")
        reads.update(asked=asked, after=after, service=service)

    story.verify(held)
    assert residue(story) == [(SERVER, kind) for kind in left]

    story.now += 20
    story.see(ResidueCleared(story.now, Because("operator"), H))
    story.verify(held)
    assert residue(story) == []  # somebody has looked


def test_an_evacuation_to_here_that_failed_is_warned_of_however_long_ago() -> None:
    """Asked for twice at once, both fail on a real Nova, and the guest that the first had begun runs on unseen."""
    story = Story().closed()
    old = row(story, "failed", Kind.EVACUATION, source="cmp-02", destination=H, created_at=1.0, updated_at=9.0)
    others = replace(old, migration_id=18, migration_uuid="uuid-18", source=H, destination="cmp-02")

    def failed(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(old, others))

    story.verify(failed)
    story.now += 20
    (said,) = emptied(story.verify(failed))
    assert [note.detail for note in said.warnings] == ["evacuation 17 ended failed; its guest may run here"]
