"""Where a batch is kept: the store, under the fleet lease.

A thin seam between the door (`admit`), which knows nothing of databases, and the store, which knows nothing of
notifications. The fence travels with every transaction, so a controller that has lost the lease without noticing cannot
write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from maintd.clock import Clock
from maintd.ingest.admit import Batch
from maintd.store import Commit, Fence, Store


class StoreKeeper:
    """Keeps batches in a store under one fence. `took` hears how long each transaction took, in seconds."""

    def __init__(self, store: Store, fence: Fence, clock: Clock, took: Callable[[float], None]) -> None:
        self._store = store
        self._fence = fence
        self._clock = clock
        self._took = took

    def seen(self, message_ids: Sequence[str]) -> set[str]:
        """Which of these notifications have been handled before."""
        return self._store.seen(message_ids)

    def keep(self, batch: Batch) -> None:
        """Commit all of it or nothing. Raises StoreUnavailable or LeaseLost."""
        began = self._clock.monotonic()
        self._store.commit(
            Commit(
                fence=self._fence,
                saved=tuple(batch.saved.values()),
                removed=tuple(batch.removed.values()),
                events=batch.events,
                message_ids=batch.message_ids,
                quarantined=batch.quarantined,
                at=self._clock.now(),
            )
        )
        self._took(self._clock.monotonic() - began)
