"""events: the log of what was published, read by cursor; `--follow` goes on by long polls.

A long poll is one request like any other, with a cursor of its own: where the daemon is restarted, or the connection is
lost, nothing is missed and nothing is shown twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from maintd.cli.common import Commands, Exit, Usage, ask_options, client, command, verbs
from maintd.client import TIMEOUT_S, ApiError, Client, Unreachable
from maintd.terminal import clean, complain, print_json, say, utc

PAGE: Final = 1000
WAIT_S: Final = 20
"""How long the daemon is asked to wait for an event."""
AGAIN_S: Final = 1.0
"""When to ask again where it could not be asked, or had no room for one more to wait."""
PATIENCE_S: Final = 30.0
"""How long a daemon that is restarted may be away before `--follow` gives up."""


def add(commands: Commands) -> None:
    events = command(
        commands, "events", "list what was published; --follow goes on",
        do_events,
        description="The last events, oldest first. With --json one CloudEvent a line, as it was delivered.",
        epilog="examples:\n  maintd events --follow\n  maintd events --type 'host.*' --all\n"
        "  maintd events --after 00000000000000001234 --json",
    )  # fmt: skip
    ask_options(events)
    events.add_argument("--follow", "-f", action="store_true", help="go on as events come, until interrupted")
    events.add_argument("--type", metavar="GLOB", help="such as host.* or maintd.migration.stalled.v1")
    events.add_argument("--subject", metavar="SUBJECT", help="a host, mostly")
    which = events.add_mutually_exclusive_group()
    which.add_argument("--limit", "-n", metavar="N", type=int, default=50, help="only the last N (default 50)")
    which.add_argument("--all", action="store_true", help="from the first event that is kept")
    which.add_argument("--after", metavar="CURSOR", help="only those after this sequence")
    in_events = verbs(events)
    ask_options(command(in_events, "list", "the same as the bare noun", do_events), inherited=True)
    show = command(in_events, "show", "show one", do_events_show)
    show.add_argument("id", metavar="EVENT_ID")
    ask_options(show, inherited=True)


def type_glob(given: str | None) -> str | None:
    """A glob over whole types: `host.*` is short for maintd.host.*, `host.emptied` for maintd.host.emptied.v1."""
    if given is None or given.startswith(("maintd.", "*")):
        return given
    return f"maintd.{given}" + ("" if given.endswith("*") or given[-3:-1] == ".v" else ".v1")


def do_events(args: argparse.Namespace) -> int:
    if args.limit < 0:
        raise Usage("--limit is 0 or more.")
    asked = {"type": type_glob(args.type), "subject": args.subject}
    api = client(args)
    cursor = "0"
    if args.after is not None or args.all:
        for after in _printed(api, args.after or cursor, asked, args.json):
            cursor = after
    else:
        last, cursor = _last(api, args.limit, asked)
        for event in last:
            _print(event, args.json)
        if not last and not args.follow and not args.json:
            say("No such event." if any(asked.values()) else "Nothing was published yet.")
    if args.follow:
        _follow(client(args, WAIT_S + TIMEOUT_S), cursor, asked, args.json)
    return Exit.YES


def _last(api: Client, limit: int, asked: Mapping[str, Any]) -> tuple[Sequence[dict[str, Any]], str]:
    """The last events, and the cursor after them.

    Only walking tells which they are: a filter may leave few of many, and numbers are missing where projects were told
    things. Without a filter the walk begins a little before the end, and further back while that was too little. A
    project is not told where its log ends, and walks it all.
    """
    end, back = 0, limit
    if not any(asked.values()):
        try:
            end = api.get("status")["last_sequence"]
        except ApiError as wrong:
            if wrong.status != 403:
                raise
    while True:
        start = max(end - back, 0)
        last: deque[dict[str, Any]] = deque(maxlen=limit)
        for events, after in _pages(api, str(start), asked):
            last.extend(events)
            cursor = after
        if len(last) == limit or start == 0:
            return last, cursor
        back *= 8


def _pages(api: Client, cursor: str, asked: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """The events from a cursor to the present end, page by page, each with the cursor after it."""
    while True:
        page = api.get("events", after=cursor, limit=PAGE, **asked)
        cursor = page["next"]
        yield page["events"], cursor
        if len(page["events"]) < PAGE:
            return


def _printed(api: Client, cursor: str, asked: Mapping[str, Any], as_json: bool) -> Iterator[str]:
    """Print the events after a cursor; with each page the cursor to go on from."""
    for events, after in _pages(api, cursor, asked):
        for event in events:
            _print(event, as_json)
        sys.stdout.flush()
        yield after


def _follow(api: Client, cursor: str, asked: Mapping[str, Any], as_json: bool) -> None:
    away_since: float | None = None
    wait_s = WAIT_S
    while True:
        sys.stdout.flush()
        try:
            for after in _printed(api, cursor, {**asked, "wait": wait_s}, as_json):
                cursor = after
            away_since = None
            if wait_s:
                continue
            wait_s = WAIT_S
        except (Unreachable, ApiError) as wrong:
            if isinstance(wrong, ApiError) and wrong.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            if isinstance(wrong, ApiError) and wait_s:
                wait_s = 0  # there may be no room to wait, and still an answer
                continue
            now = time.monotonic()
            if away_since is None:
                complain(f"maintd: {clean(wrong)} Asking again for {PATIENCE_S:.0f} s.")
                away_since = now
            elif now - away_since > PATIENCE_S:
                raise
        time.sleep(AGAIN_S)


def do_events_show(args: argparse.Namespace) -> int:
    print_json(client(args).get("events", args.id))
    return Exit.YES


def _print(event: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event, lines=True)
    else:
        say(line(event))


def line(event: Mapping[str, Any]) -> str:
    """An event on one line, for people."""
    name = event["type"].removeprefix("maintd.").removesuffix(".v1")
    data = event["data"]
    parts = []
    if "server_id" in data:
        parts.append(f"server {data['server_id']} {data.get('source') or '?'} -> {data.get('destination') or '?'}")
    for key in ("reason", "status", "servers_total", "servers_remaining", "duration_seconds", "memory_since"):
        if data.get(key) is not None:
            parts.append(f"{key} {data[key]}")
    for key in ("blockers", "occupants", "warnings", "proof"):
        if data.get(key):
            parts.append(f"{len(data[key])} {key}")
    if data.get("found"):
        parts.append("found at first sight")
    if data.get("removed"):
        parts.append("service removed")
    return clean(f"{utc(event['time'])}  {name:<32} {event['subject']}  {', '.join(parts)}".rstrip())
