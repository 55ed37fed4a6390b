#!/usr/bin/env python3
"""Draws docs/blockers.md: every kind of blocker, when it comes, what to do, and the commands that maintd names.

    tools/draw_blockers.py            write it
    tools/draw_blockers.py --check    say whether it is up to date (exit code 1 when not)

When a kind comes and what to do about it is written here; what it means, and the commands, are asked of
`maintd/domain/emptiness.py` itself, so that the page cannot name a command that maintd would not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maintd.domain import emptiness, hindrances  # noqa: E402
from maintd.domain.model import (  # noqa: E402
    Blocker,
    Host,
    HostSlice,
    Kind,
    Migration,
    Phase,
    Policy,
    Residue,
    Server,
)

PAGE = ROOT / "docs" / "blockers.md"

HELP: dict[str, tuple[str, str]] = {
    "not_attempted": (
        "A server is on the host, and no move of it is under way or has failed since it came. The detail names what "
        "its flavor asks of a destination, and a task that runs.",
        "Move it. The command is the one for its state; see below.",
    ),
    "last_attempt_failed": (
        "A move of this server ended in failure, was aborted or reverted, or came to nothing before any compute acted "
        "(`NoValidHost`). It stays until another attempt begins or the server is elsewhere. `since` is when the "
        "attempt ended; the detail is what Nova said of it, in Nova's words, where Nova said anything.",
        "Mend what Nova complains of, then ask again. `NoValidHost`: there is no room, or no host that fits: see "
        "`nova-scheduler`'s log of that request. If the server is in ERROR since, see below.",
    ),
    "cannot_live_migrate": (
        "Nova would refuse: the server's state is not ACTIVE or PAUSED, or its flavor has a device that Nova does not "
        "move live. The detail says which.",
        "Use the other way that the command shows: mostly a cold migration, which stops the server for a while.",
    ),
    "unconfirmed_resize": (
        "The server runs on its destination, or, resized in place, still here, and Nova waits for somebody to confirm "
        "or to revert. A revert brings it back, to a closed host too.",
        "Confirm it, or have its owner do so. `resize_confirm_window` in nova.conf does it by itself.",
    ),
    "soft_deleted": (
        "The server is deleted for its owner, but Nova keeps it, disks and all, until `reclaim_instance_interval` is "
        "over.",
        "Wait for that, delete it at once, or restore and move it.",
    ),
    "stalled": (
        "A move away from here stands still. The detail has the phase and the reason; `migration.stalled` was said.",
        "Look at the detail's reason first. A live migration that is queued, preparing or copying can be aborted; the "
        "server stays here then. Anything else: see the migration, and the log of nova-compute on both hosts.",
    ),
    "hidden_server": (
        "Nova's hypervisor call names a server on this host that its server list does not. That is what an unconfirmed "
        "resize between cells looks like: two rows, of which the one here is hidden while its disks stay. maintd "
        "recognises such a resize and does no more: the host is not empty until the row is gone. The blocker stands "
        "for the server alone, whatever else is known of it.",
        "Confirm or revert the resize. If there is none, the row is one that Nova lost, in the database of the cell.",
    ),
    "residue": (
        "A server was evacuated from here, or deleted while the host could not be reached. Its disks, and perhaps its "
        "guest, stay until nova-compute runs here again; Nova may have forgotten, maintd has not. An evacuation's is "
        "cleared when Nova's row turns `completed`, once nova-compute has cleaned up.",
        "Bring nova-compute back, or look on the host yourself and say so. With `[drain] accept_residue` it is no "
        "blocker, but stands in `host.emptied`.",
    ),
    "history_unknown": (
        "The host was down already when maintd first saw it. What was evacuated from it or deleted on it before, "
        "nobody can say: Nova forgets.",
        "Look on the host, then say so; nothing else is asked.",
    ),
    "not_closed": (
        "The compute service is enabled, or it is disabled and Placement's provider lacks the trait "
        "COMPUTE_STATUS_DISABLED, so that the scheduler may still place servers here.",
        "Disable the service. Where only the trait is missing, nova-compute mends that within a minute or so; if it "
        "does not, restart it.",
    ),
    "cell_unknown": (
        "Nova cannot reach the database of the host's cell. Its lists then leave out what is in that cell, without a "
        "word.",
        "See to the cell's database; the command shows when the service is listed again.",
    ),
    "ambiguous_service": (
        "os-services lists no nova-compute service under this name, or more than one (in different cells).",
        "Delete the service that is not, or give hosts names of their own.",
    ),
    "several_nodes": (
        "The compute service has more than one compute node, as Ironic's have. A server's host is then only who "
        "manages it. maintd recognises such a host and does no more: it is never called empty.",
        "Judge the nodes by other means.",
    ),
    "no_cloud": (
        "maintd has no `[cloud]` to ask, and emptiness is proven by Nova's API alone.",
        "Configure one; see the README.",
    ),
    "moving": (
        "A move away from here is under way, or is being confirmed or reverted.",
        "Wait. If it stands still, it becomes `stalled`.",
    ),
    "incoming": (
        "A server is being built, unshelved or moved to this host, or Placement has been asked to make room for one.",
        "Wait until it has arrived or failed, then move it away. On a closed host it had been scheduled before, or an "
        "operator named the host.",
    ),
    "allocation": (
        "Placement holds resources here for a server or a migration that has just left; Nova frees them as the last "
        "step.",
        "Wait. What is still held after 300 s is a warning, `leftover_allocation`, and no "
        "blocker; `nova-manage placement audit` finds such. Only for a server that is being moved, to where Nova does "
        "not say yet, it blocks on: it may be coming here. If that move is dead, its row has to be ended.",
    ),
    "unverified": (
        "The last look at Nova's and Placement's APIs was not whole; the detail says what was missing.",
        "If it stays, mend what the detail says: a right, a service, a cell.",
    ),
    "blind": (
        "The connection to a bus was lost, and what it said meanwhile is being read over the API.",
        "Wait for `bus.healed`; if it does not come, see the bus in `maintd status`.",
    ),
    "verifying": (
        "Nothing is known to be in the way; the two passes of the proof are under way.",
        "Wait.",
    ),
}
"""When each kind comes, and what to do about it."""

SERVER, HOST = "SERVER", "HOST"
UP, DOWN = Host(HOST, disabled=True, up=True), Host(HOST, forced_down=True, up=False)
STATES = (
    "active paused stopped suspended rescued resized shelved error".split()  # in which a server can be on a host
)


def commands(kind: str) -> list[str]:
    """What maintd names as the remedy of a kind that is not about a server's state."""
    live = Migration("KEY", SERVER, Kind.LIVE, Phase.RUNNING, HOST, "OTHER", migration_id=42, stalled="frozen")
    cold = Migration("KEY", SERVER, Kind.COLD, Phase.RUNNING, HOST, "OTHER", migration_id=42, stalled="slow_step")
    waits = Migration("KEY", SERVER, Kind.RESIZE, Phase.AWAITING_CONFIRMATION, HOST, "OTHER")
    open_host = Host(HOST, nodes=("a", "b"), cell_unknown=True, history_unknown=True)
    made: list[Blocker] = [
        *emptiness.blockers(HostSlice(open_host), open_host, Policy(), 0.0),
        emptiness.server_blocker(Server(SERVER, host=HOST, vm_state="soft-delete"), UP),
        emptiness.residue_blocker(Residue(HOST, SERVER, "evacuated", 0.0)),
        *(emptiness.migration_blocker(m) for m in (live, cold, waits)),
        emptiness.hidden_blocker(SERVER, None, None),
        emptiness.ambiguous_blocker(HOST, 2),
    ]
    return list(dict.fromkeys(b.remedy.replace("42", "NUMBER") for b in made if b.kind == kind and b.remedy))


def markdown() -> str:
    """The whole of docs/blockers.md."""
    out = [
        "# Blockers\n\nDrawn by `tools/draw_blockers.py`; do not edit.\n",
        "A host that is not empty says why: in `maintd why HOST`, in `GET /v1/hosts/{host}` and in `drain.stalled`, as "
        "a list of blockers. Each has a kind, which is one of those below and no other; the server or the migration it "
        "is about, with the server's project; since when; a detail, in words; and the next command that helps, "
        "where there is one. A member is null where nothing is known, never guessed.\n",
        "They are ordered: what an operator has to do comes before what goes by itself. A server is named once, by "
        "what is in the way first; its residue is named beside that. Commands are openstackclient's, complete, and to "
        "be copied; those that change the state of a server are to be given by whoever may decide that.\n",
        "| kind | means |\n|---|---|",
    ]
    out += [f"| [`{kind}`](#{kind}) | {text} |" for kind, text in emptiness.BLOCKER_KINDS.items()]
    for kind, text in emptiness.BLOCKER_KINDS.items():
        comes, do = HELP[kind]
        out.append(f"\n## `{kind}`\n\n{text[0].upper()}{text[1:]}.\n\n{comes}\n\n*What to do.* {do}")
        if found := commands(kind):
            out.append("\n```\n" + "\n".join(found) + "\n```")
    out.append(
        "\n## A server's state and the way out\n\nFor `not_attempted`, `last_attempt_failed` and "
        "`cannot_live_migrate`, the command depends on the state of the server and on whether the host is up. Nova "
        "live-migrates servers that "
        "are active or paused, moves cold those that are active or stopped, and evacuates, from a host that is down, "
        "those that are active, stopped or in ERROR. Whatever is in another state is first brought into one of these; "
        "the blocker then changes, and so does its command.\n\n"
        "Before a server is evacuated, make sure that its guest does not run any more: Nova does not look.\n\n"
        "| state | host up | host down |\n|---|---|---|"
    )
    for state in STATES:
        ways = [emptiness.way_out(Server(SERVER, host=HOST, vm_state=state), host)[0] for host in (UP, DOWN)]
        out.append(f"| {state} | " + " | ".join(f"`{way}`" if way else "bring it up again" for way in ways) + " |")
    out.append(
        "\n`openstack server set --state` asks before it does it. Of a server in ERROR, look at its fault and at what "
        "the hypervisor knows of it first; one that cannot be mended can be deleted or rebuilt by its owner.\n\n"
        "## Flavors that hinder\n\nNova live-migrates some servers not at all, and others only where the destination "
        "has the same to offer. Only the first are `cannot_live_migrate`; the second is a remark in the detail: since "
        "Train Nova moves pinned CPUs, huge pages and NUMA topologies live, if there is room for them.\n\n"
        "| extra spec | live migration | moved cold | because |\n|---|---|---|---|"
    )
    for h in hindrances.HINDRANCES.values():
        word = "refused" if h.refused else "depends on the destination"
        out.append(f"| `{h.spec}` | {word} | {'yes' if h.cold else 'no'} | {h.means} |")
    out.append(
        "\nWhat maintd cannot see: devices that come from a port (the port's vnic type is neither in a notification "
        "nor in Nova's API), and properties of the image (a TPM or encrypted memory asked for there). Of these the "
        "first attempt tells, as `last_attempt_failed`. Where the account may not see extra specs "
        "(`os_compute_api:os-flavor-extra-specs:index`) and notifications are not heard, flavors hinder unseen."
    )
    return "\n".join(out) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw docs/blockers.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    args = parser.parse_args()
    text = markdown()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if args.check:
        print(f"{PAGE.relative_to(ROOT)} is not up to date: run tools/draw_blockers.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
