"""What the ledger of residue must not miss: where an older word, move or answer seems to explain that a server left."""

from __future__ import annotations

from dataclasses import replace

from maintd.domain.model import Because, Kind
from maintd.domain.observations import MigrationSeen, PassRead, ServerSeen, ServiceSeen, Step
from tests.domain.test_found_by_stories import SERVER, down, proven, residue, there, update
from tests.domain.test_proof import API, H, Story


def row(story: Story, kind: Kind, status: str, uuid: str, created_at: float | None = None) -> MigrationSeen:
    """A row of a migration of the server away from the host."""
    at = story.now if created_at is None else created_at
    return MigrationSeen(story.now, API, SERVER, 17, uuid, kind, status, H, "cmp-02", None, at, story.now, story.now)


def gone(story: Story) -> ServerSeen:
    """The server, deleted on the host to which it had been evacuated unheard."""
    story.now += 30
    return there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 5)


def test_a_move_that_had_failed_explains_no_departure_from_a_dead_host() -> None:
    """A live migration that came to nothing left the server there; what took it away later was an evacuation."""
    story = Story().closed()
    story.see(there(story), row(story, Kind.LIVE, "running", "u1"))
    story.now += 10
    story.see(row(story, Kind.LIVE, "failed", "u1", story.now - 10))
    story.now += 60
    story.see(down(story))
    story.see(gone(story))

    assert [(SERVER, "evacuated")] == residue(story)
    assert not proven(story)


def returned() -> Story:
    """A host from which the server was evacuated, which was cleared, and to which it has come back."""
    story = Story().closed()
    story.see(there(story), down(story))
    story.now += 10
    story.see(row(story, Kind.EVACUATION, "done", "u1"), there(story, host="cmp-02", updated_at=story.now - 1))
    assert [(SERVER, "evacuated")] == residue(story)
    story.now += 60
    story.see(story.service(), row(story, Kind.EVACUATION, "completed", "u1", story.now - 60))
    assert [] == residue(story)
    story.now += 100
    story.see(there(story, updated_at=story.now - 5))
    story.now += 100
    story.see(down(story))
    return story


def test_what_was_cleared_says_nothing_of_a_server_that_came_back() -> None:
    """Evacuated a second time and deleted, all unheard: the first time's clearing is not about that."""
    story = returned()
    story.see(gone(story))

    assert [(SERVER, "evacuated")] == residue(story)
    assert not proven(story)


def test_an_evacuation_that_failed_says_nothing_of_the_next_one() -> None:
    """It left nothing, and the server stayed; what took it away later, unheard, did."""
    story = Story().closed()
    story.see(there(story), down(story))
    story.now += 10
    story.see(update(story, step=Step.EVACUATE, source=H))
    assert [(SERVER, "evacuated")] == residue(story)
    story.now += 10
    story.see(row(story, Kind.EVACUATION, "failed", "u1", story.now - 10))
    assert [] == residue(story)
    story.see(gone(story))

    assert [(SERVER, "evacuated")] == residue(story)


def test_a_later_evacuation_is_not_settled_by_an_earlier_clearing() -> None:
    """An operator's word, or Nova's, is about the evacuations that there were by then."""
    story = returned()
    second = row(story, Kind.EVACUATION, "done", "u2")

    def with_row(reads: dict[str, PassRead]) -> None:
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(second,))

    story.now += 1
    story.verify(with_row)

    assert ["residue"] == [b.kind for b in story.blockers()]


def test_a_host_that_was_down_while_an_evacuation_went_unheard_keeps_its_residue() -> None:
    """It is up again by the time the gap is read: its restart cleans up only what Nova still connects with it."""
    story = Story().closed()
    story.see(there(story))
    story.now += 60
    story.see(down(story))
    story.now += 600
    story.see(story.service())
    story.see(gone(story))
    story.now += 30
    story.see(story.service())

    assert [(SERVER, "evacuated")] == residue(story)


def test_a_server_not_found_after_its_host_was_down_may_have_left_something() -> None:
    """A forced delete on a dead host is told by nobody, and of one that is not found Nova does not say when it went."""
    story = Story().closed()
    story.see(there(story))
    story.now += 60
    story.see(down(story))
    story.now += 600
    story.see(story.service())
    story.now += 10
    story.see(ServerSeen(story.now, API, SERVER, trusted=True, deleted=True, emitted_at=story.now, asked_at=story.now))
    story.now += 30
    story.see(story.service())

    assert [(SERVER, "deleted_while_down")] == residue(story)


def heard_while_asking(story: Story, **read: object) -> None:
    """A service.update is heard between the question of a list of services and its answer."""
    asked_at, story.now = story.now, story.now + 1
    because = Because("notification", "service.update", "m7", None)
    story.see(ServiceSeen(story.now, because, H, "svc-1", disabled=True, change="updated", emitted_at=story.now))
    story.now += 1
    story.see(replace(story.service(**read), asked_at=asked_at))


def test_a_host_first_heard_of_while_it_is_found_down_has_no_known_history() -> None:
    """That it is closed was heard while the list that shows it down was on its way; what happened before is unknown."""
    story = Story()
    heard_while_asking(story, up=False)
    held = story.fleet.host(H)

    assert held is not None and held.up is False and held.history_unknown


def test_the_time_in_which_a_host_was_down_is_kept_whenever_it_ends() -> None:
    """Also where its return is read while news of its service is heard."""
    story = Story().closed()
    story.now += 100
    story.see(story.service(up=False))
    story.now += 100
    heard_while_asking(story)
    held = story.fleet.host(H)

    assert held is not None and held.up is True
    assert held.last_down_from is not None and held.last_down_to == story.now


def test_what_goes_from_an_open_host_prepares_no_proof() -> None:
    """An open host is no candidate, and nothing is kept for it that a large cloud would have to look through."""
    story = Story()
    story.see(story.service(disabled=False, disabled_reason=None), there(story))
    story.now += 10
    story.see(update(story, vm_state="deleted", deleted=True))
    held = story.fleet.host(H)

    assert held is not None and [SERVER] == [gone.server_id for gone in held.departures]
    assert story.fleet.verification(H) is None


def test_a_build_that_ended_unheard_on_a_dead_host_may_have_arrived() -> None:
    """Its arrival and its delete behind the dead compute's back are lost, and nothing shows of it: it may be there."""
    story = Story().closed()
    begun = Because("notification", "instance.create.start", "m-1", "req-1")
    story.see(
        ServerSeen(story.now, begun, SERVER, vm_state="building", reporter=H, landing=H, emitted_at=story.now),
    )
    story.now += 20
    story.see(down(story))
    story.now += 1

    assert not proven(story)
    assert [(SERVER, "deleted_while_down")] == residue(story)


def test_a_move_onto_a_dead_host_may_have_arrived() -> None:
    """A live migration that was forced onto it was under way; the server, deleted elsewhere later, may have come back
    from there by an evacuation that nobody heard.
    """
    story = Story().closed()
    story.see(down(story), there(story, host="cmp-02"))
    under_way = MigrationSeen(
        story.now, API, SERVER, 18, "u8", Kind.LIVE, "running", "cmp-02", H, None, story.now, story.now, story.now
    )
    story.see(under_way)
    story.see(gone(story))

    assert [(SERVER, "deleted_while_down")] == residue(story)
    assert not proven(story)


def test_an_earlier_evacuation_that_is_over_says_nothing_of_the_next() -> None:
    """The same list shows the row of the first, completed long ago, and the second's, which holds: the host is not
    empty, whichever is read first, and nor is it once the server is deleted and both rows are gone.
    """
    story = Story().closed()
    story.see(there(story), down(story))
    begun = Because("notification", "instance.evacuate", "m-2", "req-2")
    again = ServerSeen(
        story.now, begun, SERVER, host=H, step=Step.EVACUATE, kind=Kind.EVACUATION, source=H, emitted_at=story.now
    )
    story.see(again)
    story.now += 20
    first = row(story, Kind.EVACUATION, "completed", "u1", story.now - 90)
    story.see(replace(first, updated_at=story.now - 60), row(story, Kind.EVACUATION, "done", "u2", story.now - 20))
    story.see(there(story, host="cmp-02", updated_at=story.now - 5))
    story.see(gone(story))

    assert [(SERVER, "evacuated")] == residue(story)
    assert not proven(story)


def test_the_end_of_one_evacuation_clears_what_that_one_left_and_no_more() -> None:
    """The first's row is read as completed when the second has begun already: that one's still holds the host."""
    story = Story().closed()
    story.see(there(story), down(story))
    begun = Because("notification", "instance.evacuate", "m-1", "req-1")
    story.see(
        ServerSeen(story.now, begun, SERVER, host=H, step=Step.EVACUATE, kind=Kind.EVACUATION, source=H,
                   emitted_at=story.now)
    )  # fmt: skip
    story.now += 60
    second = row(story, Kind.EVACUATION, "done", "u2", story.now - 20)
    story.see(row(story, Kind.EVACUATION, "completed", "u1", story.now - 58), second)

    assert [(SERVER, "evacuated")] == residue(story)
    assert not proven(story)
