"""What Alembic runs to run revisions: on the connection that the store hands it."""

from __future__ import annotations

from alembic import context

import maintd.store.delivery_tables
import maintd.store.subscription_tables  # noqa: F401 - for their tables
from maintd.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
context.run_migrations()
