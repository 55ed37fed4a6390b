"""Planted faults, each against the real thing: the doctor names it, says what to do, and accuses nothing else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import amqp
import pytest

from maintd.clock import SystemClock
from maintd.doctor import examination
from maintd.errors import StoreUnavailable
from maintd.nova.listener import Intake
from maintd.simulator import Cloud
from maintd.simulator.rest import RestServer
from maintd.store import open_store
from tests.doctor.clinic import Clinic, Json, only, told
from tests.doctor.test_healthy import policy_shown
from tests.support.rabbitmq import Proxy, free_port, wait_until

QUICK_S = 1.5
"""Long enough to hear something from a busy cloud."""
LONG_S = 4.5
"""Long enough for the API to show what changed well inside of it (its times are whole seconds)."""


def legacy(key: str, message: Json) -> tuple[str, Json]:
    """The same notification as Nova sends it unversioned."""
    service, _, host = message["publisher_id"].partition(":")
    old = {
        "event_type": f"compute.{message['event_type']}",
        "publisher_id": f"{service.removeprefix('nova-')}.{host}",
        "payload": {"instance_id": "x", "state": "active"},
    }
    return "notifications.info", {**message, **old}


# --- what Nova sends -------------------------------------------------------------------------------------------------


def test_unversioned_only(clinic: Clinic) -> None:
    """Nova sends its default format: the finding has the lines for nova.conf."""
    clinic.twist = lambda key, message: [legacy(key, message)]
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    found = only(report, "stream.format", "error")
    assert "old format" in found.text
    assert "notification_format = versioned" in str(found.fix)
    assert "driver = messagingv2" in str(found.fix)


def test_unversioned_only_in_a_quiet_cloud(new_clinic: Callable[..., Clinic]) -> None:
    """Nothing is heard, but the queues that Nova's publishers have made betray which format they send."""
    clinic = new_clinic()
    clinic.twist = lambda key, message: [legacy(key, message)]
    clinic.make_a_migration()
    report = clinic.examine(1.0)

    assert "'notifications.info'" in only(report, "stream.format", "error").text


def test_one_service_unconverted(clinic: Clinic) -> None:
    """Everybody sends both formats but one compute, which still sends the old one only: it is named."""

    def twist(key: str, message: Json) -> list[tuple[str, Json]]:
        both = [legacy(key, message), (key, message)]
        return both[:1] if message["publisher_id"] == "nova-compute:cmp-02" else both

    clinic.twist = twist
    with clinic.busy():
        report = clinic.examine(LONG_S)

    assert "nova-compute on cmp-02." in only(report, "stream.format", "warning").text


def test_one_silent_compute(clinic: Clinic) -> None:
    """A compute sends nothing although its server changed: it alone is named, as a warning, with that server."""
    clinic.twist = lambda key, message: [] if message["publisher_id"] == "nova-compute:cmp-02" else [(key, message)]
    (server,) = clinic.cloud.find_host("cmp-02").servers
    with clinic.busy():
        report = clinic.examine(LONG_S)

    found = only(report, "stream.computes", "warning")
    assert "Nothing was heard of cmp-02 within" in found.text and server in found.text
    assert "cmp-01" not in found.text and "most likely" in found.text


def test_nothing_arrives_at_all(clinic: Clinic) -> None:
    """Notifications are turned off, and the API shows that servers changed: not a quiet cloud but a silent one."""
    clinic.twist = lambda key, message: []
    with clinic.busy():
        report = clinic.examine(LONG_S)

    found = only(report, "stream.arrives", "error")
    assert "3 servers changed meanwhile (on cmp-01, cmp-02, cmp-03)" in found.text


def test_state_changes_unset(new_clinic: Callable[..., Clinic]) -> None:
    """Servers start and stop and no instance.update says so: notify_on_state_change is not set."""
    clinic = new_clinic(notify_on_state_change=False)
    clinic.make_a_migration()
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    found = only(report, "stream.state_changes", "warning")
    assert "notify_on_state_change is not set" in found.text
    assert "notify_on_state_change = vm_and_task_state" in str(found.fix)


def test_payloads_from_the_future(clinic: Clinic) -> None:
    """A payload of a major version that nobody knows yet is named."""

    def twist(key: str, message: Json) -> list[tuple[str, Json]]:
        return [(key, {**message, "payload": {**message["payload"], "nova_object.version": "3.0"}})]

    clinic.twist = twist
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    assert "InstanceActionPayload 3.0" in only(report, "stream.payloads", "error").text


def test_something_else_on_the_topic(clinic: Clinic) -> None:
    """Something that is no notification goes over the topic: how often, and what is wrong with it."""
    with clinic.busy(), clinic.channel() as channel:

        def twist(key: str, message: Json) -> list[tuple[str, Json]]:
            channel.basic_publish(amqp.Message("not JSON"), "nova", "versioned_notifications.info")
            return [(key, message)]

        clinic.twist = twist
        report = clinic.examine(10.0)
        clinic.twist = lambda key, message: [(key, message)]

    assert "the body is not JSON" in only(report, "stream.readable", "warning").text


# --- the broker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
def test_wrong_exchange(clinic: Clinic, exists: bool) -> None:
    """Nova sends on another exchange than [bus] reads, which another service has, or nobody: the right one is named."""
    clinic.change("bus", exchange="openstack")
    if exists:
        with clinic.channel() as channel:
            channel.exchange_declare("openstack", "topic", durable=False, auto_delete=False)
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    found = only(report, "stream.place", "error")
    assert "[bus]\nexchange = nova\n" in str(found.fix)


def test_an_exchange_that_is_nowhere(clinic: Clinic) -> None:
    """Where there is no such exchange, and nothing is heard elsewhere, that is said."""
    clinic.change("bus", exchange="nowhere")

    assert "no exchange 'nowhere'" in only(clinic.examine(0.5), "bus.exchange", "error").text


@pytest.mark.parametrize("busy", [True, False])
def test_wrong_topic(clinic: Clinic, busy: bool) -> None:
    """[bus] names a topic that Nova does not send to: heard, or seen by the queues that Nova has made."""
    clinic.change("bus", topic="maintd")
    with clinic.busy() if busy else clinic.busy(()):
        report = clinic.examine(QUICK_S)

    assert "topic = versioned_notifications" in str(only(report, "stream.place", "error").fix)


def test_exchange_of_another_durability(clinic: Clinic) -> None:
    """[bus] asks for a durable exchange where Nova's is not: the option is named."""
    clinic.change("bus", durable_queues="true")
    found = only(clinic.examine(), "bus.exchange", "error")

    assert "exists with durable false, and [bus] asks for true" in found.text
    assert "amqp_durable_queues" in str(found.fix)


def test_queue_of_other_arguments(clinic: Clinic) -> None:
    """Our queue is there from another time, with an argument that ours does not have."""
    with clinic.channel() as channel:
        channel.queue_declare("maintd", durable=False, auto_delete=False, arguments={"x-max-length": 5})
    found = only(clinic.examine(), "bus.queue", "error")

    assert "queue 'maintd' exists with x-max-length" in found.text
    assert "maintd bus remove" in str(found.fix)


def test_unbounded_and_unread(fresh_clinic: Clinic) -> None:
    """Nova's default queue has neither bound nor reader: the policy to set is in the finding."""
    clinic = fresh_clinic
    policy_shown(clinic, bound=False)
    found = only(clinic.examine(management_url=clinic.managed.url), "bus.bounds", "error")

    assert "Nothing bounds 'versioned_notifications.info', nobody reads it" in found.text
    assert r"'^(maintd|versioned_notifications\.info|versioned_notifications\.error)$'" in str(found.fix)
    assert f"rabbitmqctl set_policy -p {clinic.name} " in str(found.fix)


def test_a_bound_shows_by_amqp_alone(fresh_clinic: Clinic) -> None:
    """A queue that nobody reads, and that does not grow by what goes in, is known to be bounded without the plugin."""
    clinic = fresh_clinic
    clinic.managed.bound(clinic.name, **{"max-length": 3, "overflow": "drop-head"})
    with clinic.channel() as channel:
        wait_until(lambda: channel.queue_declare("versioned_notifications.info", passive=True).message_count == 3)
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    assert told(report, "bus.bounds", "ok") and not told(report, "bus.bounds", "unknown")


def test_management_refuses_our_user(clinic: Clinic) -> None:
    """A user without the tag is told how to get it, and that is no fault of the installation."""
    clinic.managed.call("PUT", "users", "plain", password="x", tags="")
    clinic.managed.call("PUT", "permissions", clinic.name, "plain", configure=".*", write=".*", read=".*")
    clinic.change("bus", transport_url=clinic.rabbit.url_at(clinic.rabbit.port, "plain", "x", clinic.name))
    report = clinic.examine(management_url=clinic.managed.url)

    assert 0 == report.exit_code
    assert "rabbitmqctl set_user_tags plain management" in told(report, "bus.bounds", "unknown")[0].text


def test_backlog_grown(clinic: Clinic) -> None:
    """Notifications wait in our queue and no daemon reads it."""
    with clinic.channel() as channel:
        channel.queue_declare("maintd", durable=False, auto_delete=False)
        channel.queue_bind("maintd", "nova", "versioned_notifications.info")
        clinic.make_a_migration()
        clinic.settle()
    found = only(clinic.examine(), "bus.backlog", "warning")

    assert "wait in 'maintd', and nobody reads it" in found.text
    assert "maintd bus remove" in str(found.fix)


def test_a_daemon_that_holds_back(clinic: Clinic) -> None:
    """Our daemon leads and reads, but acknowledges nothing, since its store is away: the queue does not get shorter."""

    def away(batch: Sequence[Any], aside: Sequence[Any]) -> None:
        raise StoreUnavailable("disk full")

    store = open_store(clinic.settings["database"]["connection"], clinic.clock, tables="upgrade")
    assert store.leases.acquire("fleet", f"{clinic.name}:embedded", 60.0, clinic.clock.now())
    store.close()
    intake = Intake(clinic.bus_config(), away, lambda *state: None, SystemClock())
    intake.start()
    wait_until(lambda: intake.state == "connected")
    with clinic.channel() as channel:
        for _ in range(2_000):
            channel.basic_publish(amqp.Message("{}"), "nova", "versioned_notifications.info")
    wait_until(lambda: intake.state == "paused")
    once, twice = clinic.examine(), clinic.examine(QUICK_S)
    assert intake.stop(5.0)

    assert told(once, "bus.backlog", "unknown") and 0 == once.exit_code
    assert "does not keep up, or holds back" in only(twice, "bus.backlog", "warning").text


def test_competing_consumer(clinic: Clinic) -> None:
    """Somebody reads our queue although no daemon of our database leads: each message goes to one reader only."""
    intake = Intake(clinic.bus_config(), lambda batch, aside: None, lambda *state: None, SystemClock())
    intake.start()
    wait_until(lambda: intake.state == "connected")
    report = clinic.examine()
    assert intake.stop(5.0)

    found = only(report, "bus.readers", "error")
    assert "'maintd' has 1 reader, and none of them is ours" in found.text
    assert "pool = " in str(found.fix)


def test_a_second_reader_beside_ours(fresh_clinic: Clinic) -> None:
    """A daemon leads, and beside it something else reads the same queue; the plugin says from where."""
    clinic = fresh_clinic
    store = open_store(clinic.settings["database"]["connection"], clinic.clock, tables="upgrade")
    assert store.leases.acquire("fleet", f"{clinic.name}:embedded", 60.0, clinic.clock.now())
    store.close()
    intakes = []
    for _ in range(2):
        intakes.append(Intake(clinic.bus_config(), lambda batch, aside: None, lambda *state: None, SystemClock()))
        intakes[-1].start()
    wait_until(lambda: all(intake.state == "connected" for intake in intakes))
    wait_until(lambda: len(clinic.managed.call("GET", "queues", clinic.name, "maintd")["consumer_details"]) == 2)
    clinic.managed.bound(clinic.name)
    policy_shown(clinic)
    report = clinic.examine(management_url=clinic.managed.url)
    assert all(intake.stop(5.0) for intake in intakes)

    found = only(report, "bus.readers", "error")
    assert "'maintd' has 2 readers (user guest from 127.0.0.1; user guest from 127.0.0.1)" in found.text


def test_competing_consumer_without_a_pool(clinic: Clinic) -> None:
    """Without a pool Nova's own queues are read, and a tool that has always read them takes a part."""
    clinic.change("bus", pool="")
    with clinic.channel() as channel:
        channel.basic_consume("versioned_notifications.info", callback=lambda message: None)
        wait_until(lambda: channel.queue_declare("versioned_notifications.info", passive=True).consumer_count == 1)
        report = clinic.examine()

    assert "'versioned_notifications.info' has 1 reader" in only(report, "bus.readers", "error").text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rabbit://guest:wrong@127.0.0.1:{port}/{vhost}", "refused the credentials of [bus] transport_url"),
        ("rabbit://guest:guest@127.0.0.1:{port}/nowhere", "the virtual host of [bus] transport_url does not exist"),
        ("rabbit://guest:guest@127.0.0.1:{free}/{vhost}", "is not reachable: nothing takes connections there"),
        ("rabbit://guest:guest@no-such-host.invalid:5672/{vhost}", "cannot be resolved"),
    ],
)
def test_wrong_way_to_the_broker(clinic: Clinic, url: str, said: str) -> None:
    """Credentials, virtual host, port and name: each wrong one is told apart, once."""
    url = url.format(port=clinic.rabbit.port, free=free_port(), vhost=clinic.name)
    clinic.change("bus", transport_url=url)

    assert said in only(clinic.examine(1.0), "bus.reachable", "error").text


def test_one_of_two_brokers_is_dead(clinic: Clinic) -> None:
    """A cluster's dead node is a warning, and everything else is looked at through the living one."""
    dead = free_port()
    url = f"rabbit://guest:guest@127.0.0.1:{dead},guest:guest@127.0.0.1:{clinic.rabbit.port}/{clinic.name}"
    clinic.change("bus", transport_url=url)
    with clinic.busy():
        report = clinic.examine(10.0)

    assert f"127.0.0.1:{dead}" in only(report, "bus.reachable", "warning").text
    assert told(report, "stream.arrives", "ok")


# --- the API ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "path", "rule"),
    [
        ("compute", "*/os-services*", "os_compute_api:os-services:list"),
        ("compute", "*/os-hypervisors/detail*", "os_compute_api:os-hypervisors:list-detail"),
        ("compute", "*/os-hypervisors/*with_servers*", "os_compute_api:os-hypervisors:show"),
        ("compute", "*/os-migrations*", "os_compute_api:os-migrations:index"),
        ("compute", "*/servers/detail*", "os_compute_api:servers:detail"),
        ("compute", "*/servers/*/migrations*", "os_compute_api:servers:migrations:index"),
        ("placement", "*/allocations*", "placement:resource_providers:allocations:list"),
        ("placement", "*/traits*", "placement:resource_providers:traits:list"),
    ],
)
def test_missing_right(clinic: Clinic, service: str, path: str, rule: str) -> None:
    """A question is refused: the rule to grant is named, and nothing else is accused."""
    clinic.rest.faults.add(service=service, path=path, status=403)

    assert rule in str(only(clinic.examine(), "api.rights", "error").fix)


def test_dropped_host_filter(clinic: Clinic) -> None:
    """Nova drops the host filter in silence."""
    clinic.rest.faults.drop_host_filter = True
    found = only(clinic.examine(), "api.host_filter", "error")

    assert "servers:allow_all_filters" in found.text


def test_hosts_hidden(clinic: Clinic) -> None:
    """Nova shows servers and migrations without their hosts: one finding for each."""
    clinic.rest.faults.hide_host_fields = True
    wrong = [one for one in clinic.examine().findings if one.level in ("warning", "error")]

    assert {"api.hidden"} == {one.check for one in wrong}
    assert {"servers", "os-migrations"} == {str(one.subject) for one in wrong} - {"a server"}
    assert any("os-migrations:index:host" in one.text for one in wrong)


@pytest.mark.parametrize(
    ("service", "newest", "needed"), [("compute", (2, 72), "2.75"), ("placement", (1, 10), "1.14")]
)
def test_old_microversion(clinic: Clinic, service: str, newest: tuple[int, int], needed: str) -> None:
    """A service is too old for a proof: its version and the one needed are told, once."""
    setattr(clinic.rest.faults, f"{service}_max", newest)
    found = only(clinic.examine(), "api.microversion", "error")

    assert f"{newest[0]}.{newest[1]}" in found.text and needed in found.text and found.subject == service


def test_microversion_of_train(clinic: Clinic) -> None:
    """What is enough for a proof, but older than what maintd asks in, is a warning."""
    clinic.rest.faults.compute_max = (2, 79)

    assert "2.79" in only(clinic.examine(), "api.microversion", "warning").text


def test_a_cloud_with_nothing_in_it(clinic: Clinic) -> None:
    """What could not be asked, for want of anything to ask about, is unknown and no fault."""
    with RestServer(Cloud(clinic.clock)) as empty:
        clinic.settings["cloud"] |= empty.cloud_config()["auth"]
        report = clinic.examine()

    assert 0 == report.exit_code
    assert 3 == len(told(report, "api.untried", "unknown"))
    assert told(report, "api.computes", "unknown")


def test_wrong_password_of_the_cloud(clinic: Clinic) -> None:
    """Keystone does not take the credentials: that is one finding, and the bus is looked at all the same."""
    clinic.rest.faults.add(service="identity", path="*tokens*", status=401)
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    assert "does not accept the credentials" in only(report, "api.reachable", "error").text
    assert told(report, "stream.arrives", "ok")


def test_failing_service(clinic: Clinic) -> None:
    """Placement answers 500: it is not said to be a matter of rights."""
    clinic.rest.faults.add(service="placement", path="*allocations*", status=500)

    assert "answered 500" in only(clinic.examine(), "api.answers", "error").text


def test_slow_api(clinic: Clinic) -> None:
    """An answer takes more than half of what it may."""
    clinic.change("cloud", timeout_s=2)
    clinic.rest.faults.add(service="compute", path="*/os-services*", slow_s=1.1, times=1)
    found = only(clinic.examine(), "api.speed", "warning")

    assert "(os-services) took 1." in found.text and "timeout_s = 6" in str(found.fix)


def test_cell_down(clinic: Clinic) -> None:
    """The database of a cell does not answer: its computes are named."""
    clinic.cloud.lose_cell(["cmp-03"])
    found = only(clinic.examine(), "api.computes", "warning")

    assert "cmp-03" in found.text


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "level", "word"), [(10, "warning", "ahead of"), (-3600, "error", "behind")])
def test_skewed_clock_of_the_api(clinic: Clinic, ahead_s: float, level: str, word: str) -> None:
    """The API server's clock is off: by seconds a warning, by minutes an error."""
    clinic.rest.faults.clock_ahead_s = ahead_s
    report = clinic.examine()

    wrong = [one for one in report.findings if one.level in ("warning", "error")]
    api = [one for one in wrong if one.check == "clock.api"]
    assert {(level, "compute"), (level, "placement")} == {(str(one.level), one.subject) for one in api}
    assert all(word in one.text for one in api)
    # A clock behind makes the heartbeats, which are right, look as if they came from the future.
    assert {one.check for one in wrong} <= {"clock.api", "clock.heartbeats"}


@pytest.mark.parametrize(("ahead_s", "word"), [(30.0, "ahead of this machine's"), (-30.0, "behind this machine's")])
def test_skewed_clock_of_a_compute(clinic: Clinic, ahead_s: float, word: str) -> None:
    """One compute's clock is off, which its notifications show: it alone is named."""
    from maintd.nova.notifications.envelope import read_time
    from maintd.simulator.notifications import envelope_text

    def twist(key: str, message: Json) -> list[tuple[str, Json]]:
        if message["publisher_id"] != "nova-compute:cmp-02":
            return [(key, message)]
        return [(key, {**message, "timestamp": envelope_text(read_time(message["timestamp"]) + ahead_s)})]

    clinic.twist = twist
    with clinic.busy():
        report = clinic.examine(10.0)

    found = only(report, "clock.publishers", "warning")
    assert word in found.text and found.text.endswith(": cmp-02.")


# --- database --------------------------------------------------------------------------------------------------------


def test_tables_of_a_newer_maintd(clinic: Clinic) -> None:
    """The tables were made by a newer maintd: this one must not touch them."""
    path = clinic.database
    open_store(f"sqlite:///{path}", clinic.clock, tables="upgrade").close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE alembic_version SET version_num = 'pre_9999'")
    file.close()

    assert "made by a newer maintd (revision pre_9999" in only(clinic.examine(), "database.reachable", "error").text


def test_tables_not_made(clinic: Clinic) -> None:
    """A database without tables, or with older ones, is told; the doctor does not bring them up to date."""
    path = clinic.database
    sqlite3.connect(path).close()
    path.touch()
    found = only(clinic.examine(), "database.schema", "warning")

    assert "it has no tables yet" in found.text and "maintd db upgrade" in str(found.fix)
    assert found == only(clinic.examine(), "database.schema", "warning")


def test_database_kept_locked(clinic: Clinic) -> None:
    """Another program holds SQLite's write lock: nothing could be committed."""
    path = clinic.database
    open_store(f"sqlite:///{path}", clinic.clock, tables="upgrade").close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = only(clinic.examine(), "database.writable", "error")
    other.close()

    assert "locked" in found.text


def test_database_in_no_directory(clinic: Clinic) -> None:
    """The directory of the database is not there, and the doctor does not make it."""
    clinic.change("database", connection=f"sqlite:///{clinic.folder}/nowhere/file.sqlite")

    assert "nowhere" in only(clinic.examine(), "database.reachable", "error").text
    assert not (clinic.folder / "nowhere").exists()


# --- ourselves -------------------------------------------------------------------------------------------------------


def test_our_own_fault_is_one_finding(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails by a mistake of ours costs no other finding, and the exit code says that something is wrong."""

    def fail(*given: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("maintd.doctor.probes.daemon.look", fail)
    report = clinic.examine()

    found = only(report, "doctor.finished", "error")
    assert ("the daemon", True) == (found.subject, "ZeroDivisionError: a mistake" in found.text)
    assert {"ok"} == {str(one.level) for one in report.findings if one.check == "webhook.connects"}
    assert 2 == report.exit_code


def test_a_name_that_is_none(clinic: Clinic) -> None:
    """A webhook's host name with an empty part cannot be looked up."""
    clinic.change("webhook:hook", url="http://hook..example.org/x")

    assert "cannot be resolved" in only(clinic.examine(), "webhook.connects", "error").text


# --- webhooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", [False, True])
def test_dead_endpoint(clinic: Clinic, send: bool) -> None:
    """Nothing takes connections at a webhook's address, with or without a test event."""
    clinic.change("webhook:hook", url=f"http://127.0.0.1:{free_port()}/hook")
    found = only(clinic.examine(send_test_event=send), "webhook.connects", "error")

    assert "no connection" in found.text and found.subject == "hook"


@pytest.mark.parametrize("send", [False, True])
def test_endpoint_without_tls(clinic: Clinic, send: bool) -> None:
    """The URL says https, and what answers does not speak TLS."""
    clinic.change("webhook:hook", url=clinic.receiver.url.replace("http:", "https:"))
    report = clinic.examine(send_test_event=send)

    assert {"webhook.connects"} == {one.check for one in report.findings if one.level == "error"}


def test_signature_refused(clinic: Clinic) -> None:
    """The receiver verifies with another secret: only a test event shows it."""
    clinic.change("webhook:hook", secret="whsec_" + "QUJD" * 10)
    assert 0 == clinic.examine().exit_code
    found = only(clinic.examine(send_test_event=True), "webhook.accepts", "error")

    assert "answered 401 to a signed test event" in found.text
    assert "[webhook:hook] secret" in str(found.fix)
    assert clinic.receiver.events() == []


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "url: correct it"), (410, "[webhooks] enabled"), (500, "log of the receiver")]
)
def test_test_event_refused(clinic: Clinic, status: int, advice: str) -> None:
    """Whatever the receiver answers, the finding has the status and what it means."""
    clinic.receiver.answer = status
    found = only(clinic.examine(send_test_event=True), "webhook.accepts", "error")

    assert f"answered {status}" in found.text and advice in str(found.fix)


# --- the configuration -----------------------------------------------------------------------------------------------


def test_unsigned_webhook(clinic: Clinic) -> None:
    """A webhook without a secret is told as at the daemon's start."""
    clinic.change("webhook:hook", secret=None)

    assert "secret: missing" in only(clinic.examine(), "config.warnings", "warning").text


def test_misspelt_event_type(clinic: Clinic) -> None:
    """A pattern that matches no event type is told."""
    clinic.change("webhook:hook", event_types="maintd.hosts.*")

    assert "'maintd.hosts.*' matches no event type" in only(clinic.examine(), "config.event_types", "warning").text


def test_readable_clouds_yaml(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password of the cloud stands in a file that everybody may read."""
    import yaml

    path = clinic.folder / "clouds.yaml"
    path.write_text(yaml.safe_dump({"clouds": {"sim": clinic.rest.cloud_config()}}))
    path.chmod(0o644)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    clinic.settings["cloud"] = {"cloud": "sim"}
    found = only(clinic.examine(), "config.clouds_yaml", "warning")

    assert f"chmod o-r {path}" == found.fix


def test_certificates_not_looked_at(clinic: Clinic) -> None:
    """TLS without anything to verify the other side by is told."""
    clinic.change("cloud", insecure="true")

    assert "[cloud] insecure" in only(clinic.examine(), "config.tls", "warning").text


def test_no_bus_and_no_cloud(clinic: Clinic) -> None:
    """What maintd can do less of with only one of the two is said."""
    del clinic.settings["bus"]
    assert "happens in between is not seen" in only(clinic.examine(), "config.whole", "warning").text
    clinic.change("bus", transport_url=clinic.url)
    del clinic.settings["cloud"]
    assert "host.emptied is never published" in only(clinic.examine(), "config.whole", "warning").text


# --- what hangs ------------------------------------------------------------------------------------------------------


def test_a_hanging_api_is_given_up(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that takes questions and does not answer keeps the doctor no longer than it may."""
    monkeypatch.setattr(examination, "ASKING_S", 1.0)
    monkeypatch.setattr(examination, "MARGIN_S", 3.0)
    clinic.change("cloud", timeout_s=1)
    clinic.rest.faults.add(service="compute", path="/v2.1/*", slow_s=60.0)
    with clinic.busy():
        report = clinic.examine(QUICK_S)

    assert report.took_s < 12.0
    assert "did not answer in 1 s" in told(report, "api.answers", "error")[0].text
    assert told(report, "stream.arrives", "ok")


def test_a_keystone_that_never_answers_is_left_behind(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs in a library is given up, is a finding, and does not keep the others from theirs."""
    monkeypatch.setattr(examination, "ASKING_S", 1.0)
    monkeypatch.setattr(examination, "MARGIN_S", 1.0)
    clinic.change("cloud", timeout_s=1)
    # keystoneauth waits for a lock of its own for ever when the discovery of versions is refused.
    clinic.rest.faults.add(service="identity", status=401)
    report = clinic.examine()

    assert report.hangs and report.took_s < 8.0
    assert "the API" == only(report, "doctor.finished", "error").subject


def test_a_hanging_broker_is_given_up(clinic: Clinic, tmp_path: Path) -> None:
    """A broker that takes connections and says nothing is an error within seconds."""
    way = Proxy(clinic.rabbit.port)
    way.black_hole()
    clinic.change("bus", transport_url=clinic.rabbit.url_at(way.port, vhost=clinic.name))
    report = clinic.examine(1.0)
    way.close()

    assert "no answer in time" in only(report, "bus.reachable", "error").text
    assert report.took_s < 20.0


def test_a_broker_lost_while_listening(clinic: Clinic) -> None:
    """When the connection breaks while the doctor listens, that is said, and nothing is concluded."""
    way = Proxy(clinic.rabbit.port)
    clinic.change("bus", transport_url=clinic.rabbit.url_at(way.port, vhost=clinic.name))
    found: list[Any] = []
    examining = threading.Thread(target=lambda: found.append(clinic.examine(30.0)))
    examining.start()
    wait_until(lambda: any(name.startswith("maintd.") for name in clinic.queues()), what="the temporary queue")
    way.refuse()
    examining.join(30.0)
    way.close()

    only(found[0], "stream.listened", "error")
