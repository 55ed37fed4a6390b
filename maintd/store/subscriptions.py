"""Subscriptions as rows: who wants to be told, where, of what, under which secrets, and how that stands.

An operator's subscription has no project; a project's own belongs to it, and every question that a project asks is
asked with its id, so that another's is not there rather than forbidden. Whoever changes a row gives it a `version`
higher than any in the table: by their sum, every controller's dispatcher sees that there is something to read anew. By
how much it is higher is drawn, so that what is made after a deletion does not look like what was deleted.

It decides nothing: whether an endpoint is verified, given up or tried again is the dispatcher's affair, who may ask the
web's. Secrets are encrypted by the vault before they come near a statement; no row, repr or error shows one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import randbelow
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from maintd.errors import OperatorError
from maintd.store.engine import Database, NotUnique, chunks
from maintd.store.leases import take_turn
from maintd.store.subscription_tables import subscriptions
from maintd.store.vault import Vault

T = TypeVar("T")

VERSION_STEP: Final = 2**20
"""A version is higher than all before it by so much at most, at random."""

TURN: Final = "subscriptions"
"""Whoever counts subscriptions to make one more takes this turn."""

UNVERIFIED: Final = "unverified"
ACTIVE: Final = "active"
PAUSED: Final = "paused"
DISABLED: Final = "disabled"
STATES: Final = (UNVERIFIED, ACTIVE, PAUSED, DISABLED)

ENDPOINT_PREFIX: Final = "sub-"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription. `project_id` None: an operator's. `secrets`: in use, newest first, the older one until
    `previous_until`.

    `reason` says why it is unverified, paused or disabled, for people. `verify_due_at` is when verification is tried
    (again); `failing_since` when its unbroken failure began; `probe_at` when a disabled one is probed next, None where
    it asked for no more (410).
    """

    id: str
    project_id: str | None
    name: str
    url: str = field(repr=False)
    event_types: tuple[str, ...]
    servers: tuple[str, ...] = ()
    metadata_key: str | None = None
    state: str = UNVERIFIED
    reason: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    previous_until: float | None = None
    created_at: float = 0.0
    created_by: str | None = None
    updated_at: float = 0.0
    verified_at: float | None = None
    verify_due_at: float | None = None
    verify_tries: int = 0
    failing_since: float | None = None
    disabled_at: float | None = None
    probe_at: float | None = None
    version: int = 0

    @property
    def endpoint(self) -> str:
        """The name under which its deliveries are kept."""
        return ENDPOINT_PREFIX + self.id


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What `rekey` found: how many subscriptions' secrets it has written under the newest key, how many were under it
    already, and those of which a secret is under none of the keys; what else these have is under the newest."""

    written: int
    current: int
    unreadable: Sequence[Subscription]


class _Overtaken(Exception):
    """Ends a transaction whose row has changed meanwhile."""


class Subscriptions:
    """`store.subscriptions`. Safe to use from many threads and by many controllers at once.

    Without a vault, subscriptions can be listed and removed but neither made nor used: `vault` then raises. Who does
    not need secrets asks without them.
    """

    def __init__(self, database: Database, vault: Callable[[], Vault]) -> None:
        self._database = database
        self._vault = vault

    def version(self) -> tuple[int, int]:
        """(sum of the versions, number of rows): another pair than before means that something has changed."""
        return self._database.read(version_of)

    def add(self, subscription: Subscription, *, quota: int | None = None) -> Subscription | None:
        """Keep a new one; None, and nothing kept, where its project (or the operators) has `quota` already.

        Counting and keeping are one decision, whoever else makes one at the same moment.
        """
        values = self._values(subscription)

        def work(connection: Connection) -> Subscription | None:
            if quota is not None:
                take_turn(connection, TURN)
                if _count(connection, subscription.project_id) >= quota:
                    return None
            values["version"] = _next_version(connection)
            connection.execute(insert(subscriptions).values(values))
            return replace(subscription, version=values["version"])

        try:
            return self._database.write(work, durable=True)
        except NotUnique:  # the first turn ever, and another controller's too
            return self._database.write(work, durable=True)

    def change(self, subscription_id: str, how: Callable[[Subscription], Subscription]) -> Subscription | None:
        """Put `how(row)` in the row's place, in one transaction; what stands there then. None: there is none.

        `how` may be called again where the transaction has to be; it must only compute.
        """

        def work(connection: Connection) -> Subscription | None:
            row = connection.execute(select(subscriptions).where(subscriptions.c.id == subscription_id)).first()
            if row is None:
                return None
            was = self._of(row)
            changed = how(was)
            if changed == was:
                return was
            values = self._values(changed)
            values["version"] = _next_version(connection)
            mine = connection.execute(
                update(subscriptions)
                .where(subscriptions.c.id == subscription_id, subscriptions.c.version == was.version)
                .values(values)
            )
            if mine.rowcount == 0:
                raise _Overtaken
            return replace(changed, version=values["version"])

        return self._settled(work)

    def rekey(self) -> Rekeyed:
        """Encrypt every secret under the newest key that is not under it yet.

        One subscription in one transaction: what was done before an interruption stays done, and the next time goes on
        from there. Whoever has a copy of the rows need not read them anew: nothing that they say has changed.
        """
        vault, rekeyed, current, unreadable = self._vault(), 0, 0, []
        ids = select(subscriptions.c.id).order_by(subscriptions.c.id)
        for one in self._database.read(lambda connection: connection.execute(ids).scalars().all()):
            found = self._settled(partial(_rekeyed, one, vault))
            if found is None:
                continue  # it was deleted meanwhile
            written, lost = found
            rekeyed += written
            current += not written and not lost
            if lost and (row := self.get(one, secrets=False)) is not None:
                unreadable.append(row)
        return Rekeyed(rekeyed, current, unreadable)

    def _settled(self, work: Callable[[Connection], T]) -> T:
        """What `work` comes to, done again for as long as the row changes between its reading and its writing."""
        while True:
            try:
                return self._database.write(work, durable=True)
            except _Overtaken:
                continue

    def remove(self, subscription_id: str) -> bool:
        """Forget one; whether there was one. Its deliveries stay until their age."""
        statement = delete(subscriptions).where(subscriptions.c.id == subscription_id)
        return self._database.write(lambda connection: connection.execute(statement).rowcount > 0, durable=True)

    def get(self, subscription_id: str, *, secrets: bool = True) -> Subscription | None:
        statement = select(subscriptions).where(subscriptions.c.id == subscription_id)
        row = self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else self._of(row, secrets=secrets)

    def list(
        self, *, project_id: str | None = None, everybody: bool = False, after: str = "", limit: int = 100
    ) -> list[Subscription]:
        """By id and without secrets, from the one after `after`: a project's own, without one the operators', or
        everybody's."""
        s = subscriptions.c
        statement = select(subscriptions).where(s.id > after).order_by(s.id).limit(limit)
        if not everybody:
            statement = statement.where(s.project_id.is_(None) if project_id is None else s.project_id == project_id)
        return self._database.read(
            lambda connection: [self._of(row, secrets=False) for row in connection.execute(statement)]
        )

    def all(self, known: Callable[[str], Subscription | None] = lambda subscription_id: None) -> Sequence[Subscription]:
        """Every one by id, for the dispatcher. One whose secrets cannot be decrypted is there all the same, without
        any.

        `known(id)` is a copy or None; where it is of the row's version it is not read and decrypted again, which is
        what takes the time.
        """
        s = subscriptions.c

        def work(connection: Connection) -> Sequence[Subscription]:
            copies, changed = dict[str, Subscription](), list[str]()
            for row in connection.execute(select(s.id, s.version).order_by(s.id)):
                copy = known(row.id)
                if copy is not None and copy.version == row.version:
                    copies[row.id] = copy
                else:
                    changed.append(row.id)
            for ids in chunks(changed):
                these = select(subscriptions).where(s.id.in_(ids))
                copies |= {row.id: self._readable(row) for row in connection.execute(these)}
            return [copies[one] for one in sorted(copies)]

        return self._database.read(work)

    def states(self) -> Mapping[str, str]:
        """The state of every one, by id."""
        statement = select(subscriptions.c.id, subscriptions.c.state)
        return self._database.read(lambda connection: {row.id: row.state for row in connection.execute(statement)})

    def count(self, project_id: str | None) -> int:
        """How many a project, or with None the operators, have."""
        return self._database.read(lambda connection: _count(connection, project_id))

    # -- a row as a subscription

    def _values(self, one: Subscription) -> dict[str, Any]:
        vault = self._vault()
        secret, previous = (*one.secrets, None, None)[:2]
        return {
            "id": one.id,
            "project_id": one.project_id,
            "name": one.name,
            "url": one.url,
            "event_types": json.dumps(one.event_types),
            "servers": json.dumps(one.servers) if one.servers else None,
            "metadata_key": one.metadata_key,
            "state": one.state,
            "reason": one.reason,
            "secret": vault.encrypt(secret or ""),
            "previous_secret": vault.encrypt(previous) if previous else None,
            "previous_until": one.previous_until,
            "created_at": one.created_at,
            "created_by": one.created_by,
            "updated_at": one.updated_at,
            "verified_at": one.verified_at,
            "verify_due_at": one.verify_due_at,
            "verify_tries": one.verify_tries,
            "failing_since": one.failing_since,
            "disabled_at": one.disabled_at,
            "probe_at": one.probe_at,
            "version": one.version,
        }

    def _readable(self, row: Row[Any]) -> Subscription:
        try:
            return self._of(row)
        except OperatorError:  # there is no key, or another one
            return self._of(row, secrets=False)

    def _of(self, row: Row[Any], *, secrets: bool = True) -> Subscription:
        texts = [text for text in (row.secret, row.previous_secret) if text and secrets]
        return Subscription(
            id=row.id,
            project_id=row.project_id,
            name=row.name,
            url=row.url,
            event_types=tuple(json.loads(row.event_types)),
            servers=tuple(json.loads(row.servers)) if row.servers else (),
            metadata_key=row.metadata_key,
            state=row.state,
            reason=row.reason,
            secrets=tuple(self._vault().decrypt(text) for text in texts),
            previous_until=row.previous_until,
            created_at=row.created_at,
            created_by=row.created_by,
            updated_at=row.updated_at,
            verified_at=row.verified_at,
            verify_due_at=row.verify_due_at,
            verify_tries=row.verify_tries,
            failing_since=row.failing_since,
            disabled_at=row.disabled_at,
            probe_at=row.probe_at,
            version=row.version,
        )


def _rekeyed(subscription_id: str, vault: Vault, connection: Connection) -> tuple[bool, bool] | None:
    """Whether anything was written, and whether no key opens one of the secrets; None: there is no such row."""
    s = subscriptions.c
    asked = select(s.version, s.secret, s.previous_secret).where(s.id == subscription_id)
    row = connection.execute(asked).mappings().first()
    if row is None:
        return None
    values, lost = {}, False
    for column in ("secret", "previous_secret"):
        if text := row[column]:
            try:
                renewed = vault.renewed(text)
            except OperatorError:
                lost = True
                continue
            if renewed != text:
                values[column] = renewed
    if values:
        as_read = (s.id == subscription_id, s.version == row["version"])
        if connection.execute(update(subscriptions).where(*as_read).values(values)).rowcount == 0:
            raise _Overtaken
    return bool(values), lost


def version_of(connection: Connection) -> tuple[int, int]:
    """`version`, in a transaction of the caller's."""
    row = connection.execute(_VERSION).one()
    return int(row[0] or 0), int(row[1])


# The sum and not the highest: of two that are changed at once, the one that is seen first may be the higher one.
_VERSION: Final = select(func.sum(subscriptions.c.version), func.count())


def _next_version(connection: Connection) -> int:
    highest = connection.execute(select(func.max(subscriptions.c.version))).scalar() or 0
    return int(highest) + 1 + randbelow(VERSION_STEP)


def _count(connection: Connection, project_id: str | None) -> int:
    s = subscriptions.c
    mine = s.project_id.is_(None) if project_id is None else s.project_id == project_id
    return int(connection.execute(select(func.count()).select_from(subscriptions).where(mine)).scalar() or 0)
