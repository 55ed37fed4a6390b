"""Commands that do maintd's work themselves, with a configuration file in place of a running daemon.

Each body lives in `maintd.app`, which alone knows how the parts fit; here are only their options. The heavy imports
happen inside the functions.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from maintd.cli.common import Commands, Exit, Usage, command, config, config_options, verbs
from maintd.terminal import clean, complain, print_json, say, table

if TYPE_CHECKING:
    from maintd.config import Config
    from maintd.store import Store, Vault

KEY_FILE: Final = Path("/etc/maintd/subscriptions.key")
"""Where the systemd unit takes the keys of subscriptions' secrets from."""


def add_first(commands: Commands) -> None:
    """run, demo, replay, record, prove."""
    run = command(
        commands, "run", "run the daemon",
        do_run,
        description="Run the daemon until SIGTERM: consume Nova's notifications, follow every migration, prove over "
        "the API when a host is empty, deliver events.",
        epilog="examples:\n  maintd run --config-file /etc/maintd/maintd.conf\n"
        "  maintd run --config-file base.conf secrets.conf --check-config",
    )  # fmt: skip
    config_options(run)
    run.add_argument("--check-config", action="store_true", help="say whether the configuration is good, and end")

    demo = command(
        commands, "demo", "play a whole story on this machine, with nothing to set up",
        do_demo,
        description="A small simulated Nova, an in-process bus, SQLite and webhook receivers. Ends by itself.",
    )  # fmt: skip
    demo.add_argument(
        "--story",
        choices=("drain", "tenants"),
        default="drain",
        help="drain: a host is drained, a migration stalls, the host is proven empty; tenants: two projects hear what "
        "touches their servers, and nothing else (drain)",
    )

    replay = command(
        commands, "replay", "print the events that recordings would have published",
        do_replay,
        description="Replay recordings on a virtual clock and print the events that would be published, one "
        "CloudEvent a line. The same input gives the same bytes.",
        epilog="examples:\n  maintd replay drain.jsonl\n  maintd replay bus.jsonl api.jsonl --estimates eta.jsonl",
    )  # fmt: skip
    replay.add_argument("recordings", metavar="RECORDING", nargs="+", type=Path, help="JSON Lines, merged by time")
    config_options(replay, several=False)
    replay.add_argument("--estimates", metavar="FILE", type=Path, help="write an estimate per progress sample there")

    record = command(
        commands, "record", "write what Nova sends and answers to a file",
        do_record,
        description="Record the bus and the API to a file until interrupted, through a temporary queue of its own: "
        "a running daemon misses nothing.",
        epilog="example:\n  maintd record story.jsonl --config-file /etc/maintd/maintd.conf",
    )  # fmt: skip
    record.add_argument("file", metavar="FILE", type=Path, help="a file that does not exist yet")
    config_options(record, several=False)

    prove = command(
        commands, "prove", "ask Nova afresh whether hosts are empty, without a daemon",
        do_prove,
        description="Verification passes over Nova and Placement, with nothing but clouds.yaml. Prints the proof, or "
        "what is in the way. Without a daemon's memory, what Nova has forgotten about a dead host stays unknown.",
        epilog="exit codes: 0 all are empty; 3 at least one is not; 2 Nova knows no such host; 1 Nova cannot be asked\n"
        "example:\n  maintd prove cmp-17 --cloud prod",
    )  # fmt: skip
    prove.add_argument("hosts", metavar="HOST", nargs="+")
    prove.add_argument(
        "--cloud", metavar="NAME", help="a name in clouds.yaml (else the configuration's, else OS_CLOUD)"
    )
    prove.add_argument("--json", action="store_true", help="for scripts")
    config_options(prove, several=False)


def add_last(commands: Commands) -> None:
    """bus, db: rarely needed."""
    bus = command(commands, "bus", "remove our queue from the broker", _which("bus remove"))
    remove = command(
        verbs(bus), "remove", "delete maintd's queue from the broker, for good",
        do_bus_remove,
        description="Delete the queue that maintd made, before maintd is removed from a machine or given another "
        "pool: a queue nobody reads fills the broker. Stop the daemon first.",
    )  # fmt: skip
    remove.add_argument("name", metavar="NAME", nargs="?", help="which bus (default: every one configured)")
    config_options(remove, several=False)

    db = command(commands, "db", "upgrade, show the version of, purge or rekey the database", _which("db version"))
    db_verbs = verbs(db)
    for name, help, do in (
        ("upgrade", "bring the tables to what this version of maintd needs", do_db_upgrade),
        ("version", "show the schema revision there is, and the one needed", do_db_version),
        ("purge", "delete what is older than [database] allows, as the daemon does daily", do_db_purge),
        ("rekey", "encrypt subscriptions' secrets under the newest key, so that older ones can go", do_db_rekey),
    ):
        made = command(db_verbs, name, help, do)
        made.add_argument("--json", action="store_true", help="for scripts")
        config_options(made)
        if name == "rekey":
            made.description = (
                "Encrypt every subscription's secret under the first key of the key file that is not under it yet. "
                "The daemon may run, once it has been restarted with that file; it can be repeated, and interrupted."
            )
            made.add_argument(
                "--key-file", metavar="F", type=Path,
                help=f"the keys, one a line, the newest first (else [subscriptions] key_file, else {KEY_FILE})",
            )  # fmt: skip


def _which(example: str) -> object:
    noun = example.partition(" ")[0]

    def ask(args: argparse.Namespace) -> int:
        raise Usage(f"Say what to do with {noun}, as in: maintd {example}. See: maintd {noun} --help")

    return ask


# --- run, demo, replay, record, prove --------------------------------------------------------------------------------


def do_run(args: argparse.Namespace) -> int:
    settings = config(args)
    if args.check_config:
        return _checked(settings)
    from maintd import app

    return app.run(settings)


def _checked(settings: Config) -> int:
    from maintd.daemon import policies_of, vault_of

    policies_of(settings)
    vault_of(settings)
    for warning in settings.warnings:
        complain(f"maintd: {clean(warning)}")
    say("The configuration is good.")
    say(f"  installation  {settings.installation}")
    say(f"  files         {', '.join(map(str, settings.files)) or 'none'}")
    say(f"  buses         {', '.join(bus.name for bus in settings.buses) or 'none: closed hosts are polled'}")
    say(f"  cloud         {_cloud_name(settings)}")
    say(f"  database      {settings.database.connection.partition(':')[0]}")
    say(f"  api           {settings.api.host}:{settings.api.port}, auth {settings.api.auth}")
    say(f"  metrics       {settings.metrics.host}:{settings.metrics.port}")
    say(f"  webhooks      {', '.join(hook.name for hook in settings.webhooks) or 'none'}")
    say(f"  bus sinks     {', '.join(sink.name for sink in settings.bus_sinks) or 'none'}")
    say(f"  exec sinks    {', '.join(sink.name for sink in settings.exec_sinks) or 'none'}")
    say(f"  subscriptions {settings.subscriptions.key_file or 'none: there is no [subscriptions] key_file'}")
    return Exit.YES


def _cloud_name(settings: Config) -> str:
    if settings.cloud is None:
        return "none: host.emptied is never published"
    return settings.cloud.cloud or "by the options in [cloud]"


def do_demo(args: argparse.Namespace) -> int:
    from maintd import app

    return app.demo(args.story)


def do_replay(args: argparse.Namespace) -> int:
    for recording in args.recordings:
        _readable(recording)
    from maintd import app
    from maintd.config import load

    files = [_readable(file) for file in args.config_file]
    settings = load(files, args.config_dir) if files or args.config_dir else None
    return app.replay(args.recordings, settings, args.estimates)


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as wrong:
        raise Usage(f"{path} cannot be read: {wrong.strerror}.") from wrong


def do_record(args: argparse.Namespace) -> int:
    settings = config(args)
    if args.file.exists():
        raise Usage(f"{args.file} exists already; a recording is never overwritten.")
    from maintd import app

    return app.record(settings, args.file)


def do_prove(args: argparse.Namespace) -> int:
    import os

    settings = config(args, optional=True)
    name = args.cloud or (os.environ.get("OS_CLOUD") if settings.cloud is None else None)
    if name is not None:
        from maintd.config import CloudConfig

        settings = dataclasses.replace(settings, cloud=CloudConfig(cloud=name))
    if settings.cloud is None:
        raise Usage("Say which cloud to ask: --cloud NAME (of clouds.yaml), OS_CLOUD, or --config-file with [cloud].")
    from maintd import app

    return app.prove(settings, tuple(dict.fromkeys(args.hosts)), json=args.json)


# --- bus, db ---------------------------------------------------------------------------------------------------------


def do_bus_remove(args: argparse.Namespace) -> int:
    settings = config(args)
    names = [bus.name for bus in settings.buses]
    if args.name is not None and args.name not in names:
        raise Usage(f"No bus named {args.name!r} is configured; there is: {', '.join(names) or 'none'}.")
    from maintd import app

    return app.remove_bus(settings, [args.name] if args.name else names)


def _store(settings: Config, vault: Callable[[], Vault] | None = None) -> Store:
    from maintd.clock import SystemClock
    from maintd.store import Vault, open_store

    return open_store(settings.database.connection, SystemClock(), vault=vault or (lambda: Vault(())))


def do_db_upgrade(args: argparse.Namespace) -> int:
    store = _store(config(args))
    try:
        before, needed = store.version()
        if before != needed:
            store.upgrade()
    finally:
        store.close()
    if args.json:
        print_json({"before": before, "version": needed})
    elif before == needed:
        say(f"The database is at revision {needed} already.")
    else:
        say(f"The database was at revision {before or 'none (empty)'} and is now at {needed}.")
    return Exit.YES


def do_db_version(args: argparse.Namespace) -> int:
    store = _store(config(args))
    try:
        current, needed = store.version()
    finally:
        store.close()
    if args.json:
        print_json({"version": current, "needed": needed, "current": current == needed})
    elif current == needed:
        say(f"The database is at revision {current}, as this maintd needs.")
    else:
        say(f"The database is at revision {current or 'none (empty)'}; this maintd needs {needed}: maintd db upgrade.")
    return Exit.YES if current == needed else Exit.FAILURE


def do_db_purge(args: argparse.Namespace) -> int:
    from maintd.clock import SystemClock

    settings = config(args)
    ages = settings.database
    store = _store(settings)
    try:
        gone = store.purge(
            SystemClock().now(),
            events_s=ages.events_age_s,
            deliveries_s=ages.deliveries_age_s,
            message_ids_s=ages.message_ids_age_s,
            quarantine_s=ages.quarantine_age_s,
            quarantine_bytes=ages.quarantine_bytes,
        )
    finally:
        store.close()
    if args.json:
        print_json({"purged": gone})
    else:
        table(["PURGED", "#ROWS"], sorted(gone.items()))
    return Exit.YES


def do_db_rekey(args: argparse.Namespace) -> int:
    from maintd.store import read_vault

    settings = config(args)
    path = args.key_file or settings.subscriptions.key_file or KEY_FILE
    vault = read_vault(path)
    store = _store(settings, lambda: vault)
    try:
        store.require_current()
        found = store.subscriptions.rekey()
    finally:
        store.close()
    if args.json:
        print_json(
            {"rekeyed": found.written, "current": found.current, "unreadable": [one.id for one in found.unreadable]}
        )
    else:
        say(
            f"Subscriptions whose secrets are now under the newest key: {found.written}. Under it already: "
            f"{found.current}."
        )
    for one in found.unreadable:
        whose = "an operator's" if one.project_id is None else f"of project {one.project_id}"
        complain(f"maintd: no key in {path} opens a secret of subscription {one.id} ({one.name}, {whose}).")
    if found.unreadable:
        complain("maintd: put the key that is missing into the file, below the others, and run this again; where it is "
                 "lost, whoever has the subscription deletes it and makes another.")  # fmt: skip
    return Exit.FAILURE if found.unreadable else Exit.YES
