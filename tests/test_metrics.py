"""Names, labels and help texts are what dashboards stand on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Counter

import maintd
from maintd.metrics import Metrics

PROMISED = {
    "maintd_notifications_received_total": ("event_type",),
    "maintd_notification_lag_seconds": (),
    "maintd_drain_servers_remaining": ("host",),
    "maintd_drain_started_timestamp_seconds": ("host",),
    "maintd_drain_stalled": ("host",),
    "maintd_drain_eta_seconds": ("host",),
    "maintd_drain_migrations_stalled": ("host", "reason"),
    "maintd_host_empty": ("host",),
    "maintd_migrations": ("kind", "phase"),
    "maintd_migrations_stalled": ("reason",),
    "maintd_migrations_stalled_noted": ("reason",),
    "maintd_deliveries_total": ("sink", "outcome"),
    "maintd_subscriptions": ("state",),
    "maintd_delivery_oldest_pending_seconds": (),
    "maintd_api_calls_total": ("service", "outcome"),
    "maintd_bus_connected": ("bus",),
    "maintd_reconcile_last_success_timestamp_seconds": (),
    "maintd_build_info": ("version", "python"),
}
"""The metrics that others build on, with their labels."""


def exposed(metrics: Metrics) -> dict[str, float]:
    """What a scrape finds, series by series, without the process's own."""
    found = {}
    for line in metrics.exposition().decode().splitlines():
        if line.startswith("maintd_"):
            series, value = line.rsplit(" ", 1)
            found[series] = float(value)
    return found


def test_the_promised_metrics_are_there_with_their_labels() -> None:
    """Every promised name exists as an attribute without prefix and suffix, and takes exactly its labels."""
    metrics = Metrics()
    for name, labels in PROMISED.items():
        metric = getattr(metrics, name.removeprefix("maintd_").removesuffix("_total"))

        assert labels == metric._labelnames, name
        assert name.endswith("_total") == isinstance(metric, Counter), name


def test_names_and_helps_follow_prometheus() -> None:
    """Every family starts maintd_ (or is the process's own), has a help text, and has no series of creation times."""
    metrics = Metrics()
    for family in metrics.registry.collect():
        assert re.match(r"(maintd|process)_[a-z_]+$", family.name)
        assert family.documentation.endswith(".")
    assert "_created" not in metrics.exposition().decode()


def test_what_runs_is_told() -> None:
    """build_info is 1 and says the version."""
    assert any(f'version="{maintd.__version__}"' in series for series in exposed(Metrics()))


def test_two_registries_know_nothing_of_each_other() -> None:
    """Each Metrics counts for itself."""
    one, other = Metrics(), Metrics()

    one.notifications_unversioned.inc()

    assert 1.0 == exposed(one)["maintd_notifications_unversioned_total"]
    assert 0.0 == exposed(other)["maintd_notifications_unversioned_total"]


def test_hosts_are_forgotten() -> None:
    """A host that is no longer shown has no series at all: it would say that the host is not empty."""
    metrics = Metrics()
    metrics.show(metrics.host_empty, {("cmp-1",): 0.0, ("cmp-2",): 1.0})
    metrics.show(metrics.host_empty, {("cmp-2",): 1.0})

    assert ['maintd_host_empty{host="cmp-2"}'] == [series for series in exposed(metrics) if "cmp-" in series]


def test_a_gauge_shows_what_is_there_now() -> None:
    """What was shown and is gone stands at zero, so that no old number stays."""
    metrics = Metrics()
    metrics.show(metrics.migrations, {("live-migration", "running"): 3, ("resize", "asked"): 1})
    metrics.show(metrics.migrations, {("live-migration", "running"): 2})

    found = exposed(metrics)
    assert 2.0 == found['maintd_migrations{kind="live-migration",phase="running"}']
    assert 0.0 == found['maintd_migrations{kind="resize",phase="asked"}']


@pytest.mark.parametrize("rules", ["etc/maintd/maintd.prometheus-rules.yaml"])
def test_alerts_are_about_metrics_that_exist(rules: str) -> None:
    """Every metric named in the shipped rules is one of ours."""
    text = (Path(__file__).resolve().parent.parent / rules).read_text()
    metrics = Metrics()
    known = {
        f"maintd_{name}" + ("_total" if isinstance(metric, Counter) else "")
        for name, metric in vars(metrics).items()
        if name != "registry"
    }

    used = set(re.findall(r"maintd_[a-z_]+", text)) - {"maintd_rules"}
    assert used
    assert used <= known | {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
