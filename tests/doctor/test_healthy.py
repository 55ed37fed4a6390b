"""The doctor with nothing wrong: it says so, leaves nothing behind, takes nothing from anybody and tells no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from maintd.cli import main
from maintd.clock import SystemClock
from maintd.config import load
from maintd.daemon import Daemon
from maintd.nova.listener import Intake, tap
from tests.doctor.clinic import Clinic, told
from tests.support.rabbitmq import wait_until


def wrong(report: Any) -> list[tuple[str, str, str]]:
    """Everything that is neither ok nor unknown."""
    return [(one.check, str(one.level), one.text) for one in report.findings if one.level in ("warning", "error")]


def policy_shown(clinic: Clinic, *, bound: bool = True) -> None:
    """Wait until the management plugin has its figures of every queue, which come a moment later."""

    def shown() -> bool:
        rows = clinic.managed.call("GET", "queues", clinic.name)
        return all(
            "effective_policy_definition" in row and bool(row["effective_policy_definition"]) is bound for row in rows
        )

    wait_until(shown, what="the plugin's figures")


def careful_user(clinic: Clinic) -> None:
    """A broker user with the rights that the README gives, and no more."""
    rights = {"configure": "^(nova|maintd.*)$", "write": "^maintd.*$", "read": "^(nova|maintd.*)$"}
    clinic.managed.call("PUT", "users", "maintd", password="s3cret", tags="")
    clinic.managed.call("PUT", "permissions", clinic.name, "maintd", **rights)
    clinic.change("bus", transport_url=clinic.rabbit.url_at(clinic.rabbit.port, "maintd", "s3cret", clinic.name))


def test_a_healthy_installation_is_clean(fresh_clinic: Clinic) -> None:
    """With everything as the README says, and everything looked at, nothing is wrong and next to nothing unknown."""
    clinic = fresh_clinic
    clinic.managed.bound(clinic.name)
    policy_shown(clinic)
    with clinic.busy():
        report = clinic.examine(20.0, send_test_event=True, management_url=clinic.managed.url)

    assert [] == wrong(report)
    assert (0, "unknown") == (report.exit_code, report.level)
    assert {"daemon.running", "database.reachable"} == {one.check for one in report.findings if one.level == "unknown"}
    assert report.took_s < 10.0, "listening ends when everything was heard"
    assert [event["type"] for event in clinic.receiver.events()] == ["maintd.doctor.test.v1"]


def test_what_cannot_be_known_is_called_unknown(clinic: Clinic) -> None:
    """Without listening, test event and management plugin nothing is wrong, and what was not seen is not ok."""
    report = clinic.examine()

    assert [] == wrong(report)
    assert 0 == report.exit_code
    unknown = {one.check for one in report.findings if one.level == "unknown"}
    assert {"bus.bounds", "stream.listened", "webhook.accepts"} <= unknown


def test_a_quiet_cloud_is_not_a_fault(fresh_clinic: Clinic) -> None:
    """Where nothing happens nothing is heard, and that is no warning but a piece of advice."""
    clinic = fresh_clinic
    report = clinic.examine(1.5)

    assert [] == wrong(report)
    (silent,) = told(report, "stream.arrives", "unknown")
    assert "openstack keypair create" in str(silent.fix)


def test_a_quiet_compute_is_not_a_fault(clinic: Clinic) -> None:
    """A compute on which nothing happened is named, and not accused."""
    with clinic.busy(("cmp-01", "cmp-02")):
        report = clinic.examine(4.5)

    assert [] == wrong(report)
    (quiet,) = told(report, "stream.computes", "unknown")
    assert "1 of 3 computes" in quiet.text and quiet.text.endswith("cmp-03.") and "proves nothing" in quiet.text


def test_the_rights_of_the_readme_are_enough(clinic: Clinic) -> None:
    """A broker user with just what the README gives is taken in, listens, and finds no fault."""
    careful_user(clinic)
    with clinic.busy():
        report = clinic.examine(10.0)

    assert [] == wrong(report)
    assert told(report, "stream.arrives", "ok")


def test_recording_works_with_the_rights_of_the_readme(clinic: Clinic) -> None:
    """`maintd record` makes its temporary queue where a user may configure nothing but maintd's own."""
    careful_user(clinic)
    stop, states, keys = threading.Event(), [], []
    bus = clinic.bus_config(transport_url=clinic.settings["bus"]["transport_url"])
    tapping = threading.Thread(
        target=tap, args=(bus, lambda key, body: keys.append(key), stop, lambda state, _: states.append(state))
    )
    tapping.start()
    wait_until(lambda: states == ["connected"])
    clinic.make_a_migration()
    wait_until(lambda: "versioned_notifications.info" in keys)
    stop.set()
    tapping.join(10.0)
    assert not tapping.is_alive()


def test_a_daemon_misses_nothing_and_nothing_is_left(clinic: Clinic) -> None:
    """Every notification still reaches the reader of our pool queue; no queue is left, and Nova is only read."""
    taken: list[str] = []
    lock = threading.Lock()

    def admit(batch: Sequence[Any], aside: Sequence[Any]) -> None:
        with lock:
            taken.extend(message.message_id for message in batch)

    intake = Intake(clinic.bus_config(), admit, lambda *state: None, SystemClock())
    intake.start()
    wait_until(lambda: intake.state == "connected")
    clinic.settle()
    before, sent = clinic.queues(), clinic.sent
    clinic.rest.api.seen.clear()
    with clinic.busy():
        clinic.examine(10.0)
    clinic.settle()
    wait_until(lambda: len(taken) >= clinic.sent - sent, what="every notification to be taken")
    assert intake.stop(5.0)

    assert len(set(taken)) == len(taken) == clinic.sent - sent
    assert before == clinic.queues()
    asked = {(seen.method, seen.target) for seen in clinic.rest.api.seen if seen.method != "GET"}
    assert {("POST", "/v3/auth/tokens")} == asked


def test_a_running_daemon_is_found_and_content(clinic: Clinic) -> None:
    """With a daemon running, its lease, its reader, its database and its health are looked at, and nothing is wrong."""
    clinic.change("api", listen="127.0.0.1:0")
    clinic.change("metrics", listen="127.0.0.1:0")
    daemon = Daemon(load([clinic.write()]))
    daemon.start()
    try:
        wait_until(lambda: daemon.leading is not None and daemon.status()["cloud"]["ok"], what="the daemon to lead")
        wait_until(lambda: set(daemon.status()["bus_states"].values()) == {"connected"}, what="the bus")
        clinic.change("metrics", listen=daemon.health_server.url.removeprefix("http://"))
        with clinic.busy():
            report = clinic.examine(10.0)
    finally:
        daemon.stop()

    assert [] == wrong(report)
    for check in ("daemon.running", "daemon.content", "database.lease", "database.schema", "database.writable"):
        assert told(report, check, "ok"), check
    (readers,) = told(report, "bus.readers", "ok")
    assert readers.text == "'maintd' has 1 reader, ours."


def test_no_secret_is_told(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither for people nor for scripts does a password, a signing secret or a webhook's path appear."""
    clinic.change("webhook:hook", url=clinic.receiver.url + "/S3CRETPATH?token=S3CRETTOKEN")
    clinic.change("bus", transport_url=clinic.rabbit.url_at(clinic.rabbit.port, "guest", "S3CRETPASS", clinic.name))
    clinic.change("cloud", password="S3CRETCLOUD")
    clinic.rest.faults.add(service="identity", path="*tokens*", status=401)
    for more in ((), ("--json",), ("--send-test-event",)):
        main(["doctor", "--config-file", str(clinic.write()), "--listen", "0", *more])

    said = "".join(capsys.readouterr())
    assert "refused the credentials" in said
    for secret in ("S3CRET", clinic.receiver.secret, clinic.receiver.secret.removeprefix("whsec_")):
        assert secret not in said


def test_what_scripts_get(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is one object with every finding; progress goes to stderr; the exit code is the worst level's."""
    assert 0 == main(["doctor", "--config-file", str(clinic.write()), "--listen", "0.5", "--json"])

    out, err = capsys.readouterr()
    report = json.loads(out)
    assert {"version", "level", "took_seconds", "findings"} == set(report)
    assert all({"check", "subject", "level", "text", "fix"} == set(finding) for finding in report["findings"])
    assert "listening for 0.5 s" in err


def test_what_people_get(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors come first, each with its fix below it, and the last line counts them."""
    clinic.rest.faults.drop_host_filter = True
    assert 2 == main(["doctor", "--config-file", str(clinic.write()), "--listen", "0"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ERROR    api.host_filter (servers of a host): Nova did not filter by host")
    assert lines[1].startswith("           Grant ")
    assert ": 1 error, 0 warnings, " in lines[-1]


@pytest.mark.parametrize(
    "wrong_line", ["[bus]\ntransport_ur = x\n", "[drain]\nsettle_s = soon\n", "[nonsense]\nx = 1\n"]
)
def test_a_configuration_that_cannot_be_read(
    wrong_line: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the configuration is bad the doctor says so as a finding, and looks at nothing else."""
    path = tmp_path / "maintd.conf"
    path.write_text(wrong_line)

    assert 2 == main(["doctor", "--config-file", str(path), "--json"])
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert ("config.load", "error") == (finding["check"], finding["level"])
    assert str(path) in finding["text"]


def test_every_finding_is_of_a_declared_check(clinic: Clinic, new_clinic: Callable[..., Clinic]) -> None:
    """What the doctor says is of checks that docs/doctor.md lists."""
    from maintd.doctor.judging import CHECKS

    known = {check.id for check in CHECKS}
    assert len(known) == len(CHECKS)
    assert {one.check for one in clinic.examine().findings} <= known
