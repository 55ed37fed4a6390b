"""The main job: an operator closes a host and moves its servers away; one migration hangs for a while; the host is
proven empty and opened again."""

from __future__ import annotations

import base64
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from maintd.config import Config, StallConfig, WebhookConfig
from maintd.demo.stage import SETTLE_S, Receiver, Stage, Teller, failed, stage
from maintd.demo.stage import play as play_story
from maintd.simulator import Cloud
from maintd.simulator.rest import RestServer

HOST: Final = "cmp-01"
FROZEN_AFTER_S: Final = 8.0
LIMIT_S: Final = 80.0


def play() -> int:
    """Play the story; 0 when every event that must come came, 1 with a sentence when one did not."""
    return play_story(_played)


def _played() -> int:
    tell = Teller()
    names: dict[str, str] = {}
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def heard(event: dict[str, Any]) -> None:
        tell("webhook", summary(event, names))
        if event["type"] == "maintd.host.emptied.v1":
            for read in event["data"]["proof"]:
                tell("", f"    proof: pass {read['pass']}, {read['read']:<19} {read['count']} found")

    def people(cloud: Cloud, rest: RestServer) -> None:
        for number in range(1, 6):
            cloud.add_host(f"cmp-0{number}")
        names.update({s.id: s.name for s in (cloud.add_server(HOST, n) for n in ("web-1", "web-2", "db-1", "cache-1"))})
        cloud.knobs.set("live_migration", mode="converge", seconds=3, report_s=1)
        cloud.knobs.set("live_migration", server="db-1", mode="stuck", seconds=4, floor=0.4, report_s=1)

    print("maintd demo: a simulated Nova with five hosts, the real daemon, a real webhook.")
    print(
        f"Shortened for the show: settle_s {SETTLE_S:g} (default 15), frozen_after_s {FROZEN_AFTER_S:g} (default 60), "
        "quick migrations.\n"
    )
    receiver = Receiver(secret, heard)

    def configured(config: Config, rest: RestServer, folder: Path) -> Config:
        return replace(
            config,
            stall=StallConfig(frozen_after_s=FROZEN_AFTER_S),
            webhooks=(WebhookConfig("demo", receiver.url, secret),),
        )

    try:
        with stage(tell, LIMIT_S, people, configured) as on:
            return _story(on, receiver, list(names))
    finally:
        receiver.close()


def _story(on: Stage, receiver: Receiver, server_ids: list[str]) -> int:
    tell, cloud = on.tell, on.cloud

    def name(server_id: str | None) -> str:
        return cloud.find_server(server_id).name if server_id else ""

    on.until("the daemon to have read the cloud", on.has_read_the_cloud)
    tell("maintd", "has read the cloud: 5 hosts, 4 servers; listens, asks, serves")
    tell("operator", f"openstack compute service set --disable --disable-reason 'maintenance: new PSU' {HOST} ...")
    cloud.disable(HOST, "maintenance: new PSU")
    receiver.wait_for("drain.started", on.deadline)
    tell("operator", "asks Nova to live-migrate all four servers away; Nova does one at a time")
    for server_id in server_ids:
        cloud.live_migrate(server_id)
    stalled = receiver.wait_for("migration.stalled", on.deadline)
    why = on.daemon.why(HOST)
    tell("operator", f"maintd why {HOST}")
    for blocker in why:
        tell("", f"    {blocker.kind:<14} {name(blocker.server_id):<8} {blocker.detail or ''}")
    tell("operator", f"frees the hung migration of {name(stalled['data']['server_id'])}")
    cloud.knobs.set("live_migration", server="db-1", mode="converge", seconds=3, report_s=1)
    receiver.wait_for("host.emptied", on.deadline)
    left = cloud.physically_on(HOST)
    tell("check", f"what is really on {HOST}: {', '.join(sorted(left)) or 'nothing'}")
    if left:
        return failed("host.emptied came while something was still there")
    tell("operator", f"swaps the power supply and enables {HOST} again")
    cloud.enable(HOST)
    receiver.wait_for("drain.ended", on.deadline)
    tell("check", f"{len(receiver.events)} events received, every signature verified, none refused")
    return 0 if receiver.refused == 0 else failed("a signature was not accepted")


def summary(event: dict[str, Any], names: dict[str, str]) -> str:
    """An operators' event in a line."""
    data = event["data"]
    kind = event["type"].removeprefix("maintd.").removesuffix(".v1")
    server = names.get(data.get("server_id") or "", data.get("server_id") or "")
    if kind.startswith("migration."):
        text = f"{server}: {data['source']} -> {data['destination'] or '?'}"
        if kind == "migration.stalled":
            text += f", {data['reason']}: no byte moved for {data['evidence']['unchanged_seconds']:.0f} s"
        elif "duration_seconds" in data:
            text += f" after {data['duration_seconds']:.1f} s"
    elif kind == "host.emptied":
        text = f"{data['host']} is empty of Nova servers, nothing else is claimed (scope {data['scope']})"
    elif kind == "drain.started":
        text = f"{data['host']}, {data['servers_total']} servers, reason {data['reason']!r}"
    else:
        text = str(data.get("host") or event["subject"])
        if data.get("reason"):
            text += f", reason {data['reason']!r}"
        if "duration_seconds" in data:
            text += f" after {data['duration_seconds']:.1f} s"
    return f"{kind:<22} {text}"
