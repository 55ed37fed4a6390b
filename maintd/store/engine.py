"""The way into the database: connections, transactions, and what every failure is called.

Everything that maintd/store does runs through `Database.read`, `.write` or `.reading`. Here SQLite is made to behave
(WAL, the write lock taken at the beginning of a transaction, writers of one process queueing in the process instead of
polling the file), transactions that collided are run again, and whatever a driver raises becomes StoreUnavailable,
OurFault or OperatorError. No text that leaves this module holds the connection's user, password or query.

SQLite's `synchronous` is FULL for a transaction that asks to be durable and NORMAL for every other. NORMAL survives the
death of the process, not of the machine: after a power cut the last transactions may be missing, in order, from the
end. What was merely observed is read again over the API; but an event that a receiver has already got must not vanish,
or it would be said again under another id. So what says or remembers something is durable, and a sync carries all that
was written before it.

It knows no table and decides nothing about the fleet.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from maintd.errors import OperatorError, OurFault, StoreUnavailable

T = TypeVar("T")

BUSY_S: Final = 5.0
"""How long a writer waits for another (SQLite's busy timeout, and the queue inside the process)."""

ANSWER_S: Final = 10.0
"""How long a server may be silent before its connection counts as lost. Twice that, for a connection of the pool and
the one in its place, is less than a thread may take for a turn."""

IDLE_S: Final = 30
"""After so long without a word within a transaction a server ends it: what it has locked is held for nobody when a
controller has lost its power or its network, and no standby could lead before."""

CHECKPOINT_PAGES: Final = 4000
"""How long SQLite's log grows before it is copied into the file: 16 MiB, some dozens of batches."""

TRIES: Final = 6
"""How often a transaction is begun before a conflict counts as a failure."""

_CHUNK: Final = 500
"""Most values in one IN list; SQLite's old limit is 999 parameters a statement."""
_PORTION: Final = 64
"""Most rows in one statement of SQLite's."""

_FAILURES: Final = (SQLAlchemyError, sqlite3.Error, UnicodeError, OverflowError)
"""What drivers raise: the last two for values that they cannot even send."""

_MYSQL_CONFLICTS: Final = frozenset({1020, 1205, 1213})  # changed since read, lock wait timeout, deadlock (and Galera)
_POSTGRESQL_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
_SQLITE_TROUBLE: Final = {
    sqlite3.SQLITE_PERM: "maintd may not use it; look at its owner and mode",
    sqlite3.SQLITE_BUSY: f"another program has kept it locked for more than {BUSY_S:g} s",
    sqlite3.SQLITE_LOCKED: f"another program has kept it locked for more than {BUSY_S:g} s",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_READONLY: "it is read-only; look at the owner and mode of the file and its directory, and the mount",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed; look at the disk and the kernel's log",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away and restore a copy, or start without one",
    sqlite3.SQLITE_FULL: "the disk is full; make room and maintd goes on by itself",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; look at its directory",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
}
_MYSQL_TROUBLE: Final = {
    1021: "the server's disk is full",
    1044: "the server refuses this user the database",
    1045: "the server refuses the user or the password",
    1047: "the cluster node is not ready for queries",
    1049: "the server has no database of this name",
    1114: "the server's disk is full",
    1290: "the server is read-only",
    1792: "the server is read-only",
    1836: "the server is read-only",
    2003: "the server cannot be reached",
    2006: "the connection was lost",
    2013: "the connection was lost",
}
_NO_TABLES: Final = "its tables are missing or not of this version; run `maintd db upgrade`"


class NotUnique(OurFault):
    """A row is there already, or another rule of the tables forbids what was written."""


class Unstorable(OurFault):
    """A value that this database cannot hold: too long for its column, or not text at all."""


class OutcomeUnknown(StoreUnavailable):
    """The connection broke while committing: the transaction may have been committed, or not."""


class Database:
    """One database, for any number of threads.

    `dialect` is sqlite, mysql (MariaDB too) or postgresql; `path` is SQLite's file. `label` names the database in
    texts, without anything secret.
    """

    def __init__(self, connection: str) -> None:
        url = _parse(connection)
        self.dialect: str = url.get_backend_name().replace("mariadb", "mysql")
        self.path = sqlite_file(connection)
        self.label = f"the database {self.path}" if self.path else f"the database {_where(url)}"
        self.mark = "?" if self.dialect == "sqlite" else "%s"
        self._queue = threading.Lock()
        self._lock_file: int | None = None
        self._inode: tuple[int, int] | None = None
        self.engine: Engine
        self._writing: Engine
        self._viewing: Engine
        if self.path is None:
            self.engine = self._writing = self._server(url)
            self._viewing = self.engine.execution_options(isolation_level="REPEATABLE READ")
        else:
            self._durable = False  # belongs to whoever has the turn
            _check_file(self.path)
            self._inode = _inode(self.path)
            self.engine = self._viewing = self._sqlite(url, self.path, writes=False, cache_kib=2000)
            # One connection writes, so that its cache stays good; SQLite would let only one at a time anyway.
            self._writing = self._sqlite(url, self.path, writes=True, cache_kib=32000, pool_size=1, max_overflow=0)

    # -- transactions

    def read(self, work: Callable[[Connection], T], *, as_one: bool = False) -> T:
        """Run `work`; nothing it writes is kept. SQLite shows it all of it as of one moment, servers each statement as
        of its own, unless it is to see all `as_one`."""
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                with self._begun(self._viewing if as_one else self.engine) as connection:
                    return work(connection)
            except _FAILURES as error:
                self._judge(error, tries_left)
        raise AssertionError("unreachable")

    def read_warm(self, work: Callable[[Connection], T]) -> T:
        """`read` for the fleet's writer, where its next transaction will find the pages that this one has read."""
        if self.path is None:
            return self.read(work)
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                with self._turn(), self._begun(self._writing) as connection:
                    return work(connection)
            except _FAILURES as error:
                self._judge(error, tries_left)
        raise AssertionError("unreachable")

    def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Run `work` in one transaction and commit it; run all of it again when it collided with another.

        `durable`: it survives a power cut from here on (see above; servers do as they are set). Raises
        StoreUnavailable with nothing committed, except as OutcomeUnknown; OurFault for what will never work; what
        `work` raises passes, with nothing committed.
        """
        for tries_left in range(TRIES - 1, -1, -1):
            committing = False
            try:
                with self._turn(durable), self._begun(self._writing) as connection:
                    result = work(connection)
                    committing = True
                    connection.commit()
                    return result
            except _FAILURES as error:
                self._judge(error, tries_left, committing=committing)
        raise AssertionError("unreachable")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read much from, row by row; errors are translated as in `read`, nothing is run again."""
        try:
            with self._begun(self.engine, stream=True) as connection:
                yield connection
        except _FAILURES as error:
            self._judge(error, 0)

    def ping(self) -> None:
        """StoreUnavailable unless the database answers, and (SQLite) is still the file that was opened."""
        self.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        if self.path is not None:
            now = _inode(self.path)
            if now != self._inode:
                self._inode = now
                self._dispose()
                raise StoreUnavailable(f"{self.label} was removed or replaced while it was in use.")

    def claim_file(self) -> None:
        """Take SQLite's file for this process, until `close`; OperatorError when another process has it.

        The lock lies beside the file, since SQLite's own locks are on it. Databases on a server need no claim.
        """
        if self.path is None or self._lock_file is not None:
            return
        name = f"{self.path}.lock"
        try:
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise OperatorError(f"The lock file {name} cannot be opened: {os.strerror(error.errno or 0)}.") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise OperatorError(f"The file {name} cannot be locked: {os.strerror(error.errno or 0)}.") from None
            raise OperatorError(
                f"Another maintd{f' (process {holder})' if holder else ''} uses {self.path}; stop it, or give this one"
                " a [database] connection of its own. Several controllers need MariaDB or PostgreSQL."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._lock_file = handle

    def close(self) -> None:
        """Close every connection and give the file back."""
        self._dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def run(self, connection: Connection, statement: str, row: Sequence[Any]) -> Any:
        """Execute the text of a statement, with `mark` for every value; a cursor or result with `rowcount`, rows."""
        if self.path is None:
            return connection.exec_driver_sql(statement, tuple(row))
        return _raw(connection).execute(statement, row)

    def run_many(self, connection: Connection, statement: Insert, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows. SQLite gets many in one statement: between two, another thread takes the processor."""
        if self.path is None:
            connection.exec_driver_sql(statement.text(1), [tuple(row) for row in rows])
            return
        raw = _raw(connection)
        for some in _portions(rows):
            raw.execute(statement.text(len(some)), [*chain.from_iterable(some)])

    def run_returning(self, connection: Connection, statement: Insert, rows: Sequence[Sequence[Any]]) -> set[Any]:
        """Like `run_many` in SQLite, for a statement that returns a value per row it took."""
        raw = _raw(connection)
        taken: set[Any] = set()
        for some in _portions(rows):
            taken.update(row[0] for row in raw.execute(statement.text(len(some)), [*chain.from_iterable(some)]))
        return taken

    def run_each(self, connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement once for every row."""
        if self.path is None:
            connection.exec_driver_sql(statement, [tuple(row) for row in rows])
        else:
            _raw(connection).executemany(statement, rows)

    def quoted(self, name: str) -> str:
        """A table's or column's name as this database wants it written."""
        return self.engine.dialect.identifier_preparer.quote(name)

    # -- the parts

    def _dispose(self) -> None:
        self.engine.dispose()
        if self._writing is not self.engine:
            self._writing.dispose()

    @contextmanager
    def _turn(self, durable: bool | None = None) -> Iterator[None]:
        """The process's place at SQLite's single write lock; SQLite itself would make the second one poll."""
        if self.path is None:
            yield
            return
        if not self._queue.acquire(timeout=BUSY_S):
            raise StoreUnavailable(f"Cannot use {self.label}: a transaction has lasted more than {BUSY_S:g} s.")
        if durable is not None:
            self._durable = durable
        try:
            yield
        finally:
            self._queue.release()

    @contextmanager
    def _begun(self, engine: Engine, *, stream: bool = False) -> Iterator[Connection]:
        with engine.connect() as connection:
            if stream:
                connection = connection.execution_options(stream_results=True, max_row_buffer=2000)
            connection.begin()  # undone when the connection is closed, unless committed
            yield connection

    def _judge(self, error: Exception, tries_left: int, *, committing: bool = False) -> None:
        """Return when the transaction should be begun again; raise what the failure is called otherwise."""
        if isinstance(error, (IntegrityError, sqlite3.IntegrityError)):
            raise NotUnique(f"A rule of the tables was broken: {_said(error)}.") from error
        if isinstance(error, (DataError, sqlite3.DataError, UnicodeError, OverflowError)):
            raise Unstorable(f"A value cannot be stored in {self.label}: {_said(error)}.") from error
        if isinstance(error, PoolTimeout):
            raise StoreUnavailable(f"Cannot use {self.label}: all connections are busy.") from error
        original = getattr(error, "orig", None) or error
        if tries_left and self._collided(original):
            time.sleep(random.uniform(0.2, 1.0) * 0.02 * 2 ** (TRIES - 1 - tries_left))
            return
        trouble = self._trouble(error, original)
        if trouble is None:
            raise OurFault(f"A statement was wrong for {self.label}: {_said(error)}.") from error
        if getattr(error, "connection_invalidated", False) and committing:
            raise OutcomeUnknown(f"Cannot use {self.label}: the connection broke during a commit.") from error
        if self.path is not None and _code(original) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._dispose()  # open the file anew when it is used next
        raise StoreUnavailable(f"Cannot use {self.label}: {trouble}.") from error

    def _collided(self, original: BaseException) -> bool:
        if self.dialect == "mysql":
            return _code(original) in _MYSQL_CONFLICTS
        if self.dialect == "postgresql":
            return getattr(original, "sqlstate", None) in _POSTGRESQL_CONFLICTS
        return False  # SQLite has waited BUSY_S already

    def _trouble(self, error: Exception, original: BaseException) -> str | None:
        """What is wrong with the database, in words; None when the statement is at fault."""
        said = str(original).lower()
        if self.dialect == "sqlite":
            code = _code(original)
            if code == sqlite3.SQLITE_ERROR and ("no such table" in said or "no such column" in said):
                return _NO_TABLES
            if code in _SQLITE_TROUBLE:
                return _SQLITE_TROUBLE[code]
            wrong = code == sqlite3.SQLITE_ERROR or isinstance(original, sqlite3.ProgrammingError)
            return None if wrong else _said(error)
        if self.dialect == "mysql":
            code = _code(original)
            if code in (1054, 1146):
                return _NO_TABLES
            if code in _MYSQL_CONFLICTS:
                return f"transactions kept colliding ({TRIES} times)"
            if code in _MYSQL_TROUBLE:
                return _MYSQL_TROUBLE[code]
        else:
            state = getattr(original, "sqlstate", None) or ""
            if state in ("42P01", "42703"):
                return _NO_TABLES
            if state in _POSTGRESQL_CONFLICTS:
                return f"transactions kept colliding ({TRIES} times)"
            if state == "53100":
                return "the server's disk is full"
            if state == "25006":
                return "the server is read-only"
            if state[:2] == "28":
                return "the server refuses the user or the password"
            if state == "3D000":
                return "the server has no database of this name"
        if getattr(error, "connection_invalidated", False):
            return "the connection was lost"
        name = type(error).__name__
        if name == "OperationalError" and not getattr(original, "sqlstate", None) and self.dialect == "postgresql":
            return "the server cannot be reached, or refused the connection"
        return _said(error) if name in ("OperationalError", "InterfaceError", "InternalError") else None

    def _sqlite(self, url: URL, path: Path, *, writes: bool, cache_kib: int, **pool: int) -> Engine:
        engine = create_engine(
            url.set(database=str(path)),
            hide_parameters=True,
            pool_timeout=BUSY_S,
            connect_args={"isolation_level": None, "timeout": BUSY_S, "cached_statements": 512},
            **pool,
        )
        pragmas = (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            f"cache_size=-{cache_kib}",
        )

        @event.listens_for(engine, "connect")
        def connected(raw: Any, record: Any) -> None:
            for pragma in pragmas:
                raw.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def begun(connection: Connection) -> None:
            raw = _raw(connection)
            if writes and connection.info.get("durable") is not self._durable:
                connection.info["durable"] = self._durable  # cannot be set once a transaction has begun
                raw.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _server(self, url: URL) -> Engine:
        arguments: dict[str, Any] = {}
        if self.dialect == "mysql":
            url = url.set(drivername=f"{url.get_backend_name()}+pymysql") if "+" not in url.drivername else url
            if "charset" not in url.query:
                url = url.update_query_dict({"charset": "utf8mb4"})
            if url.get_driver_name() == "pymysql":
                arguments = {
                    "connect_timeout": 5,
                    "read_timeout": ANSWER_S,
                    "write_timeout": ANSWER_S,
                    "init_command": f"SET SESSION innodb_lock_wait_timeout = 5, wait_timeout = {IDLE_S}",
                }
        else:
            url = url.set(drivername="postgresql+psycopg") if "+" not in url.drivername else url
            if url.get_driver_name() == "psycopg":
                arguments = {
                    "connect_timeout": 5,
                    "tcp_user_timeout": int(ANSWER_S * 1000),
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 2,
                }
        try:
            engine = create_engine(
                url,
                hide_parameters=True,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                pool_recycle=1800,
                pool_timeout=BUSY_S,
                max_overflow=10,
                connect_args=arguments,
            )
        except ImportError:
            raise OperatorError(
                f"The driver for {self.label} is not installed: install maintd[{self.dialect}]."
            ) from None
        if self.dialect == "postgresql":

            @event.listens_for(engine, "connect")
            def connected(raw: Any, record: Any) -> None:
                with raw.cursor() as cursor:  # not as a parameter of the connection, which pgbouncer refuses
                    cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")
                    cursor.execute("SET lock_timeout = '5s'")
                raw.commit()

        return engine


class Insert:
    """The text of an INSERT for any number of rows, with what is to happen (`otherwise`) where a row is there."""

    def __init__(
        self, database: Database, table: str, columns: Sequence[str], otherwise: str = "", begin: str = ""
    ) -> None:
        quoted = database.quoted
        self._head = begin or f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, columns))}) VALUES "  # noqa: S608 - names are ours
        self._row = f"({', '.join([database.mark] * len(columns))})"
        self._tail = f" {otherwise}" if otherwise else ""
        self._texts: dict[int, str] = {}

    def text(self, rows: int) -> str:
        found = self._texts.get(rows)
        if found is None:
            found = self._texts[rows] = self._head + ", ".join([self._row] * rows) + self._tail
        return found


def chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    """The values, as many at a time as may stand in one IN list."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def _portions(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """All rows, in portions of few different sizes, so that few statements have to be prepared and kept."""
    start = 0
    size = _PORTION
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def _parse(connection: str) -> URL:
    """The URL of an operator's connection; an OperatorError that quotes nothing of it when it is none."""
    try:
        url = make_url(connection)
        backend = url.get_backend_name()
        url.get_dialect()
    except (ArgumentError, ValueError):
        raise OperatorError(
            "[database] connection is not a database URL; write sqlite:////var/lib/maintd/maintd.sqlite,"
            " mysql+pymysql://USER:PASSWORD@HOST/NAME or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
        ) from None
    except (NoSuchModuleError, ImportError):
        backend = ""
    if backend not in ("sqlite", "mysql", "mariadb", "postgresql"):
        raise OperatorError(
            "[database] connection names a kind of database that maintd does not know; it knows sqlite, mysql+pymysql"
            " (MariaDB too) and postgresql+psycopg."
        ) from None
    if backend == "sqlite" and (not url.database or url.database == ":memory:" or url.database.startswith("file:")):
        raise OperatorError("[database] connection names no file; write sqlite:////var/lib/maintd/maintd.sqlite.")
    return url


def sqlite_file(connection: str) -> Path | None:
    """The file that a connection's URL names; None where it is on a server. Nothing is opened."""
    url = _parse(connection)
    return Path(os.path.abspath(url.database or "")) if url.get_backend_name() == "sqlite" else None


def _where(url: URL) -> str:
    port = f":{url.port}" if url.port else ""
    return f"{url.database or '(unnamed)'} at {url.host or 'the local socket'}{port} ({url.get_backend_name()})"


def _check_file(path: Path) -> None:
    """SQLite's file can be made and written, or an OperatorError says why not."""
    directory = path.parent
    remedy = "make it, or change [database] connection"
    if not directory.is_dir():
        raise OperatorError(f"The directory {directory} of the database {path} does not exist: {remedy}.")
    if path.is_dir():
        raise OperatorError(f"The database {path} is a directory: name a file in [database] connection.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OperatorError(
            f"The directory {directory} of the database {path} is not writable for this user (SQLite keeps files beside"
            " the database): change its owner or mode, or [database] connection."
        )
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise OperatorError(f"The database {path} is not readable and writable for this user: change owner or mode.")
    if not path.exists():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o640))
        except OSError as error:
            raise OperatorError(f"The database {path} cannot be made: {os.strerror(error.errno or 0)}.") from None


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _raw(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def _code(original: BaseException) -> int | None:
    """SQLite's primary or MySQL's error number."""
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF
    first = original.args[0] if original.args else None
    return first if isinstance(first, int) else None


def _said(error: Exception) -> str:
    """The driver's own words, on one line, without SQL and without parameters."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, UnicodeError):
        return "a text is not Unicode"
    return " ".join(str(original).split())[:300].rstrip(".")
