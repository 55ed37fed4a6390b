"""Which endpoints want an event type."""

from __future__ import annotations

import pytest

from maintd.delivery.routing import Routes, matches, mistaken

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


def test_routes_name_each_endpoint_once() -> None:
    """An endpoint with two matching patterns is named once, in the order of the configuration, each time anew."""
    routes = Routes({"b": ("maintd.host.*", "*"), "a": ("*",), "c": ("maintd.drain.*",)})

    assert ["b", "a"] == list(routes(EMPTIED))
    assert ["b", "a"] == list(routes(EMPTIED))
    assert ["b", "a", "c"] == list(routes("maintd.drain.started.v1"))


def test_no_patterns_means_everything_but_tenants() -> None:
    """An endpoint that names no event types gets all of the operator's."""
    routes = Routes({"a": ()})

    assert (["a"], []) == (list(routes(EMPTIED)), list(routes(TENANT)))


def test_mistaken_patterns_are_named() -> None:
    """A pattern that can match nothing is found; one for tenant events is not held against anyone."""
    patterns = ("host.emptied", "maintd.host.*", "maintd.hosts.emptied.v1", "maintd.server.*", "*")

    assert ("host.emptied", "maintd.hosts.emptied.v1") == mistaken(patterns, [EMPTIED])
