"""listen: receive webhooks here, verify them, and print what came; for whoever sets one up or writes a receiver."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from maintd.cli.common import Commands, Exit, Usage, command
from maintd.cli.events import line
from maintd.terminal import clean, complain, say

if TYPE_CHECKING:
    from maintd.receiver import Heard, Refused

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
SECRET_FILE_BYTES: Final = 4096
LONGEST_S: Final = 3600.0

EPILOG = """\
examples:
  maintd listen --secret-file whsec.txt                  then [webhook:me] url = http://127.0.0.1:8780/
  maintd listen --secret-file whsec.txt --json | jq .event.data
  maintd listen --fail 3                                 what does maintd do when I answer 503?
  maintd listen --slow 15                                ... and when I answer too late?
docs/receivers.md says what a receiver has to do."""


def add(commands: Commands) -> None:
    listen = command(
        commands, "listen", "receive webhooks here, verify and print them",
        do_listen,
        description="Receives webhooks until interrupted: verifies each signature, prints each event on a line, and "
        "says which came before (again), which came after a later one of its subject (late), and how many numbers were "
        "passed over (gap). Answers 204 to what it accepts, 401 to a bad signature, 400 to what is no event, and yes "
        "where maintd asks whether it may send events here: to the handshake, and to a challenge by echoing it. "
        "Keeps nothing and acts on nothing.",
        epilog=EPILOG,
    )  # fmt: skip
    listen.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8780",
        help="where to listen (127.0.0.1:8780); port 0 takes a free one",
    )  # fmt: skip
    listen.add_argument(
        "--secret-file", metavar="F", type=Path,
        help="a file with the webhook's secret, whsec_...; with several, a line each, any of them will do. Without it "
        "nothing is verified",
    )  # fmt: skip
    listen.add_argument("--fail", metavar="N", type=int, default=0, help="answer 503 to the first N events")
    listen.add_argument("--slow", metavar="SECONDS", type=float, default=0.0, help="hold back every answer to an event")
    listen.add_argument("--json", action="store_true", help="an object a line: the event, and what is to be said of it")


def do_listen(args: argparse.Namespace) -> int:
    address = _address(args.listen)
    if args.fail < 0:
        raise Usage("--fail is 0 or more.")
    if not 0 <= args.slow <= LONGEST_S:
        raise Usage(f"--slow is a number of seconds from 0 to {LONGEST_S:.0f}.")
    secrets = [] if args.secret_file is None else _secrets(args.secret_file)
    from maintd.receiver import Receiver

    receiver = Receiver(
        address, secrets, lambda heard: _show(heard, args.json), _complain, _agreed, fail=args.fail, slow_s=args.slow
    )
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: receiver.end())
    receiver.start()
    verified = "signatures are verified" if secrets else "no --secret-file: NOTHING IS VERIFIED"
    complain(f"maintd: listening on {receiver.url}; {verified}.")
    if not secrets and address[0] not in LOOPBACK:
        complain("maintd: whoever can reach this address can make it print what they like.")
    receiver.wait()
    receiver.close()
    if isinstance(receiver.broken, BrokenPipeError):
        raise receiver.broken
    book = receiver.book
    complain(
        f"maintd: events accepted {book.accepted}, came again {book.again}, late {book.late}; {book.missing} numbers "
        "between did not come (other types, still on their way, or lost)."
    )
    if receiver.broken is not None:
        raise receiver.broken
    return Exit.YES


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise Usage(f"--listen {text!r} is not HOST:PORT, such as 127.0.0.1:8780 or [::1]:8780.")
    return host, port


def _secrets(path: Path) -> list[str]:
    """The secrets in a file, a line each. No message has any of its text: a wrong file may hold another secret."""
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_FILE_BYTES + 1)
    except OSError as wrong:
        raise Usage(f"The secret file {path} cannot be read: {wrong.strerror}.") from None
    secrets = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    if not secrets or len(text) > SECRET_FILE_BYTES:
        raise Usage(
            f"The secret file {path} is {'empty' if not secrets else 'too long'}: expected whsec_..., a line each."
        )
    return secrets


def _show(heard: Heard, as_json: bool) -> None:
    standing = heard.standing
    if as_json:
        told: dict[str, Any] = {"answer": heard.answer, "verified": heard.verified}
        for name in ("again", "late", "gap"):
            told[name] = None if standing is None else getattr(standing, name)
        text = json.dumps({**told, "event": heard.event}, separators=(",", ":"))
    else:
        notes = [f"answered {heard.answer}"] if standing is None else []
        if standing is not None:
            notes += (
                ["again"] * standing.again + ["late"] * standing.late + [f"gap {standing.gap}"] * (standing.gap > 0)
            )
        notes += ["challenge echoed"] * (heard.challenge is not None) + ["not verified"] * (not heard.verified)
        text = _line(heard.event) + (f"  [{', '.join(notes)}]" if notes else "")
    say(text)
    sys.stdout.flush()


def _line(event: dict[str, Any]) -> str:
    """As `maintd events` shows it; what is no event of ours but looks like one, by its names only."""
    try:
        return line(event)
    except (KeyError, TypeError, ValueError):
        return clean(f"{event['time']}  {event['type']} {event['subject']}")


def _complain(refused: Refused) -> None:
    complain(f"maintd: answered {refused.answer}: {refused.why}.")


def _agreed(origin: str) -> None:
    complain(clean(f"maintd: answered 204: {origin} may send events here (handshake)."))
