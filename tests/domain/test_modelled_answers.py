"""The short cut of the random stories against the way that the daemon goes: the same is seen, whatever the cloud does.

The way is `NovaApi`, the simulator's own handlers instead of HTTP, JSON, and `maintd.nova.answers`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from maintd.domain.observations import BaselineCompleted, NodesSeen, Observation, PassRead
from maintd.nova.answers import Answer, Pages
from maintd.nova.api import NovaApi
from maintd.simulator import Cloud, Refused
from maintd.simulator.calls import Call, Faults
from maintd.simulator.compute_api import Compute
from maintd.simulator.placement_api import Placement
from tests.domain import modelled_answers as answers
from tests.domain.modelled_cloud import CloudStory, Frame, Said
from tests.domain.modelled_daemon import Failed, Interleaving, Job


class Nowhere:
    """A configuration of a cloud that is never connected to."""

    cloud = None
    timeout_s = 1.0

    def connect_options(self) -> dict[str, Any]:
        return {"load_yaml_config": False, "load_envvars": False, "auth_type": "none", "auth": {"endpoint": "http://x"}}


class InProcess(NovaApi):
    """The real questions, handed to the simulator's handlers without a connection in between."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(Nowhere(), cloud.clock)
        self.simulated = cloud
        self.compute, self.placement = Compute(cloud, Faults()), Placement(cloud)

    def _get(self, kind: Any, path: str) -> tuple[str | None, int, Any]:
        parts = urlsplit(path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        call = Call("GET", parts.path, query, None, kind.want, "http://x", self.simulated.new_request())
        handler = self.compute if kind.service == "compute" else self.placement
        try:
            status, body = handler.answer(call, parts.path)
        except Refused as refused:
            status, body = refused.status, {refused.kind: {"code": refused.status, "message": str(refused)}}
        return f"{kind.want[0]}.{kind.want[1]}", status, json.loads(json.dumps(body))


class Still:
    """A story in which nothing happens any more."""

    def __init__(self, cloud: Cloud, frame: Frame) -> None:
        self.frames, self.timing, self.seed = [frame], cloud.timing, 0
        self.said: list[Said] = []


class Onlooker(Interleaving):
    """It asks as the model does, and keeps what it would have taken in; time stands still."""

    def __init__(self, cloud: Cloud, frame: Frame) -> None:
        super().__init__(Still(cloud, frame), 1, disorder=False)  # type: ignore[arg-type]
        self.seen: list[Observation] = []
        self.now = cloud.clock.now()

    def admit(self, observations: Iterable[Observation]) -> None:
        self.seen += observations

    def through(self, job: Job) -> list[Observation] | None:
        """What a job takes in; None where it fails."""
        self.seen = []
        try:
            for _ in job:
                pass
        except Failed:
            return None
        return self.seen


def shown(answers: Iterable[Answer]) -> list[Observation] | None:
    pages = Pages()
    out: list[Observation] = []
    for answer in answers:
        out += pages.observations(answer)
        if answer.error:
            return None
    return out


def compare(cloud: Cloud, frame: Frame, rng: random.Random) -> int:
    """Every question of the model, by both ways. Returns how many could be answered."""
    api, short = InProcess(cloud), Onlooker(cloud, frame)
    since = frame.at - rng.uniform(0, 120)
    every = list(cloud.servers) + [s.id for s in cloud.deleted.values()]
    pairs: list[tuple[list[Observation] | None, list[Observation] | None]] = [
        (shown(api.services()), short.through(short._services())),
        (
            (shown(api.servers(changes_since=since - 120.0)) or [])
            + (shown(api.migrations_changed(since - 120.0)) or []),
            short.through(_changed(short, since)),
        ),
    ]
    for name, host in cloud.hosts.items():
        there = shown(api.servers(name)) or []
        pairs.append((there + (shown(api.migrations_of_host(name)) or []), short.through(short._host(name))))
        nodes = (host.provider.uuid,)
        ours = short.through(short._reads(name, nodes, 1))
        pairs.append((shown(api.verify(name, nodes, 1)), ours))
    for server_id in every:
        pairs.append((shown([api.server(server_id)]), short.through(short._server(server_id))))
        pairs.append((shown(api.migrations_of_server(server_id)), short.through(_of_server(short, server_id))))
    for true, modelled in pairs:
        assert _by_order(modelled) == _by_order(true)
    whole = short.through(short._whole(None)) or []
    listed = [o for o in whole if not isinstance(o, BaselineCompleted)]
    services = shown(api.services()) or []
    rows = shown(api.servers()) or []
    if any(host.in_down_cell for host in cloud.hosts.values()):
        rows = rows[:-1]  # a silent cell's servers are missing from the list, so it says nothing of who is gone
        nodes_seen = []
    else:
        nodes_seen = shown(api.hypervisors()) or []
    true_whole = services + nodes_seen + rows + services + (shown(api.open_migrations()) or [])
    assert {o for o in listed if not isinstance(o, NodesSeen) or nodes_seen} == set(true_whole)
    return sum(1 for true, _ in pairs if true is not None)


def _changed(short: Onlooker, since: float) -> Job:
    yield from short._servers_of(lambda frame: answers.servers_changed(frame, since - 120.0))
    yield from short._moves(lambda frame: answers.moves(frame, since=since - 120.0))


def _of_server(short: Onlooker, server_id: str) -> Job:
    yield from short._moves_of(server_id)


def _by_order(observations: list[Observation] | None) -> list[Observation] | None:
    """The order of traits and consumers in one read is nobody's business."""
    if observations is None:
        return None
    return [
        replace(o, found=tuple(sorted(o.found)))  # type: ignore[type-var]
        if isinstance(o, PassRead) and all(isinstance(found, str) for found in o.found)
        else o
        for o in observations
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_short_cut_shows_what_the_api_shows(seed: int) -> None:
    """At moments of random stories, each question of the model gives the very observations that the daemon would get,
    in its order; and what it could not have got, the model does not get."""
    rng = random.Random(seed)
    answered = 0

    def look(cloud: Cloud, frame: Frame) -> None:
        nonlocal answered
        if rng.random() < 0.12:
            answered += compare(cloud, frame, rng)

    for number in range(5):
        CloudStory(7000 + seed * 100 + number, at_step=look)

    assert answered > 50
