"""What the probes bring home and the judges judge: plain values, and nothing that could ask anybody.

`None` says that something was not looked at, never that it is not there. A `trouble` is a sentence for the operator
that says why something could not be looked at; no sentence holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maintd.delivery.outcome import Outcome
from maintd.doctor.stream import Heard
from maintd.nova.rights import Tried
from maintd.nova.shown import Look, Managed, Reading


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """The configuration as it was read. `readable` are files with secrets that everybody may read."""

    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    has_bus: bool = True
    has_cloud: bool = True
    readable: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    """Options under which a server's certificate is not looked at."""
    mistaken: tuple[tuple[str, str], ...] = ()
    """(group, pattern) of patterns that match no event type."""


@dataclass(frozen=True, slots=True)
class BusMemory:
    """What the store remembers of a bus."""

    name: str
    connected: bool
    blind_from: float | None
    last_message_at: float | None
    deaf_from: float | None = None
    """Connected, and yet the API has shown since then what the bus should have told."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The database at `now`. `missing`: SQLite's file is not there (yet); `holder` is who leads, and
    for how many seconds more, negative where that is over; `led_before` whether somebody led when the doctor began."""

    label: str
    now: float
    embedded: bool = True
    missing: bool = False
    trouble: str | None = None
    current: str | None = None
    needed: str = ""
    readonly: str | None = None
    holder: tuple[str, float] | None = None
    led_before: bool | None = None
    buses: tuple[BusMemory, ...] = ()
    oldest_pending_at: float | None = None
    disabled: Mapping[str, str] = field(default_factory=dict)
    """Webhooks that were given up, and why."""

    @property
    def usable(self) -> bool:
        return self.trouble is None and not self.missing and self.current == self.needed

    @property
    def led(self) -> bool | None:
        """Whether a maintd holds the fleet lease; None where that could not be read, or has changed meanwhile."""
        if not self.usable:
            return False if self.missing else None
        now = self.holder is not None and self.holder[1] > 0.0
        return now if self.led_before in (None, now) else None


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The daemon of this configuration on this machine, as its health endpoint shows it."""

    answers: bool
    where: str = ""
    ready: bool = False
    said: tuple[str, ...] = ()
    received: Mapping[str, int] = field(default_factory=dict)
    """How many notifications of each event type it has taken since its start."""


@dataclass(frozen=True, slots=True)
class BusFacts:
    """One bus: what is configured, what two looks showed (before and after listening), and what was heard."""

    name: str
    group: str
    exchange: str
    topic: str
    pool: str | None
    queues: tuple[str, ...]
    topic_queues: tuple[str, ...]
    vhost: str = "/"
    embedded: bool = False
    trouble: str | None = None
    before: Look | None = None
    after: Look | None = None
    managed: tuple[Managed, ...] | None = None
    management_trouble: str | None = None
    listened_s: float = 0.0
    listening_trouble: str | None = None
    heard: Heard | None = None

    @property
    def reached(self) -> bool:
        return self.before is not None and self.before.reached

    @property
    def last(self) -> Look:
        """The last look there was."""
        return self.after or self.before or Look()

    @property
    def listened(self) -> bool:
        return self.heard is not None and self.listening_trouble is None and self.listened_s > 0.0


@dataclass(frozen=True, slots=True)
class Compute:
    """One nova-compute service in os-services; `updated_at` moves with its heartbeat."""

    host: str
    up: bool
    enabled: bool
    unknown: bool = False
    updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A server that the API shows to have changed while we listened, by Nova's clock."""

    server_id: str
    host: str
    at: float


@dataclass(frozen=True, slots=True)
class Version:
    """The microversion that a service speaks, against what is needed and what is best."""

    service: str
    spoken: tuple[int, int] | None
    needed: tuple[int, int]
    wanted: tuple[int, int]
    trouble: str | None = None
    endpoint: str | None = None

    @property
    def too_old(self) -> bool:
        return self.spoken is not None and self.spoken < self.needed


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """The APIs. `changed` is None where it was not asked what changed while we listened."""

    trouble: str | None = None
    versions: tuple[Version, ...] = ()
    tried: tuple[Tried, ...] = ()
    computes: tuple[Compute, ...] = ()
    clocks: tuple[Reading, ...] = ()
    changed: tuple[Changed, ...] | None = None
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class WebhookFacts:
    """One endpoint. `outcome` is what came of the test event; `trouble` why there is no connection."""

    name: str
    where: str
    signed: bool
    took_s: float = 0.0
    trouble: str | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    config: ConfigFacts
    database: DatabaseFacts | None = None
    daemon: DaemonFacts | None = None
    buses: tuple[BusFacts, ...] = ()
    api: ApiFacts | None = None
    webhooks: tuple[WebhookFacts, ...] = ()
    unfinished: tuple[tuple[str, float], ...] = ()
    """(what was looked at, seconds it was given)."""
    failed: tuple[tuple[str, str], ...] = ()
    """(what, our own fault) of looks that came to nothing by a mistake of maintd's."""
