"""subscriptions: who is told over webhooks that were asked for by API; making, changing, trying and ending them.

A secret is shown once: on stdout, with a word on stderr that it will not be shown again, or written to a file that only
its owner may read.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maintd.cli.common import PATIENT_S, Commands, Exit, Parser, Usage, ask_options, client, command, verbs
from maintd.terminal import complain, fields, print_json, say, table, utc

EPILOG = """\
examples:
  maintd subscriptions create --name ha --url https://ha.example.org/maintd --secret-file whsec.txt
  maintd subscriptions test 3f0c...                what does my receiver answer
  maintd subscriptions rotate 3f0c... --secret-file whsec-new.txt
With [api] auth = keystone: OS_TOKEN=$(openstack token issue -f value -c id) maintd subscriptions
docs/receivers.md says what a subscription is."""


def add(commands: Commands) -> None:
    noun = command(
        commands, "subscriptions", "list who is told what, by webhooks made over the API; make and change them",
        do_list, epilog=EPILOG,
    )  # fmt: skip
    ask_options(noun)
    _whose(noun)
    in_noun = verbs(noun)
    ask_options(command(in_noun, "list", "the same as the bare noun", do_list), inherited=True)
    _one(in_noun, "show", "show one", do_show)
    create = command(
        in_noun, "create", "make one; its secret is shown once",
        do_create,
        description="Nothing but the verification is sent to the URL before it is verified: docs/receivers.md says how "
        "a receiver answers it.",
    )  # fmt: skip
    _members(create, required=True)
    create.add_argument("--scope", choices=("operator", "project"), help="for operators: whose it is to be")
    # A project named before the verb (`subscriptions --project P create`) means the same.
    create.add_argument(
        "--project", metavar="PROJECT_ID", default=argparse.SUPPRESS, help="for operators: of which one"
    )
    _secret_file(create)
    ask_options(create, inherited=True)
    change = _one(in_noun, "set", "change what is given; a new URL is verified anew", do_set)
    _members(change, required=False)
    _one(in_noun, "pause", "send nothing until it is resumed", do_pause)
    _one(in_noun, "resume", "send again", do_resume)
    _secret_file(_one(in_noun, "rotate", "make a new secret; the old one signs too for a day", do_rotate))
    _one(in_noun, "verify", "try the handshake now", do_verify)
    _one(in_noun, "test", "send a test event now, and show the answer", do_test)
    _one(in_noun, "enable", "take up one that was disabled; it is verified again", do_enable)
    _one(in_noun, "delete", "end one for good", do_delete)
    command(
        in_noun, "key", "make a key that encrypts subscriptions' secrets, for [subscriptions] key_file",
        do_key,
        epilog="example:\n  (umask 077; maintd subscriptions key > /etc/maintd/subscriptions.key)\n"
        "Where there is a key already: the README says how to change it (maintd db rekey).",
    )  # fmt: skip


def _one(in_noun: Commands, verb: str, about: str, do: Any) -> Parser:
    made = command(in_noun, verb, about, do)
    made.add_argument("id", metavar="SUBSCRIPTION_ID")
    ask_options(made, inherited=True)
    return made


def _whose(made: Parser) -> None:
    whose = made.add_mutually_exclusive_group()
    whose.add_argument("--project", metavar="PROJECT_ID", help="for operators: those of this project")
    whose.add_argument("--all", action="store_true", help="for operators: everybody's")


def _members(made: Parser, *, required: bool) -> None:
    made.add_argument("--name", metavar="NAME", required=required, help="what people call it")
    made.add_argument("--url", metavar="URL", required=required, help="where events are sent")
    made.add_argument(
        "--event-types", metavar="GLOB,...",
        help="such as maintd.server.* or maintd.host.*,maintd.drain.*; empty: all that there are for you",
    )  # fmt: skip
    made.add_argument("--servers", metavar="ID,...", help="for projects: only what concerns these servers; empty: all")
    made.add_argument(
        "--metadata-key",
        metavar="KEY",
        help="for projects: only servers that have this key in their metadata; empty: all",
    )


def _secret_file(made: Parser) -> None:
    made.add_argument(
        "--secret-file",
        metavar="F",
        type=Path,
        help="write the secret to this new file (mode 0600), and show it nowhere",
    )


def do_list(args: argparse.Namespace) -> int:
    rows = list(client(args).pages("subscriptions", project_id=args.project, all=args.all or None))
    if args.json:
        print_json({"subscriptions": rows, "next": None})
    elif not rows:
        say("There is no subscription.")
    else:
        table(
            ["ID", "NAME", "SCOPE", "STATE", "SINCE", "URL", "EVENT TYPES"],
            ([s["id"], s["name"], s["project_id"] or s["scope"], s["state"], utc(s["updated_at"]), s["url"],
              ", ".join(s["event_types"])] for s in rows),
        )  # fmt: skip
    return Exit.YES


def do_show(args: argparse.Namespace) -> int:
    return _show(client(args).get("subscriptions", args.id), args)


def do_create(args: argparse.Namespace) -> int:
    given = {**_given(args), "scope": args.scope, "project_id": args.project}
    with _secret_to(args.secret_file) as keep:
        return _show(keep(client(args).post("subscriptions", **given)), args)


def do_set(args: argparse.Namespace) -> int:
    given = _given(args)
    if not given:
        raise Usage("Say what to change: --name, --url, --event-types, --servers or --metadata-key.")
    return _show(client(args).patch("subscriptions", args.id, **given), args)


def do_pause(args: argparse.Namespace) -> int:
    return _show(client(args).patch("subscriptions", args.id, paused=True), args)


def do_resume(args: argparse.Namespace) -> int:
    return _show(client(args).patch("subscriptions", args.id, paused=False), args)


def do_rotate(args: argparse.Namespace) -> int:
    with _secret_to(args.secret_file) as keep:
        return _show(keep(client(args).post("subscriptions", args.id, "rotate")), args)


def do_verify(args: argparse.Namespace) -> int:
    found = client(args, PATIENT_S).post("subscriptions", args.id, "verify")
    _show(found, args)
    return Exit.YES if found["attempt"]["outcome"] == "verified" else Exit.FAILURE


def do_test(args: argparse.Namespace) -> int:
    attempt = client(args, PATIENT_S).post("subscriptions", args.id, "test")
    _show(attempt, args)
    return Exit.YES if attempt["outcome"] == "delivered" else Exit.FAILURE


def do_enable(args: argparse.Namespace) -> int:
    return _show(client(args).post("subscriptions", args.id, "enable"), args)


def do_delete(args: argparse.Namespace) -> int:
    answer = client(args).delete("subscriptions", args.id)
    if args.json:
        print_json(answer)
    else:
        say(f"{answer['deleted']} is no more.")
    return Exit.YES


def do_key(args: argparse.Namespace) -> int:
    from maintd.store.vault import new_key

    say(new_key())
    return Exit.YES


def _show(answer: Mapping[str, Any], args: argparse.Namespace) -> int:
    if args.json:
        print_json(answer)
    else:
        fields(answer)
    return Exit.YES


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The members that were given, as the API wants them."""
    given: dict[str, Any] = {"name": args.name, "url": args.url, "metadata_key": args.metadata_key}
    for member in ("event_types", "servers"):
        text = getattr(args, member)
        given[member] = None if text is None else [one.strip() for one in text.split(",") if one.strip()]
    return {member: value for member, value in given.items() if value is not None}


@contextmanager
def _secret_to(path: Path | None) -> Iterator[Any]:
    """What does with an answer's secret what was asked for; the file is made before the secret is.

    A secret that cannot be written down when it is there is lost; so a file that cannot be made ends it first, and one
    that nothing came for is taken away again.
    """
    if path is None:
        yield _tell
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Usage(f"{path} exists already; name a new file for the secret.") from None

    def keep(answer: dict[str, Any]) -> dict[str, Any]:
        os.write(handle, f"{answer['secret']}\n".encode())
        complain(f"maintd: the secret is in {path}.")
        return {name: value for name, value in answer.items() if name != "secret"}

    try:
        yield keep
    finally:
        empty = os.fstat(handle).st_size == 0
        os.close(handle)
        if empty:
            path.unlink()


def _tell(answer: dict[str, Any]) -> dict[str, Any]:
    complain("maintd: the secret is shown this once; keep it where your receiver reads it.")
    return answer
