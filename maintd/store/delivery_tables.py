"""The tables of deliveries: what is to be sent to whom, every attempt at it, and endpoints that asked to be left alone.

Times are epoch seconds in DOUBLE (MySQL's FLOAT would lose minutes). The texts that are indexed have lengths, because
MySQL must know; they are wider than anything maintd makes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from maintd.store.tables import metadata

_ID: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself only in an INTEGER key

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("endpoint", String(64), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("event_type", String(128), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("sequence", BigInteger, nullable=False),  # of the event; no foreign key: purge takes each by its own age
    Column("state", String(16), nullable=False),  # pending, claimed, delivered, dead
    # When somebody should take it up: a pending one's time to be tried, a claimed one's end of lease. NULL for the
    # finished, and for the pending that wait behind another of the same endpoint and subject.
    Column("due_at", Double),
    Column("lease_owner", String(128)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", Double, nullable=False),
    Column("first_failed_at", Double),
    Column("finished_at", Double),
    UniqueConstraint("event_id", "endpoint"),  # an event goes to an endpoint once, whoever fans it out
    Index(None, "endpoint", "subject", "state", "sequence"),  # who is next in this line, is anybody in flight
    Index(None, "due_at", "endpoint"),  # what is due
    Index(None, "endpoint", "due_at"),  # what is due here
    Index(None, "state", "finished_at"),  # counts, purge
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("delivery_id", _ID, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("status", Integer),
    Column("outcome", String(32), nullable=False),
    Column("detail", Text, nullable=False),
)

disabled_endpoints = Table(
    "disabled_endpoints",
    metadata,
    Column("endpoint", String(64), primary_key=True),
    Column("disabled_at", Double, nullable=False),
    Column("reason", Text, nullable=False),
)
