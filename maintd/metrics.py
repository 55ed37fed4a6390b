"""Every metric of maintd, with what it means, in one place.

Names are a promise to dashboards: base units, `_total` for counters, labels from closed sets. `host` is a label only
of what concerns a drain or a closed host, and such series are forgotten when it ends; a server, a project or a URL
never is one. Buses and webhooks appear under the names the operator gave them.

The registry is our own, so that tests have as many as they like. Whoever observes something calls the attribute
named like the metric; nothing here reads a database or asks the time.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

import maintd

_LAG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All of them; attributes are the names without `maintd_` and without `_total`."""

    def __init__(self) -> None:
        # Every counter and histogram would otherwise have a second series that says when it was created.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"maintd_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"maintd_{name}", text, labels, registry=registry)

        self.build_info = gauge("build_info", "Always 1; what is running.", "version", "python")
        self.build_info.labels(maintd.__version__, platform.python_version()).set(1)

        # Intake.
        self.notifications_received = counter(
            "notifications_received_total",
            "Notifications whose transaction has committed, by event type; an unknown type is 'other'.",
            "event_type",
        )
        self.notification_lag_seconds = Histogram(
            "maintd_notification_lag_seconds",
            "From Nova's timestamp of a notification to the commit of what it changed; clocks' difference included.",
            buckets=_LAG_S,
            registry=registry,
        )
        self.notifications_quarantined = counter(
            "notifications_quarantined_total",
            "Messages that could not be read and were put aside, by reason.",
            "reason",
        )
        self.notifications_unversioned = counter(
            "notifications_unversioned_total",
            "Notifications in Nova's old unversioned format, which say nothing to us: set [notifications] "
            "notification_format to 'versioned' or 'both' in nova.conf.",
        )
        self.notifications_dropped = counter(
            "notifications_dropped_total",
            "Notifications acknowledged unread because the database had been unusable for longer than max_pause_s.",
            "bus",
        )
        self.bus_connected = gauge("bus_connected", "1 while notifications can arrive from a bus, else 0.", "bus")
        self.bus_blind = gauge(
            "bus_blind", "1 from the moment a bus's stream broke until the API has repaired what was missed.", "bus"
        )
        self.bus_restarts = counter(
            "bus_listener_restarts_total", "Times that the listener of a bus was started anew after it had died.", "bus"
        )

        # What is going on.
        self.drain_servers_remaining = gauge(
            "drain_servers_remaining", "Servers still on a host that is being drained, as far as is known.", "host"
        )
        self.drain_started_timestamp_seconds = gauge(
            "drain_started_timestamp_seconds", "When the drain of a host began, in seconds since the epoch.", "host"
        )
        self.drain_stalled = gauge(
            "drain_stalled", "1 while nothing leaves a host that is being drained and nothing moves, else 0.", "host"
        )
        self.drain_eta_seconds = gauge(
            "drain_eta_seconds",
            "Estimated seconds until those moves off a host that is being drained that were asked for are done; absent "
            "when unknown.",
            "host",
        )
        self.drain_migrations_stalled = gauge(
            "drain_migrations_stalled",
            "Migrations off a host that is being drained that are called stalled, by reason.",
            "host",
            "reason",
        )
        self.host_empty = gauge(
            "host_empty", "1 while a closed host is proven empty of Nova servers, 0 while it is not.", "host"
        )
        self.migrations = gauge("migrations", "Migrations under way, by kind and phase.", "kind", "phase")
        self.migrations_stalled = gauge(
            "migrations_stalled", "Migrations under way that are called stalled, by reason.", "reason"
        )
        self.migrations_stalled_noted = gauge(
            "migrations_stalled_noted",
            "Migrations under way that would be called stalled, had [stall] observe_only not named the reason.",
            "reason",
        )
        self.events_published = counter("events_published_total", "Events committed, by type.", "type")

        # The ways out.
        self.deliveries = counter(
            "deliveries_total",
            "Attempts to deliver an event, by the name of the webhook or other sink ('subscription' for all of "
            "those) and by outcome.",
            "sink",
            "outcome",
        )
        self.delivery_oldest_pending_seconds = gauge(
            "delivery_oldest_pending_seconds",
            "Age of the oldest event that is not delivered yet to a receiver of the operators'; 0 when all are.",
        )

        self.subscriptions = gauge(
            "subscriptions", "Subscriptions that were asked for over the API, by state.", "state"
        )

        # Nova's API, the store, ourselves.
        self.api_calls = counter(
            "api_calls_total", "Calls to OpenStack APIs, by service and outcome.", "service", "outcome"
        )
        self.reconcile_last_success_timestamp_seconds = gauge(
            "reconcile_last_success_timestamp_seconds",
            "When the fleet was last compared with the API from end to end, in seconds since the epoch; 0 for never.",
        )
        self.verifications = counter("verifications_total", "Verification passes over the API, by outcome.", "outcome")
        self.store_commit_seconds = Histogram(
            "maintd_store_commit_seconds",
            "Duration of the transaction that saves state and events.",
            buckets=_COMMIT_S,
            registry=registry,
        )
        self.fleet_lease_held = gauge(
            "fleet_lease_held", "1 on the controller that consumes the bus and decides, 0 on those that stand by."
        )
        self.jobs = counter(
            "jobs_total", "Runs of scheduled work, by job and outcome (done, failed, overrun).", "job", "outcome"
        )

    @staticmethod
    def show(metric: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        """Make a gauge show exactly these values by labels.

        What it showed before and is not there now goes to zero, so that a graph falls instead of breaking off; where
        the labels name a host it is forgotten instead: a host that is open again is neither empty nor not empty.
        """
        for shown in metric.collect():
            for sample in shown.samples:
                if tuple(sample.labels.values()) in values:
                    continue
                if "host" in sample.labels:
                    metric.remove(*sample.labels.values())
                else:
                    metric.labels(**sample.labels).set(0)
        for labels, value in values.items():
            metric.labels(*labels).set(value)

    def exposition(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self.registry)
