"""status, hosts, why, drains, migrations, residue: what maintd holds true, asked of its API."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Mapping, Sequence
from typing import Any

from maintd.cli import drawing
from maintd.cli.common import Commands, Exit, ask_options, client, command, verbs
from maintd.clock import SystemClock
from maintd.terminal import about, clean, fields, print_json, say, seconds_of, span, table, utc


def add(commands: Commands) -> None:
    status = command(commands, "status", "how maintd and the closed hosts stand", do_status)
    ask_options(status)

    hosts = command(commands, "hosts", "list the hosts maintd knows", do_hosts)
    ask_options(hosts)
    hosts.add_argument("--closed", action="store_true", help="only those that are closed (disabled or forced down)")
    in_hosts = verbs(hosts)
    _list(in_hosts, do_hosts)
    _show(in_hosts, "HOST", do_hosts_show)

    why = command(
        commands, "why", "say what keeps a host from being empty",
        do_why,
        description="Every reason why a host is not empty: kind, server, project, since when, and the commands that "
        "help. What is to be done comes before what goes by itself. docs/blockers.md explains every kind.",
        epilog="example:\n  maintd why cmp-17",
    )  # fmt: skip
    why.add_argument("host", metavar="HOST")
    ask_options(why)

    drains = command(commands, "drains", "list drains; drain start HOST begins one", do_drains, aliases=["drain"])
    ask_options(drains)
    drains.add_argument("--open", action="store_true", help="only those that are not over")
    in_drains = verbs(drains)
    _list(in_drains, do_drains)
    _show(in_drains, "DRAIN_ID", do_drains_show)
    start = command(
        in_drains, "start", "say that a closed host is to be emptied",
        do_drain_start,
        description="Begin a drain of a closed host whose disabled reason does not say so. Nothing is moved: maintd "
        "only begins to watch for stalls.",
    )  # fmt: skip
    start.add_argument("host", metavar="HOST")
    start.add_argument("--removal", action="store_true", help="the host goes for good: owners of its servers hear it")
    ask_options(start, inherited=True)

    migrations = command(commands, "migrations", "list the migrations under way", do_migrations)
    ask_options(migrations)
    migrations.add_argument("--all", action="store_true", help="also those that ended (kept for a year)")
    migrations.add_argument("--host", metavar="HOST", help="only those from or to this host")
    migrations.add_argument("--server", metavar="SERVER_ID", help="only those of this server")
    in_migrations = verbs(migrations)
    _list(in_migrations, do_migrations)
    _show(in_migrations, "MIGRATION_KEY", do_migrations_show, "show one, and draw how it proceeds")

    residue = command(commands, "residue", "list what may be left on dead hosts; clear it", do_residue)
    ask_options(residue)
    residue.add_argument("--host", metavar="HOST", help="only what is on this host")
    residue.add_argument("--cleared", action="store_true", help="also what was cleared")
    in_residue = verbs(residue)
    _list(in_residue, do_residue)
    clear = command(
        in_residue, "clear", "say that you have looked, and nothing is left on a host",
        do_residue_clear,
        description="Say that no disk and no guest of an evacuated or deleted server is left on a host. Look first: "
        "maintd cannot see it, and believes you.",
    )  # fmt: skip
    clear.add_argument("host", metavar="HOST")
    clear.add_argument("--server", metavar="SERVER_ID", help="only what this server may have left")
    ask_options(clear, inherited=True)


def _list(verbs: Commands, do: Any) -> None:
    ask_options(command(verbs, "list", "the same as the bare noun", do), inherited=True)


def _show(verbs: Commands, what: str, do: Any, about_it: str = "show one") -> None:
    made = command(verbs, "show", about_it, do)
    made.add_argument("id", metavar=what)
    ask_options(made, inherited=True)


# --- status ----------------------------------------------------------------------------------------------------------


def do_status(args: argparse.Namespace) -> int:
    status = client(args).get("status")
    if args.json:
        print_json(status)
        return Exit.YES
    counts, cloud = status["counts"], status["cloud"]
    leader = status["leader"]
    say(f"maintd {clean(status['version'])}, installation {clean(status['installation'])}")
    say(f"  leader      {clean(leader['owner']) if leader else 'none'}")
    for bus in status["buses"]:
        say(f"  bus         {clean(bus['bus'])}: {_bus(bus)}")
    say(f"  cloud       {_cloud(cloud)}")
    say(f"  memory      since {utc(status['memory_since'])}; whole cloud read {utc(status['baselined_at'])}")
    say(
        f"  drains      {counts['drains_open']} open, {counts['drains_stalled']} stalled;"
        f" {counts['migrations_open']} migrations, {counts['migrations_stalled']} stalled"
    )
    say(f"  deliveries  {_deliveries(counts['deliveries'], status['deliveries_oldest_pending_at'])}")
    if counts["quarantined"]:
        unread = ", ".join(f"{clean(reason)} {count}" for reason, count in sorted(counts["quarantined"].items()))
        say(f"  unreadable  {unread}")
    if status["lost_sight"]:
        say(f"  SIGHT LOST  {clean(status['lost_sight'])}")
    say()
    if not status["hosts"]:
        say("No host is closed.")
        return Exit.YES
    table(
        ["CLOSED HOST", "EMPTY", "SINCE", "DRAIN", "SERVICE", "REASON"],
        (
            [h["host"], _empty(h), utc(h["closed_at"]), _drain_word(h), _service(h), h["disabled_reason"]]
            for h in status["hosts"]
        ),
    )
    if counts["hosts_closed"] > len(status["hosts"]):
        say(f"... and {counts['hosts_closed'] - len(status['hosts'])} more: maintd hosts --closed")
    return Exit.YES


def _bus(bus: Mapping[str, Any]) -> str:
    text = "connected" if bus["connected"] else "NOT CONNECTED"
    text += f", last message {utc(bus['last_message_at'])}"
    if bus.get("deaf_from"):
        return text + f", DEAF since {utc(bus['deaf_from'])} (maintd doctor says why)"
    return text + (f", BLIND since {utc(bus['blind_from'])}" if bus["blind_from"] else "")


def _cloud(cloud: Mapping[str, Any]) -> str:
    if cloud.get("configured") is False:
        return "none configured: host.emptied is never published"
    word = {True: "answers", False: "DOES NOT ANSWER"}.get(cloud.get("ok"), "not asked by this controller")  # type: ignore[arg-type]
    text = f"{word}, last answer {utc(cloud.get('last_success_at'))}"
    return text + (f": {clean(cloud['last_error'])}" if cloud.get("last_error") else "")


def _deliveries(counts: Mapping[str, Mapping[str, int]], oldest: str | None) -> str:
    if not counts:
        return "none"
    parts = [
        f"{clean(endpoint)} " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        for endpoint, states in sorted(counts.items())
    ]
    return "; ".join(parts) + (f"; oldest pending {utc(oldest)}" if oldest else "")


def _empty(host: Mapping[str, Any]) -> str:
    if host["empty"] is None:
        return "unknown" if host["closed"] else "-"
    return "EMPTY" if host["empty"] else "no"


def _drain_word(host: Mapping[str, Any]) -> str:
    return "-" if host["drain_id"] is None else "STALLED" if host.get("stalled_at") else "draining"


def _service(host: Mapping[str, Any]) -> str:
    closed = "forced down" if host["forced_down"] else "disabled" if host["disabled"] else "enabled"
    return closed + {True: ", up", False: ", down"}.get(host["up"], "")


# --- hosts, why ------------------------------------------------------------------------------------------------------


def do_hosts(args: argparse.Namespace) -> int:
    rows = list(client(args).pages("hosts", closed=True if args.closed else None))
    if args.json:
        print_json({"hosts": rows, "next": None})
    elif not rows:
        say("No host is closed." if args.closed else "maintd knows no host yet.")
    else:
        draining = any(h["drain_id"] for h in rows)
        drains = {d["drain_id"]: d for d in client(args).pages("drains", open=True)} if draining else {}
        table(
            ["HOST", "SERVICE", "EMPTY", "CLOSED SINCE", "CHECKED", "DRAINED IN", "REASON"],
            ([h["host"], _service(h), _empty(h), utc(h["closed_at"]), utc(h["checked_at"]),
              _drained_in(drains.get(h["drain_id"])), h["disabled_reason"]] for h in rows),
        )  # fmt: skip
    return Exit.YES


def do_hosts_show(args: argparse.Namespace) -> int:
    host = client(args).get("hosts", args.id)
    if args.json:
        print_json(host)
        return Exit.YES
    fields(host, skip=("summary", "blockers", "warnings", "proof", "residue", "servers", "migrations", "drain"))
    if host["servers"]:
        say("\nservers, as last known:")
        table(
            ["SERVER", "HOST", "VM STATE", "TASK", "SEEN"],
            ([s["server_id"], s["host"], s["vm_state"], s["task_state"], utc(s["seen_at"])] for s in host["servers"]),
            indent=2,
        )
    if host["migrations"]:
        say("\nmigrations:")
        _migrations_table(host["migrations"], indent=2)
    say()
    _why(host)
    return Exit.YES


def do_why(args: argparse.Namespace) -> int:
    host = client(args).get("hosts", args.host)
    if args.json:
        keys = (
            "host",
            "empty",
            "closed",
            "checked_at",
            "emptied_at",
            "summary",
            "blockers",
            "warnings",
            "proof",
            "residue",
            "drain",
        )
        print_json({key: host[key] for key in keys})
    else:
        _why(host)
    return Exit.YES


def _why(host: Mapping[str, Any]) -> None:
    now, name = SystemClock().now(), clean(host["host"])
    checked = f"last verified {utc(host['checked_at'])}" if host["checked_at"] else "not verified yet"
    if host["empty"]:
        say(f"{name} is empty of Nova servers: proven {utc(host['emptied_at'])}.")
        for read in host["proof"]:
            say(f"  pass {read['pass']}  {utc(read['at'])}  {clean(read['read'])}: {read['count']}")
    else:
        say(f"{name} is {'not empty' if host['closed'] else 'open'}: {clean(host['summary'])} ({checked}).")
    if host["drain"] is not None and host["drain"]["ended_at"] is None:
        say(_drain_line(host, now))
        say(_eta_line(host["drain"]))
    _blockers(host["blockers"], now)
    if host["warnings"]:
        say("\nworth knowing, but not in the way:")
        for note in host["warnings"]:
            say(f"  {clean(note['kind'])}  {clean(note['server_id'])}  {clean(note['detail'])}")


def _drain_line(host: Mapping[str, Any], now: float) -> str:
    drain, here = host["drain"], sum(s["host"] == host["host"] for s in host["servers"])
    text = f"Draining since {utc(drain['started_at'])} ({_age(drain['started_at'], now)})"
    if drain["stalled_at"]:
        text += f", STALLED since {utc(drain['stalled_at'])} ({_age(drain['stalled_at'], now)})"
    of = "" if drain["servers_total"] is None else f"; {drain['servers_total']} when it began"
    return f"{text}: {here} server{'' if here == 1 else 's'} still here{of}."


def _eta_line(drain: Mapping[str, Any]) -> str:
    """When the moves that were asked for will be done, and how many were not, as a sentence."""
    if drain["eta"] is not None:
        text = f"The moves that were asked for will be done in about {about(drain['eta'])}"
    elif drain["eta_unknown"] is not None:
        text = f"When its moves will be done is unknown: {_unknown(drain)}"
    else:
        text = "No move that was asked for is under way"
    return f"{text}{_not_asked(drain)}."


def _unknown(drain: Mapping[str, Any]) -> str:
    return clean(drain["eta_unknown"]).rstrip(".")


def _not_asked(drain: Mapping[str, Any]) -> str:
    count = drain["not_asked"]
    if not count:
        return ""
    return f"; {count} server{'' if count == 1 else 's'} nobody has asked to move"


def _drained_in(drain: Mapping[str, Any] | None) -> str:
    """The same for a table."""
    if drain is None or drain["ended_at"]:
        return "-"
    if drain["eta"] is None and drain["eta_unknown"] is None:
        return _not_asked(drain).removeprefix("; ") or "-"
    eta = f"unknown: {_unknown(drain)}" if drain["eta"] is None else about(drain["eta"])
    return f"{eta}{_not_asked(drain)}"


def _age(moment: str | None, now: float) -> str:
    at = seconds_of(moment)
    return "-" if at is None else span(now - at)


def _blockers(blockers: Sequence[Mapping[str, Any]], now: float) -> None:
    """A line for each, those of one kind from the oldest on, and then the commands, each once, to be copied."""
    if not blockers:
        return
    order = {kind: place for place, kind in enumerate(dict.fromkeys(b["kind"] for b in blockers))}
    rows = sorted(blockers, key=lambda b: (order[b["kind"]], b["since"] or "9"))
    say()
    table(
        ["KIND", "SERVER", "PROJECT", "SINCE", "AGE", "DETAIL"],
        ([b["kind"], b["server_id"], b.get("project_id"), utc(b["since"]), _age(b["since"], now), b["detail"]]
         for b in rows),
        indent=2,
    )  # fmt: skip
    commands = dict.fromkeys(clean(b["remedy"]) for b in rows if b["remedy"])
    if commands:
        say("\nwhat helps next:")
        for one in commands:
            say(f"  {one}")


# --- drains, migrations, residue -------------------------------------------------------------------------------------


def _drain_state(drain: Mapping[str, Any]) -> str:
    return drain["outcome"] or ("STALLED" if drain["stalled_at"] else "draining")


def do_drains(args: argparse.Namespace) -> int:
    rows = list(client(args).pages("drains", open=True if args.open else None))
    if args.json:
        print_json({"drains": rows, "next": None})
    elif not rows:
        say("There is no drain.")
    else:
        rows.sort(key=lambda d: d["started_at"] or "")
        table(
            ["HOST", "STATE", "STARTED", "ENDED", "#SERVERS AT START", "DRAINED IN", "DRAIN", "REASON"],
            ([d["host"], _drain_state(d), utc(d["started_at"]), utc(d["ended_at"]), d["servers_total"], _drained_in(d),
              d["drain_id"], d["reason"]] for d in rows),
        )  # fmt: skip
    return Exit.YES


def do_drains_show(args: argparse.Namespace) -> int:
    drain = client(args).get("drains", args.id)
    if args.json:
        print_json(drain)
        return Exit.YES
    fields(drain, skip=("blockers", "migrations", "eta", "eta_unknown", "not_asked"))
    if not drain["ended_at"]:
        say(f"\n{_eta_line(drain)}")
    _blockers(drain.get("blockers", ()), SystemClock().now())
    return Exit.YES


def do_drain_start(args: argparse.Namespace) -> int:
    drain = client(args).post("drains", host=args.host, removal=args.removal)
    if args.json:
        print_json(drain)
    elif drain["drain_id"] is None:
        say(f"Asked for a drain of {clean(args.host)}; see: maintd drains")
    else:
        for_good = ", for good" if drain["removal"] else ""
        since = utc(drain["started_at"])
        say(f"{clean(args.host)} is draining since {since}{for_good} (drain {clean(drain['drain_id'])}).")
    return Exit.YES


def do_migrations(args: argparse.Namespace) -> int:
    asked = {"open": None if args.all else True, "host": args.host, "server_id": args.server}
    rows = list(client(args).pages("migrations", **asked))
    if args.json:
        print_json({"migrations": rows, "next": None})
    elif not rows:
        say("There is no such migration." if args.all else "Nothing moves (--all also shows what did).")
    else:
        _migrations_table(sorted(rows, key=lambda m: m["begun_at"] or ""))
    return Exit.YES


def _migrations_table(rows: list[dict[str, Any]], indent: int = 0) -> None:
    table(
        ["SERVER", "KIND", "FROM", "TO", "PHASE", "#DONE", "TIME LEFT", "BEGAN", "STALLED", "MIGRATION"],
        ([m["server_id"], m["kind"], m["source"], m["destination"], m["phase"],
          "-" if m["percent"] is None else f"{m['percent']} %", _time_left(m), utc(m["begun_at"]), _stalled(m),
          m["migration_key"]] for m in rows),
        indent=indent,
    )  # fmt: skip


def _time_left(migration: Mapping[str, Any]) -> str:
    if migration["eta"] is not None:
        return about(migration["eta"])
    if migration["kind"] != "live-migration" or migration["phase"] != "running":
        return "-"
    reasons = [stall["reason"] for stall in migration["stalls"]]
    return f"unknown: {reasons[0]}" if reasons else "unknown"


def _stalled(migration: Mapping[str, Any]) -> str | None:
    """The reason for which a migration is called stalled; one that is only noted is said to be that."""
    noted = [f"({stall['reason']}: noted)" for stall in migration["stalls"] if not stall["published"]]
    return " ".join(filter(None, (migration["stalled"], *noted))) or None


def do_migrations_show(args: argparse.Namespace) -> int:
    migration = client(args).get("migrations", args.id)
    if args.json:
        print_json(migration)
        return Exit.YES
    fields(migration, skip=("progress", "eta", "stalls", "curve", "nova"))
    if migration["progress"]:
        say("\nprogress, in bytes:")
        fields({name: value for name, value in migration["progress"].items() if value is not None})
    drawing.draw(migration, SystemClock().now())
    return Exit.YES


def do_residue(args: argparse.Namespace) -> int:
    rows = client(args).get("residue", host=args.host, cleared=True if args.cleared else None)["residue"]
    if args.json:
        print_json({"residue": rows, "next": None})
    elif not rows:
        say("No residue is known.")
    else:
        table(
            ["HOST", "SERVER", "PROJECT", "KIND", "SINCE", "CLEARED", "BY", "DETAIL"],
            ([r["host"], r["server_id"], r["project_id"], r["kind"], utc(r["since"]), utc(r["cleared_at"]),
              r["cleared_by"], r["detail"]] for r in rows),
        )  # fmt: skip
    return Exit.YES


def do_residue_clear(args: argparse.Namespace) -> int:
    answer = client(args).post(
        "residue", args.host, "clear", who=_who(), **({"server_id": args.server} if args.server else {})
    )
    if args.json:
        print_json(answer)
    elif answer["cleared"] or answer["history_accepted"]:
        past = " and what nobody saw before maintd came" if answer["history_accepted"] else ""
        say(f"Cleared on {clean(args.host)}: {answer['cleared']} left behind{past}.")
        for server_id in answer.get("servers", ()):
            say(f"  {clean(server_id)}")
    else:
        whose = f" by {clean(args.server)}" if args.server else ""
        say(f"Nothing is known to be left on {clean(args.host)}{whose}.")
    return Exit.YES


def _who() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None
