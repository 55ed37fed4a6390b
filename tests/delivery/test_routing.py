"""Which endpoints want an event type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from maintd.delivery.routing import Route, Routes, matches, mistaken

EMPTIED = "maintd.host.emptied.v1"
TENANT = "maintd.server.moving.v1"


@pytest.mark.parametrize(
    ("pattern", "event_type", "wanted"),
    [
        ("*", EMPTIED, True),
        ("maintd.*", EMPTIED, True),
        ("maintd.host.*", EMPTIED, True),
        ("maintd.host.emptied.v1", EMPTIED, True),
        (" maintd.host.* ", EMPTIED, True),
        ("*.stalled.v1", "maintd.migration.stalled.v1", True),
        ("maintd.service?.lost.v1", "maintd.services.lost.v1", True),
        ("maintd.host.*", "maintd.hosts.lost.v1", False),
        ("maintd.host", EMPTIED, False),
        ("host.emptied", EMPTIED, False),
        ("MAINTD.host.*", EMPTIED, False),
        ("maintd.host.emptied.v1", "maintd.host.emptied.v2", False),
        ("", EMPTIED, False),
        ("*", TENANT, False),
        ("maintd.*", TENANT, False),
        ("maintd.s*", TENANT, False),
        ("maintd.[s]erver.*", TENANT, False),
        ("maintd.server.*", TENANT, True),
        ("maintd.server.moving.v1", TENANT, True),
        ("maintd.server.*", EMPTIED, False),
    ],
)
def test_patterns(pattern: str, event_type: str, wanted: bool) -> None:
    """A glob covers the whole type; tenant events are reached only by a pattern that spells their prefix out."""
    assert wanted is matches(pattern, event_type)


@dataclass(frozen=True)
class Event:
    """An event as routes see it; whoever reads the data of one that has none fails."""

    type: str = EMPTIED
    project_id: str | None = None
    subject: str = "cmp-1"
    data: Callable[[], Mapping[str, Any]] = field(default=lambda: pytest.fail("nobody had to read the data"))


def of_project(project_id: str = "p1", subject: str = "s1", keys: list[str] | None = None) -> Event:
    return Event(TENANT, project_id, subject, lambda: {"server_id": subject, "state": {"metadata_keys": keys or []}})


def test_routes_name_each_endpoint_once() -> None:
    """An endpoint with two matching patterns is named once, in the order of the configuration, each time anew."""
    routes = Routes([Route("b", ("maintd.host.*", "*")), Route("a", ("*",)), Route("c", ("maintd.drain.*",))])

    assert ["b", "a"] == list(routes(Event()))
    assert ["b", "a"] == list(routes(Event()))
    assert ["b", "a", "c"] == list(routes(Event("maintd.drain.started.v1")))


def test_no_patterns_means_everything_but_tenants() -> None:
    """A configured endpoint that names no event types gets all of the operator's."""
    routes = Routes([Route("a", configured=True)])

    assert (["a"], []) == (list(routes(Event())), list(routes(of_project())))


@pytest.mark.parametrize(
    ("route", "event", "wanted"),
    [
        (Route("e", configured=True), Event(), True),
        (Route("e", ("maintd.server.*",), configured=True), of_project(), True),
        (Route("e", ("maintd.server.*",), configured=True), of_project("p2"), True),
        (Route("e", ("*",), configured=True), of_project(), False),
        (Route("e"), Event(), True),
        (Route("e", ("maintd.drain.*",)), Event(), False),
        (Route("e", ("maintd.server.*",)), of_project(), False),
        (Route("e", project_id="p1"), of_project(), True),
        (Route("e", ("*",), project_id="p1"), of_project(), True),
        (Route("e", ("maintd.*.moving.v1",), project_id="p1"), of_project(), True),
        (Route("e", ("maintd.server.moved.v1",), project_id="p1"), of_project(), False),
        (Route("e", project_id="p1"), of_project("p2"), False),
        (Route("e", project_id="p1"), Event(), False),
        (Route("e", project_id="p1"), Event(TENANT), False),
        (Route("e", project_id="p1", servers=frozenset({"s1"})), of_project(), True),
        (Route("e", project_id="p1", servers=frozenset({"s2", "s3"})), of_project(), False),
        (Route("e", project_id="p1", metadata_key="ha"), of_project(keys=["web", "ha"]), True),
        (Route("e", project_id="p1", metadata_key="ha"), of_project(keys=["ha2"]), False),
        (Route("e", project_id="p1", metadata_key="ha"), of_project(), False),
        (Route("e", project_id="p1", metadata_key="ha"), Event(TENANT, "p1", "s1", dict), False),
        (Route("e", project_id="p1", servers=frozenset({"s1"}), metadata_key="ha"), of_project(keys=["ha"]), True),
        (Route("e", project_id="p1", servers=frozenset({"s2"}), metadata_key="ha"), of_project(keys=["ha"]), False),
    ],
)
def test_who_wants_what(route: Route, event: Event, wanted: bool) -> None:
    """Whose the event is comes before every pattern; a project's servers and metadata key narrow its own."""
    assert (["e"] if wanted else []) == list(Routes([route])(event))


def test_data_is_read_only_where_it_matters() -> None:
    """An event's data is read for nobody whose type or servers have ruled it out already."""
    unread = Event(TENANT, "p1", "s1")
    routes = Routes(
        [
            Route("type", ("maintd.server.moved.*",), project_id="p1", metadata_key="ha"),
            Route("server", project_id="p1", servers=frozenset({"s2"}), metadata_key="ha"),
            Route("all", project_id="p1"),
            Route("other", project_id="p2", metadata_key="ha"),
        ]
    )

    assert ["all"] == list(routes(unread))


def test_what_is_remembered_of_a_type_is_not_said_of_a_project() -> None:
    """A type that operators get is not sent to them when an event of that type is a project's."""
    routes = Routes([Route("operators"), Route("own", project_id="p1")])

    assert ["operators"] == list(routes(Event(EMPTIED)))
    assert ["own"] == list(routes(Event(EMPTIED, "p1", "s1", dict)))


def test_mistaken_patterns_are_named() -> None:
    """A pattern that can match nothing is found; one for tenant events is not held against anyone."""
    patterns = ("host.emptied", "maintd.host.*", "maintd.hosts.emptied.v1", "maintd.server.*", "*")

    assert ("host.emptied", "maintd.hosts.emptied.v1") == mistaken(patterns, [EMPTIED])
