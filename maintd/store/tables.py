"""The one MetaData that every table of maintd hangs on, and the tables of everything but deliveries.

Constraints are named by rule, so that a schema revision can drop or alter them on any database. Every entity of
`domain/model.py` has a table whose columns bear the names of its fields. What nests (a finding, progress) is JSON text.
Times are epoch seconds in DOUBLE: DATETIME drops the fractions on one database and the zone on another. What is part of
a key or indexed has a length, because MariaDB must know it; long words of Nova's (reasons, faults) are not ours to cut.

Nothing here creates a table: the revisions in `schema/` do, and a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NAME: Final = 255
"""Longest host name, id or other part of a key. Nova's own columns are as wide."""

MYSQL_OPTIONS: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",  # names are compared as bytes, as Nova's host names are by everything else
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}

Name: Final = String(NAME)
Long: Final = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Bytes: Final = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
Serial: Final = BigInteger().with_variant(Integer(), "sqlite")  # in SQLite only INTEGER keys are the row's own place


def _table(name: str, *items: Any, **options: Any) -> Table:
    return Table(name, metadata, *items, **MYSQL_OPTIONS, **options)


def _flag(name: str, **options: Any) -> Column[bool]:
    return Column(name, Boolean, nullable=options.pop("nullable", False), **options)


hosts = _table(
    "hosts",
    Column("name", Name, primary_key=True),
    Column("service_uuid", Name),
    _flag("disabled"),
    Column("disabled_reason", Text),
    _flag("forced_down"),
    _flag("up", nullable=True),
    Column("down_since", Double),
    Column("last_down_from", Double),
    Column("last_down_to", Double),
    _flag("cell_unknown"),
    Column("seen_at", Double, nullable=False),
    Column("versioned_at", Double, nullable=False),
    Column("closed_at", Double),
    _flag("found"),
    _flag("quiet"),
    _flag("history_unknown"),
    _flag("emptied"),
    Column("emptied_at", Double),
    Column("drain_id", Name),
    _flag("said_up", nullable=True),
    Column("said_up_at", Double),
    Column("say_up_at", Double),
    Column("heard_on", Name),
    Column("departures", Long),  # JSON, null where there are none
    Column("nodes", Long, nullable=False),  # JSON: a list of uuids
    Column("finding", Long),  # JSON
)

servers = _table(
    "servers",
    Column("server_id", Name, primary_key=True),
    Column("project_id", Name),
    Column("name", Text),
    Column("host", Name, index=True),
    Column("landing", Name),
    Column("vm_state", Name),
    Column("task_state", Name),
    Column("updated_at", Double),
    Column("versioned_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("deleted_at", Double),
    Column("fault", Text),
    Column("since", Double),
    Column("failed_at", Double),
    Column("hindrance", Name),
    Column("memory_mb", BigInteger),
    Column("metadata_keys", Long),  # JSON, null where there are none
)

migrations = _table(
    "migrations",
    Column("key", Name, primary_key=True),
    Column("server_id", Name, nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("source", Name),
    Column("destination", Name),
    Column("status", Name),
    Column("migration_id", BigInteger),
    Column("migration_uuid", Name),
    Column("project_id", Name),
    Column("request_id", Name),
    Column("begun_at", Double, nullable=False),
    Column("emitted_at", Double, nullable=False),
    _flag("stepped"),
    _flag("said_started"),
    _flag("aborted"),
    _flag("post_copy"),
    Column("progress", Text),  # JSON
    Column("percent", Integer),
    Column("updated_at", Double),
    Column("sampled_at", Double),
    Column("moved_at", Double, nullable=False),
    Column("stalled", Name),
    Column("stalled_since", Double),
    Column("stall_at", Double),
    Column("verdict", String(32)),
    Column("verdict_at", Double),
    Column("verdict_because", Text),
    Column("unlisted_at", Double),
    Column("worked_from", Double),
    Column("memory_mb", BigInteger),
    Column("asked_by", Name),
    Column("ended_at", Double, index=True),
    Column("fault", Text),
    _flag("is_open", index=True),  # not a field: the phase is not final
)

curves = _table(
    "curves",
    Column("key", Name, primary_key=True),
    Column("server_id", Name, nullable=False),
    Column("source", Name),
    Column("destination", Name),
    Column("unit", String(32), nullable=False),
    Column("total", Double, nullable=False),
    Column("disk_total", Double, nullable=False),
    Column("began_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("looks", Integer, nullable=False),
    Column("copying_from", Double),
    Column("copied_before", Double, nullable=False),
    Column("rate", Double),
    Column("bandwidth", Double),
    Column("disk_bandwidth", Double),
    Column("first_pass_ended_at", Double),
    Column("points", Long, nullable=False),  # JSON: an array each, as passes
    Column("passes", Long, nullable=False),
    Column("falls", Text, nullable=False),  # JSON, as falling and block
    Column("falling", Text),
    Column("fall_looks", Integer, nullable=False),
    Column("block", Text),
    Column("flat_since", Double),
    Column("kept_at", Double, nullable=False),
    Column("ended_at", Double, index=True),
    Column("outcome", Name),
)

stalls = _table(
    "stalls",
    Column("key", Name, primary_key=True),
    Column("migration_key", Name, nullable=False, index=True),
    Column("server_id", Name, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("since", Double, nullable=False),
    Column("said_at", Double, nullable=False),
    Column("source", Name),
    Column("destination", Name),
    _flag("published"),
    Column("resumed_at", Double),
    Column("ended_at", Double, index=True),
    Column("outcome", Name),
    Column("blocked_by", Name),
    Column("evidence", Long),  # JSON
)

drains = _table(
    "drains",
    Column("drain_id", Name, primary_key=True),
    Column("host", Name, nullable=False, index=True),
    Column("started_at", Double, nullable=False),
    Column("reason", Text),
    _flag("forced_down"),
    _flag("found"),
    _flag("requested"),
    Column("servers_total", Integer),
    Column("moved_at", Double, nullable=False),
    Column("stalled_at", Double),
    Column("ended_at", Double, index=True),
    Column("outcome", Name),
    _flag("removed"),
    _flag("removal", server_default=false()),
)

residue = _table(
    "residue",
    Column("host", Name, primary_key=True),
    Column("server_id", Name, primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("since", Double, nullable=False),
    Column("service_uuid", Name),
    Column("migration_uuid", Name),
    Column("detail", Text),
    Column("cleared_at", Double, index=True),
    Column("cleared_by", Text),
    Column("project_id", Name),
)

notices = _table(
    "notices",
    Column("server_id", Name, primary_key=True),
    Column("project_id", Name, nullable=False, index=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("drain_id", Name),
    Column("maintenance_since", Double),
    _flag("removal"),
    Column("move_key", Name),
    Column("move_kind", Name),
    Column("move_since", Double),
    Column("asked_for_by", String(32), nullable=False),
    Column("stalled", String(32)),
    Column("lost_since", Double),
    _flag("forced_down"),
    _flag("widespread"),
    Column("metadata_keys", Long),  # JSON, null where there are none
)

projects = _table(
    "projects",
    Column("project_id", Name, primary_key=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("visible_at", Double, nullable=False),
)

buses = _table(
    "buses",
    Column("name", Name, primary_key=True),
    _flag("connected"),
    Column("blind_from", Double),
    Column("reconnected_at", Double),
    Column("last_message_at", Double),
    Column("deaf_from", Double),
    Column("listen_by", Double),
)

knowledge = _table(
    "knowledge",
    Column("memory_since", Double, nullable=False),
    Column("baselined_at", Double),
    Column("alive_at", Double),
    Column("name", String(32), primary_key=True),  # not a field: there is one row, "fleet"
)

leases = _table(
    "leases",
    Column("name", String(64), primary_key=True),
    Column("owner", Name, nullable=False),  # "" once given back
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False),
    # Counts the transactions written under the lease. Every one of them changes the row, which makes it collide with
    # a takeover of the lease on any database, a Galera cluster included.
    Column("commits", BigInteger, nullable=False),
)

events = _table(
    "events",
    Column("sequence", Serial, primary_key=True, autoincrement=False),
    Column("id", Name, nullable=False, unique=True),
    Column("type", Name, nullable=False),
    Column("subject", Name, nullable=False),
    Column("time", Double, nullable=False, index=True),
    Column("body", Long, nullable=False),
    _flag("fanned_out"),
    # Of a tenant event: whose it is, its number among this project's, and when it may be seen. NULL for operators'.
    Column("project_id", Name),
    Column("incarnation", BigInteger),
    Column("visible_at", Double),
    Index(None, "fanned_out", "sequence"),
    Index(None, "project_id", "incarnation"),
)

message_ids = _table(
    "message_ids",
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False, index=True),
    Column("digests", Bytes, nullable=False),  # of one batch, 16 bytes each
    sqlite_autoincrement=True,  # a number is never used twice: who reads on from the last one misses nothing
)

quarantine = _table(
    "quarantine",
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("bus", Name, nullable=False),
    Column("reason", Name, nullable=False),
    Column("event_type", Name),
    Column("message_id", Name),
    Column("size", Integer, nullable=False),
    Column("body", Bytes, nullable=False),
    Index(None, "at", "size"),
)
