"""docs/events.md and docs/schemas are what the event classes say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from maintd.domain.events import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_events", ROOT / "tools" / "draw_events.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load()


def test_what_is_drawn_is_up_to_date() -> None:
    """If this fails: run tools/draw_events.py, and read the difference."""
    assert [] == [str(path.relative_to(ROOT)) for path in draw.outdated()]


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_published_event_is_as_its_schema_says(name: str) -> None:
    """An event of each class, as `publish` makes it, is valid; without a promised member it is not."""
    schema = json.loads((ROOT / "docs" / "schemas" / f"maintd.{name}.v1.json").read_text())
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    event = draw.sample(CATALOGUE[name])

    jsonschema.Draft202012Validator.check_schema(schema)
    validator.validate(event)
    for member in list(event["data"]):
        lacking = {**event, "data": {key: value for key, value in event["data"].items() if key != member}}
        assert not validator.is_valid(lacking), member


def test_a_schema_admits_members_to_come() -> None:
    """A member added later breaks no receiver that validates."""
    schema = draw.event_schema(CATALOGUE["host.emptied"])
    event = draw.sample(CATALOGUE["host.emptied"])
    event["data"]["later"] = 1

    assert jsonschema.Draft202012Validator(schema).is_valid(event)


def test_times_are_times_on_the_wire() -> None:
    """No member that is a moment goes out as a number."""
    for name, kind in CATALOGUE.items():
        text = json.dumps(draw.sample(kind))

        assert "17672" not in text, name
