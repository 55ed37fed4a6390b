"""The commands that do maintd's work: run, demo, replay, record, prove, doctor, and removing our queue.

Here a configuration becomes a running thing; `daemon.py` has the daemon itself, `demo.py` the demonstration. Imports
are inside the functions, so that a command pays for what it uses. Nothing here judges or keeps anything.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maintd.errors import OperatorError, OurFault

if TYPE_CHECKING:
    from maintd.config import Config
    from maintd.doctor import Report
    from maintd.domain.model import Estimate


def run(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT. Does not return: the process ends with 0, or with 1 by our own fault."""
    import os

    from maintd import log
    from maintd.daemon import Daemon

    log.configure(config.log.level, config.log.format)
    for warning in config.warnings:
        log.get_logger("maintd").warning("configuration", detail=warning)
    daemon = Daemon(config)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: daemon.request_stop())
    signal.signal(signal.SIGHUP, lambda *_: log.get_logger("maintd").warning("reload_refused", detail=_NO_RELOAD))
    daemon.start()
    code = 1
    try:
        daemon.wait()
        code = 0
    except OurFault as fault:
        log.get_logger("maintd").critical("our_fault", detail=str(fault))
    finally:
        # Nothing that hangs (a broker that never answers, a resolver) may keep us: systemd would kill us anyway.
        alarm = threading.Timer(9.5, lambda: os._exit(code))
        alarm.daemon = True
        alarm.start()
        try:
            daemon.stop()
        except Exception:
            code = 1
            log.get_logger("maintd").exception("stop_failed")
    sys.stdout.flush()
    os._exit(code)


_NO_RELOAD = "maintd reads its configuration once, at start: restart it to change something."


def demo(story: str) -> int:
    """Play a story; 0 when it came out as it must."""
    from maintd.demo import STORIES

    return STORIES[story]()


def replay(paths: Sequence[Path], config: Config | None, estimates: Path | None) -> int:
    """Print the events that recordings lead to, one CloudEvent a line; with `estimates`, progress samples there."""
    import contextlib
    import json

    from maintd.domain.events import instant_text
    from maintd.domain.model import Policy
    from maintd.ingest import replay as replaying
    from maintd.ingest.recording import Recording

    recording = Recording(list(paths))
    if config is None:
        policy, installation = Policy(), "main"
    else:
        from maintd.daemon import policy_of

        policy, installation = policy_of(config, shadow=False), config.installation
    with contextlib.ExitStack() as stack:
        told: replaying.Looked | None = None
        if estimates is not None:
            out = stack.enter_context(estimates.open("w", encoding="utf-8"))

            def told(at: float, server_id: str, found: Estimate | None) -> None:
                row: dict[str, Any] = {"at": instant_text(at), "server_id": server_id}
                row["eta_seconds"] = found.seconds if found else None
                row["eta_low_seconds"] = found.low_seconds if found else None
                row["eta_high_seconds"] = found.high_seconds if found else None
                out.write(json.dumps(row) + "\n")

        for event in replaying.replay(recording, policy, installation, looked=told):
            sys.stdout.write(event.as_json() + "\n")
    sys.stdout.flush()
    for kind, n in sorted(recording.skipped.items()):
        print(f"maintd: {n} lines passed over ({kind}).", file=sys.stderr)
    return 0


def record(config: Config, path: Path) -> int:
    """Write what the buses carry to a file until interrupted, through temporary queues."""
    from maintd.clock import SystemClock
    from maintd.domain.model import Because
    from maintd.domain.observations import BusSeen
    from maintd.ingest.recording import RecordingWriter
    from maintd.nova.listener import tap

    if not config.buses:
        raise OperatorError("There is nothing to record: no [bus] transport_url is configured.")
    clock = SystemClock()
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    lock = threading.Lock()
    counted = 0
    failures: list[BaseException] = []
    with path.open("x", encoding="utf-8") as out:
        writer = RecordingWriter(out)

        def listen(bus: Any) -> None:
            def take(routing_key: str, body: str) -> None:
                nonlocal counted
                with lock:
                    writer.notification(clock.now(), routing_key, body, bus.name)
                    counted += 1

            def state(word: str, detail: str) -> None:
                with lock:
                    writer.bus(BusSeen(clock.now(), Because("clock"), bus.name, word))
                print(f"maintd: bus {bus.name}: {word} ({detail})", file=sys.stderr)

            try:
                tap(bus, take, stop, state)
            except BaseException as error:
                failures.append(error)
                stop.set()

        threads = [threading.Thread(target=listen, args=(bus,), daemon=True) for bus in config.buses]
        for thread in threads:
            thread.start()
        told = 0
        while not stop.wait(5.0):
            if counted != told:
                print(f"maintd: {counted} notifications so far; Ctrl-C ends.", file=sys.stderr)
                told = counted
        for thread in threads:
            thread.join(5.0)
    if failures:
        raise failures[0]
    print(f"maintd: {counted} notifications in {path}.", file=sys.stderr)
    return 0


def prove(config: Config, hosts: Sequence[str], *, json: bool) -> int:
    """Fresh passes with nothing but the cloud's API: 0 all empty, 3 one is not, 2 unknown, 1 Nova cannot be asked."""
    from maintd.ingest.prove import prove_hosts

    return prove_hosts(config, hosts, as_json=json)


def doctor(
    config: Config | OperatorError,
    *,
    listen_s: float,
    send_test_event: bool,
    management_url: str | None,
    tell: Callable[[str], None],
) -> Report:
    """Look at everything; a configuration that could not be read is a finding too."""
    import logging

    from maintd.doctor import Options, examine, refused

    if isinstance(config, OperatorError):
        return refused(config)
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries say of what hangs is told as findings
    return examine(config, Options(listen_s, send_test_event, management_url), tell)


def leave(report: Report) -> int:
    """The exit code of an examination; does not return where something hangs that would keep the process alive."""
    import os

    if report.hangs:
        sys.stdout.flush()
        os._exit(report.exit_code)
    return report.exit_code


def remove_bus(config: Config, names: Sequence[str]) -> int:
    """Delete our queues from the brokers, for good."""
    from maintd.nova.listener import remove_queue

    for bus in config.buses:
        if bus.name in names:
            removed = remove_queue(bus)
            print(f"{bus.name}: {'deleted ' + ', '.join(removed) if removed else 'there was no queue of ours'}")
    if not config.buses:
        raise OperatorError("No bus is configured, so there is no queue to remove.")
    return 0
