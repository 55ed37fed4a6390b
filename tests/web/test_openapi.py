"""The running API does what docs/openapi.yaml says.

Schemathesis asks for all that the document allows and for much that it does not, and holds every answer against it with
all of its checks: no 5xx that is not meant, no status, content type, header or body that is not written there, nothing
refused that is allowed, nothing accepted that is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events as happened
from schemathesis.engine import from_schema

from maintd.clock import ManualClock
from maintd.web.server import ROUTES
from tests.web.serving import AT, Served, serving
from tests.web.world import fill

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"


MORE_THAN_SCHEMA = (
    "GET /v1/deliveries",
    "POST /v1/deliveries/redeliver",
    "GET /v1/servers/maintenance",
    "GET /v1/subscriptions",
    "POST /v1/subscriptions",
    "PATCH /v1/subscriptions/{subscription_id}",
)
"""What of them fits together, and which URLs may be had, no schema says: they may refuse what their schema allows."""

REFUSED = "Schema-valid request rejected"


class Hasty(ManualClock):
    """A clock of which half a minute is gone whenever it is asked, so that no long poll takes long."""

    def monotonic(self) -> float:
        return self.advance(30.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An API over a store with something of everything."""
    with serving(tmp_path_factory.mktemp("openapi")) as made:
        fill(made)
        made.bell.clock = Hasty(AT)
        yield made


@pytest.fixture(scope="module")
def described(served: Served) -> Any:
    """The document, with every object of an answer closed: what is not written there must not come."""
    document = yaml.safe_load(DOCUMENT.read_text())
    for schema in document["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "base-url": served.url,
            "generation": {"deterministic": True, "database": "none", "max-examples": 5},
            "phases": {"stateful": {"enabled": False}},
        }
    )
    return schemathesis.openapi.from_dict(document, config=config)


@pytest.mark.parametrize(
    ("path", "given"),
    [
        *(("/v1/hosts/{host}", {"host": f"cmp-{n}"}) for n in (1, 2, 3, 4)),
        *(("/v1/drains/{drain_id}", {"drain_id": one}) for one in ("d0", "d1")),
        *(("/v1/migrations/{migration_key}", {"migration_key": one}) for one in ("m0", "m1")),
        ("/v1/events/{event_id}", {"event_id": "event-1"}),
        ("/v1/deliveries/{delivery_id}", {"delivery_id": "1"}),
        ("/v1/subscriptions/{subscription_id}", {"subscription_id": "sub-1"}),
        *((path, {}) for path in ROUTES if "{" not in path and "GET" in ROUTES[path]),
    ],
)
def test_what_is_there_is_as_documented(described: Any, path: str, given: dict[str, str]) -> None:
    """What there is, is shown as the document says, to the last member."""
    whose = {"project_id": "p-1"} if path == "/v1/servers/maintenance" else {}
    answer = described[path]["GET"].Case(path_parameters=given, query=whose).call_and_validate()

    assert 200 == answer.status_code


@pytest.mark.parametrize(
    ("path", "given", "body", "status"),
    [
        ("/v1/drains", {}, {"host": "cmp-2"}, 200),
        ("/v1/drains", {}, {"host": "cmp-4"}, 202),
        ("/v1/drains", {}, {"host": "cmp-3"}, 202),
        ("/v1/drains", {}, {"host": "nonesuch"}, 404),
        ("/v1/residue/{host}/clear", {"host": "cmp-2"}, {"who": "me"}, 200),
        ("/v1/deliveries/redeliver", {}, {"endpoint": "ha"}, 200),
        ("/v1/subscriptions", {}, {"name": "ha", "url": "https://ha.example/"}, 201),
        ("/v1/subscriptions/{subscription_id}/rotate", {"subscription_id": "sub-1"}, {}, 200),
        ("/v1/subscriptions/{subscription_id}/enable", {"subscription_id": "sub-1"}, {}, 409),
    ],
)
def test_what_is_done_is_as_documented(
    described: Any, path: str, given: dict[str, str], body: dict[str, Any], status: int
) -> None:
    """What a request does is told as the document says."""
    case = described[path]["POST"].Case(path_parameters=given, body=body, media_type="application/json")

    assert status == case.call_and_validate().status_code


def test_the_api_is_as_documented(described: Any) -> None:
    """No request, sensible or not, has an answer that the document lacks. (It deletes what it finds: it comes last.)"""
    wrong: list[str] = []
    asked: Counter[str] = Counter()
    for event in from_schema(described).execute():
        if isinstance(event, (happened.NonFatalError, happened.FatalError)):
            wrong.append(str(event))
        if isinstance(event, happened.ScenarioFinished):
            asked[event.recorder.label] += len(event.recorder.cases)
            failures = (c.failure_info for checks in event.recorder.checks.values() for c in checks)
            wrong += [
                f"{event.recorder.label}: {f.failure}\n{f.code_sample}"
                for f in failures
                if f is not None and not (event.recorder.label in MORE_THAN_SCHEMA and REFUSED in str(f.failure))
            ]

    assert not wrong, "\n\n".join(wrong)
    assert {f"{method} {path}" for path, methods in ROUTES.items() for method in methods} == set(asked)
    assert all(n >= (2 if label in MORE_THAN_SCHEMA else 5) for label, n in asked.items()), asked
