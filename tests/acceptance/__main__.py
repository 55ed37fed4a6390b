"""Tells the stories on a cloud, again and again, and says what was wrong: `python -m tests.acceptance --help`.

The transport URL holds a password, so it comes by the environment (MAINTD_TRANSPORT_URL) and never by an argument that
`ps` would show. Exit codes: 0 no fault; 1 faults, listed; 2 something is missing, said in a sentence.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.acceptance import judge
from tests.acceptance.cloud import CloudSays, Sentence
from tests.acceptance.receiver import Receiver
from tests.acceptance.stage import Fault, Options, Stage, load_now
from tests.acceptance.stories import STORIES
from tests.acceptance.subject import Maintd, Settings, Setup

BAR_S = 2.0
"""What host.emptied may take beyond settle_s, p99."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make acceptance",
        description="maintd against a real Nova: closes a host, moves the servers it made there away, holds every "
        "webhook against what the API says.",
        epilog="The notifications' transport URL is taken from the environment, MAINTD_TRANSPORT_URL, because it holds "
        "a password. Through make: make acceptance CLOUD=NAME TRANSPORT_URL=rabbit://... [STORY='drain cold'] "
        "[REPEAT=10] [HOST=...] [SERVERS=3] [IMAGE=...] [FLAVOR=...] [NETWORK=...] [STOP_COMPUTE='... {host}'] "
        "[START_COMPUTE='... {host}'] [SET_KNOB='... {json}'] [ACCEPTANCE_ARGS='--settle 15']. Which story needs which "
        "stands in tests/acceptance/__init__.py.",
    )
    say = parser.add_argument
    say("--cloud", default=os.environ.get("OS_CLOUD"), help="a name in clouds.yaml (else OS_CLOUD); an administrator")
    say("--story", nargs="+", choices=sorted(STORIES), default=["drain"], help="which to tell, in turn (drain)")
    say("--repeat", type=int, default=1, metavar="N", help="how often to tell them (1)")
    say("--host", help="the host to drain; it must hold nothing (else the first that holds nothing)")
    say("--servers", type=int, default=3, metavar="N", help="how many servers to make on it (3)")
    say("--image", help="an image's name or id (else the smallest)")
    say("--flavor", help="a flavor's name or id (else the smallest)")
    say("--network", default="none", help="none, auto, or a network's name or id (none)")
    say("--settle", type=float, default=15.0, metavar="S", help="[drain] settle_s, in seconds (15)")
    say(
        "--patience",
        type=float,
        default=600.0,
        metavar="S",
        help="how long the cloud may take to move servers (600)",
    )
    say("--looks", type=float, default=10.0, metavar="N", help="looks at the host per second, at most (10)")
    say("--exchange", default="nova", help="Nova's control_exchange (nova)")
    say("--topic", default="versioned_notifications", help="the topic of its notifications")
    say("--config-file", type=Path, metavar="F", help="more configuration for maintd, such as TLS to the broker")
    say("--to", metavar="HOST", help="where servers are moved, by whatever can be told (else where Nova chooses)")
    say("--stop-compute", metavar="COMMAND", help="stops nova-compute on {host}; the stories of dead hosts need it")
    say("--start-compute", metavar="COMMAND", help="starts nova-compute on {host}")
    say("--set-knob", metavar="COMMAND", help="makes steps of Nova fail or slow, as {json} says; see stage.py")
    say("--record", type=Path, metavar="FOLDER", help="keep what is on the bus meanwhile there: STORY-N.jsonl")
    say("--hold-bar", action="store_true", help=f"a delay over settle_s + {BAR_S:g} s is a fault too")
    say("--json", type=Path, metavar="FILE", help="write the measurements there")
    say("--keep", action="store_true", help="keep the folder with maintd's log, database and all that was heard")
    return parser.parse_args(argv)


def main() -> int:
    args = arguments()
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="maintd-acceptance-"))
    keep = args.keep
    try:
        faults = tell(args, folder)
        keep = keep or bool(faults)
    except Sentence as missing:
        print(f"acceptance: {missing}", file=sys.stderr)
        keep = keep or any(folder.glob("*.log"))
        return 2
    finally:
        if keep:
            print(f"acceptance: what maintd logged and said is in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not faults:
        print("acceptance: no fault.")
        return 0
    print(f"acceptance: {len(faults)} faults:")
    for fault in faults:
        print(f"  - {fault}")
    return 1


def tell(args: argparse.Namespace, folder: Path) -> list[str]:
    """All stories, all times; the faults."""
    transport_url = os.environ.get("MAINTD_TRANSPORT_URL", "")
    if not args.cloud:
        raise Sentence("Say which cloud: CLOUD=NAME (of clouds.yaml), or OS_CLOUD.")
    if "://" not in transport_url:
        raise Sentence(
            "Say where Nova's notifications are: TRANSPORT_URL=rabbit://USER:PASSWORD@HOST:5672/, or better the "
            "environment variable MAINTD_TRANSPORT_URL, which ps does not show."
        )
    if args.servers < 1 or args.repeat < 1:
        raise Sentence("SERVERS and REPEAT are at least 1.")
    if args.record is not None:
        args.record.mkdir(parents=True, exist_ok=True)
    options = Options(
        cloud=args.cloud,
        host=args.host,
        image=args.image,
        flavor=args.flavor,
        network=args.network,
        servers=args.servers,
        settle_s=args.settle,
        patience_s=args.patience,
        per_second=args.looks,
        stop_compute=args.stop_compute,
        start_compute=args.start_compute,
        set_knob=args.set_knob,
        to=args.to,
        record=args.record,
    )
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    password = unquote(urlsplit(transport_url).password or "")
    hidden = [secret, transport_url] + ([password] if len(password) > 7 else [])
    receiver = Receiver(secret)
    made: list[Maintd] = []

    def make_maintd(settings: Settings) -> Maintd:
        home = folder / f"maintd-{len(made) + 1}"
        home.mkdir(mode=0o700)
        setup = Setup(
            cloud=args.cloud,
            transport_url=transport_url,
            webhook_url=receiver.url,
            webhook_secret=secret,
            settle_s=args.settle,
            pool=f"maintd-acceptance-{secrets.token_hex(3)}",
            exchange=args.exchange,
            topic=args.topic,
            more=args.config_file,
            settings=settings,
        )
        made.append(Maintd(home, setup))
        return made[-1]

    stage = Stage(options, receiver, make_maintd)
    faults: list[str] = []
    rounds: list[Round] = []
    try:
        for number in range(1, args.repeat + 1):
            for name in args.story:
                stage.say(f"--- {name} {number} of {args.repeat}, host {stage.host}, {load_now()}")
                stage.fresh()
                stage.record(f"{name}-{number}")
                found, delay = once(stage, name)
                faults += [f"{name} {number}: {fault}" for fault in found]
                rounds.append(Round(name, number, found, delay, os.getloadavg()[0]))
                keep_measurements(rounds, args)
                for fault in found:
                    stage.say(f"FAULT: {fault}")
                stage.sweep()
    finally:
        stage.sweep()
        stage.halt()
        receiver.close()
        (folder / "heard.jsonl").write_text(
            "".join(json.dumps({"received_at": h.received_at, "event": h.event}) + "\n" for h in receiver.heard)
        )
    faults += stage.faults + receiver.faults
    for maintd in made:
        faults += maintd.log_faults(hidden)
    faults += report(rounds, args)
    return faults


class Round:
    """One telling: what was wrong with it and how late it was."""

    def __init__(self, story: str, number: int, faults: list[str], delay: judge.Delay | None, load: float) -> None:
        self.story, self.number, self.faults, self.delay, self.load = story, number, faults, delay, load


def once(stage: Stage, name: str) -> tuple[list[str], judge.Delay | None]:
    """One story; its faults, and how late its host.emptied was."""
    try:
        facts = STORIES[name](stage)
    except (Fault, CloudSays) as wrong:
        stage.heard_since()
        return [str(wrong)], None
    delay = judge.delay(facts)
    if delay is not None:
        stage.say(
            f"last allocation freed -> webhook: {delay.total_s:.2f} s (or up to {delay.sure_s:.2f} less): first pass "
            f"after {delay.first_pass_s:.2f}, second {delay.apart_s:.2f} later, read and decided in "
            f"{delay.second_pass_s:.2f}, sent in {delay.webhook_s * 1000:.0f} ms; the slowest of our own questions "
            f"meanwhile took {delay.slowest_look_s:.2f}"
        )
    return judge.told(facts), delay


def keep_measurements(rounds: list[Round], args: argparse.Namespace) -> None:
    """Write what was measured so far, where that was asked for."""
    if args.json is None:
        return
    rows = [
        {"story": r.story, "number": r.number, "faults": r.faults, "load": r.load}
        | {"delay": asdict(r.delay) | {"total_s": r.delay.total_s} if r.delay is not None else None}
        for r in rounds
    ]
    args.json.write_text(
        json.dumps({"settle_s": args.settle, "bar_s": args.settle + BAR_S, "rounds": rows}, indent=1) + "\n"
    )


def report(rounds: list[Round], args: argparse.Namespace) -> list[str]:
    """Print what was measured. With --hold-bar, delays over the bar are faults."""
    delays = [r.delay.total_s for r in rounds if r.delay is not None]
    clean = sum(not r.faults for r in rounds)
    print(f"\n{clean} of {len(rounds)} stories without a fault.")
    bar = args.settle + BAR_S
    over: list[str] = []
    if delays:
        print(f"Last allocation freed in Placement -> host.emptied received, in seconds (bar {bar:g}):")
        for r in rounds:
            if r.delay is None:
                print(f"  {r.story} {r.number:2}     none        load {r.load:.1f}")
                continue
            d = r.delay
            late = "  OVER THE BAR" if d.total_s > bar else ""
            print(
                f"  {r.story} {r.number:2}  {d.total_s:7.2f} (-{d.sure_s:.2f})  first pass {d.first_pass_s:+.2f}  "
                f"second +{d.apart_s:.2f}  decided +{d.second_pass_s:.2f}  slowest look {d.slowest_look_s:.2f}  "
                f"load {r.load:.1f}{late}"
            )
            if late and args.hold_bar:
                over.append(f"{r.story} {r.number}: host.emptied took {d.total_s:.2f} s, over the bar of {bar:g} s")
        print(f"  p50 {statistics.median(delays):.2f}   max {max(delays):.2f}")
    return over


if __name__ == "__main__":
    sys.exit(main())
