"""What owners of servers are told and were told, whose an event is, and who has subscribed.

All events so far are the operator's: their new columns stay null.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

_name = sa.String(255)
_short = sa.String(32)
_long = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _create(name: str, key: sa.Column[Any], *columns: Any) -> None:
    op.create_table(
        name,
        key,
        *columns,
        sa.PrimaryKeyConstraint(key.name, name=f"pk_{name}"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


def _must(name: str, type_: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def upgrade() -> None:
    op.add_column("servers", sa.Column("metadata_keys", _long))
    op.add_column("migrations", sa.Column("asked_by", _name))
    op.add_column("drains", sa.Column("removal", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("events", sa.Column("project_id", _name))
    op.add_column("events", sa.Column("incarnation", sa.BigInteger))
    op.add_column("events", sa.Column("visible_at", sa.Double))
    op.create_index("ix_events_project_id_incarnation", "events", ["project_id", "incarnation"])
    _create(
        "notices",
        _must("server_id", _name),
        _must("project_id", _name),
        _must("incarnation", sa.BigInteger),
        sa.Column("drain_id", _name),
        sa.Column("maintenance_since", sa.Double),
        _must("removal", sa.Boolean),
        sa.Column("move_key", _name),
        sa.Column("move_kind", _name),
        sa.Column("move_since", sa.Double),
        _must("asked_for_by", _short),
        sa.Column("stalled", _short),
        sa.Column("lost_since", sa.Double),
        _must("forced_down", sa.Boolean),
        _must("widespread", sa.Boolean),
        sa.Column("metadata_keys", _long),
    )
    op.create_index("ix_notices_project_id", "notices", ["project_id"])
    _create(
        "projects",
        _must("project_id", _name),
        _must("incarnation", sa.BigInteger),
        _must("visible_at", sa.Double),
    )
    _create(
        "subscriptions",
        _must("id", sa.String(64)),
        sa.Column("project_id", _name),
        _must("name", _name),
        _must("url", sa.Text),
        _must("event_types", _long),
        sa.Column("servers", _long),
        sa.Column("metadata_key", _name),
        _must("state", _short),
        sa.Column("reason", sa.Text),
        _must("secret", _long),
        sa.Column("previous_secret", _long),
        sa.Column("previous_until", sa.Double),
        _must("created_at", sa.Double),
        sa.Column("created_by", _name),
        _must("updated_at", sa.Double),
        sa.Column("verified_at", sa.Double),
        sa.Column("verify_due_at", sa.Double),
        _must("verify_tries", sa.Integer),
        sa.Column("failing_since", sa.Double),
        sa.Column("disabled_at", sa.Double),
        sa.Column("probe_at", sa.Double),
        _must("version", sa.BigInteger),
    )
    op.create_index("ix_subscriptions_project_id", "subscriptions", ["project_id"])
    op.create_index("ix_subscriptions_version", "subscriptions", ["version"])
