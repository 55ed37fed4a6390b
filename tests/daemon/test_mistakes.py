"""An operator's mistake ends `maintd run` with one sentence and no traceback."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from maintd.cli import main
from tests.daemon.processes import maintd_run
from tests.daemon.world import World

MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "an option nobody knows": ("[drain]\nsettle = 3\n", ("[drain] settle", "settle_s")),
    "a value out of bounds": ("[drain]\nsettle_s = 0\n", ("[drain] settle_s", "1 to 600")),
    "a broker's URL that is none": ("[bus]\ntransport_url = amqp://controller\n", ("[bus] transport_url", "rabbit://")),
    "a webhook without a URL": ("[webhooks]\nenabled = pager\n[webhook:pager]\nsecret =\n", ("pager", "url")),
    "a webhook that is not described": ("[webhooks]\nenabled = pager\n", ("[webhook:pager]",)),
    "a program that is not there": (
        "[exec_sinks]\nenabled = pager\n[exec_sink:pager]\nprogram = /nonexistent/pager -v\n",
        ("[exec_sink:pager] program", "/nonexistent/pager cannot be run: no such file"),
    ),
    "an API open to the world": ("[api]\nlisten = 0.0.0.0:8779\n", ("loopback",)),
    "a database's directory that is missing": (
        "[database]\nconnection = sqlite:////nonexistent/maintd.sqlite\n",
        ("/nonexistent", "does not exist"),
    ),
    "a cloud that is not in clouds.yaml": ("[cloud]\ncloud = no-such-cloud\n", ("no-such-cloud", "was not found")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the file or the place, the option, and what to write instead."""
    wrong, words = MISTAKES[name]
    path = tmp_path / "maintd.conf"
    path.write_text(wrong)

    assert main(["run", "--config-file", str(path)]) in (1, 2)

    out, err = capsys.readouterr()
    assert ("", 1) == (out, err.count("\n")), err
    assert err.startswith("maintd: ")
    assert all(word in err for word in words), err


def test_a_port_that_is_taken(new_world: Callable[..., World]) -> None:
    """Its sentence names the address and the option."""
    world = new_world(broker_url=None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = world.config.read_text()
        world.config.write_text(text.replace("[api]\nlisten = 127.0.0.1:0", f"[api]\nlisten = 127.0.0.1:{port}"))
        with maintd_run(world.config) as process:
            assert 1 == process.wait(60.0)
    *_, said = world.config.with_name("maintd.log").read_text().splitlines()
    assert said.startswith("maintd: ")
    assert f"127.0.0.1:{port}" in said
    assert "[api] listen" in said
