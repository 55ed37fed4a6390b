"""A real RabbitMQ for the tests, and a TCP proxy that can hurt the way to it.

The broker runs from the distribution's package as a child of the test session, with a directory, a node name, ports and
an epmd of its own, so that it never meets another broker of the machine. It listens on the loopback only. Nothing is
configured beyond that: the tests want what an operator gets.

`Proxy` stands between a client and the broker and can cut what is open, swallow every byte without closing (a half-open
connection), or refuse new connections.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

_HOMES = (Path("/usr/lib/rabbitmq/bin"), Path("/usr/sbin"), Path("/usr/local/sbin"))


def free_port() -> int:
    """A TCP port of the loopback that nobody holds at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them, each another."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_until(true: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    """Return as soon as `true()` is; fail the test when it never gets so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s} s still not: {what or true}")
        time.sleep(0.005)


class Rabbit:
    """One RabbitMQ node. `start` and `stop` may be called again and again; what is durable stays."""

    host = "127.0.0.1"

    def __init__(self, home: Path, *, management: bool = False) -> None:
        """`management` turns the plugin of that name on, on a port of its own."""
        self.home = home
        self.port, self._dist, self._epmd, self.management_port = free_ports(4)
        self._server = next((folder for folder in _HOMES if (folder / "rabbitmq-server").exists()), None)
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "enabled_plugins").write_text("[rabbitmq_management]." if management else "[].")
        more = ""
        if management:
            more = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            more += "collect_statistics_interval = 500\n"  # its figures come every five seconds otherwise
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users = none\nlog.console = false\n"
            f"disk_free_limit.absolute = 1MB\n{more}"
        )
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self._environment = {
            **os.environ,
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"maintd-tests-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # One scheduler and no busy waiting: the machine belongs to the code under test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    @property
    def url(self) -> str:
        """The transport URL, as oslo.messaging writes it."""
        return self.url_at(self.port)

    def url_at(self, port: int, user: str = "guest", password: str = "guest", vhost: str = "") -> str:
        """The transport URL through another port (a proxy's), or with other credentials."""
        return f"rabbit://{user}:{password}@{self.host}:{port}/{vhost}"

    def start(self, timeout_s: float = 180.0) -> None:
        """Start the node and return when it takes connections."""
        if self._server is None:
            pytest.fail("RabbitMQ is not installed: apt install rabbitmq-server (bindep.txt has the list)")
        self._start_epmd()
        self._process = subprocess.Popen(
            [str(self._server / "rabbitmq-server")],
            env=self._environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=(self.home / "stdout").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("RabbitMQ did not start: " + (self.home / "stdout").read_text()[-2000:])
            with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as probe:
                probe.settimeout(2)
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                if probe.recv(1):
                    return
            time.sleep(0.05)

    def _start_epmd(self) -> None:
        """Run epmd as a child of ours: the one that the node would start outlives everybody."""
        epmd = shutil.which("epmd")
        if epmd is not None and self._names is None:
            self._names = subprocess.Popen(
                [epmd, "-address", "127.0.0.1", "-port", str(self._epmd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_until(self._epmd_answers, what="epmd takes connections")

    def _epmd_answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self._epmd), timeout=1):
            return True
        return False

    def control(self, *words: str) -> None:
        """What an administrator does with rabbitmqctl; takes its time."""
        program = str(self._server / "rabbitmqctl") if self._server else "rabbitmqctl"
        subprocess.run([program, *words], env=self._environment, check=True, capture_output=True, timeout=60.0)

    def kill(self) -> None:
        """End the node at once, as a power cut would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the node and its epmd, remove what they wrote."""
        self.kill()
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None
        shutil.rmtree(self.home, ignore_errors=True)


class Proxy:
    """A TCP proxy to one port, with three ways of failing."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self.port = 0
        self._place = self._hold()
        self.port = int(self._place.getsockname()[1])
        self.accept()

    def accept(self) -> None:
        """Take connections (again), and let bytes flow (again)."""
        self._flows.set()
        if self._listener is None:
            self._listener = self._place
            self._listener.listen()
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Close everything that is open; new connections are still taken."""
        for side in list(self._open):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def refuse(self) -> None:
        """Close everything and take no new connection."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self._place = self._hold()
        self.cut()

    def black_hole(self) -> None:
        """Keep everything open and let not one byte more through, new connections included."""
        self._flows.clear()

    def close(self) -> None:
        """End the proxy."""
        self.refuse()
        self._place.close()
        self._flows.set()

    def _hold(self) -> socket.socket:
        """Our port, or at first any: who does not listen there refuses, and nobody else is given it."""
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", self.port))
        return place

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if listener.fileno() == -1 or self._listener is not listener:
                    return
                with suppress(OSError, UnboundLocalError):
                    near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            self._open.discard(side)


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """A running RabbitMQ that the whole test session shares; use names of your own on it."""
    node = Rabbit(Path(tempfile.mkdtemp(prefix="maintd-rabbit-")))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def proxy(rabbit: Rabbit) -> Iterator[Proxy]:
    """A way to the broker that can be hurt."""
    way = Proxy(rabbit.port)
    yield way
    way.close()
