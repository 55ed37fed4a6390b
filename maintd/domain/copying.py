"""`replace` for our frozen values, several times quicker than the standard library's.

Values are never changed but made anew with some fields changed, several times for each notification, and some have
thirty fields. `dataclasses.replace` asks every field's definition and then runs an `__init__` that has to go around the
frozenness field by field; here the slots are copied as they are. It is for dataclasses with slots and without a
`__post_init__`, whatever their size; type checkers see the standard function.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import replace as replace
    from typing import Any
else:

    def replace(value, /, **changes):
        """A copy of `value` with these fields changed. Raises KeyError for a field that it has not."""
        kind = type(value)
        setters, values_of = _plan(kind)
        new = object.__new__(kind)
        for put, held in zip(setters.values(), values_of(value), strict=True):
            put(new, held)
        for name, given in changes.items():
            setters[name](new, given)
        return new


@cache
def _plan(kind: type[Any]) -> tuple[dict[str, Callable[[Any, Any], None]], Callable[[Any], tuple[Any, ...]]]:
    """What sets each slot of a class, frozen or not, by field; and what reads them all."""
    names = [field.name for field in fields(kind)]
    values_of = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
    return {name: getattr(kind, name).__set__ for name in names}, values_of
