"""What Alembic runs to run revisions: on the connection that the store hands it."""

from __future__ import annotations

from alembic import context

from maintd.store import delivery_tables
from maintd.store.tables import metadata

assert delivery_tables.metadata is metadata  # imported for its tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
context.run_migrations()
