"""The reference HA manager seen from outside: its rule said once more, and a command that writes down its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.receivers.sending import ROOT

EXAMPLE = ROOT / "examples" / "ha_manager.py"

State = dict[str, Any]


def has_to_go(state: State) -> bool:
    """The rule, said once more: what drives the active role away."""
    by_others = state["move"] is not None and state["move"]["asked_for_by"] in ("operator", "unknown")
    lost = state["host_lost"] is not None and not state["host_lost"]["widespread"]
    return state["maintenance"] is not None or lost or by_others


def is_free(state: State) -> bool:
    """The rule, said once more: where the active role may go."""
    return all(state[touch] is None for touch in ("maintenance", "move", "host_lost"))


def history(log: Path, pair: str) -> list[tuple[str, int, str]]:
    """(what, decision, server) of each line that the calls of a pair's command have written: begin, end or fail."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(said, int(term), server) for said, name, server, term in lines if name == pair]


COMMAND = """#!/bin/sh
# As a pair's command should be: it takes the role from the other, then gives it. Can be held up and made to fail.
here=$(dirname "$0")
echo "begin $*" >> "$here/log"
[ -p "$here/gate" ] && read -r _ < "$here/gate"
if [ -e "$here/trouble" ]; then echo "fail $*" >> "$here/log"; exit 1; fi
echo "end $*" >> "$here/log"
"""
