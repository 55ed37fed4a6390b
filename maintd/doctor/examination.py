"""One examination: all probes at once, each on a thread of its own, and one deadline for all of them.

The order in time is what the judgements need: the API is asked for the computes first, so that listening may end when
all of them were heard; a moment before it would end by itself, the API is asked what changed meanwhile. A probe that
has not come home when the time is up is left behind (its thread keeps nobody alive) and is itself a finding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

import maintd
from maintd.clock import Clock, SystemClock
from maintd.config import BusConfig, Config, WebhookConfig
from maintd.doctor.facts import ApiFacts, BusFacts, DaemonFacts, DatabaseFacts, Facts, WebhookFacts
from maintd.doctor.findings import EXIT_CODES, Finding, Level, worst
from maintd.doctor.judging import judge
from maintd.doctor.judging.configuration import LOADED
from maintd.doctor.probes import api, bus, configuration, daemon, database, webhooks
from maintd.doctor.stream import Heard
from maintd.errors import OperatorError

T = TypeVar("T")

ASKING_S = 30.0
"""How long the API is asked before it is given up; the question under way may take a call's timeout longer."""
STARTING_S = 10.0
"""How long all buses are waited for to be listened to."""
MARGIN_S = 30.0
"""What everything may take besides asking and listening."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator can choose. `listen_s` is how long the buses are listened to at most; 0: not at all."""

    listen_s: float = 60.0
    send_test_event: bool = False
    management_url: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, in the order of the checks; the worst level decides. `hangs`: something was left behind."""

    findings: tuple[Finding, ...]
    took_s: float = 0.0
    hangs: bool = False

    @property
    def level(self) -> Level:
        return worst(self.findings)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.level]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "version": maintd.__version__,
            "level": str(self.level),
            "took_seconds": round(self.took_s, 1),
            "findings": [finding.as_dict() for finding in self.findings],
        }


def refused(wrong: OperatorError) -> Report:
    """The report where the configuration could not even be read."""
    return Report((LOADED.error(str(wrong), "Mend it, then: maintd run --check-config"),))


def examine(
    config: Config,
    options: Options = Options(),  # noqa: B008 - frozen
    tell: Callable[[str], None] = lambda text: None,
    clock: Clock | None = None,
) -> Report:
    """Look at everything; `tell` is given sentences about how far it is. Ends within `bound_s`."""
    return _Examination(config, options, tell, clock or SystemClock()).run()


def bound_s(config: Config, options: Options) -> float:
    """How long an examination takes at the very most."""
    timeout_s = config.cloud.timeout_s if config.cloud is not None else 0.0
    return options.listen_s + 2 * (ASKING_S + timeout_s) + MARGIN_S


class _Task(Generic[T]):
    """One probe on a thread of its own. What it raises is our own fault, and `failure`: the others go on."""

    def __init__(self, what: str, work: Callable[[], T]) -> None:
        self.what = what
        self.result: T | None = None
        self._work = work
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"maintd-doctor-{what}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as failure:
            self.failure = failure

    def wait(self, seconds: float) -> bool:
        """Whether it has come home within so many seconds."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()


def _both(first: DatabaseFacts | None, last: DatabaseFacts | None) -> DatabaseFacts | None:
    """The last look, with who led at the first."""
    if first is None or last is None:
        return last or first
    return replace(last, led_before=first.led)


@dataclass(slots=True)
class _Listening:
    """What the ears and the API tell each other."""

    pending: set[str]
    """Buses that are to be listened to, and are not yet."""
    started_at: float | None = None
    """When the last of those began that are."""
    computes: frozenset[str] | None = None
    """Those that are up, once the API has said so."""
    ended: threading.Event = field(default_factory=threading.Event)


class _Examination:
    def __init__(self, config: Config, options: Options, tell: Callable[[str], None], clock: Clock) -> None:
        self._config, self._options, self._tell, self._clock = config, options, tell, clock
        self._listening = _Listening({bus.name for bus in config.buses})
        self._heard: dict[str, Heard] = {}

    def run(self) -> Report:
        began = self._clock.monotonic()
        config, options = self._config, self._options
        given_s = bound_s(config, options)
        stored: _Task[DatabaseFacts] = _Task("the database", lambda: database.look(config, self._clock))
        running: _Task[DaemonFacts] = _Task("the daemon", lambda: daemon.look(config))
        asked: _Task[ApiFacts] | None = _Task("the API", self._ask) if config.cloud is not None else None
        hooks = [_Task(f"webhook {hook.name}", partial(self._call, hook)) for hook in config.webhooks]
        ears = [_Task(f"bus {one.name}", partial(self._hear, one)) for one in config.buses]
        if ears and options.listen_s:
            self._tell(f"listening for {options.listen_s:g} s, or until every compute that is up was heard")
        tasks: Sequence[_Task[Any]] = [stored, running, *([asked] if asked else []), *hooks, *ears]
        # The API waits for the ears, so whoever hangs among them must not keep it from its end.
        ears_until = began + options.listen_s + MARGIN_S
        for ear in ears:
            while not ear.wait(min(10.0, ears_until - self._clock.monotonic())):
                if self._clock.monotonic() >= ears_until:
                    break
                self._progress()
        self._listening.ended.set()
        # Who reads the queues was looked at by now; who led when they were, is to be known too.
        leads: _Task[DatabaseFacts] = _Task("who leads", lambda: database.look(config, self._clock))
        tasks = [*tasks, leads]
        for task in tasks:
            task.wait(began + given_s - self._clock.monotonic())
        late = [task.what for task in tasks if not task.wait(0.0)]
        facts = Facts(
            config=configuration.look(config),
            database=_both(stored.result, leads.result),
            daemon=running.result,
            buses=tuple(ear.result for ear in ears if ear.result is not None),
            api=asked.result if asked is not None else None,
            webhooks=tuple(hook.result for hook in hooks if hook.result is not None),
            unfinished=tuple((what, self._clock.monotonic() - began) for what in late),
            failed=tuple(
                (task.what, f"{type(task.failure).__name__}: {task.failure}") for task in tasks if task.failure
            ),
        )
        return Report(judge(facts), self._clock.monotonic() - began, bool(late))

    def _progress(self) -> None:
        n = sum(sum(tuple(heard.forms.values())) for heard in tuple(self._heard.values()))
        spoke = {host for heard in tuple(self._heard.values()) for host in heard.hosts()}
        known = self._listening.computes
        of = f" of {len(known)}" if known is not None else ""
        self._tell(f"{n} notifications so far, from {len(spoke)}{of} computes")

    # -- on threads of their own

    def _hear(self, one: BusConfig) -> BusFacts:
        try:
            return self._overhear(one)
        finally:
            self._listening.pending.discard(one.name)

    def _overhear(self, one: BusConfig) -> BusFacts:
        facts = bus.look(one, self._options.management_url)
        if not facts.reached or not self._options.listen_s:
            return facts

        def started() -> None:
            at = self._clock.now()
            known = self._listening.started_at
            self._listening.started_at = at if known is None else max(at, known)
            self._listening.pending.discard(one.name)

        def enough(heard: Heard) -> bool:
            self._heard[one.name] = heard
            return self._enough()

        return bus.listen(one, facts, self._clock, self._options.listen_s, self._listening.ended, enough, started)

    def _enough(self) -> bool:
        """Whether more listening could teach nothing: every compute that is up was heard, and instance.update too."""
        computes = self._listening.computes
        if not computes or len(self._heard) < len(self._config.buses):
            return False
        heard = tuple(self._heard.values())
        return all(one.updates for one in heard) and computes <= {host for one in heard for host in one.hosts()}

    def _ask(self) -> ApiFacts:
        assert self._config.cloud is not None  # noqa: S101 - or this would not be called
        probe = api.ApiProbe(self._config.cloud, self._clock, ASKING_S)
        facts = probe.look()
        self._listening.computes = frozenset(one.host for one in facts.computes if one.up and not one.unknown)
        if not self._config.buses or not self._options.listen_s:
            return facts
        # A bus is not to be blamed for what it did not tell before it was listened to.
        until = self._clock.monotonic() + STARTING_S
        while self._listening.pending and (self._listening.started_at is None or self._clock.monotonic() < until):
            if self._listening.ended.wait(0.1):
                return facts
        since = self._listening.started_at
        if since is None:
            return facts
        left_s = since + self._options.listen_s - api.LATE_S - self._clock.now()
        if self._listening.ended.wait(max(0.0, left_s)):
            return facts  # every compute was heard, or the connection was lost
        return probe.changed(since)

    def _call(self, hook: WebhookConfig) -> WebhookFacts:
        if self._options.send_test_event:
            return webhooks.send(hook, self._config, self._clock)
        return webhooks.look(hook)
