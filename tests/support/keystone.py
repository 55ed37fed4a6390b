"""A real Keystone on the loopback, from PyPI, in a virtualenv of its own: SQLite, Fernet tokens, one process.

`make` installs it into .venv/keystone; MAINTD_TEST_KEYSTONE names another virtualenv. Everything it has lies in the
directory that it is given.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import openstack
import requests

from tests.support.rabbitmq import free_port, wait_until

VENV: Final = Path(os.environ.get("MAINTD_TEST_KEYSTONE") or Path(sys.prefix, "keystone"))

PASSWORD: Final = "correct-horse"

CONF: Final = """\
[database]
connection = sqlite:///{home}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {home}/fernet-keys
[oslo_messaging_notifications]
driver = noop
"""

SERVE: Final = """\
import sys
from wsgiref.simple_server import make_server
port = int(sys.argv.pop())  # Keystone would take it for an option of its own
from keystone.wsgi.api import application
make_server("127.0.0.1", port, application).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Keystone:
    """A Keystone that answers at `url`, with an admin whose password is PASSWORD."""

    url: str

    def connect(self, user: str = "admin", project: str | None = "admin") -> Any:
        """openstacksdk as a user: for a project, or without one for the whole system."""
        scope = (
            {"system_scope": "all"} if project is None else {"project_name": project, "project_domain_id": "default"}
        )
        return openstack.connect(
            load_envvars=False, load_yaml_config=False, auth_type="password", region_name="here",
            auth={
                "auth_url": self.url, "username": user, "password": PASSWORD, "user_domain_id": "default", **scope
            },
        )  # fmt: skip

    def token(self, user: str, project: str | None) -> str:
        return str(self.connect(user, project).auth_token)

    def middleware(self, user: str, project: str) -> dict[str, str]:
        """[keystone_authtoken] for a service that logs in as this user."""
        return {
            "auth_url": self.url, "www_authenticate_uri": self.url, "auth_type": "password", "username": user,
            "password": PASSWORD, "project_name": project, "user_domain_id": "default", "project_domain_id": "default",
        }  # fmt: skip


@contextmanager
def keystone(home: Path) -> Iterator[Keystone]:
    """Set one up in a directory, and run it until the end of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v3"
    conf = home / "keystone.conf"
    conf.write_text(CONF.format(home=home))
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for command in (
        ("db_sync",),
        ("fernet_setup", "--keystone-user", user, "--keystone-group", group),
        (
            "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "here",
            "--bootstrap-public-url", url, "--bootstrap-internal-url", url,
        ),
    ):  # fmt: skip
        manage = [VENV / "bin" / "keystone-manage", "--config-file", conf, *command]
        done = subprocess.run(manage, cwd=home, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr[-4000:]
    with (home / "keystone.log").open("wb") as log:
        server = subprocess.Popen(
            [VENV / "bin" / "python", "-c", SERVE, str(port)],
            cwd=home, stdout=log, stderr=log, env={**os.environ, "OS_KEYSTONE_CONFIG_DIR": str(home)},
        )  # fmt: skip
    try:
        wait_until(lambda: server.poll() is not None or _answers(url), 60)
        assert server.poll() is None, (home / "keystone.log").read_text()[-4000:]
        yield Keystone(url)
    finally:
        server.terminate()
        server.wait(10)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
