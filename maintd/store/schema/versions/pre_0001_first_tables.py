"""The first tables: the fleet, its lease, the event log, deliveries, message ids and quarantine."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_name = sa.String(255)
_long = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_bytes = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _create(
    name: str, *columns: Any, key: tuple[str, ...], indices: tuple[tuple[str, ...], ...] = (), **options: Any
) -> None:
    op.create_table(
        name,
        *columns,
        sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
        **options,
    )
    for index in indices:
        op.create_index(f"ix_{name}_{'_'.join(index)}", name, list(index))


def _must(name: str, type_: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False, **options)


def upgrade() -> None:
    _create(
        "hosts",
        _must("name", _name),
        sa.Column("service_uuid", _name),
        _must("disabled", sa.Boolean),
        sa.Column("disabled_reason", sa.Text),
        _must("forced_down", sa.Boolean),
        sa.Column("up", sa.Boolean),
        sa.Column("down_since", sa.Double),
        sa.Column("last_down_from", sa.Double),
        sa.Column("last_down_to", sa.Double),
        _must("cell_unknown", sa.Boolean),
        _must("seen_at", sa.Double),
        _must("versioned_at", sa.Double),
        sa.Column("closed_at", sa.Double),
        _must("found", sa.Boolean),
        _must("quiet", sa.Boolean),
        _must("history_unknown", sa.Boolean),
        _must("emptied", sa.Boolean),
        sa.Column("emptied_at", sa.Double),
        sa.Column("drain_id", _name),
        _must("nodes", _long),
        sa.Column("finding", _long),
        key=("name",),
    )
    _create(
        "servers",
        _must("server_id", _name),
        sa.Column("project_id", _name),
        sa.Column("name", sa.Text),
        sa.Column("host", _name),
        sa.Column("landing", _name),
        sa.Column("vm_state", _name),
        sa.Column("task_state", _name),
        sa.Column("updated_at", sa.Double),
        _must("versioned_at", sa.Double),
        _must("seen_at", sa.Double),
        sa.Column("deleted_at", sa.Double),
        sa.Column("fault", sa.Text),
        key=("server_id",),
        indices=(("host",),),
    )
    _create(
        "migrations",
        _must("key", _name),
        _must("server_id", _name),
        _must("kind", sa.String(32)),
        _must("phase", sa.String(32)),
        sa.Column("source", _name),
        sa.Column("destination", _name),
        sa.Column("status", _name),
        sa.Column("migration_id", sa.BigInteger),
        sa.Column("migration_uuid", _name),
        sa.Column("project_id", _name),
        sa.Column("request_id", _name),
        _must("begun_at", sa.Double),
        _must("emitted_at", sa.Double),
        _must("stepped", sa.Boolean),
        _must("said_started", sa.Boolean),
        _must("aborted", sa.Boolean),
        _must("post_copy", sa.Boolean),
        sa.Column("progress", sa.Text),
        sa.Column("percent", sa.Integer),
        sa.Column("updated_at", sa.Double),
        sa.Column("sampled_at", sa.Double),
        _must("moved_at", sa.Double),
        sa.Column("stalled", _name),
        sa.Column("stalled_since", sa.Double),
        sa.Column("stall_at", sa.Double),
        sa.Column("verdict", sa.String(32)),
        sa.Column("verdict_at", sa.Double),
        sa.Column("verdict_because", sa.Text),
        sa.Column("ended_at", sa.Double),
        sa.Column("fault", sa.Text),
        _must("is_open", sa.Boolean),
        key=("key",),
        indices=(("server_id",), ("ended_at",), ("is_open",)),
    )
    _create(
        "drains",
        _must("drain_id", _name),
        _must("host", _name),
        _must("started_at", sa.Double),
        sa.Column("reason", sa.Text),
        _must("forced_down", sa.Boolean),
        _must("found", sa.Boolean),
        _must("requested", sa.Boolean),
        sa.Column("servers_total", sa.Integer),
        _must("moved_at", sa.Double),
        sa.Column("stalled_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", _name),
        _must("removed", sa.Boolean),
        key=("drain_id",),
        indices=(("host",), ("ended_at",)),
    )
    _create(
        "residue",
        _must("host", _name),
        _must("server_id", _name),
        _must("kind", sa.String(64)),
        _must("since", sa.Double),
        sa.Column("service_uuid", _name),
        sa.Column("migration_uuid", _name),
        sa.Column("detail", sa.Text),
        sa.Column("cleared_at", sa.Double),
        sa.Column("cleared_by", sa.Text),
        key=("host", "server_id", "kind"),
        indices=(("cleared_at",),),
    )
    _create(
        "buses",
        _must("name", _name),
        _must("connected", sa.Boolean),
        sa.Column("blind_from", sa.Double),
        sa.Column("reconnected_at", sa.Double),
        sa.Column("last_message_at", sa.Double),
        key=("name",),
    )
    _create(
        "knowledge",
        _must("memory_since", sa.Double),
        sa.Column("baselined_at", sa.Double),
        _must("name", sa.String(32)),
        key=("name",),
    )
    _create(
        "leases",
        _must("name", sa.String(64)),
        _must("owner", _name),
        _must("token", sa.BigInteger),
        _must("expires_at", sa.Double),
        _must("commits", sa.BigInteger),
        key=("name",),
    )
    _create(
        "events",
        _must("sequence", _serial, autoincrement=False),
        _must("id", _name),
        _must("type", _name),
        _must("subject", _name),
        _must("time", sa.Double),
        _must("body", _long),
        _must("fanned_out", sa.Boolean),
        sa.UniqueConstraint("id", name="uq_events_id"),
        key=("sequence",),
        indices=(("time",), ("fanned_out", "sequence")),
    )
    _create(
        "message_ids",
        _must("id", _serial, autoincrement=True),
        _must("at", sa.Double),
        _must("digests", _bytes),
        key=("id",),
        indices=(("at",),),
        sqlite_autoincrement=True,
    )
    _create(
        "quarantine",
        _must("id", _serial, autoincrement=True),
        _must("at", sa.Double),
        _must("bus", _name),
        _must("reason", _name),
        sa.Column("event_type", _name),
        sa.Column("message_id", _name),
        _must("size", sa.Integer),
        _must("body", _bytes),
        key=("id",),
        indices=(("at", "size"),),
    )
    _create(
        "deliveries",
        _must("id", _serial, autoincrement=True),
        _must("endpoint", sa.String(64)),
        _must("event_id", sa.String(64)),
        _must("event_type", sa.String(128)),
        _must("subject", _name),
        _must("sequence", sa.BigInteger),
        _must("state", sa.String(16)),
        sa.Column("due_at", sa.Double),
        sa.Column("lease_owner", sa.String(128)),
        _must("attempts", sa.Integer),
        _must("created_at", sa.Double),
        sa.Column("first_failed_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.UniqueConstraint("event_id", "endpoint", name="uq_deliveries_event_id_endpoint"),
        key=("id",),
        indices=(
            ("endpoint", "subject", "state", "sequence"),
            ("due_at", "endpoint"),
            ("endpoint", "due_at"),
            ("state", "finished_at"),
        ),
    )
    _create(
        "delivery_attempts",
        _must("id", _serial, autoincrement=True),
        _must("delivery_id", _serial),
        _must("at", sa.Double),
        _must("duration_s", sa.Double),
        sa.Column("status", sa.Integer),
        _must("outcome", sa.String(32)),
        _must("detail", sa.Text),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name="fk_delivery_attempts_delivery_id_deliveries",
            ondelete="CASCADE",
        ),
        key=("id",),
        indices=(("delivery_id",),),
    )
    _create(
        "disabled_endpoints",
        _must("endpoint", sa.String(64)),
        _must("disabled_at", sa.Double),
        _must("reason", sa.Text),
        key=("endpoint",),
    )
