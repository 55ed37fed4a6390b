"""`[tenants] jitter_s`: what is held back is seen at its time, by whoever waits for it too."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

from maintd.config import ApiConfig, Config, DatabaseConfig, MetricsConfig, TenantsConfig
from maintd.daemon import Daemon
from maintd.domain.model import Notice, Project
from maintd.domain.tenant_events import MaintenanceStarted, publish_to_tenant
from maintd.store import Commit
from tests.support.rabbitmq import wait_until


def test_a_long_poll_is_answered_when_the_event_may_be_seen(tmp_path: Path) -> None:
    """Nothing is committed at that moment, and yet whoever waits has the event soon after it, and not before."""
    daemon = Daemon(
        Config(
            database=DatabaseConfig(connection=f"sqlite:///{tmp_path / 'maintd.sqlite'}"),
            api=ApiConfig(port=0),
            metrics=MetricsConfig(port=0),
            tenants=TenantsConfig(enabled=True, jitter_s=60.0),
        )
    )
    daemon.start()
    try:
        wait_until(lambda: daemon.leading is not None)
        assert daemon.leading is not None
        visible_at = daemon.clock.now() + 1.5
        notice = Notice("s-1", "p-1", 1, drain_id="d-1", maintenance_since=visible_at)
        event = MaintenanceStarted(notice=notice, change="started", visible_at=visible_at)
        made = publish_to_tenant(event, id="e-1", installation="main", sequence=daemon.store.last_sequence() + 1)
        kept = (notice, Project("p-1", 1, visible_at))
        daemon.store.commit(Commit(daemon.leading.fence, kept, (), (made,), (), (), daemon.clock.now()))

        began = time.monotonic()
        url = f"{daemon.api_server.url}/v1/events?project_id=p-1&wait=20"
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - loopback
            answer = json.load(response)

        assert [event["id"] for event in answer["events"]] == ["e-1"]
        assert daemon.clock.now() >= visible_at
        assert time.monotonic() - began < 10
    finally:
        daemon.stop()
