"""What is kept of the looks at a live migration, and of each time that one was stalled."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

_name = sa.String(255)
_short = sa.String(32)
_long = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _create(name: str, *columns: Any) -> None:
    op.create_table(
        name,
        sa.Column("key", _name, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("key", name=f"pk_{name}"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )
    op.create_index(f"ix_{name}_ended_at", name, ["ended_at"])


def _must(name: str, type_: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def upgrade() -> None:
    for name in ("unlisted_at", "worked_from"):
        op.add_column("migrations", sa.Column(name, sa.Double))
    for name in ("servers", "migrations"):
        op.add_column(name, sa.Column("memory_mb", sa.BigInteger))
    _create(
        "curves",
        _must("server_id", _name),
        sa.Column("source", _name),
        sa.Column("destination", _name),
        _must("unit", _short),
        *(_must(name, sa.Double) for name in ("total", "disk_total", "began_at", "changed_at")),
        _must("looks", sa.Integer),
        sa.Column("copying_from", sa.Double),
        _must("copied_before", sa.Double),
        *(sa.Column(name, sa.Double) for name in ("rate", "bandwidth", "disk_bandwidth", "first_pass_ended_at")),
        _must("points", _long),
        _must("passes", _long),
        _must("falls", sa.Text),
        sa.Column("falling", sa.Text),
        _must("fall_looks", sa.Integer),
        sa.Column("block", sa.Text),
        sa.Column("flat_since", sa.Double),
        _must("kept_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", _name),
    )
    _create(
        "stalls",
        _must("migration_key", _name),
        _must("server_id", _name),
        _must("kind", _short),
        _must("reason", _short),
        _must("since", sa.Double),
        _must("said_at", sa.Double),
        sa.Column("source", _name),
        sa.Column("destination", _name),
        _must("published", sa.Boolean),
        sa.Column("resumed_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", _name),
        sa.Column("blocked_by", _name),
        sa.Column("evidence", _long),
    )
    op.create_index("ix_stalls_migration_key", "stalls", ["migration_key"])
