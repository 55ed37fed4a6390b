"""Looks at the database, as a reading command does: nothing is made, upgraded or left behind."""

from __future__ import annotations

from maintd.clock import Clock
from maintd.config import Config
from maintd.doctor.facts import BusMemory, DatabaseFacts
from maintd.errors import MaintdError, OperatorError, StoreUnavailable
from maintd.store import Store, open_store, sqlite_file

FLEET = "fleet"
"""The name of the lease that the leading daemon holds."""


def look(config: Config, clock: Clock) -> DatabaseFacts:
    """The database of a configuration."""
    connection = config.database.connection
    try:
        path = sqlite_file(connection)
        if path is not None and not path.exists():
            label = f"the database {path}"
            if (
                path.parent.is_dir() or path.parent.name == "maintd"
            ):  # which systemd makes, when the daemon first starts
                return DatabaseFacts(label, clock.now(), missing=True)
            trouble = f"The directory {path.parent} of the database {path} does not exist."
            return DatabaseFacts(label, clock.now(), trouble=trouble)
        store = open_store(connection, clock)
    except MaintdError as wrong:
        return DatabaseFacts("the database", clock.now(), trouble=str(wrong))
    try:
        return _look(store, clock)
    except (OperatorError, StoreUnavailable) as wrong:
        return DatabaseFacts(store.label, clock.now(), store.embedded, trouble=str(wrong))
    finally:
        store.close()


def _look(store: Store, clock: Clock) -> DatabaseFacts:
    current, needed = store.version()
    if current != needed:
        return DatabaseFacts(store.label, clock.now(), store.embedded, current=current, needed=needed)
    holder = store.leases.holder(FLEET, clock.now())
    readonly = None
    try:
        store.check_writable()
    except StoreUnavailable as wrong:
        readonly = str(wrong)
    return DatabaseFacts(
        label=store.label,
        now=clock.now(),
        embedded=store.embedded,
        current=current,
        needed=needed,
        readonly=readonly,
        holder=(holder.owner, holder.left_s) if holder is not None else None,
        buses=tuple(
            BusMemory(bus.name, bus.connected, bus.blind_from, bus.last_message_at, bus.deaf_from)
            for bus in store.reading.buses()
        ),
        oldest_pending_at=store.deliveries.oldest_pending_at(),
        disabled={name: reason for name, (_, reason) in store.deliveries.disabled().items()},
    )
