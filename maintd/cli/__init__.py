"""The command line: one parser, one file per group of commands, exit codes that scripts can rely on.

Commands that read ask the API of a running maintd and import nothing but the standard library until they draw a table,
so they answer at once. Commands that do the work (`run`, `replay`, ...) import `maintd.app` when they are called, not
before. Whatever an operator can get wrong ends here as one sentence on stderr; a traceback would be our own fault, and
is shown only when MAINTD_DEBUG is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from maintd.cli import daemon, deliveries, doctor, events, fleet, listen, stalls, subscriptions, wait
from maintd.cli.common import Exit, Parser, Usage
from maintd.client import ApiError, Unreachable
from maintd.errors import MaintdError
from maintd.terminal import clean, complain

EPILOG = """\
examples:
  maintd demo                               the whole story in a minute, nothing to set up
  maintd run --config-file /etc/maintd/maintd.conf
  maintd status                             how the closed hosts stand
  maintd why cmp-17                         what is still in the way, and what to do about it
  maintd wait cmp-17 --timeout 3600 --fail-on-stall && ipmitool ...
  maintd stalls report                      how right were the verdicts, on this cloud
  maintd listen --secret-file whsec.txt     what does a webhook get
  maintd doctor                             is everything set up as it must be
  maintd prove cmp-17 --cloud prod          ask Nova afresh, without a daemon
  maintd replay story.jsonl                 the events a recording would have published

exit codes: 0 yes; 1 failure; 2 usage, or an unknown host or name; 3 stalled (wait --fail-on-stall) or not
empty (prove); 4 timed out; 5 maintd lost sight; 6 no maintd answers.

doctor: 0 clean; 1 warnings; 2 errors.

"Empty" always means empty of Nova servers: storage daemons, network agents and stray processes are not seen."""


def parser() -> Parser:
    """The whole command line."""
    import maintd

    root = Parser(
        prog="maintd",
        description="The truth about host maintenance in an OpenStack cloud: proof that a host is empty, and word of "
        "what stalls. It watches and tells; it never moves, aborts or forces anything.",
        epilog=EPILOG,
    )
    root.add_argument("--version", action="version", version=f"maintd {maintd.__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    daemon.add_first(commands)
    fleet.add(commands)
    stalls.add(commands)
    wait.add(commands)
    events.add(commands)
    deliveries.add(commands)
    subscriptions.add(commands)
    listen.add(commands)
    doctor.add(commands)
    daemon.add_last(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Never raises for what an operator can get wrong."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Who read our output has had enough. Python must not complain about it once more while it shuts down.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        return Exit.BROKEN_PIPE


def _run(argv: Sequence[str]) -> int:
    root = parser()
    try:
        args = root.parse_args(argv)
        if args.command is None:
            complain(root.format_help())
            return Exit.USAGE
        return int(args.do(args))
    except SystemExit as end:  # argparse, after --help, --version or a usage error
        return end.code if isinstance(end.code, int) else Exit.FAILURE
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as wrong:
        if os.environ.get("MAINTD_DEBUG"):
            raise
        return _explain(wrong)


def _explain(wrong: Exception) -> int:
    code = Exit.FAILURE
    text = clean(wrong)
    if isinstance(wrong, Usage) or (isinstance(wrong, ApiError) and wrong.status in (400, 404)):
        code = Exit.USAGE
    elif isinstance(wrong, Unreachable):
        code = Exit.UNREACHABLE
    elif isinstance(wrong, OSError):
        text = f"{wrong.filename}: {wrong.strerror}." if wrong.filename else f"{wrong.strerror or wrong}."
    elif not isinstance(wrong, MaintdError):
        text = f"This is maintd's own fault: {type(wrong).__name__}: {text}. MAINTD_DEBUG=1 shows where it happened."
    complain(f"maintd: {text}")
    return code
