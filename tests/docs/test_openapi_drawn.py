"""docs/openapi.yaml and docs/asyncapi.yaml are what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from maintd.domain.events import CATALOGUE
from maintd.domain.tenant_events import TENANT_CATALOGUE
from maintd.web.server import ROUTES

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


openapi, asyncapi = load("draw_openapi"), load("draw_asyncapi")

OPERATIONS = [(path, method) for path, methods in ROUTES.items() for method in methods]


@pytest.mark.parametrize("draw", [openapi, asyncapi])
def test_what_is_drawn_is_up_to_date(draw: ModuleType) -> None:
    """If this fails: run tools/draw_openapi.py or tools/draw_asyncapi.py, and read the difference."""
    assert draw.PAGE.read_text(encoding="utf-8") == draw.pages.text_of(draw.document(), f"{draw.__name__}.py")


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_an_operation_says_what_it_is(path: str, method: str) -> None:
    """Its docstring begins with its own method and path, and it declares the parameters of the path, no others."""
    operation = ROUTES[path][method].operation

    assert (operation.handler.__doc__ or "").startswith(f"{method} {path}: ")
    assert re.findall(r"\{(\w+)\}", path) == [one.name for one in operation.path]
    assert (operation.body is not None) == (method in ("POST", "PUT", "PATCH"))


def test_operations_have_names_of_their_own() -> None:
    """Programs that are made from the document name their functions by them."""
    names = [ROUTES[path][method].operation.handler.__name__ for path, method in OPERATIONS]

    assert len(names) == len(set(names))


def test_every_object_is_there() -> None:
    """Whatever an answer refers to is in the document, and nothing else is."""
    text = openapi.PAGE.read_text()
    wanted = set(re.findall(r"'#/components/schemas/(\w+)'", text))

    assert wanted == set(yaml.safe_load(text)["components"]["schemas"])


def test_every_event_is_a_message() -> None:
    """Each event of the catalogues is there, with the schema that it has in docs/schemas; the bus has no project's."""
    document = yaml.safe_load(asyncapi.PAGE.read_text())
    operators = [f"maintd.{middle}.v1" for middle in CATALOGUE]
    projects = [f"maintd.{middle}.v1" for middle in TENANT_CATALOGUE]

    assert operators == list(document["channels"]["bus"]["messages"])
    for channel in ("webhook", "stream"):
        assert operators + projects == list(document["channels"][channel]["messages"])
    for name in operators + projects:
        schema = document["components"]["messages"][name]["payload"]["schema"]["$ref"]
        assert (asyncapi.PAGE.parent / schema).exists()
