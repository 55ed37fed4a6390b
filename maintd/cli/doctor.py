"""`maintd doctor`: everything that maintd needs, looked at in one command, with what is to be done about it.

The body lives in `maintd.doctor`, behind `maintd.app`; here are its options, and how findings are shown to people: what
is wrong first and in full, what could not be looked at, and what is well on one line each. Exit codes of its own.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from maintd.cli.common import Commands, Usage, command, config, config_options
from maintd.errors import OperatorError
from maintd.terminal import clean, complain, print_json, say

if TYPE_CHECKING:
    from maintd.config import Config
    from maintd.doctor import Finding, Report

LONGEST_S = 86_400.0

EPILOG = """\
exit codes: 0 nothing is wrong; 1 there are warnings; 2 there are errors
What could not be looked at is called unknown, and changes no exit code. docs/doctor.md explains every check.
examples:
  maintd doctor --config-file /etc/maintd/maintd.conf --config-file /etc/maintd/secrets.conf
  maintd doctor --listen 600                             a quiet cloud needs longer
  maintd doctor --listen 0 --send-test-event             everything but the bus's traffic, and whether webhooks accept
  maintd doctor --management-url http://rabbit-1:15672   what bounds the queues, and who reads them
  maintd doctor --json | jq '.findings[] | select(.level == "error")'"""


def add(commands: Commands) -> None:
    """doctor."""
    doctor = command(
        commands, "doctor", "look at everything that maintd needs, and say what to do",
        do_doctor,
        description="Configuration, database, broker, what Nova sends (by listening, through a temporary queue of its "
        "own), the APIs and every right on them, clocks, webhooks. Works beside a running daemon, takes none of its "
        "messages, and changes nothing. Ends in bounded time, whatever hangs.",
        epilog=EPILOG,
    )  # fmt: skip
    config_options(doctor)
    doctor.add_argument(
        "--listen", metavar="SECONDS", type=float, default=60.0,
        help="how long to listen at most (60); ends sooner when every compute was heard; 0: not at all",
    )  # fmt: skip
    doctor.add_argument(
        "--send-test-event", action="store_true",
        help="send every webhook a signed maintd.doctor.test.v1 (else only a connection is made)",
    )  # fmt: skip
    doctor.add_argument(
        "--management-url", metavar="URL",
        help="RabbitMQ's management, asked as the user of transport_url: what bounds the queues, and who reads them",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="for scripts")


def do_doctor(args: argparse.Namespace) -> int:
    if not 0 <= args.listen <= LONGEST_S:
        raise Usage(f"--listen is a number of seconds from 0 to {LONGEST_S:.0f}.")
    if args.management_url is not None and urlsplit(args.management_url).username is not None:
        raise Usage("--management-url has no user and password: those of [bus] transport_url are used.")
    from maintd import app

    settings: Config | OperatorError
    try:
        settings = config(args)
    except Usage:
        raise
    except OperatorError as wrong:
        settings = wrong
    report = app.doctor(
        settings,
        listen_s=args.listen,
        send_test_event=args.send_test_event,
        management_url=args.management_url,
        tell=lambda text: complain(f"maintd: {clean(text)}"),
    )
    if args.json:
        print_json(report.as_dict())
    else:
        show(report)
    return app.leave(report)


def show(report: Report) -> None:
    """The findings for people: the worst first, each with its fix; then what is unknown, then what is well."""
    for level in ("error", "warning", "unknown", "ok"):
        for finding in report.findings:
            if finding.level == level:
                _show(finding)
    levels = [str(finding.level) for finding in report.findings]
    words = (("error", "error", "errors"), ("warning", "warning", "warnings"), ("unknown", "unknown", "unknown"))
    said = ", ".join(f"{n} {one if n == 1 else more}" for level, one, more in words for n in (levels.count(level),))
    say()
    say(f"{len(levels)} findings in {report.took_s:.0f} s: {said}.")


def _show(finding: Finding) -> None:
    about = f" ({clean(finding.subject)})" if finding.subject else ""
    text = f"{finding.level.upper():<8} {finding.check}{about}: {clean(finding.text)}"
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns, 40)
        text = textwrap.fill(text, width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
    say(text)
    for line in (finding.fix or "").splitlines():
        say(f"           {clean(line)}")  # never broken: these lines are there to be copied
