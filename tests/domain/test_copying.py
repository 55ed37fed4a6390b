"""The quick `replace` gives what the standard one gives."""

from __future__ import annotations

import dataclasses

import pytest

from maintd.domain import model
from maintd.domain.copying import replace

VALUES = (
    model.Host("cmp-01", "uuid", disabled=True, nodes=("node",)),
    model.Server("server", "project", host="cmp-01", updated_at=5.0),
    model.Migration("key", "server", model.Kind.LIVE, model.Phase.RUNNING, "cmp-01", "cmp-02"),
    model.Drain("drain", "cmp-01", 1.0),
    model.Residue("cmp-01", "server", "evacuated", 1.0),
    model.Bus("default", connected=True),
    model.Knowledge(1.0, 2.0),
    model.Verification("cmp-01", generation=3),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_any_field_is_replaced_and_all_others_are_kept(value: model.Value) -> None:
    """Whatever the field, the copy equals the standard library's, and the original is as it was."""
    before = dataclasses.replace(value)
    for field in dataclasses.fields(value):
        changed = replace(value, **{field.name: "another"})
        assert changed == dataclasses.replace(value, **{field.name: "another"})
        assert type(changed) is type(value)
        assert hash(changed) == hash(dataclasses.replace(value, **{field.name: "another"}))
    assert value == before
    assert replace(value) == value and replace(value) is not value


def test_a_class_of_one_field_is_copied_too() -> None:
    """One field is no special case."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class One:
        only: int

    assert replace(One(1), only=2) == One(2)


def test_an_unknown_field_is_refused() -> None:
    """A field that is misspelt does not vanish."""
    with pytest.raises(KeyError):
        replace(VALUES[1], hots="cmp-02")


def test_a_copy_is_frozen() -> None:
    """What went around the frozenness to make the copy leaves it frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        replace(VALUES[0], disabled=False).disabled = True  # type: ignore[misc]
