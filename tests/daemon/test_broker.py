"""The daemon and its broker: down at the start, gone and back, and sending what nobody can read."""

from __future__ import annotations

import json
from collections.abc import Callable

import kombu

from tests.daemon.processes import Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import Proxy, Rabbit, wait_until


def test_broker_down_at_the_start(
    rabbit: Rabbit, proxy: Proxy, nursery: Nursery, new_world: Callable[..., World]
) -> None:
    """A daemon whose broker is down serves, says so, connects when it can, and then does its work."""
    proxy.refuse()
    world = new_world(transport_url=rabbit.url_at(proxy.port), servers={"cmp-01": 1})

    daemon = nursery.spawn(world.config).wait_started()
    wait_until(lambda: daemon.said("bus_state", state="connecting"), what="it says that it cannot connect")
    wait_until(lambda: "Bus default is connecting" in str(daemon.get("/readyz")), what="readyz to say so too")
    assert daemon.get("/readyz")["ready"]

    proxy.accept()
    daemon.wait_connected()
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    world.receiver.wait_for("host.emptied", "cmp-01")
    daemon.stop()


def test_connection_lost_and_made_again(
    rabbit: Rabbit, proxy: Proxy, nursery: Nursery, new_world: Callable[..., World]
) -> None:
    """What happens while the way to the broker is cut is told once it is there again, and each thing once."""
    world = new_world(transport_url=rabbit.url_at(proxy.port), servers={"cmp-01": 2})
    daemon = nursery.spawn(world.config).wait_connected()
    world.close_host("cmp-01")
    world.receiver.wait_for("drain.started", "cmp-01")

    proxy.refuse()
    wait_until(lambda: not daemon.connected(), what="the daemon to notice")
    world.move_away("cmp-01", "cmp-02")
    world.wait_empty("cmp-01")
    proxy.accept()

    world.receiver.wait_for("host.emptied", "cmp-01")
    world.cloud.enable("cmp-01")
    world.receiver.wait_for("drain.ended", "cmp-01")
    kinds = world.receiver.kinds()
    assert (2, 2) == (kinds.count("migration.started cmp-01"), kinds.count("migration.completed cmp-01"))
    assert len(set(kinds)) == len(kinds) - 2
    daemon.stop()


def test_garbage_is_set_aside(rabbit: Rabbit, nursery: Nursery, new_world: Callable[..., World]) -> None:
    """Messages that nobody can read, or that name an event and carry nonsense, are kept in quarantine; those behind
    them are handled."""
    world = new_world(servers={"cmp-01": 1})
    daemon = nursery.spawn(world.config).wait_connected()
    nonsense = {
        "message_id": "11111111-0000-0000-0000-000000000000",
        "event_type": "service.update",
        "publisher_id": "nova-compute:cmp-01",
        "priority": "INFO",
        "timestamp": "2026-11-23 06:00:00.000000",
        "payload": {"nova_object.name": "ServiceStatusPayload", "nova_object.data": 7},
    }
    bodies = [
        b"\xff\xfe garbage",
        b"[]",
        json.dumps({"oslo.version": "3.0", "oslo.message": "{}"}).encode(),
        json.dumps({"oslo.version": "2.0", "oslo.message": '{"priority": null'}).encode(),
        json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(nonsense)}).encode(),
    ]
    with kombu.Connection(rabbit.url.replace("rabbit://", "amqp://")) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(
                body,
                exchange=world.name,
                routing_key="versioned_notifications.info",
                content_type="application/json",
                content_encoding="utf-8",
            )
    world.close_host("cmp-01")

    world.receiver.wait_for("service.disabled", "cmp-01")
    counts = daemon.get("/v1/status")["counts"]["quarantined"]
    assert len(bodies) == (sum(counts.values()) if isinstance(counts, dict) else counts)
    daemon.stop()
