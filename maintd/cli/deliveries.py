"""deliveries: which event went to which endpoint, and sending again."""

from __future__ import annotations

import argparse
from typing import Any, Final

from maintd.cli.common import Commands, Exit, Usage, ask_options, client, command, verbs
from maintd.terminal import fields, print_json, say, table, utc

ANSWER_CHARS = 40
_STATES = ("pending", "claimed", "delivered", "dead")


def add(commands: Commands) -> None:
    deliveries = command(commands, "deliveries", "list deliveries; send again", do_deliveries)
    ask_options(deliveries)
    deliveries.add_argument("--state", choices=_STATES, help="only those in this state")
    deliveries.add_argument("--endpoint", metavar="NAME", help="only those for this webhook")
    deliveries.add_argument("--subscription", metavar="ID", help="only those for this subscription")
    in_deliveries = verbs(deliveries)
    ask_options(command(in_deliveries, "list", "the same as the bare noun", do_deliveries), inherited=True)
    show = command(in_deliveries, "show", "show one with every attempt at it", do_show)
    show.add_argument("id", metavar="DELIVERY_ID")
    ask_options(show, inherited=True)
    redeliver = command(
        in_deliveries, "redeliver", "send dead or delivered ones again",
        do_redeliver,
        description="Send finished deliveries again, under the same event ids: by their ids, or all of an endpoint "
        "that were finished in a span of time. Naming a configured endpoint that was disabled enables it; "
        "what goes to a subscription that is not active waits until it is, and is counted apart.",
        epilog="examples:\n  maintd deliveries redeliver 17 18\n"
        "  maintd deliveries redeliver --endpoint ha --since 2026-01-31T22:00:00Z",
    )  # fmt: skip
    redeliver.add_argument("ids", metavar="DELIVERY_ID", nargs="*", type=_id)
    # An endpoint or a subscription named before the verb (`deliveries --endpoint ha redeliver`) means the same.
    redeliver.add_argument("--endpoint", metavar="NAME", default=argparse.SUPPRESS, help="those for this webhook")
    redeliver.add_argument(
        "--subscription", metavar="ID", default=argparse.SUPPRESS, help="those for this subscription"
    )
    redeliver.add_argument(
        "--since", metavar="TIME", help="finished at or after this time, such as 2026-01-31T22:00:00Z"
    )
    redeliver.add_argument("--until", metavar="TIME", help="finished before this time")
    ask_options(redeliver, inherited=True)


def _id(text: str) -> int | str:
    """A delivery's id: a number for operators, a text for projects."""
    return int(text) if text.isascii() and text.isdigit() else text


def do_deliveries(args: argparse.Namespace) -> int:
    chosen = {"state": args.state, "endpoint": args.endpoint, "subscription_id": args.subscription}
    rows = list(client(args).pages("deliveries", **chosen))
    if args.json:
        print_json({"deliveries": rows, "next": None})
    elif not rows:
        say("There is no such delivery." if any(chosen.values()) else "There is no delivery.")
    else:
        table(
            ["#ID", "ENDPOINT", "EVENT TYPE", "SUBJECT", "STATE", "#ATTEMPTS", "MADE", "DUE", "#STATUS", "#TOOK",
             "ANSWER", "EVENT"],
            ([d["id"], d.get("endpoint") or d["subscription_id"], d["event_type"], d["subject"], d["state"],
              d["attempts"], utc(d["created_at"]), utc(d["due_at"]), *_last(d["last_try"]), d["event_id"]]
             for d in rows),
        )  # fmt: skip
    return Exit.YES


def _last(attempt: dict[str, Any] | None) -> tuple[object, object, object]:
    """Status, time taken and beginning of the answer of a last attempt; the rest of it is under `show`."""
    if attempt is None:
        return None, None, None
    said = attempt["detail"] or attempt["outcome"]
    return attempt["status"], f"{attempt['duration_seconds']:.3f} s", said[:ANSWER_CHARS]


def do_show(args: argparse.Namespace) -> int:
    delivery = client(args).get("deliveries", args.id)
    if args.json:
        print_json(delivery)
        return Exit.YES
    fields(delivery, skip=("tries",))
    say()
    if not delivery["tries"]:
        say("Not tried yet.")
    else:
        table(
            ["TRIED", "#TOOK", "#STATUS", "OUTCOME", "DETAIL"],
            ([utc(a["at"]), f"{a['duration_seconds']:.3f} s", a["status"], a["outcome"], a["detail"]]
             for a in delivery["tries"]),
        )  # fmt: skip
    return Exit.YES


_UNTIL: Final = {"paused": "resume", "disabled": "enable", "unverified": "verify"}
"""State of a subscription -> the verb after which it is sent to."""


def _then(subscription_id: str, state: str) -> str:
    verb = _UNTIL.get(state)
    return f"they wait for: maintd subscriptions {verb} {subscription_id}" if verb else "they will be given up"


def do_redeliver(args: argparse.Namespace) -> int:
    if not (args.ids or args.endpoint or args.subscription or args.since or args.until):
        raise Usage("Say what to send again: DELIVERY_ID..., --endpoint NAME or --subscription ID (--since, --until).")
    answer = client(args).post(
        "deliveries", "redeliver",
        delivery_ids=args.ids or None, endpoint=args.endpoint, subscription_id=args.subscription, since=args.since,
        until=args.until,
    )  # fmt: skip
    if args.json:
        print_json(answer)
    else:
        say(f"{answer['redelivered']} will be sent again.")
        for wait in answer.get("waiting", ()):
            number, state = wait["subscription_id"], wait["state"]
            say(
                f"Of these, {wait['deliveries']} not now: the subscription {number} is {state}; {_then(number, state)}."
            )
    return Exit.YES if answer["redelivered"] else Exit.FAILURE
