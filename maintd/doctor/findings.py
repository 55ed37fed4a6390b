"""What the doctor says: findings, each of a check with a name that scripts may rely on.

A check is declared once, with what it looks at and what each level of it means; a finding can only be made of a level
that its check has declared, and `docs/doctor.md` is drawn from the declarations. There are four levels. What could not
be looked at is `unknown`: it is not called ok, and it is no fault either, so it leaves the exit code alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is, from good to bad."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


EXIT_CODES: Mapping[Level, int] = {Level.OK: 0, Level.UNKNOWN: 0, Level.WARNING: 1, Level.ERROR: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and what to do about it. `subject` is the bus, webhook or host it is about, where there are several
    of a kind; `fix` is None where there is nothing to do."""

    check: str
    level: Level
    text: str
    fix: str | None = None
    subject: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "check": self.check,
            "subject": self.subject,
            "level": str(self.level),
            "text": self.text,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is looked at. A level that has no meaning here is None, and no finding can have it."""

    id: str
    looks_at: str
    means_unknown: str | None = None
    means_warning: str | None = None
    means_error: str | None = None

    def ok(self, text: str, subject: str | None = None) -> Finding:
        return Finding(self.id, Level.OK, text, None, subject)

    def unknown(self, text: str, fix: str | None = None, subject: str | None = None) -> Finding:
        return self._made(Level.UNKNOWN, self.means_unknown, text, fix, subject)

    def warning(self, text: str, fix: str, subject: str | None = None) -> Finding:
        return self._made(Level.WARNING, self.means_warning, text, fix, subject)

    def error(self, text: str, fix: str, subject: str | None = None) -> Finding:
        return self._made(Level.ERROR, self.means_error, text, fix, subject)

    def _made(self, level: Level, meaning: str | None, text: str, fix: str | None, subject: str | None) -> Finding:
        if meaning is None:
            raise ValueError(f"{self.id} declares no {level}")
        return Finding(self.id, level, text, fix, subject)


def worst(findings: Iterable[Finding]) -> Level:
    """The level that decides the exit code."""
    return max((finding.level for finding in findings), key=tuple(Level).index, default=Level.OK)


UNFINISHED = Check(
    "doctor.finished",
    "whether everything that was to be looked at answered in time, and the doctor itself did not fail on it",
    means_error="Something hangs, or maintd failed: what was to be looked at there is not known, whatever else is ok.",
)
