"""What the commands share: exit codes, the parser, and the options of those that ask the API."""

from __future__ import annotations

import argparse
import os
import re
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from maintd.client import DEFAULT_FILE, TIMEOUT_S, Client, find_url
from maintd.errors import OperatorError

if TYPE_CHECKING:
    from maintd.config import Config

Commands = Any
"""What `add_subparsers` returns; argparse keeps the type to itself."""


PATIENT_S: Final = 30.0
"""How long is waited for maintd while it waits for a receiver, which has ten seconds for each of a few requests."""


class Exit(IntEnum):
    """Exit codes: a promise to scripts (--help lists them)."""

    YES = 0
    FAILURE = 1
    USAGE = 2
    STALLED = 3
    NOT_EMPTY = 3
    TIMED_OUT = 4
    LOST_SIGHT = 5
    UNREACHABLE = 6
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Usage(OperatorError):
    """The command line asks for something that is not there."""


class Parser(argparse.ArgumentParser):
    """argparse with our manners: one sentence for a mistake, no abbreviations, help as it was written."""

    def __init__(self, **given: Any) -> None:
        given.setdefault("allow_abbrev", False)
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**given)

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{self._sentence(message)} See: {self.prog} --help")

    @staticmethod
    def _sentence(message: str) -> str:
        if found := re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
            import difflib

            names = [name.strip().strip("'") for name in found[3].split(",")]
            near = difflib.get_close_matches(found[2], names, n=1)
            what = "command" if found[1].isupper() else f"value for {found[1]}"
            return f"There is no {what} {found[2]!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
        return message[:1].upper() + message[1:].rstrip(".") + "."


def command(commands: Commands, name: str, help: str, do: Any, description: str = "", **given: Any) -> Parser:
    """Add a command that `do(args)` carries out."""
    made: Parser = commands.add_parser(
        name, help=help, description=description or help[:1].upper() + help[1:] + ".", **given
    )
    made.set_defaults(do=do)
    return made


def verbs(noun: Parser) -> Commands:
    """What can be done with a noun; the bare noun lists."""
    return noun.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=False)


def ask_options(made: Parser, *, inherited: bool = False) -> None:
    """--api and --json. A verb takes them too, without undoing what was said before it (`inherited`)."""
    default: Any = argparse.SUPPRESS if inherited else None
    made.add_argument(
        "--api", metavar="URL", default=default,
        help="where maintd's API is (else MAINTD_API, else [api] listen of /etc/maintd/maintd.conf)",
    )  # fmt: skip
    made.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS if inherited else False, help="for scripts"
    )


def client(args: argparse.Namespace, timeout_s: float = TIMEOUT_S) -> Client:
    """The API that a command asks. With [api] auth = keystone a token is taken from OS_TOKEN."""
    try:
        return Client(find_url(args.api), timeout_s, token=os.environ.get("OS_TOKEN") or None)
    except OperatorError as wrong:
        raise Usage(str(wrong)) from wrong


def config_options(made: Parser, *, several: bool = True) -> None:
    """--config-file and --config-dir. `several` files may follow one option where no other argument could."""
    how: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {"action": "append"}
    help = "a configuration file; may be given several times, the last one wins"
    made.add_argument("--config-file", metavar="F", type=Path, default=[], help=help, **how)
    made.add_argument("--config-dir", metavar="D", type=Path, help="read every *.conf in it too, after the files")


def config(args: argparse.Namespace, *, optional: bool = False) -> Config:
    """The configuration that a command was given, else the default file's; `optional`: else the defaults."""
    from maintd.config import load

    files: list[Path] = list(args.config_file)
    for file in files:
        if not file.exists():
            raise Usage(f"The configuration file {file} does not exist.")
    if not files and args.config_dir is None:
        if DEFAULT_FILE.exists() and (not optional or os.access(DEFAULT_FILE, os.R_OK)):
            files = [DEFAULT_FILE]
        elif not optional:
            raise Usage(f"There is no configuration: give --config-file, or write {DEFAULT_FILE}.")
    return load(files, args.config_dir)
