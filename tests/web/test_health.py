"""/metrics, /livez and /readyz."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter

from maintd.web.health import Health, Tick
from maintd.web.server import HttpServer, health_api
from tests.web.serving import Served


@contextmanager
def health(served: Served, *ticks: Tick, degraded: tuple[str, ...] = ()) -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("maintd_things", "Things.", registry=registry).inc(3)
    server = HttpServer(
        "metrics",
        health_api(Health(served.store, registry, lambda: ticks, lambda: degraded)),
        "127.0.0.1",
        0,
        threads=2,
    )
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def ask(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as wrong:
        return wrong.code, wrong.headers["Content-Type"], wrong.read().decode()


def test_metrics_are_the_registrys(served: Served) -> None:
    """/metrics is Prometheus's text format."""
    with health(served) as url:
        status, content_type, text = ask(f"{url}/metrics")

    assert 200 == status
    assert content_type.startswith("text/plain")
    assert "maintd_things_total 3.0" in text


def test_alive_while_every_loop_ticks(served: Served) -> None:
    """One loop that is late is enough for 503, and it is named."""
    with health(served, Tick("intake", 1.0, 30.0)) as url:
        assert 200 == ask(f"{url}/livez")[0]
    with health(served, Tick("intake", 1.0, 30.0), Tick("delivery", 31.0, 30.0)) as url:
        status, _, text = ask(f"{url}/livez")

    assert 503 == status
    assert ["delivery"] == [row["loop"] for row in json.loads(text)["ticks"] if not row["fresh"]]


def test_a_lost_broker_is_degraded_but_ready(served: Served) -> None:
    """The API still answers, so requests may come."""
    with health(served, degraded=("Bus default is connecting: refused",)) as url:
        status, _, text = ask(f"{url}/readyz")

    assert 200 == status
    assert {"ready": True, "reason": None, "degraded": ["Bus default is connecting: refused"]} == json.loads(text)


def test_not_ready_with_old_tables(served: Served) -> None:
    """A database that needs an upgrade makes us not ready, with the command that mends it."""
    with served.store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with health(served) as url:
        status, _, text = ask(f"{url}/readyz")

    assert 503 == status
    assert json.loads(text)["reason"]


def test_a_wrong_path_is_404_with_a_sentence(served: Served) -> None:
    """The health port answers mistakes as the API does."""
    with health(served) as url:
        status, _, text = ask(f"{url}/healthz")

    assert 404 == status
    assert json.loads(text)["description"]
