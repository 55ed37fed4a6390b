"""maintd subscriptions: the API from the command line, and secrets that are shown once."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from maintd.cli import main
from maintd.store import Subscription
from maintd.store.subscriptions import ACTIVE, DISABLED, UNVERIFIED
from tests.web.serving import AT, Served, emptied
from tests.web.tokens import MINE, guarding

NEW = ("create", "--name", "ha", "--url", "https://ha.example/x")


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `maintd subscriptions` against the served API: (exit code, stdout, stderr)."""

    def command(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setenv("MAINTD_API", served.url)
        with capture_logs():  # the daemon's, which is in this process here
            code = main(("subscriptions", *argv))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def put(served: Served, state: str) -> str:
    """A subscription that stands in some way; its id."""
    verified_at = None if state == UNVERIFIED else AT
    one = Subscription(
        "s1", None, "ha", "https://ha.example/x", ("*",), state=state, verified_at=verified_at, secrets=("whsec_1",)
    )
    assert served.store.subscriptions.add(one) is not None
    return one.id


def test_a_secret_is_shown_once_with_a_word(served: Served, run) -> None:
    """create and rotate print it on stdout and say on stderr that it comes no more; no other command shows it."""
    code, out, err = run(*NEW, "--json")
    made = json.loads(out)

    assert 0 == code
    assert made["secret"].startswith("whsec_")
    assert "shown this once" in err and "whsec_" not in err
    assert "whsec_" not in "".join(run("list")[1] + run("show", made["id"])[1] + run("show", made["id"], "--json")[1])
    code, out, err = run("rotate", made["id"])
    assert (0, 1) == (code, out.count("whsec_"))
    assert made["secret"] not in out


def test_a_secret_goes_into_a_file_instead(served: Served, run, tmp_path: Path) -> None:
    """A new file that only its owner may read, with what `maintd listen --secret-file` reads; it is shown nowhere."""
    file = tmp_path / "whsec.txt"

    code, out, err = run(*NEW, "--secret-file", str(file))

    assert 0 == code and "whsec_" not in out + err.replace(str(file), "")
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    (made,) = served.store.subscriptions.all()
    assert f"{made.secrets[0]}\n" == file.read_text()


def test_no_secret_is_lost_for_want_of_a_file(served: Served, run, tmp_path: Path) -> None:
    """A file that is there already, or cannot be, ends it before anything is made; one that stays empty is removed."""
    there, file = tmp_path / "there", tmp_path / "whsec.txt"
    there.write_text("mine")

    assert 2 == run(*NEW, "--secret-file", str(there))[0]
    assert 1 == run(*NEW, "--secret-file", str(tmp_path / "nowhere" / "x"))[0]
    assert ("mine", 0) == (there.read_text(), served.store.subscriptions.count(None))
    served.bad_urls["https://ha.example/x"] = "the address is not allowed"
    code, _, err = run(*NEW, "--secret-file", str(file))
    assert 2 == code and "the address is not allowed" in err
    assert not file.exists()


def test_it_is_changed_by_what_is_given(served: Served, run) -> None:
    """set changes what it is given, an empty list chooses nothing; pause and resume; delete ends it."""
    number = put(served, ACTIVE)

    answer = json.loads(
        run("set", number, "--name", "pager", "--event-types", "maintd.host.*, maintd.drain.*", "--json")[1]
    )
    assert ("pager", ["maintd.host.*", "maintd.drain.*"]) == (answer["name"], answer["event_types"])
    assert ["*"] == json.loads(run("set", number, "--event-types", "", "--json")[1])["event_types"]
    assert "paused" == json.loads(run("pause", number, "--json")[1])["state"]
    assert "active" == json.loads(run("resume", number, "--json")[1])["state"]
    assert 2 == run("set", number)[0]
    assert (0, f"{number} is no more.\n") == run("delete", number)[:2]
    assert 2 == run("show", number)[0]


def test_what_was_tried_is_shown_and_is_the_exit_code(served: Served, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """verify ends with 0 where the receiver agreed, test where it took the event, else with 1."""
    number = put(served, UNVERIFIED)

    assert 1 == run("test", number)[0]
    code, out, _ = run("verify", number)
    assert 0 == code and "active" in out
    code, out, _ = run("test", number)
    assert 0 == code and "thank you" in out
    from maintd.store import Attempt

    monkeypatch.setattr(served, "_try", lambda what, one: Attempt(AT, 1.0, 500, "refused", "no"))
    served.serve()
    assert (1, 1) == (run("test", number)[0], run("verify", number)[0])


def test_one_that_was_disabled_is_enabled(served: Served, run) -> None:
    """enable takes it up again; where there is nothing to enable it is 1 and a sentence."""
    number = put(served, DISABLED)

    assert "unverified" == json.loads(run("enable", number, "--json")[1])["state"]
    code, _, err = run("enable", number)
    assert 1 == code and "nothing to enable" in err


def test_a_list_is_ones_own_or_a_projects(served: Served, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a project's token its own; an operator asks for a project's or everybody's, before the verb or after."""
    put(served, ACTIVE)
    with guarding(served):
        monkeypatch.setenv("OS_TOKEN", "member")
        assert 0 == run(*NEW)[0]
        assert 1 == len(json.loads(run("--json")[1])["subscriptions"])
        monkeypatch.setenv("OS_TOKEN", "reader")
        assert 1 == run(*NEW)[0]
        monkeypatch.setenv("OS_TOKEN", "admin")
        assert ["s1"] == [one["id"] for one in json.loads(run("list", "--json")[1])["subscriptions"]]
        assert 2 == len(json.loads(run("--all", "--json")[1])["subscriptions"])
        (theirs,) = json.loads(run("--project", MINE, "--json")[1])["subscriptions"]
        assert MINE == theirs["project_id"] and theirs["id"] in run("--project", MINE)[1]


def test_the_last_events_are_ones_own(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`maintd events` shows the last N of the log that is one's own, however many others were told in between."""
    served.publish(emptied("cmp-1"), emptied("cmp-2"), emptied("cmp-3"))
    for _ in range(30):
        served.tell(MINE)

    def subjects(token: str) -> list[str]:
        monkeypatch.setenv("OS_TOKEN", token)
        monkeypatch.setenv("MAINTD_API", served.url)
        with capture_logs():
            assert 0 == main(("events", "--json", "-n", "2"))
        return [json.loads(line)["subject"] for line in capsys.readouterr().out.splitlines()]

    with guarding(served):
        assert ["cmp-2", "cmp-3"] == subjects("admin")
        assert ["srv-1", "srv-1"] == subjects("reader")
        assert [] == subjects("other")


def test_nothing_is_a_sentence(served: Served, run) -> None:
    """An empty list is a sentence for people and an empty list for scripts."""
    assert (0, "There is no subscription.\n", "") == run()
    assert {"subscriptions": [], "next": None} == json.loads(run("--json")[1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[subscriptions]\nkey_file = /nonesuch\n", "[subscriptions] key_file: /nonesuch cannot be read"),
        (
            "[api]\nauth = keystone\n[keystone_authtoken]\nauth_url = http://k\n"
            "[oslo_policy]\npolicy_file = /nonesuch\n",
            "[oslo_policy] policy_file: /nonesuch cannot be read",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """--check-config, which the unit runs first, reads the key and the policy too."""
    file = tmp_path / "maintd.conf"
    file.write_text(text)

    assert 1 == main(["run", "--config-file", str(file), "--check-config"])

    err = capsys.readouterr().err
    assert says in err and 1 == err.count("\n")


def test_a_key_is_made_without_a_daemon(run, served: Served) -> None:
    """`key` prints a new one each time, which encrypts."""
    assert served.server is not None
    served.server.stop()
    first, second = run("key")[1].strip(), run("key")[1].strip()

    assert first != second
    assert b"x" == Fernet(first).decrypt(Fernet(first).encrypt(b"x"))
