"""A nursery for daemons: imports maintd once, then forks a daemon for every order it reads.

A crash test starts the daemon some hundred times, and importing takes longer than everything else that a start does.
So this process, which has one thread and never runs a daemon itself, forks; the child is a process like any other:
it reads its configuration file, it can be killed, it leaves nothing behind but what it has committed.

Orders are JSON objects, one a line, on standard input:

    {"spawn": N, "config": FILE, "log": FILE, "crash": [POINT, NTH] or null, "lease_s": SECONDS or null,
     "file_limit": BYTES or null, "shared_file": true or false}

Told on standard output, one a line: {"spawned": N, "pid"}, {"started": N, "api": URL, "metrics": URL},
{"ended": N, "status": exit status, or minus the signal}. The end of standard input ends every child.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = (
    "after_receive",
    "before_commit",
    "after_commit",
    "before_acknowledge",
    "after_claim",
    "after_post",
    "before_record",
)
"""The named points of the path from the bus to the receiver, in its order."""


def killer(point: str, nth: int) -> Callable[[str], None]:
    """A hook that ends this very process, as kill -9 would, when a point is passed for the nth time."""
    lock, passed = threading.Lock(), 0

    def crash(at: str) -> None:
        nonlocal passed
        if at == point:
            with lock:
                passed += 1
                if passed == nth:
                    os.kill(os.getpid(), signal.SIGKILL)

    return crash


def tell(**what: Any) -> None:
    """One line to whoever gave the order, in one write, since several processes share the pipe."""
    os.write(1, json.dumps(what).encode() + b"\n")


def run(order: dict[str, Any]) -> int:
    """The life of one daemon, as `maintd run` leads it."""
    from maintd import log
    from maintd.config import load
    from maintd.daemon import Daemon
    from maintd.store import Store

    if order.get("file_limit"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond it fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], resource.RLIM_INFINITY))
    if order.get("shared_file"):
        # Two controllers on one database, where there is no server: the file is treated as a server's database is.
        Store.embedded = property(lambda store: False)  # type: ignore[assignment,method-assign]
    config = load([Path(order["config"])])
    log.configure(config.log.level, "json")
    given: dict[str, Any] = {}
    if order.get("crash"):
        given["crash"] = killer(*order["crash"])
    if order.get("lease_s"):
        given["delivery_lease_s"] = order["lease_s"]
    daemon = Daemon(config, **given)
    signal.signal(signal.SIGTERM, lambda *_: daemon.request_stop())
    if order.get("file_limit"):
        # The test's sign that somebody has made room.
        signal.signal(
            signal.SIGUSR1,
            lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
        )
    daemon.start()
    tell(started=order["spawn"], api=daemon.api_server.url, metrics=daemon.health_server.url)
    try:
        daemon.wait()
    finally:
        daemon.stop()
    return 0


def child(order: dict[str, Any]) -> None:
    """Never returns."""
    status = 70
    try:
        for sign in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(sign, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        told = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(told, 2)
        status = run(order)
    except BaseException as wrong:
        sys.stderr.write(f"{type(wrong).__name__}: {wrong}\n")
        sys.stderr.flush()
        status = 1
    finally:
        os._exit(status)


def main() -> None:
    """Fork for each order; tell of each end."""
    import maintd.app
    import maintd.daemon
    import maintd.log  # noqa: F401

    if threading.active_count() != 1:
        raise SystemExit("importing maintd has started a thread: it cannot be forked any more")
    children: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell(ready=True)
    unread = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            tell(ended=children.pop(pid), status=os.waitstatus_to_exitcode(status))
        if 0 not in readable:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                child(order)
            children[pid] = order["spawn"]
            tell(spawned=order["spawn"], pid=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
