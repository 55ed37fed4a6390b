"""What the handlers are given: the store, and the functions that only the running daemon can offer.

`app` builds one `WebApp` and hands it to `server.api`. Nothing here reaches for a global, so that a test can serve the
real thing from a store of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maintd.clock import Clock
from maintd.domain.model import Policy
from maintd.errors import OperatorError
from maintd.store import Attempt, Store
from maintd.web.seats import Seats

if TYPE_CHECKING:
    from maintd.web.progress import Held
    from maintd.web.stream import Bell


def _refused(*_: object) -> Any:
    raise OperatorError("This maintd only shows the fleet; ask a controller that runs the whole daemon.")


@dataclass(frozen=True, slots=True)
class WebApp:
    """Everything the API needs.

    `status` returns what only this process knows, ready for JSON and without secrets; it is laid over what the store
    says in `/v1/status`. Its key `cloud` is {configured, ok (None: unknown), last_success_at, last_error}: times in
    epoch seconds under names that end in `_at`, errors as sentences.
    `request_drain(host, removal)` and `clear_residue(host, who, server_ids, history)` are done when they return; they
    raise OperatorError (a sentence for the person who asked), StoreUnavailable, or LeaseLost where another controller
    holds the fleet.
    `wake_delivery` tells the dispatcher that something is due.
    `bell` is rung when events were committed, and closed when maintd stops; `seats` bounds how many wait for it.
    `url_refused(url)` says in words what is wrong with a subscription's URL, None where nothing is. `verify_now(id)`
    tries a subscription's handshake and keeps what came of it; `test_now(id)` sends a test event.
    Both take bounded time, and raise OperatorError where it cannot be done now; `trials` bounds how many are under way.
    `max_per_project` and `max_operator` bound the subscriptions of one owner; `secret_overlap_s` is how long
    a secret signs beside the one that replaced it.
    `held(migration_keys)` is what the fleet in memory has beside these migrations; None where this process has none.
    """

    store: Store
    installation: str
    clock: Clock
    bell: Bell
    seats: Seats
    policy: Policy = field(default_factory=Policy)
    status: Callable[[], Mapping[str, Any]] = dict
    request_drain: Callable[[str, bool], None] = _refused
    clear_residue: Callable[[str, str | None, frozenset[str], bool], None] = _refused
    wake_delivery: Callable[[], None] = lambda: None
    held: Callable[[Sequence[str]], Held | None] = lambda keys: None
    fleet_lease: str = "fleet"
    url_refused: Callable[[str], str | None] = _refused
    verify_now: Callable[[str], Attempt] = _refused
    test_now: Callable[[str], Attempt] = _refused
    trials: Seats = field(default_factory=lambda: Seats(4, "places for verifications and tests", each=1, spare=1))
    max_per_project: int = 10
    max_operator: int = 100
    secret_overlap_s: float = 86400.0
