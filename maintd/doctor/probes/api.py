"""Asks Nova and Placement: once everything that maintd asks, and later what has changed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from maintd.clock import Clock
from maintd.config import CloudConfig
from maintd.doctor.facts import ApiFacts, Changed, Compute, Version
from maintd.errors import OperatorError
from maintd.nova.api import COMPUTE, HOST_FIELD, NEEDED, PLACEMENT, WANTED, NovaApi
from maintd.nova.notifications.envelope import read_time
from maintd.nova.rights import try_rights
from maintd.nova.shown import Reading

EARLY_S = 1.0
"""What changed in the first second of listening may have been told before it."""
LATE_S = 2.0
"""What changed may be told so much later, so the question is asked that long before listening ends."""
GROSS_S = 2.0


class ApiProbe:
    """Two looks at one cloud, within `give_up_s` of asking each."""

    def __init__(self, cloud: CloudConfig, clock: Clock, give_up_s: float) -> None:
        self._clock = clock
        self._give_up_s = give_up_s
        self._until = 0.0
        self._cloud = cloud
        self._api: NovaApi | None = None
        self.facts = ApiFacts(timeout_s=cloud.timeout_s)

    def look(self) -> ApiFacts:
        """Versions, rights, computes, clocks."""
        self._until = self._clock.monotonic() + self._give_up_s
        try:
            api = self._api = NovaApi(self._cloud, self._clock, pace=self._pace)
        except OperatorError as wrong:
            self.facts = replace(self.facts, trouble=str(wrong))
            return self.facts
        versions = []
        for service in (COMPUTE, PLACEMENT):
            spoken, trouble = api.spoken(service)
            versions.append(Version(service, spoken, NEEDED[service], WANTED[service], trouble, api.endpoint(service)))
        if all(version.trouble is not None for version in versions):
            self.facts = replace(self.facts, trouble=versions[0].trouble)
            return self.facts
        tried = []
        for one in try_rights(api) if versions[0].trouble is None else ():
            tried.append(one)
            if self._late():
                break
        self.facts = replace(
            self.facts,
            versions=tuple(versions),
            tried=tuple(tried),
            computes=self._computes(api) if versions[0].trouble is None else (),
            clocks=tuple(api.clocks.values()),
        )
        return self.facts

    def changed(self, since: float) -> ApiFacts:
        """With what has changed since a moment of our clock, as far as that can be told by Nova's.

        A server that keeps changing shows its last change only: so this is asked while there is still somebody who
        listens to what was told of it, and not afterwards.
        """
        if self._api is None or self.facts.trouble is not None:
            return self.facts
        self._until = self._clock.monotonic() + self._give_up_s
        ahead_s = _ahead(self._api.clocks.get(COMPUTE))
        until = self._clock.now()
        rows: list[Changed] = []
        for answer in self._api.servers(changes_since=since + ahead_s):
            if answer.error is not None:
                return self.facts
            rows += _changed(answer.body["servers"], since + ahead_s + EARLY_S, until + ahead_s)
        self.facts = replace(self.facts, changed=tuple(rows))
        return self.facts

    def _computes(self, api: NovaApi) -> tuple[Compute, ...]:
        answer = next(api.services())
        rows: Sequence[dict[str, Any]] = answer.body["services"] if answer.error is None else ()
        return tuple(_compute(row) for row in rows)

    def _late(self) -> bool:
        return self._clock.monotonic() >= self._until

    def _pace(self, purpose: str | None) -> bool:
        return not self._late()


def _compute(row: dict[str, Any]) -> Compute:
    return Compute(
        host=str(row.get("host")),
        up=row.get("state") == "up",
        enabled=row.get("status") == "enabled",
        unknown=row.get("status") == "UNKNOWN",
        updated_at=_time(row.get("updated_at")),
    )


def _changed(rows: Sequence[dict[str, Any]], since: float, until: float) -> list[Changed]:
    found = []
    for row in rows:
        at, host = _time(row.get("updated")), row.get(HOST_FIELD)
        if at is not None and host and since <= at <= until:
            found.append(Changed(str(row["id"]), str(host), at))
    return found


def _time(text: object) -> float | None:
    try:
        return read_time(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _ahead(reading: Reading | None) -> float:
    """By how much Nova's clock is ahead of ours, where it is more than a Date can be wrong by."""
    if reading is None:
        return 0.0
    ahead_s = reading.date + 0.5 - (reading.asked_at + reading.at) / 2
    return ahead_s if abs(ahead_s) > GROSS_S else 0.0
