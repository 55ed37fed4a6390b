"""Revisions and tables agree, and a database of another version is refused with a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

import maintd.store.delivery_tables
import maintd.store.subscription_tables  # noqa: F401 - for their tables
from maintd.clock import ManualClock
from maintd.errors import OperatorError
from maintd.store import Store, open_store, schema
from maintd.store.tables import metadata


def test_revisions_make_the_tables(store: Store) -> None:
    """What the revisions make is what the tables say: columns, types, nullability, keys and indices."""

    def differ(
        context: object, column: object, wanted: object, default: str, said: object, rendered: str
    ) -> bool | None:
        """MariaDB says 0 of what was made false; of all else Alembic judges."""
        return False if (default, rendered) == ("0", "false") else None

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": differ}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert [] == store._database.read(differences)


def test_upgrade_is_repeatable(connection: str, clock: ManualClock) -> None:
    """An empty database has no version; upgrading it makes it current, and doing so again changes nothing."""
    store = open_store(connection, clock)
    current, head = store.version()
    assert current is None
    store.upgrade()
    store.upgrade()

    assert (head, head) == store.version()
    store.close()


def test_tables_of_another_version_are_refused(connection: str, clock: ManualClock) -> None:
    """A database without tables asks for `maintd db upgrade`; a newer maintd's is never touched."""
    with pytest.raises(OperatorError, match="maintd db upgrade"):
        open_store(connection, clock, tables="current")
    store = open_store(connection, clock)
    store.upgrade()
    store._database.write(lambda made: made.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    for refused in (store.upgrade, store.version, store.require_current):
        with pytest.raises(OperatorError, match="newer maintd"):
            refused()
    with pytest.raises(OperatorError, match="newer maintd"):
        open_store(connection, clock, tables="upgrade")
    store.close()


def test_the_daemon_upgrades_only_its_own_file(connection: str, clock: ManualClock) -> None:
    """At start SQLite's tables are made; a server's are an operator's decision."""
    if connection.startswith("sqlite"):
        store = open_store(connection, clock, tables="upgrade")
        assert store.version()[0] == store.version()[1]
        store.close()
    else:
        with pytest.raises(OperatorError, match="maintd db upgrade"):
            open_store(connection, clock, tables="upgrade")


def test_revisions_say_when_they_run() -> None:
    """Every revision's file is named pre or post, and a number in the order of their history."""
    names = sorted(path.stem for path in (Path(schema.__file__).parent / "versions").glob("p*.py"))

    assert names and all(re.fullmatch(r"(pre|post)_\d{4}_[a-z_]+", name) for name in names)


def test_an_installed_package_can_upgrade(tmp_path: Path) -> None:
    """Revisions are found from wherever the package lies and whatever the working directory is, percent signs too."""
    place = tmp_path / "100% here"
    place.mkdir()
    (place / "maintd").symlink_to(Path(schema.__file__).parents[2])
    program = (
        "from maintd.store import open_store; from maintd.clock import SystemClock;"
        f"s = open_store('sqlite:///{tmp_path}/x.sqlite', SystemClock()); s.upgrade(); print(s.version()[0])"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd="/", env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=False)

    assert (0, "0005\n") == (ran.returncode, ran.stdout), ran.stderr
