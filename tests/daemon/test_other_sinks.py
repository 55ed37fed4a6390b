"""The daemon with all its ways out: a webhook, a topic of its own on the broker, and a program."""

from __future__ import annotations

import json
import stat
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import amqp  # type: ignore[import-untyped]

from tests.daemon.processes import Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import Rabbit, wait_until


def test_every_way_out_says_the_same(
    nursery: Nursery, new_world: Callable[..., World], rabbit: Rabbit, tmp_path: Path
) -> None:
    """An event that the webhook gets is published on the bus sink's topic and handed to the exec sink's program, under
    one id; each is counted under its own name."""
    world = new_world(servers={"cmp-01": 1})
    program = tmp_path / "on-event"
    program.write_text(
        f"#!{sys.executable} -S\nimport sys, json\n"
        f"open({str(tmp_path)!r} + '/' + json.load(sys.stdin)['id'] + '.event', 'w').close()\n"
    )
    program.chmod(stat.S_IRWXU)
    world.config.write_text(
        world.config.read_text()
        + f"\n[bus_sinks]\nenabled = ceilometer\n[bus_sink:ceilometer]\ntransport_url = {rabbit.url}\n"
        f"exchange = {world.name}-out\ntopic = {world.name}-out\nevent_types = maintd.drain.*\n"
        f"[exec_sinks]\nenabled = pager\n[exec_sink:pager]\nprogram = {program}\nevent_types = maintd.drain.*\n"
    )
    daemon = nursery.spawn(world.config).wait_connected()
    world.close_host("cmp-01")
    started = world.receiver.wait_for("drain.started", "cmp-01")

    wait_until(lambda: (tmp_path / f"{started['id']}.event").exists(), what="the program to have run")

    def counted(name: str) -> bool:
        with urllib.request.urlopen(f"{daemon.metrics}/metrics", timeout=10.0) as answer:
            return f'maintd_deliveries_total{{outcome="delivered",sink="{name}"}} 1.0' in answer.read().decode()

    wait_until(lambda: counted("ceilometer") and counted("pager"), what="both deliveries to be counted")
    connection = amqp.Connection(f"{rabbit.host}:{rabbit.port}", "guest", "guest")
    connection.connect()
    taken = connection.channel().basic_get(f"{world.name}-out.info", no_ack=True)
    connection.close()
    published = json.loads(json.loads(taken.body)["oslo.message"])

    assert (started["id"], started) == (published["message_id"], published["payload"])
    assert f"maintd.{world.name}" == published["publisher_id"]
    daemon.stop()
