"""The command line as a whole: mistakes are sentences, exit codes are kept, nothing heavy is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import maintd
from maintd import client
from maintd.cli import main, parser
from maintd.clock import SystemClock
from maintd.store import Subscription, Vault, open_store
from maintd.store.vault import new_key
from maintd.web.stream import Bell
from tests.support.rabbitmq import free_port, wait_until
from tests.web.serving import Served, closed, emptied

MAINTD = [sys.executable, "-m", "maintd"]
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from maintd.cli import main; sys.exit(main(sys.argv[1:]))",
]
"""maintd where Ctrl-C works: tests that a shell started in the background pass on that it is to be ignored."""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version is one line on stdout."""
    assert 0 == main(["--version"])
    assert f"maintd {maintd.__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("statsu",), "did you mean 'status'?"),
        (("status", "--jsn"), "--jsn"),
        (("why",), "HOST"),
        (("wait", "cmp-1", "--timeout", "soon"), "--timeout"),
        (("wait", "cmp-1", "--timeout", "-1"), "--timeout"),
        (("wait", "cmp-1", "--any", "--all"), "--any"),
        (("events", "--limit", "-1"), "--limit"),
        (("deliveries", "--state", "lost"), "lost"),
        (("bus",), "bus remove"),
        (("db",), "db version"),
        (("replay", "/nonexistent/story.jsonl"), "/nonexistent/story.jsonl cannot be read"),
        (("replay",), "RECORDING"),
        (("run", "--config-file", "/nonexistent.conf"), "/nonexistent.conf does not exist"),
        (("record", __file__, "--config-file", "/dev/null"), "never overwritten"),
        (("status", "--api", "127.0.0.1:8779"), "not the URL of an API"),
        (("status", "--api", "http://127.0.0.1:port"), "not the URL of an API"),
        (("docter",), "did you mean 'doctor'?"),
        (("doctor", "--listen", "-1"), "--listen"),
        (("doctor", "--management-url", "http://u:p@rabbit:15672"), "has no user and password"),
        (("doctor", "--config-file", "/nonexistent.conf"), "/nonexistent.conf does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(argv: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was typed wrongly is exit code 2 (1 for a URL) and one line on stderr that names it."""
    code = main(argv)

    out, err = capsys.readouterr()
    assert ("", 1, True) == (out, err.count("\n"), err.startswith("maintd: "))
    assert word in err
    assert 2 == code


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help of every command and verb works and says something."""

    def walk(made: object, path: tuple[str, ...]) -> None:
        assert 0 == main([*path, "--help"])
        assert 60 < len(capsys.readouterr().out)
        for action in made._actions:  # type: ignore[attr-defined]
            if action.choices and action.dest in ("command", "verb"):
                for name, inner in action.choices.items():
                    walk(inner, (*path, name))

    walk(parser(), ())


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`maintd` alone shows what there is, as a mistake."""
    assert 2 == main([])
    assert "commands:" in capsys.readouterr().err


def test_a_bad_configuration_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option names file, group and option."""
    file = tmp_path / "maintd.conf"
    file.write_text("[drain]\nsettle = 3\n")

    assert 1 == main(["run", "--config-file", str(file), "--check-config"])

    err = capsys.readouterr().err
    assert 1 == err.count("\n")
    assert all(word in err for word in (str(file), "drain", "settle"))


def test_a_good_configuration_is_said_to_be_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check-config shows what it would run, without secrets."""
    file = tmp_path / "maintd.conf"
    file.write_text(
        "[DEFAULT]\ninstallation = west\n[bus]\ntransport_url = rabbit://u:hunter2@broker:5672/\n"
        "[webhooks]\nenabled = ha\n[webhook:ha]\nurl = http://127.0.0.1/x?token=hunter2\n"
    )
    file.chmod(0o600)

    assert 0 == main(["run", "--config-file", str(file), "--check-config"])

    out, err = capsys.readouterr()
    assert all(word in out for word in ("good", "west", "ha"))
    assert "hunter2" not in out + err


def test_a_program_that_is_not_executable_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check-config says in one sentence which program of which exec sink it is, and what to do."""
    program = tmp_path / "on-event"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    file = tmp_path / "maintd.conf"
    file.write_text(f"[exec_sinks]\nenabled = pager\n[exec_sink:pager]\nprogram = {program} --now\n")

    assert 1 == main(["run", "--config-file", str(file), "--check-config"])
    err = capsys.readouterr().err
    assert 1 == err.count("\n")
    assert f"[exec_sink:pager] program: {program} cannot be run: it is not executable; run: chmod +x {program}" in err

    program.chmod(0o700)
    assert 0 == main(["run", "--config-file", str(file), "--check-config"])
    assert "pager" in capsys.readouterr().out


def test_the_database_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`db version` is 1 until `db upgrade` made the tables; `db purge` counts what went."""
    file = tmp_path / "maintd.conf"
    file.write_text(f"[database]\nconnection = sqlite:///{tmp_path}/maintd.sqlite\n")
    given = ("--config-file", str(file))

    assert [1, 0, 0, 0] == [main(["db", verb, *given, "--json"]) for verb in ("version", "upgrade", "version", "purge")]
    before, made, after, gone = map(json.loads, capsys.readouterr().out.splitlines())
    assert (False, True) == (before["current"], after["current"])
    assert before["needed"] == made["version"] == after["version"]
    assert 0 == sum(gone["purged"].values())


def test_a_key_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`db rekey` says how many it wrote anew, ends with 1 and names each subscription that no key opens, and needs a
    file of keys."""
    file, keys = tmp_path / "maintd.conf", tmp_path / "keys"
    database = f"sqlite:///{tmp_path}/maintd.sqlite"
    file.write_text(f"[database]\nconnection = {database}\n[subscriptions]\nkey_file = {keys}\n")
    given = ["db", "rekey", "--config-file", str(file)]
    old, new = new_key(), new_key()
    vaults = {"1": old, "2": old, "3": new_key()}
    for number, key in vaults.items():
        with closing(open_store(database, SystemClock(), tables="upgrade", vault=lambda k=key: Vault((k,)))) as store:
            project_id = None if number == "1" else "p1"
            store.subscriptions.add(
                Subscription(number, project_id, "ha", "https://x.example/", ("*",), secrets=("s",))
            )

    assert 1 == main(given)
    assert "[subscriptions] key_file:" in capsys.readouterr().err
    keys.write_text(f"{new}\n{old}\n")
    keys.chmod(0o600)
    assert 1 == main(given)
    out, err = capsys.readouterr()
    assert "now under the newest key: 2. Under it already: 0." in out
    assert f"no key in {keys} opens a secret of subscription 3 (ha, of project p1)." in err and "delete" in err

    keys.write_text(f"{new}\n")
    assert 1 == main([*given, "--json"])
    assert {"rekeyed": 0, "current": 2, "unreadable": ["3"]} == json.loads(capsys.readouterr().out)
    keys.rename(tmp_path / "elsewhere")
    with closing(open_store(database, SystemClock())) as store:
        store.subscriptions.remove("3")
    assert 0 == main([*given, "--key-file", str(tmp_path / "elsewhere")])


# --- where the API is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[api]\nlisten = 127.0.0.1:1234\n", "http://127.0.0.1:1234"),
        ("[api]\nlisten=[::1]:1234\n", "http://[::1]:1234"),
        ("[api]\nlisten = 0.0.0.0:1234\n", "http://127.0.0.1:1234"),
        ("[api]\nlisten = [::]:1234\n", "http://[::1]:1234"),
        ("[metrics]\nlisten = 127.0.0.1:9\n[api]\n# listen = 127.0.0.1:8\nlisten = ctl-1:7\n", "http://ctl-1:7"),
        ("[metrics]\nlisten = 127.0.0.1:9\n", client.DEFAULT_URL),
        (None, client.DEFAULT_URL),
    ],
)
def test_the_default_file_says_where_the_api_is(tmp_path: Path, text: str | None, wanted: str) -> None:
    """Its [api] listen counts where neither --api nor MAINTD_API is given."""
    file = tmp_path / "maintd.conf"
    if text is not None:
        file.write_text(text)

    assert wanted == client.find_url(None, {}, file)
    assert "http://a" == client.find_url(None, {"MAINTD_API": "http://a"}, file)
    assert "http://b" == client.find_url("http://b", {"MAINTD_API": "http://a"}, file)


# --- as a process ----------------------------------------------------------------------------------------------------


def test_a_read_command_loads_nothing_heavy(served: Served) -> None:
    """Neither oslo, SQLAlchemy, openstack, falcon nor rich is imported to ask the API."""
    served.put(closed("cmp-17"))
    code = (
        "import sys; from maintd.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'oslo_config', 'oslo_messaging', 'sqlalchemy', 'openstack', 'falcon', 'cheroot', 'rich', 'structlog',"
        " 'prometheus_client', 'aiohttp', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    for argv in (["hosts"], ["why", "cmp-17"], ["events"], ["wait", "cmp-17", "--timeout", "0"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *argv, "--api", served.url], capture_output=True, text=True, timeout=30
        )

        assert "[]" == done.stdout.splitlines()[-1], done.stderr


def test_a_reader_that_has_enough_is_no_error(served: Served) -> None:
    """`maintd events | head -1` leaves nothing on stderr."""
    served.publish(*(emptied(f"cmp-{n}") for n in range(600)))
    with subprocess.Popen(
        [*MAINTD, "events", "--all", "--json", "--api", served.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

        assert (b"", 141) == (err, process.wait(timeout=30))


def _interrupt(process: subprocess.Popen[Any]) -> int:
    """The exit code after Ctrl-C. One that does not end in time is killed, so that the test fails and does not hang.

    A second time where the first was for nothing: Python drops what is raised while a destructor runs.
    """
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=15)
    process.kill()
    raise AssertionError("it goes on after Ctrl-C")


def test_an_interrupted_wait_is_quiet(served: Served) -> None:
    """Ctrl-C ends waiting and following with 130 and no word."""
    served.put(closed("cmp-17"))
    served.publish(emptied("cmp-1"))
    for argv in (["wait", "cmp-17"], ["events", "--follow"]):
        with subprocess.Popen(
            [*INTERRUPTIBLE, *argv, "--api", served.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            assert 130 == _interrupt(process)
            assert b"" == process.stderr.read()


def test_following_shows_what_comes(served: Served) -> None:
    """`events --follow --json` prints an event soon after it was published, each once."""
    served.publish(emptied("cmp-1"))
    with subprocess.Popen(
        [*INTERRUPTIBLE, "events", "--follow", "--json", "--api", served.url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        served.publish(emptied("cmp-2"))
        began = time.monotonic()
        second = json.loads(process.stdout.readline())
        took_s = time.monotonic() - began
        _interrupt(process)

    assert ["cmp-1", "cmp-2"] == [first["subject"], second["subject"]]
    assert took_s < 10


def test_following_goes_on_after_a_restart(served: Served) -> None:
    """A daemon that ends and comes back is asked on from the cursor: nothing is missed, nothing shown twice."""
    port = free_port()
    served.serve(port)
    served.publish(emptied("cmp-1"))
    with subprocess.Popen(
        [*INTERRUPTIBLE, "events", "--follow", "--json", "--api", served.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "cmp-1" == json.loads(process.stdout.readline())["subject"]
        wait_until(lambda: served.seats.taken == 1, what="it to wait")
        assert served.server is not None
        served.bell.close()
        served.server.stop()
        assert "Asking again" in process.stderr.readline()
        served.publish(emptied("cmp-2"))
        served.bell = Bell(served.clock, served.store.last_sequence)
        served.serve(port)

        assert "cmp-2" == json.loads(process.stdout.readline())["subject"]
        assert 130 == _interrupt(process)


def test_following_without_a_seat_asks_again(served: Served) -> None:
    """Where no seat is free, events are shown all the same, by asking once a second."""
    served.seats.total = 0
    served.publish(emptied("cmp-1"))
    with subprocess.Popen(
        [*INTERRUPTIBLE, "events", "--follow", "--json", "--api", served.url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "cmp-1" == json.loads(process.stdout.readline())["subject"]
        served.publish(emptied("cmp-2"))
        assert "cmp-2" == json.loads(process.stdout.readline())["subject"]
        assert 130 == _interrupt(process)
