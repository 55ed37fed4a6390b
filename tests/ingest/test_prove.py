"""`maintd prove` against the simulator's HTTP: as strict as the daemon, and honest about having no memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.config import CloudConfig, Config, DrainConfig
from maintd.domain.model import Policy
from maintd.ingest.prove import Verdict, exit_code, prove, prove_hosts
from maintd.nova.api import NovaApi
from maintd.simulator.model import Cloud
from maintd.simulator.rest import RestServer

NOW = 1_780_000_000.0
SETTLE_S = 15.0


@dataclass
class Bench:
    cloud: Cloud
    clock: ManualClock
    rest: RestServer
    between: Callable[[], object] = lambda: None

    def config(self) -> CloudConfig:
        auth = self.rest.cloud_config()["auth"]
        return CloudConfig(options={"auth_type": "password", **auth}, region_name="RegionOne", timeout_s=5.0)

    def prove(self, *hosts: str) -> tuple[Verdict, ...]:
        def wait(seconds: float) -> None:
            self.clock.advance(seconds)
            self.between()

        api = NovaApi(self.config(), self.clock, pause=lambda seconds: None)
        policy = Policy(settle_s=SETTLE_S, has_cloud=True, has_bus=False)
        return prove(api, hosts, policy, self.clock, wait, pace=lambda purpose: True)


@pytest.fixture
def bench() -> Iterator[Bench]:
    clock = ManualClock(NOW)
    cloud = Cloud(clock)
    cloud.fill(3, 0)
    clock.advance(600.0)
    server = RestServer(cloud, threads=4).start()
    yield Bench(cloud, clock, server)
    server.faults.clear()
    threading.Thread(target=server.stop, daemon=True).start()


def test_an_empty_closed_host_is_proven_by_two_passes_that_far_apart(bench: Bench) -> None:
    """Two passes, the settling time apart, and the proof names every read of both."""
    bench.cloud.disable("cmp-01", "maintenance")
    (verdict,) = bench.prove("cmp-01")
    assert verdict.empty and verdict.closed and verdict.blockers == () and verdict.error is None
    assert {p.pass_ for p in verdict.proof} == {1, 2}
    firsts = [min(p.at for p in verdict.proof if p.pass_ == number) for number in (1, 2)]
    assert firsts[1] - firsts[0] >= SETTLE_S
    assert exit_code([verdict]) == 0


@pytest.mark.parametrize("state", ["active", "stopped", "error", "soft-delete"])
def test_a_server_in_any_state_is_in_the_way(bench: Bench, state: str) -> None:
    """Whatever its state, a server on the host is named as what is in the way, after one pass."""
    server = bench.cloud.add_server("cmp-01", state=state)
    bench.cloud.disable("cmp-01", "maintenance")
    (verdict,) = bench.prove("cmp-01")
    assert not verdict.empty and [b.server_id for b in verdict.blockers] == [server.id]
    assert bench.clock.now() == NOW + 600.0
    assert exit_code([verdict]) == 3


def test_an_open_host_is_not_provable(bench: Bench) -> None:
    """A host whose service is enabled may be filled at any moment: it is not called empty, and the remedy is named."""
    (verdict,) = bench.prove("cmp-01")
    assert not verdict.empty and not verdict.closed
    assert [b.kind for b in verdict.blockers] == ["not_closed"]


def test_an_unknown_host_is_said_to_be_unknown(bench: Bench) -> None:
    """A name that Nova does not know is no empty host."""
    bench.cloud.disable("cmp-01", "maintenance")
    verdicts = bench.prove("cmp-01", "cmp-77")
    assert [v.known for v in verdicts] == [True, False]
    assert exit_code(verdicts) == 2


def test_what_arrives_between_the_passes_is_seen(bench: Bench) -> None:
    """A server that comes while the first pass settles keeps the host from being called empty."""
    bench.cloud.disable("cmp-01", "maintenance")
    arrived: list[str] = []
    bench.between = lambda: arrived or arrived.append(bench.cloud.add_server("cmp-01").id)
    (verdict,) = bench.prove("cmp-01")
    assert not verdict.empty and [b.server_id for b in verdict.blockers] == arrived


def test_a_dead_host_has_a_history_nobody_knows(bench: Bench) -> None:
    """A host that is down may hold what Nova has forgotten, so without memory it is not called empty."""
    bench.cloud.kill_compute("cmp-01")
    bench.cloud.set_service("cmp-01", forced_down=True)
    (verdict,) = bench.prove("cmp-01")
    assert not verdict.empty and "history_unknown" in {b.kind for b in verdict.blockers}


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "/v2.1/os-services*", "status": 500},
        {"path": "/v2.1/os-migrations*", "status": 403},
        {"path": "/v2.1/os-hypervisors/*", "cut": True},
        {"service": "placement", "status": 503},
    ],
)
def test_a_nova_that_fails_is_no_verdict(bench: Bench, fault: dict[str, Any]) -> None:
    """What could not be read is an error with a sentence, never empty and never merely "not empty"."""
    bench.cloud.disable("cmp-01", "maintenance")
    bench.rest.faults.add(**fault)
    (verdict,) = bench.prove("cmp-01")
    assert not verdict.empty and verdict.error is not None
    assert exit_code([verdict]) == 1


def test_several_hosts_settle_together(bench: Bench) -> None:
    """Proving three hosts takes one settling time, not three."""
    for host in ("cmp-01", "cmp-02", "cmp-03"):
        bench.cloud.disable(host, "maintenance")
    verdicts = bench.prove("cmp-01", "cmp-02", "cmp-03")
    assert all(v.empty for v in verdicts)
    assert bench.clock.now() - (NOW + 600.0) < 2 * SETTLE_S


def test_the_command_prints_a_proof_for_people_and_for_scripts(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """People get the reads and the word that there is no memory; scripts get the shapes of the event."""
    bench.cloud.disable("cmp-01", "maintenance")
    config = Config(cloud=bench.config(), drain=DrainConfig(settle_s=0.2))
    assert prove_hosts(config, ["cmp-01"], as_json=False) == 0
    out = capsys.readouterr().out
    assert "cmp-01 is empty of Nova servers" in out and "no memory" in out and "pass 2" in out
    assert prove_hosts(config, ["cmp-01"], as_json=True) == 0
    (told,) = json.loads(capsys.readouterr().out)["hosts"]
    assert told["empty"] is True and told["memory_since"] is None and told["scope"] == "nova"
    assert {"read", "pass", "at", "count"} <= set(told["proof"][0])
