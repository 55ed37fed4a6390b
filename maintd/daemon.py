"""The running daemon: the only place where the parts meet.

A `Daemon` is made of a `Config` and run until told to stop. What every controller does: keep the store, serve the
read API and the health endpoints, deliver events. What one of them does, the holder of the *fleet lease*: load the
fleet into memory, consume every bus, reduce, ask Nova. When the lease is lost, that part is taken down and, once the
lease is had again, put up anew from the store; nothing of it is carried over in memory.

Threads: one *scheduler* (this module's loop: lease, timers, gauges, watchdog), one per bus, those of the polls, the
dispatcher's and its sinks', the web servers'. All of them meet in two places only, `Admission` and the store. Nothing
here parses, judges or decides what is published.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import maintd
from maintd.clock import Clock, SystemClock
from maintd.config import Config
from maintd.delivery.dispatcher import LEASE_S as DELIVERY_LEASE_S
from maintd.delivery.dispatcher import Dispatcher
from maintd.delivery.egress import Egress
from maintd.delivery.routing import mistaken
from maintd.delivery.sinks import Endpoint
from maintd.delivery.sinks.bus import bus_endpoint
from maintd.delivery.sinks.exec import exec_endpoint
from maintd.delivery.sinks.webhook import webhook_endpoint
from maintd.delivery.subscribers import Care, Disabled
from maintd.domain import emptiness
from maintd.domain.buses import unheard
from maintd.domain.copying import replace
from maintd.domain.events import CATALOGUE, CloudEvent, SubscriptionDisabled
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Blocker, Bus, Knowledge, NovaLive, Policy
from maintd.domain.observations import (
    BusSeen,
    DrainRequested,
    EndpointDisabled,
    Observation,
    OwnersListening,
    ResidueCleared,
    Watching,
)
from maintd.domain.quarantine import Quarantined
from maintd.errors import LeaseLost, OperatorError, OurFault, StoreUnavailable
from maintd.ingest.admit import Admission
from maintd.ingest.keeper import StoreKeeper
from maintd.ingest.polls import Polls
from maintd.log import get_logger
from maintd.metrics import Metrics
from maintd.nova.api import NovaApi
from maintd.nova.listener import Intake
from maintd.nova.notifications import Notification
from maintd.store import Fence, Store, Vault, open_store, read_vault
from maintd.systemd import Notifier, Watchdog
from maintd.web.auth import Policies
from maintd.web.context import WebApp
from maintd.web.health import Health, Tick
from maintd.web.progress import Held, drain_estimate, held_in
from maintd.web.seats import Seats
from maintd.web.server import HttpServer, api, health_api
from maintd.web.stream import Bell

log = get_logger("maintd")

LEASE = "fleet"
LEASE_TTL_S = 15.0
LEASE_RENEW_S = 5.0
TICK_S = 0.1
GAUGES_S = 1.0
ETAS_S = 10.0
ETAS_BUDGET_S = 0.05
STOP_S = 9.0
ALIVE_S = 15.0
"""How often it is kept that somebody watches; so much too early may a gap begin after a crash."""
FIRST_READING_S = 60.0
"""How long timers wait, after a start, for the first reading of the cloud: what nobody looked at did not stall."""
WAIT_FOR_BUSES_S = 15.0
"""How long the first reading of the cloud waits for buses that are not heard, once one is."""
PURGE_S = 86400.0
PURGE_TURN_S = 1.0
PURGE_AGAIN_S = 2.0
CLOCK_STEP_S = 5.0
"""A clock that was set by more than this begins everything anew: jobs, timers and the pause between passes go by it."""
TELL_DISABLED_S = 86400.0
"""How long after an endpoint was given up it is still told; then the log may have forgotten that it was."""
SKEW_S = 60.0
"""How far apart the clocks of controllers are assumed to be at most, where one looks for what another has said."""
DISABLED_TYPE = f"maintd.{SubscriptionDisabled.TYPE}.v1"
RIGHTS_S = 3600.0
RIGHTS_AGAIN_S = 300.0
PARTS = {"intake": 60.0, "scheduler": 30.0, "delivery": 30.0, "polls": 120.0}
"""What the watchdog wants to see moving, and within how many seconds."""


def policy_of(config: Config, *, shadow: bool = True) -> Policy:
    """The core's policy from the operator's configuration. Without `shadow`, in a replay, every verdict is published,
    except where a file gives `[stall] observe_only`."""
    return Policy(
        settle_s=config.drain.settle_s,
        stalled_after_s=config.drain.stalled_after_s,
        reason_match=config.drain.reason_match,
        removal_match=config.drain.removal_match,
        accept_residue=config.drain.accept_residue,
        trust_reap=config.residue.trust_reap,
        lost_after_s=config.services.lost_after_s,
        many_lost=config.services.many_lost,
        has_cloud=config.cloud is not None,
        has_bus=bool(config.buses),
        stall_after_s=config.stall.by_reason(),
        observe_only=frozenset(config.stall.observe_only if shadow or config.stall.observe_only_said else ()),
        expected_bandwidth=config.stall.expected_bandwidth_mib_s * 1024**2,
        nova=NovaLive(
            downtime_s=config.stall.live_migration_downtime_ms / 1000.0,
            downtime_steps=config.stall.live_migration_downtime_steps,
            downtime_delay_s=config.stall.live_migration_downtime_delay_s,
            completion_timeout_s=config.stall.live_migration_completion_timeout_s,
            timeout_action=config.stall.live_migration_timeout_action,
        ),
        tenants=config.tenants.enabled,
        tenant_jitter_s=config.tenants.jitter_s,
    )


def policies_of(config: Config) -> Policies | None:
    """Who may ask what, where that is asked at all. Raises OperatorError for a policy file that cannot be used."""
    return Policies(config.library.get("oslo_policy", {})) if config.api.auth == "keystone" else None


def vault_of(config: Config) -> Callable[[], Vault]:
    """What encrypts subscriptions' secrets. Raises OperatorError, now for a key that cannot be used, and when it is
    asked for where there is none."""
    if config.subscriptions.key_file is None:
        return lambda: Vault(())
    vault = read_vault(config.subscriptions.key_file)
    return lambda: vault


def egress_of(config: Config) -> Egress:
    """Where the endpoints of subscriptions may be, from the operator's configuration."""
    return Egress(
        allowed_networks=config.subscriptions.allowed_networks,
        denied_networks=config.subscriptions.denied_networks,
        allow_http=config.subscriptions.allow_http,
        allowed_ports=config.subscriptions.allowed_ports,
        proxy=config.subscriptions.proxy,
    )


def endpoints(config: Config, clock: Clock) -> list[Endpoint]:
    """Every configured way out. Raises OperatorError for one that cannot work."""
    return [
        *(
            webhook_endpoint(hook.name, hook.url, (hook.secret,) if hook.secret else (), hook.event_types, clock)
            for hook in config.webhooks
        ),
        *(bus_endpoint(sink, config.installation) for sink in config.bus_sinks),
        *(exec_endpoint(sink) for sink in config.exec_sinks),
    ]


class Voice:
    """Says what was committed: counts it, logs one line per event, wakes those who wait for events."""

    def __init__(self, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._metrics = metrics
        self._wake = wake
        self._unversioned_told_at = 0.0

    def committed(self, events: Sequence[CloudEvent], counted: Counter[str], lag_s: float | None) -> None:
        for event_type, n in counted.items():
            self._metrics.notifications_received.labels(event_type).inc(n)
        if lag_s is not None:
            self._metrics.notification_lag_seconds.observe(max(0.0, lag_s))
        if not events:
            return
        self._wake()
        for event in events:
            self._metrics.events_published.labels(event.type).inc()
            because = event.data.get("because")  # owners are not told
            log.info(
                "event_published",
                type=event.type,
                subject=event.subject,
                event_id=event.id,
                server=event.data.get("server_id"),
                because=because["event_type"] or because["origin"] if because else None,
            )

    def odd(self, what: str, detail: str, error: BaseException | None = None) -> None:
        if what == "unversioned":
            self._metrics.notifications_unversioned.inc()
            now = time.monotonic()
            if now - self._unversioned_told_at > 3600.0:
                self._unversioned_told_at = now
                log.warning(
                    "unversioned_notifications",
                    detail="Nova sends its old notification format on this topic, which says nothing to maintd: set "
                    "[notifications] notification_format to 'versioned' or 'both' in nova.conf on every Nova service.",
                    event_type=detail,
                )
            return
        self._metrics.notifications_quarantined.labels(what).inc()
        if error is not None:
            log.error("notification_quarantined", reason=what, detail=detail, exc_info=error)
        else:
            log.warning("notification_quarantined", reason=what, detail=detail)


def _loaded(policy: Policy, store: Store) -> Fleet:
    """The fleet as the store has it, and out of the garbage collector's sight.

    None of it is garbage, and it has no cycles: what is replaced goes by itself. Looking through 200,000 servers would
    make loading half as long again, and later stop everything for a sixth of a second each time.
    """
    gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        fleet = Fleet(policy, store.load_fleet())
    finally:
        gc.enable()
    gc.freeze()
    return fleet


class _Door:
    """The polls' way into the admission: what is known of the buses goes first, so that no pass ends without it."""

    def __init__(self, admission: Admission, admit_first: Callable[[], None]) -> None:
        self._admission = admission
        self._admit_first = admit_first
        self.read = admission.read

    def admit(self, observations: Iterable[Observation]) -> object:
        self._admit_first()
        return self._admission.admit(observations)

    def admit_chunks(self, observations: Sequence[Observation]) -> None:
        self._admit_first()
        self._admission.admit_chunks(observations)


class Leading:
    """What the holder of the fleet lease runs: the fleet, its buses and its polls. Made anew each time."""

    def __init__(
        self,
        config: Config,
        store: Store,
        fence: Fence,
        clock: Clock,
        metrics: Metrics,
        voice: Voice,
        crash: Callable[[str], None],
    ) -> None:
        self.fence = fence
        self.lost = threading.Event()
        """Set by whichever part finds out first; of this leading only, so that a late word does not end the next."""
        self.since_at = clock.now()
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._crash = crash
        self._store = store
        self._told_disabled: set[tuple[str, float]] = set()
        self._pending: deque[Observation] = deque(maxlen=1000)
        self._given_up: set[str] = set()
        self._alive_at = clock.now()
        self._folding = threading.Lock()
        began = clock.monotonic()
        fleet = _loaded(policy_of(config), store)
        self.admission = Admission(
            fleet,
            clock=clock,
            ids=lambda: uuid.uuid4().hex,
            installation=config.installation,
            sequence=store.last_sequence(),
            keeper=StoreKeeper(store, fence, clock, metrics.store_commit_seconds.observe),
            listener=voice,
            crash=crash,
        )
        watched_until = fleet.knowledge.alive_at if fleet.knowledge is not None else None
        if fleet.knowledge is None:
            self.admission.remember(Knowledge(memory_since=clock.now(), alive_at=clock.now()))
        configured = {bus.name for bus in config.buses}
        known = {bus.name: bus for bus in list(fleet.buses())}
        for bus in known.values():
            if bus.name not in configured:
                self.admission.forget(bus)  # it tells nothing any more, and nothing waits for it
        for name in sorted(configured):
            # What was true of a connection is not true of this process's; until it is heard, it proves nothing.
            held = known.get(name, Bus(name))
            self.admission.remember(replace(held, connected=False, reconnected_at=None, listen_by=None))
            if watched_until is not None and name in known:
                because = Because("clock", "bus.unwatched")
                self._pending.append(BusSeen(clock.now(), because, name, "blind", watched_until, "nobody watched"))
        for host in list(fleet.hosts()):
            if host.say_up_at is not None:
                fleet.put(replace(host, say_up_at=None))  # nobody looked whether it lasted; the next look begins anew
        if config.tenants.enabled:
            # What began while owners were not being told is told now; of what they know already, nothing is.
            self.admission.admit((OwnersListening(clock.now(), Because("clock", "owners.listening")),))
        log.info("fleet_loaded", took_s=round(clock.monotonic() - began, 3), **fleet.counts())
        self.api: NovaApi | None = None
        self.polls: Polls | None = None
        if config.cloud is not None:
            self.api = NovaApi(config.cloud, clock, self._called)
            self.polls = Polls(
                self.api,
                _Door(self.admission, self._admit_pending),
                clock,
                has_bus=bool(config.buses),
                listener=_PollMeters(metrics, self),
                ready=self._ready,
                lost=self.lost.set,
            )
        self.states: dict[str, tuple[str, str]] = {}
        self.rights: tuple[str, ...] = ()
        self._counted: dict[str, tuple[int, int]] = {}
        self._stopping = threading.Event()
        self.reconciled_at: float | None = None
        self.intakes = [Intake(bus, self._admit, self._bus_state, clock) for bus in config.buses]

    def _called(self, service: str, outcome: str) -> None:
        self._metrics.api_calls.labels(service, outcome).inc()

    def _admit(self, notifications: Sequence[Notification], quarantined: Sequence[Quarantined]) -> None:
        self._crash("after_receive")
        try:
            # First what is known of the buses: with a gap unsaid, a notification could still complete a proof.
            self._admit_pending()
            self.admission.admit_notifications(notifications, quarantined)
        except LeaseLost:
            self.lost.set()
            raise
        self._crash("before_acknowledge")
        if self.polls is not None:
            self.polls.wake()

    def _bus_state(self, bus: str, state: str, detail: str) -> None:
        """An intake's state changed. Never raises: what cannot be kept now is kept by the scheduler, later."""
        before = self.states.get(bus)
        self.states[bus] = (state, detail)
        if not self._stopping.is_set():
            self._metrics.bus_connected.labels(bus).set(1 if state == "connected" else 0)
        if before == (state, detail):
            return
        told = log.info if state == "connected" else log.warning
        told("bus_state", bus=bus, state=state, detail=detail)
        because = Because("clock", f"bus.{state}")
        now = self._clock.now()
        if state == "connected":
            self._given_up.discard(bus)
            self._pending.append(BusSeen(now, because, bus, "connected"))
        elif state == "blind":
            intake = next((i for i in self.intakes if i.bus.name == bus), None)
            self._pending.append(BusSeen(now, because, bus, "blind", intake.blind_from if intake else None))
        elif state in ("connecting", "failed") and before is not None and before[0] in ("connected", "paused", "blind"):
            self._pending.append(BusSeen(now, because, bus, "lost"))

    @property
    def is_lost(self) -> bool:
        """Whether another controller holds the lease: that was said by the store, or is seen at the broker."""
        return self.lost.is_set() or any(intake.given_up for intake in self.intakes)

    @property
    def connected(self) -> bool:
        """Whether every bus is being heard."""
        return all(self.states.get(i.bus.name, ("", ""))[0] == "connected" for i in self.intakes)

    def _ready(self) -> bool:
        """Whether the cloud may be read: every bus is heard, or enough was waited for those that are not. These are
        blind from here on, and what they say for is not proven (facts 7.4)."""
        states = {i.bus.name: self.states.get(i.bus.name, ("", ""))[0] for i in self.intakes}
        if "blind" in states.values():
            return False  # it drops what it hears, until it finds the store usable again; to read before heals nothing
        missing = [name for name, state in states.items() if state not in ("connected", "paused")]
        if not missing:
            return True
        if len(missing) == len(self.intakes) or self._clock.now() - self.since_at < WAIT_FOR_BUSES_S:
            return False
        for name in missing:
            if name not in self._given_up:
                self._given_up.add(name)
                self._pending.append(BusSeen(self._clock.now(), Because("clock", "bus.connecting"), name, "lost"))
        return True

    def start(self) -> None:
        for intake in self.intakes:
            intake.start()
        if self.polls is not None:
            self.polls.start()
            threading.Thread(target=self._check_rights, name="maintd-rights", daemon=True).start()

    def _check_rights(self) -> None:
        """Ask whether we may see what we must see, at the start and from time to time; say so where we may not."""
        failed = False
        while self.api is not None and not self._stopping.is_set():
            try:
                found = self.api.self_check()
            except Exception:
                if not failed:
                    log.exception("rights_check_failed")
                failed = True
                self._stopping.wait(RIGHTS_AGAIN_S)
                continue
            failed = False
            findings = () if found.ok else found.findings
            if findings != self.rights:
                for finding in findings:
                    log.error("rights_missing", detail=finding)
                if not findings:
                    log.info("rights_sufficient")
                self.rights = findings
            self._stopping.wait(RIGHTS_AGAIN_S if findings else RIGHTS_S)

    def note_alive(self) -> None:
        """Keep that somebody is watching. Raises StoreUnavailable or LeaseLost."""
        self._alive_at = self._clock.now()
        self.admission.admit((Watching(self._alive_at),))

    def stop(self, timeout_s: float) -> None:
        until = self._clock.monotonic() + timeout_s
        self._stopping.set()
        threads = [threading.Thread(target=i.stop, args=(timeout_s,), daemon=True) for i in self.intakes]
        for thread in threads:
            thread.start()
        if self.polls is not None:
            self.polls.stop(timeout_s)
        for thread in threads:
            thread.join(max(0.1, until - self._clock.monotonic()))
        for bus in self._config.buses:
            self._metrics.bus_connected.labels(bus.name).set(0)

    def tell_disabled(self, disabled: Sequence[Disabled]) -> None:
        """Publish which endpoints were given up, each once. Raises StoreUnavailable or LeaseLost.

        Any controller disables one, and only the writer of the fleet may append to the log. So the endpoint's own row
        is what is handed over: whoever holds the fleet looks at those that are disabled, and at the log for the event.
        """
        for one in disabled:
            told = (one.endpoint, one.at)
            if told in self._told_disabled:
                continue
            age_s = self._clock.now() - one.at
            if age_s < TELL_DISABLED_S and not self._store.events.said(DISABLED_TYPE, one.endpoint, one.at - SKEW_S):
                self.admit(
                    EndpointDisabled(self._clock.now(), Because("clock"), one.endpoint, one.reason, one.failing_since)
                )
            self._told_disabled.add(told)

    def admit(self, *observations: Observation) -> None:
        """Take in what an operator asked for. Raises StoreUnavailable or LeaseLost; after the latter this ends."""
        try:
            self.admission.admit(observations)
        except LeaseLost:
            self.lost.set()
            raise

    def _admit_pending(self) -> None:
        """Take in what was seen of the buses, in order. Raises StoreUnavailable or LeaseLost; then it is still there.

        What our own code fails on is logged and dropped: timers and other observations must go on.
        """
        with self._folding:
            while self._pending:
                observation = self._pending[0]
                try:
                    self.admission.admit((observation,))
                except (StoreUnavailable, LeaseLost):
                    raise
                except Exception:
                    log.exception("observation_dropped", kind=type(observation).__name__)
                if self._pending and self._pending[0] is observation:  # else there were too many, and it is gone
                    self._pending.popleft()
                if self.polls is not None:
                    self.polls.wake()

    def turn(self) -> None:
        """One turn of the scheduler: late observations, then timers, then what the intakes have counted."""
        self._admit_pending()
        if self.polls is None or self.reconciled_at is not None or self._clock.now() - self.since_at > FIRST_READING_S:
            self.admission.tick(self._clock.now())  # not before we know what happened while nobody watched
        if self._clock.now() - self._alive_at >= ALIVE_S:
            self.note_alive()
        for intake in self.intakes:
            dropped, restarts = self._counted.get(intake.bus.name, (0, 0))
            if intake.dropped > dropped:
                self._metrics.notifications_dropped.labels(intake.bus.name).inc(intake.dropped - dropped)
            if intake.restarts > restarts:
                self._metrics.bus_restarts.labels(intake.bus.name).inc(intake.restarts - restarts)
            self._counted[intake.bus.name] = (intake.dropped, intake.restarts)


class Daemon:
    """maintd, running. `start`, then `wait`, then `stop`; or `run` for all three."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        crash: Callable[[str], None] = lambda point: None,
        notifier: Notifier | None = None,
        delivery_lease_s: float = DELIVERY_LEASE_S,
    ) -> None:
        """`crash` is told of each named point that is passed; `delivery_lease_s`: how long a claim of a delivery holds
        after the process that made it has died."""
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics()
        self._crash = crash
        self._delivery_lease_s = delivery_lease_s
        self._notifier = notifier or Notifier()
        self._watchdog = Watchdog(self.clock, PARTS, self._notifier)
        self._stopping = threading.Event()
        self._owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.leading: Leading | None = None
        self._last_renewed = 0.0
        self._said_standby = False
        self._store_down = False
        self._estimates: dict[str, tuple[float, float | None]] = {}
        self._thread: threading.Thread | None = None
        # Made here, so that a configuration that cannot work is refused before anything runs.
        self._endpoints = endpoints(config, self.clock)
        if config.cloud is not None:
            NovaApi(config.cloud, self.clock)  # asks nobody anything yet; whoever leads makes one for itself
        self._policies = policies_of(config)
        self.store = open_store(
            config.database.connection,
            self.clock,
            quarantine_bytes=config.database.quarantine_bytes,
            vault=vault_of(config),
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open everything and begin. Raises OperatorError for what an operator must mend first."""
        if self.store.embedded:
            self.store.claim_file()
            self.store.upgrade()
            self.store.deliveries.take_back(self.clock.now())
        else:
            self.store.require_current()
        self.bell = Bell(self.clock, self._newest)
        self.voice = Voice(self.metrics, self._wake_all)
        self.dispatcher = Dispatcher(
            self.store.deliveries,
            self._endpoints,
            self.clock,
            subscriptions=self.store.subscriptions,
            care=Care(
                self.config.installation,
                self.config.subscriptions.origin or self.config.installation,
                self.config.subscriptions.give_up_after_s,
                self.config.subscriptions.probe_every_s,
                egress_of(self.config),
            ),
            meters=_Meters(self.metrics),
            lease_s=self._delivery_lease_s,
            crash=self._crash,
            on_disabled=self._endpoint_disabled,
        )
        web = WebApp(
            store=self.store,
            installation=self.config.installation,
            clock=self.clock,
            bell=self.bell,
            seats=Seats(self.config.api.streams),
            policy=policy_of(self.config),
            status=self.status,
            request_drain=self._request_drain,
            clear_residue=self._clear_residue,
            wake_delivery=self._wake_dispatcher,
            held=self._held,
            fleet_lease=LEASE,
            url_refused=egress_of(self.config).fault_of_url,
            verify_now=self.dispatcher.verify_now,
            test_now=self.dispatcher.test_now,
            max_per_project=self.config.subscriptions.max_per_project,
            max_operator=self.config.subscriptions.max_operator,
            secret_overlap_s=self.config.subscriptions.overlap_s,
        )
        health = Health(self.store, self.metrics.registry, ticks=self._ticks, degraded=self._degraded)
        keystone = self.config.library.get("keystone_authtoken", {}) if self.config.api.auth == "keystone" else None
        listen = self.config.api
        guarded = api(web, keystone=keystone, policies=self._policies)
        self.api_server = HttpServer("api", guarded, listen.host, listen.port, listen.threads)
        self.health_server = HttpServer(
            "metrics", health_api(health), self.config.metrics.host, self.config.metrics.port, threads=4
        )
        self.api_server.start()
        self.health_server.start()
        self.dispatcher.start()
        self._thread = threading.Thread(target=self._schedule, name="maintd-scheduler", daemon=True)
        self._thread.start()
        self._notifier.ready()
        log.info(
            "started",
            version=maintd.__version__,
            installation=self.config.installation,
            api=self.api_server.url,
            metrics=self.health_server.url,
            buses=[bus.name for bus in self.config.buses],
            cloud=self.config.cloud is not None,
            webhooks=[hook.name for hook in self.config.webhooks],
            bus_sinks=[sink.name for sink in self.config.bus_sinks],
            exec_sinks=[sink.name for sink in self.config.exec_sinks],
        )
        known = [f"maintd.{middle}.v1" for middle in CATALOGUE]
        for group, event_types in self.config.wanted().items():
            for pattern in mistaken(event_types, known):
                log.warning(
                    "pattern_matches_nothing",
                    detail=f"[{group}] event_types: {pattern!r} matches no event type that maintd has; "
                    "types are written in full, as in maintd.host.*",
                )
        if self.config.cloud is None:
            log.warning("no_cloud", detail="No [cloud] is configured: host.emptied will never be published.")
        if not self.config.buses:
            log.warning("no_bus", detail="No [bus] is configured: closed hosts are polled every 15 s instead.")

    def wait(self) -> None:
        """Until `request_stop`."""
        while not self._stopping.wait(1.0):
            if self._thread is not None and not self._thread.is_alive():
                raise OurFault("the scheduler thread has died; see the log")

    def request_stop(self) -> None:
        """Ask for the end; from a signal handler too."""
        self._stopping.set()

    def stop(self) -> None:
        """End within ten seconds: what is in hand is finished or left to whoever comes next."""
        self._stopping.set()
        self._notifier.stopping()
        self.bell.close()
        began = self.clock.monotonic()
        if self._thread is not None:
            self._thread.join(3.0)
        leading, self.leading = self.leading, None
        if leading is not None:
            leading.stop(4.0)
        left = max(0.5, STOP_S - 2.0 - (self.clock.monotonic() - began))
        self.dispatcher.stop(min(left, 3.0))
        if leading is not None:
            # A database that is locked or gone may keep us for longer than there is; then the lease runs out by itself.
            release = threading.Thread(target=self._release, args=(leading,), daemon=True)
            release.start()
            release.join(max(0.5, STOP_S - 1.0 - (self.clock.monotonic() - began)))
        self.api_server.stop()
        self.health_server.stop()
        self.store.close()
        log.info("stopped", took_s=round(self.clock.monotonic() - began, 2))

    def _release(self, leading: Leading) -> None:
        fence = leading.fence
        try:
            if not leading.lost.is_set():
                leading.note_alive()
            self.store.leases.release(fence)
        except (StoreUnavailable, LeaseLost):
            pass

    # -- the scheduler's thread ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        next_gauges = 0.0
        next_purge = self.clock.monotonic() + 60.0
        set_to = self.clock.now() - self.clock.monotonic()
        while not self._stopping.is_set():
            now = self.clock.monotonic()
            offset_s = self.clock.now() - now
            step_s, set_to = offset_s - set_to, offset_s
            try:
                if abs(step_s) > CLOCK_STEP_S and self.leading is not None:
                    log.error("clock_was_set", by_s=round(step_s, 1), detail="everything is read and proven anew.")
                    self._stand_down("the machine's clock was set")
                if self.leading is not None and self.leading.is_lost:
                    self._stand_down("the fleet lease was lost")
                if self.leading is None:
                    self._try_to_lead()
                else:
                    self._hold_lease(self.leading, now)
                    if self.leading is not None:
                        self.leading.turn()
                if now >= next_gauges:
                    self.store.ping()  # a file that was removed or replaced takes writes without a word
                    self._show_gauges()
                    if self.leading is not None:
                        self.leading.tell_disabled(self.dispatcher.disabled())
                    next_gauges = now + GAUGES_S
                if now >= next_purge and self.leading is not None:
                    next_purge = now + (PURGE_S if self._purge() else PURGE_AGAIN_S)
                if self._store_down:
                    self._store_down = False
                    log.info("store_back", database=self.store.label)
            except LeaseLost as lost:
                log.warning("lease_lost", detail=str(lost))
                if self.leading is not None:
                    self.leading.lost.set()
            except StoreUnavailable as away:
                if not self._store_down:
                    log.error("store_unavailable", detail=str(away))
                self._store_down = True
                self._stopping.wait(0.5)
            except OperatorError as wrong:
                log.error("cannot_lead", detail=str(wrong))  # clouds.yaml was changed since the start, for example
                self._stopping.wait(10.0)
            except Exception:
                log.exception("scheduler_failed")
                self._stopping.wait(1.0)
            self._tick_watchdog()
            self._stopping.wait(TICK_S)

    def _try_to_lead(self) -> None:
        owner = f"{self.config.installation}:embedded" if self.store.embedded else self._owner
        fence = self.store.leases.acquire(LEASE, owner, LEASE_TTL_S, self.clock.now())
        if fence is None:
            if not self._said_standby:
                self._said_standby = True
                holder = self.store.leases.holder(LEASE, self.clock.now())
                log.info("standing_by", holder=holder.owner if holder else None)
            self._stopping.wait(1.0)
            return
        self._said_standby = False
        self._last_renewed = self.clock.monotonic()
        leading = Leading(
            self.config,
            self.store,
            fence,
            self.clock,
            self.metrics,
            self.voice,
            self._crash,
        )
        leading.start()
        self.leading = leading
        self.metrics.fleet_lease_held.set(1)
        self._notifier.status("holds the fleet lease")
        log.info("leading", token=fence.token)

    def _hold_lease(self, leading: Leading, now: float) -> None:
        if now - self._last_renewed < LEASE_RENEW_S:
            return
        if self.store.leases.renew(leading.fence, LEASE_TTL_S, self.clock.now()):
            self._last_renewed = now
        else:
            self._stand_down("another controller took the fleet lease")

    def _stand_down(self, why: str) -> None:
        leading, self.leading = self.leading, None
        self.metrics.fleet_lease_held.set(0)
        self._notifier.status("stands by")
        log.warning("standing_down", reason=why)
        if leading is not None:
            leading.stop(4.0)

    def _purge(self) -> bool:
        """Whether all is gone that is too old. Some at a time: the lease is renewed by this thread, too."""
        ages, until = self.config.database, self.clock.monotonic() + PURGE_TURN_S
        gone = self.store.purge(
            self.clock.now(),
            events_s=ages.events_age_s,
            deliveries_s=ages.deliveries_age_s,
            message_ids_s=ages.message_ids_age_s,
            quarantine_s=ages.quarantine_age_s,
            quarantine_bytes=ages.quarantine_bytes,
            enough=lambda: self.clock.monotonic() >= until,
        )
        log.debug("purged", **gone)
        return self.clock.monotonic() < until

    def _tick_watchdog(self) -> None:
        now = self.clock.monotonic()
        leading = self.leading
        self._watchdog.tick("scheduler")
        if leading is None or all(intake.healthy(now) for intake in leading.intakes):
            self._watchdog.tick("intake")
        if now - self.dispatcher.tick < PARTS["delivery"]:
            self._watchdog.tick("delivery")
        if leading is None or leading.polls is None or leading.polls.healthy(now):
            self._watchdog.tick("polls")
        self._watchdog.feed()

    # -- what others ask ----------------------------------------------------------------------------------------------

    def _wake_dispatcher(self) -> None:
        self.dispatcher.wake()

    def _wake_all(self) -> None:
        self.dispatcher.wake()
        self.bell.ring()

    def _endpoint_disabled(self, endpoint: str, reason: str, failing_since: float) -> None:
        log.error(
            "webhook_disabled",
            webhook=endpoint,
            reason=reason,
            detail="it gets nothing more until maintd is restarted or `maintd deliveries redeliver` calls it again",
        )

    def _leader(self) -> Leading:
        if self.leading is None:
            raise LeaseLost("Another controller holds the fleet; ask it, or wait for this one to take over.")
        return self.leading

    def _request_drain(self, host: str, removal: bool) -> None:
        leading = self._leader()
        known = leading.admission.read(lambda fleet: fleet.host(host))
        if known is None:
            raise OperatorError(f"No host named {host} is known.")
        if not known.closed:
            raise OperatorError(
                f"{host} is open: disable it first (openstack compute service set --disable {host} nova-compute)."
            )
        leading.admit(DrainRequested(self.clock.now(), Because("operator", "drain.start"), host, removal))

    def _clear_residue(self, host: str, who: str | None, server_ids: frozenset[str], history: bool) -> None:
        because = Because("operator", "residue.clear")
        self._leader().admit(ResidueCleared(self.clock.now(), because, host, who, server_ids, history))

    def _newest(self) -> object:
        """Another than before once any log shows more: something was committed, or what was held back may be seen."""
        # Also without a jitter: what another controller commits may not be seen yet by our clock.
        return self.store.last_sequence(), self.store.events.held_back(self.clock.now())

    def _held(self, keys: Sequence[str]) -> Held | None:
        """What the fleet has beside these migrations; None while another controller has it."""
        leading = self.leading
        return None if leading is None else leading.admission.read(lambda fleet: held_in(fleet, keys))

    def why(self, host: str) -> tuple[Blocker, ...]:
        """Why a host is not empty, as the holder of the fleet sees it; nothing for a host that is, or is unknown."""
        leading = self._leader()

        def look(fleet: Fleet) -> tuple[Blocker, ...]:
            held = fleet.slice(host)
            return emptiness.blockers(held, held.host, fleet.policy, self.clock.now()) if held else ()

        return leading.admission.read(look)

    def status(self) -> Mapping[str, Any]:
        """What only this process knows, for /v1/status."""
        leading = self.leading
        polls = leading.polls if leading else None
        errors = list(polls.errors().values()) if polls else []
        errors += leading.rights if leading else ()
        return {
            "version": maintd.__version__,
            "leading": leading is not None,
            "leading_since_at": leading.since_at if leading else None,
            "cloud": {
                "configured": self.config.cloud is not None,
                "ok": not errors if polls else None,
                "last_success_at": leading.reconciled_at if leading else None,
                "last_error": next(iter(errors), None),
            },
            "bus_states": {name: state for name, (state, _) in (leading.states if leading else {}).items()},
        }

    def _ticks(self) -> Sequence[Tick]:
        stale = set(self._watchdog.stale())
        return [Tick(name, limit + 1.0 if name in stale else 0.0, limit) for name, limit in PARTS.items()]

    def _degraded(self) -> Sequence[str]:
        leading = self.leading
        said: list[str] = []
        if leading is None:
            said.append("This controller stands by: another one holds the fleet lease.")
            return said
        said += [
            f"Bus {name} is {state}: {detail}"
            for name, (state, detail) in leading.states.items()
            if state != "connected"
        ]
        if leading.polls is not None:
            said += leading.polls.errors().values()
        said += leading.rights
        return said

    # -- gauges -------------------------------------------------------------------------------------------------------

    def _show_gauges(self) -> None:
        leading = self.leading
        now = self.clock.now()
        drains: dict[str, tuple[int, float, bool]] = {}
        hosts: dict[str, bool] = {}
        phases: Counter[tuple[str, str]] = Counter()
        stalled: Counter[str] = Counter()
        noted: Counter[str] = Counter()
        held_up: Counter[tuple[str, str]] = Counter()
        blind: dict[str, bool] = {}

        def look(fleet: Fleet) -> None:
            for name in fleet.closed_hosts():
                host = fleet.host(name)
                drain = fleet.drain(host.drain_id) if host else None
                if host is not None and not unheard(host, fleet.buses()):
                    hosts[name] = host.emptied
                if drain is not None:
                    drains[name] = (len(fleet.servers_on(name)), drain.started_at, drain.stalled_at is not None)
            for m in fleet.open_migrations():
                phases[(str(m.kind), str(m.phase))] += 1
                stalls = fleet.stalls_of(m.key)
                noted.update(stall.reason for stall in stalls if not stall.published)
                if m.stalled:
                    stalled[m.stalled] += 1
                    if m.source in drains:
                        held_up[m.source, m.stalled] += 1
            for bus in fleet.buses():
                blind[bus.name] = bus.blind_from is not None

        if leading is not None:
            leading.admission.read(look)
        show = self.metrics.show
        show(self.metrics.host_empty, {(name,): float(empty) for name, empty in hosts.items()})
        show(self.metrics.drain_servers_remaining, {(n,): float(d[0]) for n, d in drains.items()})
        show(self.metrics.drain_started_timestamp_seconds, {(n,): d[1] for n, d in drains.items()})
        show(self.metrics.drain_stalled, {(n,): float(d[2]) for n, d in drains.items()})
        show(self.metrics.drain_eta_seconds, {(n,): seconds for n, seconds in self._etas(drains, now).items()})
        show(self.metrics.drain_migrations_stalled, {key: float(n) for key, n in held_up.items()})
        show(self.metrics.migrations, {key: float(n) for key, n in phases.items()})
        show(self.metrics.migrations_stalled, {(reason,): float(n) for reason, n in stalled.items()})
        show(self.metrics.migrations_stalled_noted, {(reason,): float(n) for reason, n in noted.items()})
        show(self.metrics.bus_blind, {(name,): float(b) for name, b in blind.items()})
        oldest = self.store.deliveries.oldest_pending_at()
        self.metrics.delivery_oldest_pending_seconds.set(0.0 if oldest is None else max(0.0, now - oldest))

    def _etas(self, drains: Collection[str], now: float) -> dict[str, float]:
        """By draining host, the seconds until the moves off it are done, where that is known.

        An estimate costs some milliseconds, so that each is made anew every `ETAS_S` at most, and of many hosts only
        those whose turn it is, for `ETAS_BUDGET_S`; in between the last estimates run down.
        """
        self._estimates = {name: held for name, held in self._estimates.items() if name in drains}
        policy, began = policy_of(self.config), self.clock.monotonic()
        for name in sorted(drains, key=lambda name: self._estimates.get(name, (0.0, None))[0]):
            if now - self._estimates.get(name, (0.0, None))[0] < ETAS_S:
                break
            found = self.store.reading.host(name)
            beside = None if found is None else self._held([m.key for m in found.migrations if m.open])
            estimate = drain_estimate(found, beside.curves, policy, now).estimate if found and beside else None
            self._estimates[name] = (now, None if estimate is None else now + estimate.seconds)
            if self.clock.monotonic() - began > ETAS_BUDGET_S:
                break
        return {name: max(0.0, at - now) for name, (_, at) in self._estimates.items() if at is not None}


class _Meters:
    """The dispatcher's counts, in Prometheus' terms."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def attempted(self, sink: str, outcome: str, duration_s: float) -> None:
        self._metrics.deliveries.labels(sink, outcome).inc()

    def oldest_pending(self, seconds: float) -> None:
        self._metrics.delivery_oldest_pending_seconds.set(seconds)

    def subscriptions(self, counts: Mapping[str, int]) -> None:
        for state, number in counts.items():
            self._metrics.subscriptions.labels(state).set(number)


class _PollMeters:
    """The polls' counts, in Prometheus' terms."""

    def __init__(self, metrics: Metrics, leading: Leading) -> None:
        self._metrics = metrics
        self._leading = leading

    def job(self, name: str, outcome: str) -> None:
        self._metrics.jobs.labels(name, outcome).inc()

    def verified(self, host: str, outcome: str) -> None:
        self._metrics.verifications.labels(outcome).inc()

    def reconciled(self, at: float) -> None:
        self._leading.reconciled_at = at
        self._metrics.reconcile_last_success_timestamp_seconds.set(at)
