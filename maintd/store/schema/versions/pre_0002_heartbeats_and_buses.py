"""Heartbeats as told, whose bus speaks for a host, unexplained departures, deaf buses, and until when we watched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("said_up", sa.Boolean))
    for name in ("said_up_at", "say_up_at"):
        op.add_column("hosts", sa.Column(name, sa.Double))
    op.add_column("hosts", sa.Column("heard_on", sa.String(255)))
    op.add_column("hosts", sa.Column("departures", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")))
    for name in ("deaf_from", "listen_by"):
        op.add_column("buses", sa.Column(name, sa.Double))
    op.add_column("knowledge", sa.Column("alive_at", sa.Double))
