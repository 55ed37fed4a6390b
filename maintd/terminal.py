"""What people see: tables, times in UTC, and texts from outside made harmless.

Names, reasons and faults come from Nova, some from tenants; a control character among them could rewrite an
operator's terminal, so each is replaced. On a terminal rich draws the tables; elsewhere nothing is wrapped or cut,
so that `grep` and `awk` see whole lines, and rich is not even imported.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def clean(value: object) -> str:
    """Any value on one line, without control characters (C0, C1, and those that turn the direction of text)."""
    text = "-" if value is None else "yes" if value is True else "no" if value is False else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join("·" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def utc(text: str | float | None) -> str:
    """A moment of the API (RFC 3339) or in epoch seconds, to the second."""
    at = seconds_of(text)
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def seconds_of(text: str | float | None) -> float | None:
    """The epoch seconds of a moment of the API; None where there is none."""
    if text is None or isinstance(text, (int, float)):
        return text
    return datetime.fromisoformat(text).timestamp()


def span(seconds: float) -> str:
    """A duration for people: 42 s, 7 min, 3 h 12 min, 2 d 4 h."""
    s = max(int(seconds), 0)
    if s < 90:
        return f"{s} s"
    if s < 90 * 60:
        return f"{s // 60} min"
    if s < 36 * 3600:
        return f"{s // 3600} h {s % 3600 // 60} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def about(eta: Mapping[str, float]) -> str:
    """An estimate with its band: 12 min (8-20), or 70 min (20 min to 3 h 4 min) where the units differ."""
    middle, low, high = (span(eta[name]) for name in ("seconds", "low_seconds", "high_seconds"))
    if len({tuple(text.split()[1:]) for text in (middle, low, high)}) == 1 and middle.count(" ") == 1:
        return f"{middle} ({low.split()[0]}-{high.split()[0]})"
    return f"{middle} ({low} to {high})"


def amount(size: float, unit: str = "bytes") -> str:
    """A size for people: 3.7 GiB, 512 KiB; or 40 % where that is the unit."""
    if unit == "percent":
        return f"{size:.3g} %" if 0 < size < 1 else f"{size:.0f} %"
    for name, factor in (("TiB", 1024.0**4), ("GiB", 1024.0**3), ("MiB", 1024.0**2), ("KiB", 1024.0)):
        if size >= factor:
            return f"{size / factor:.{0 if size >= 100 * factor else 1}f} {name}"
    return f"{size:.0f} B"


def say(text: str = "") -> None:
    """A line on stdout."""
    print(text)


def complain(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr)


def print_json(value: Any, *, lines: bool = False) -> None:
    """A value as JSON: indented for a terminal, else (and with `lines`) on one line."""
    indent = 2 if sys.stdout.isatty() and not lines else None
    separators = None if indent else (",", ":")
    print(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 0) -> None:
    """A table on stdout; columns whose name begins with # are numbers."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, indent)
        return
    titles = [column.lstrip("#") for column in columns]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for row in (titles, *cells):
        aligned = (
            text.rjust(width) if column.startswith("#") else text.ljust(width)
            for column, text, width in zip(columns, row, widths, strict=True)
        )
        print((" " * indent + "  ".join(aligned)).rstrip())


def _draw(columns: Sequence[str], cells: Iterable[Sequence[str]], indent: int) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console(highlight=False, markup=False, emoji=False).print(Padding(drawn, (0, 0, 0, indent), expand=False))


def fields(value: Mapping[str, Any], skip: Iterable[str] = ()) -> None:
    """The plain members of a value, a line each; nested ones are left to the caller."""
    skipped = set(skip)
    shown = [(name, item) for name, item in value.items() if name not in skipped]
    width = max((len(name) for name, _ in shown), default=0)
    for name, item in shown:
        text = json.dumps(item, ensure_ascii=False) if isinstance(item, (dict, list)) else item
        if isinstance(item, str) and name.endswith(("_at", "_since", "_from")):
            text = utc(item)
        print(f"{name:<{width}}  {clean(text)}")
