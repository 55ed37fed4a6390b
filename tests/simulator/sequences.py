"""What of a stream of notifications is held against a real Nova: who says what about each server, in which order.

Names differ between two clouds, so hosts become roles: `home` is where a server was first seen, `away` any other
compute, `controller` the machine of conductor and API. Ids, times and sizes are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Told = list[str | None]


def sequences(messages: Iterable[tuple[str, dict[str, Any]]], *, controller: str, prefix: str) -> dict[str, list[Told]]:
    """Per server, by name: [event, priority, publisher, host, state, task, power, old]; services alike.

    `old` is `old_state/old_task_state` of an instance.update, else None. Messages that name no server of this prefix,
    the scheduler's are left out; `compute.exception`, which names none, is only counted, under its own name.
    """
    found: dict[str, list[Told]] = {}
    homes: dict[str, str] = {}
    names: dict[str, str] = {}
    for key, message in messages:
        event, data = message["event_type"], message["payload"]["nova_object.data"]
        if event.startswith("scheduler."):
            continue
        if event == "compute.exception":
            found.setdefault(event, []).append([event, key.rpartition(".")[2]])
            continue
        if event.startswith("service."):
            found.setdefault(f"service {data['host']}", []).append(
                [event, key.rpartition(".")[2], str(data["disabled"]), str(data["forced_down"])]
            )
            continue
        if event.startswith("compute_task."):
            name = names.get(data["instance_uuid"], "")
        else:
            name = data["display_name"]
            names[data["uuid"]] = name
        if not name.startswith(prefix):
            continue
        host = data.get("host")
        binary, _, machine = message["publisher_id"].partition(":")
        if event == "instance.create.start":
            homes.setdefault(name, machine)

        def role(host: str | None, home: str | None = homes.get(name)) -> str | None:
            return None if host is None else "controller" if host == controller else "home" if host == home else "away"

        old = data.get("state_update")
        before = None if old is None else "{old_state}/{old_task_state}".format(**old["nova_object.data"])
        found.setdefault(name, []).append(
            [
                event,
                key.rpartition(".")[2],
                f"{binary}:{role(machine)}",
                role(host),
                data.get("state"),
                data.get("task_state"),
                data.get("power_state"),
                before,
            ]
        )
    return found
