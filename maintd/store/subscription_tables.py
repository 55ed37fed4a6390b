"""The table of subscriptions: who asked over the API to be told, where, of what, and how that stands."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Integer, String, Table, Text

from maintd.store.tables import MYSQL_OPTIONS, Long, Name, metadata

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", Name, index=True),  # NULL: an operator's
    Column("name", Name, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", Long, nullable=False),  # JSON: a list of globs
    Column("servers", Long),  # JSON: a list of ids; NULL: all
    Column("metadata_key", Name),
    Column("state", String(32), nullable=False),
    Column("reason", Text),
    Column("secret", Long, nullable=False),  # encrypted, as previous_secret
    Column("previous_secret", Long),
    Column("previous_until", Double),
    Column("created_at", Double, nullable=False),
    Column("created_by", Name),
    Column("updated_at", Double, nullable=False),
    Column("verified_at", Double),
    Column("verify_due_at", Double),
    Column("verify_tries", Integer, nullable=False),
    Column("failing_since", Double),
    Column("disabled_at", Double),
    Column("probe_at", Double),
    Column("version", BigInteger, nullable=False, index=True),  # the highest in the table grows with every change
    **MYSQL_OPTIONS,
)
