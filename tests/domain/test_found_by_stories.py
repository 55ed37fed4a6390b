"""What random stories over the simulated Nova found wrong (`python -m tests.domain.interleavings`), told small."""

from __future__ import annotations

from maintd.domain.observations import ServerSeen
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
    return ServerSeen(story.now, API, SERVER, **(fields | over))  # type: ignore[arg-type]


def test_a_server_that_moved_and_was_deleted_unheard_has_left_its_first_host() -> None:
    """Nova shows it deleted, and on its last host: the host where we still hold it is looked at all the same."""
    story = Story().closed()
    story.see(there(story))
    story.now += 100
    story.see(there(story, host="cmp-02", vm_state="deleted", deleted=True, updated_at=story.now - 50))

    assert proven(story)
