"""What stands there: the cloud on a broker, maintd as a process, receivers, projects with tokens, the HA manager."""

from __future__ import annotations

import base64
import fcntl
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oslo_config import cfg

from maintd.clock import SystemClock
from maintd.demo.tenants import Owner, token_of
from maintd.messaging import oslo_messaging
from maintd.simulator import Cloud
from maintd.simulator.bus import OsloBus, Queued
from maintd.simulator.model import Migration
from maintd.simulator.rest import RestServer, User
from maintd.store.vault import new_key
from tests.chaos.receivers import Receiver
from tests.daemon.world import QUICK
from tests.receivers.managing import COMMAND, EXAMPLE, history
from tests.receivers.sending import ROOT
from tests.support.rabbitmq import Rabbit, free_port, wait_until

HOSTS = tuple(f"cmp-{number:02d}" for number in range(1, 7))
PAIR = "db"
PATIENCE_S = 120.0


class Process:
    """A program that is started and killed many times; its output goes to one file."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.argv, self.log = argv, log
        self.lives = 0
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._running is None
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, *self.argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.lives += 1

    def status(self) -> int | None:
        """None while it runs, or was never started; else its exit status."""
        return None if self._running is None else self._running.poll()

    def end(self, sign: int = signal.SIGKILL) -> int:
        """Send it a signal; its exit status, once it is gone."""
        process, self._running = self._running, None
        assert process is not None
        process.send_signal(sign)
        try:
            return process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def close(self) -> None:
        if self._running is not None:
            self.end()


class History:
    """Looks every few milliseconds where each server is, and which hosts are closed: what there was to be told."""

    EVERY_S = 0.02

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._over = threading.Event()
        self.stays: dict[str, list[tuple[float, str | None]]] = {}
        """By server: since when it was on which host."""
        self.closed: dict[str, list[tuple[float, bool]]] = {}
        """By host: since when it was disabled or forced down, or not."""
        self.lost: dict[str, list[tuple[float, bool]]] = {}
        """By host: since when it was forced down, or not."""
        self.moves: dict[int, Migration] = {}
        """Every row of `migrations` that ever was; Nova forgets those of servers that are deleted."""
        self._look()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        with self._cloud.lock:
            now = self._cloud.clock.now()
            self.moves.update(self._cloud.migrations)
            for server in self._cloud.servers.values():
                _note(self.stays.setdefault(server.id, []), now, server.host)
            for gone in self.stays.keys() - self._cloud.servers.keys():
                _note(self.stays[gone], now, None)
            for host in self._cloud.hosts.values():
                _note(self.closed.setdefault(host.name, []), now, host.disabled or host.forced_down)
                _note(self.lost.setdefault(host.name, []), now, host.forced_down)

    def _run(self) -> None:
        while not self._over.wait(self.EVERY_S):
            self._look()

    def meetings(self, server_id: str, when: dict[str, list[tuple[float, bool]]], slack_s: float) -> int:
        """How often a server was on a host at a time when that was so, give or take `slack_s` of when it came or left:
        what is heard late may be told late."""
        return sum(
            came - slack_s <= ended and began <= left + slack_s
            for host, came, left in _spans(self.stays.get(server_id, []))
            if host is not None
            for was, began, ended in _spans(when[host])
            if was
        )

    def close(self) -> None:
        self._over.set()
        self._thread.join(5.0)


def _note(changes: list[tuple[float, Any]], now: float, value: object) -> None:
    if not changes or changes[-1][1] != value:
        changes.append((now, value))


def _spans(changes: list[tuple[float, Any]]) -> Iterator[tuple[Any, float, float]]:
    """(value, from, to) of each time in between changes; the last has no end."""
    ends = [at for at, _ in changes[1:]] + [float("inf")]
    return ((value, at, end) for (at, value), end in zip(changes, ends, strict=True))


class Broker:
    """A RabbitMQ, and the simulated Nova's way to it. `durable`: queues and exchanges outlive it, on both sides."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.rabbit = Rabbit(folder / "rabbit")
        self.rabbit.start()
        self.durable = durable
        file = folder / "nova.conf"
        file.write_text(f"[oslo_messaging_rabbit]\namqp_durable_queues = {durable}\n")
        conf = cfg.ConfigOpts()
        conf([], project="nova", default_config_files=[str(file)], default_config_dirs=[])
        self._transport = oslo_messaging.get_notification_transport(conf, url=self.rabbit.url)
        self.publisher = Queued(OsloBus(transport=self._transport, retry=0))

    def close(self) -> None:
        self.publisher.close()
        self._transport.cleanup()
        self.rabbit.close()


class World:
    """All of it. `people` are the owners by project; `servers` their servers by name."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.broker = Broker(folder, durable=seed % 2 == 0)
        self.cloud = Cloud(SystemClock(), self.broker.publisher, seed=seed, timing=QUICK)
        self.rest = RestServer(self.cloud, threads=16).start()
        self.rest.api.keep_seen = False
        for host in HOSTS:
            self.cloud.add_host(host)
        self.users: dict[str, User] = {
            name: self.rest.api.add_user(name, "secret", f"project-{name}") for name in ("a", "b")
        }
        self.servers: dict[str, str] = {}
        for place, name in enumerate(("a-db-1", "a-db-2", "a-web", "b-web", "b-db", "b-batch", "c-other")):
            user = self.users.get(name[0])
            server = self.cloud.add_server(HOSTS[place % 5], name, project_id=user.project_id if user else None)
            self.servers[name] = server.id
        self.pair = (self.servers["a-db-1"], self.servers["a-db-2"])
        self.history = History(self.cloud)
        self.cloud.start()

        made = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.operator = Receiver("operator", folder / "operator.jsonl", made)
        self.receivers = {
            "operator": self.operator,
            **{name: Receiver(f"project-{name}", folder / f"project-{name}.jsonl") for name in self.users},
        }
        for receiver in self.receivers.values():
            receiver.open()
        self.api, self._manager_port = f"http://127.0.0.1:{free_port()}", free_port()
        self.maintd = Process(["-m", "maintd", "run", "--config-file", str(self._configured())], folder / "maintd.log")
        self.manager = Process([str(EXAMPLE), str(folder / "ha" / "ha.json")], folder / "ha.log")
        self.people = {
            name: Owner(name, user.project_id, token_of(user, self.rest), self.api) for name, user in self.users.items()
        }
        self.admin = Owner("admin", self.cloud.admin_project, self.rest.api.admin_token, self.api)

    def _configured(self) -> Path:
        """maintd's configuration, as an operator writes it."""
        key = self.folder / "subscriptions.key"
        key.write_text(new_key() + "\n")
        auth = "\n".join(f"{name} = {value}" for name, value in self.rest.cloud_config()["auth"].items())
        ports = [self._manager_port, *(self.receivers[name].port for name in self.users)]
        rabbit = self.broker.rabbit.url
        file = self.folder / "maintd.conf"
        file.write_text(
            f"[DEFAULT]\ninstallation = chaos\n"
            f"[database]\nconnection = sqlite:///{self.folder / 'maintd.sqlite'}\n"
            f"[bus]\ntransport_url = {rabbit}\ndurable_queues = {self.broker.durable}\n"
            f"[cloud]\nauth_type = password\nregion_name = RegionOne\ntimeout_s = 5\n{auth}\n"
            f"[drain]\nsettle_s = 1\n"
            f"[api]\nlisten = {self.api.removeprefix('http://')}\nauth = keystone\n"
            f"[keystone_authtoken]\nauth_type = password\n{auth}\n"
            f"www_authenticate_uri = {self.rest.url}/identity/v3\n"
            f"[metrics]\nlisten = 127.0.0.1:0\n"
            f"[tenants]\nenabled = true\njitter_s = {self.seed % 3 / 2}\n"
            f"[subscriptions]\nkey_file = {key}\nallowed_networks = 127.0.0.1/32\nallow_http = true\n"
            f"allowed_ports = {', '.join(map(str, ports))}\n"
            f"[webhooks]\nenabled = operator\n"
            f"[webhook:operator]\nurl = {self.operator.url}\nsecret = {self.operator.secret}\n"
        )
        for secret in (file, key):
            secret.chmod(0o600)
        return file

    # the beginning

    def begin(self) -> None:
        """maintd runs and has read the cloud, both projects have subscribed, and the HA manager runs."""
        self.maintd.start()
        wait_until(self.ready, PATIENCE_S, "maintd to hear its bus and to have read its cloud")
        for name, owner in self.people.items():
            receiver = self.receivers[name]
            receiver.secret = self._subscribed(owner, "all", receiver.url, lambda: None)
        self._subscribed(self.people["a"], "ha", f"http://127.0.0.1:{self._manager_port}/", self._manager_ready)

    def _subscribed(self, owner: Owner, name: str, url: str, listens: Callable[[], None]) -> str:
        status, made = owner.ask("POST", "/v1/subscriptions", {"name": name, "url": url})
        assert status == 201, made
        secret = str(made["secret"])
        if name == "ha":
            self._write_manager(owner, secret)
            self.manager.start()
            listens()
        path = f"/v1/subscriptions/{made['id']}"

        def active() -> bool:
            if owner.ask("GET", path)[1]["state"] == "active":
                return True
            owner.ask("POST", f"{path}/verify")
            return False

        wait_until(active, PATIENCE_S, f"the subscription {name} to be verified")
        return secret

    def _write_manager(self, owner: Owner, secret: str) -> None:
        folder = self.folder / "ha"
        folder.mkdir()
        for name, text in (("secret", secret), ("token", owner.token), ("command", COMMAND), ("log", "")):
            (folder / name).write_text(text)
        (folder / "command").chmod(0o700)
        configuration = {
            "listen": ["127.0.0.1", self._manager_port],
            "secret_file": str(folder / "secret"),
            "state_file": str(folder / "state"),
            "api": self.api,
            "token_command": ["cat", str(folder / "token")],
            "reconcile_s": 5,
            "retry_s": 0.5,
            "pairs": {
                PAIR: {"primary": self.pair[0], "standby": self.pair[1], "command": [str(folder / "command")]},
            },
        }
        (folder / "ha.json").write_text(json.dumps(configuration))

    def _manager_ready(self) -> None:
        def listens() -> bool:
            return "could not" not in (said := self.manager.log.read_text()) and "Waiting" in said

        wait_until(listens, PATIENCE_S, "the HA manager to start")

    # what can be asked

    def ready(self) -> bool:
        """Whether maintd leads, hears its bus, and has read the cloud."""
        try:
            status, answer = self.admin.ask("GET", "/v1/status")
        except OSError:
            return False
        states = answer.get("bus_states", {}).values()
        return (
            status == 200
            and bool(answer["leading"])
            and bool(states)
            and set(states) == {"connected"}
            and (answer["baselined_at"] is not None)
        )

    def logged(self, owner: Owner) -> list[dict[str, Any]]:
        """The whole log of a project, or the operators', by its cursor."""
        found: list[dict[str, Any]] = []
        after = "0"
        while True:
            status, answer = owner.ask("GET", f"/v1/events?after={after}&limit=500")
            assert status == 200, answer
            if not answer["events"]:
                return found
            found += answer["events"]
            after = answer["next"]

    def calls(self) -> list[tuple[str, int, str]]:
        """What the pair's command has written of its calls."""
        return history(self.folder / "ha" / "log", PAIR)

    def active(self) -> str:
        """Where the pair's command has put the role."""
        return [self.pair[0], *(server for said, _, server in self.calls() if said == "end")][-1]

    def close(self) -> None:
        for process in (self.maintd, self.manager):
            process.close()
        self.cloud.stop()
        self.history.close()
        self.rest.stop()
        self.broker.close()
        for receiver in self.receivers.values():
            receiver.close()
        self._wait_for_commands()

    def _wait_for_commands(self) -> None:
        """Until no command of the HA manager runs any more: they hold its lock."""
        lock = self.folder / "ha" / "state.lock"
        if lock.exists():
            with lock.open() as held:
                deadline = time.monotonic() + 30.0
                while time.monotonic() < deadline:
                    try:
                        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        return
                    except BlockingIOError:
                        time.sleep(0.05)
