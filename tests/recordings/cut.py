"""Makes a recording of a real cloud small enough to keep, and fit to be read by others.

    python -m tests.recordings.cut RECORDING STORY

writes `<STORY>.jsonl`: the notifications of servers and services, with the fields that maintd reads; servers are named
after the story, whatever they were called. `--said MACHINE` writes, beside that, what the simulator is held against
(`tests/simulator/recorded/<STORY>.json`): who said what about each server, MACHINE being the one that ran conductor
and API. Nothing else is changed: moments, order and ids are Nova's.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from maintd.simulator.notifications import Json
from tests.recordings.make import HERE, cut_notification, wire_line
from tests.simulator.sequences import Told, sequences

SAID = HERE.parent / "simulator" / "recorded"


def renamed(inner: Json, names: dict[str, str], story: str) -> Json:
    """The message with its server called `<story>-1`, `<story>-2`, in the order in which they appear."""
    data = inner["payload"]["nova_object.data"]
    name = data.get("display_name")
    if name is None:
        return inner
    new = names.setdefault(name, f"{story}-{len(names) + 1}")
    return {**inner, "payload": {**inner["payload"], "nova_object.data": {**data, "display_name": new}}}


def as_json(told: dict[str, list[Told]]) -> str:
    """What was said, one message a line."""
    text = json.dumps(told, indent=1)
    return re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text) + "\n"


def main(arguments: list[str]) -> int:
    """Cut one recording."""
    parser = argparse.ArgumentParser(prog="python -m tests.recordings.cut")
    parser.add_argument("recording", type=Path)
    parser.add_argument("story")
    parser.add_argument("--said", metavar="MACHINE")
    asked = parser.parse_args(arguments)
    lines, said = [], []
    names: dict[str, str] = {}
    for line in asked.recording.read_text().splitlines():
        fields = json.loads(line)
        if fields["kind"] != "notification":
            continue
        inner = json.loads(json.loads(fields["body"])["oslo.message"])
        if inner["event_type"].startswith("scheduler."):
            continue
        inner = renamed(inner, names, asked.story)
        said.append((fields["routing_key"], inner))
        lines.append(wire_line(fields["at"], fields["routing_key"], cut_notification(inner)))
    (HERE / f"{asked.story}.jsonl").write_text("".join(lines))
    if asked.said:
        (SAID / f"{asked.story}.json").write_text(
            as_json(sequences(said, controller=asked.said, prefix=f"{asked.story}-"))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
