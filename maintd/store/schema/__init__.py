"""The tables' history: Alembic revisions, run from within the program.

There is no alembic.ini and no command line of Alembic's: `upgrade` and `versions` are called by the store, and work
from wherever maintd is installed. A revision's file name says when it may run: *pre* ones only add, and the maintd
before them still works on what they make, so they run before the new maintd is started; *post* ones take away what no
running maintd uses any more, and run after the last old one is gone.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from maintd.errors import OperatorError


def upgrade(connection: Connection, label: str) -> None:
    """Bring the tables to what this maintd needs, in the caller's transaction; OperatorError when they are newer."""
    current, _ = versions(connection, label)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def versions(connection: Connection, label: str) -> tuple[str | None, str]:
    """(the revision the tables are at: None for an empty database, the revision this maintd needs)."""
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head() or ""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {revision.revision for revision in scripts.walk_revisions()}:
        raise OperatorError(
            f"The tables of {label} were made by a newer maintd (revision {current}; this one knows up to {head}):"
            " install that version, or give this one a database of its own."
        )
    return current, head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
