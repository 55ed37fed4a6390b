"""What the operator's files may say, and what is answered to what they may not."""

from __future__ import annotations

import base64
import io
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

import openstack.config
import pytest
from oslo_config import cfg, generator

from maintd import config, options
from maintd.config import BusConfig, CloudConfig, Config, load
from maintd.daemon import egress_of, policy_of
from maintd.delivery.egress import Egress
from maintd.domain.model import STALL_AFTER_S, NovaLive, Policy
from maintd.errors import OperatorError

HERE = Path(__file__).resolve().parent.parent
SAMPLE = HERE / "etc" / "maintd" / "maintd.conf"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
KEYSTONE = """
[cloud]
auth_url = http://keystone:5000/v3
username = maintd
password = hunter2
user_domain_name = Default
project_name = admin
project_domain_name = Default
"""


def read(tmp_path: Path, text: str) -> Config:
    """The configuration in one file that only its owner may read."""
    path = tmp_path / "maintd.conf"
    path.write_text(text)
    path.chmod(0o600)
    return load([path])


def refusal(tmp_path: Path, text: str) -> str:
    """The sentence with which a file is refused, without the directory."""
    with pytest.raises(OperatorError) as refused:
        read(tmp_path, text)
    return str(refused.value).replace(f"{tmp_path}/", "")


# The sample.


def test_the_shipped_file_is_what_the_generator_makes_of_the_code() -> None:
    """etc/maintd/maintd.conf equals what oslo.config's generator writes for the options in the code (`make config`)."""
    asked = cfg.ConfigOpts()
    generator.register_cli_opts(asked)
    asked(["--config-file", str(HERE / "etc" / "maintd" / "maintd-config-generator.conf")])
    written = io.StringIO()

    generator.generate(asked, written)

    assert written.getvalue() == SAMPLE.read_text()


def test_the_shipped_file_changes_nothing() -> None:
    """With every line of it a comment, the sample gives the built-in defaults, without a warning."""
    assert replace(load([SAMPLE]), files=()) == load([])


def test_defaults_of_values_and_options_agree() -> None:
    """A value built without a file has the defaults that the options have."""
    assert load([]) == Config()


@pytest.mark.parametrize("group", [*options.GROUPS, *options.NAMED_GROUPS])
def test_every_option_says_what_it_is_and_within_which_bounds(group: str) -> None:
    """Each option has a help text with its unit; each number has a least and a greatest value, its default within."""
    opts = options.GROUPS[group][1] if group in options.GROUPS else options.NAMED_GROUPS[group]
    for opt in opts:
        assert opt.help and "Unit: " in opt.help, opt.name
        if isinstance(opt, (cfg.IntOpt, cfg.FloatOpt)):
            assert opt.type.min <= opt.default <= opt.type.max, opt.name


# Buses.


def test_no_transport_url_means_no_bus(tmp_path: Path) -> None:
    """Without a transport_url there is no bus, and options that therefore do nothing are pointed out."""
    quiet, loud = read(tmp_path, ""), read(tmp_path, "[bus]\ntopic = other\n")

    assert () == quiet.buses == loud.buses
    assert () == quiet.warnings
    assert "[bus]: not used, because it has no transport_url" in loud.warnings[0]


def test_the_first_bus_is_named_default_and_others_have_groups_of_their_own(tmp_path: Path) -> None:
    """[bus] is the bus `default`; each further name has its own group and inherits nothing from [bus]."""
    found = read(
        tmp_path,
        "[bus]\ntransport_url = rabbit://a:b@one/\ntopic = t1\n[buses]\nenabled = cell1\n"
        "[bus:cell1]\ntransport_url = rabbit://a:b@h1:5672,a:b@[::1]:5673/vhost\nquorum_queue = true\npool =\n",
    ).buses

    assert ["default", "cell1"] == [bus.name for bus in found]
    assert ["t1", "versioned_notifications"] == [bus.topic for bus in found]
    assert ["maintd", None] == [bus.pool for bus in found]
    assert found[1].quorum_queue


def test_what_oslo_messaging_is_told_are_options_that_it_has() -> None:
    """Every name that a bus hands on exists in oslo.messaging, and takes the value."""
    from maintd.messaging import opts

    known = {opt.dest for group, listed in opts.list_opts() if group == "oslo_messaging_rabbit" for opt in listed}
    bus = BusConfig("b", "rabbit://h/", ssl=True, ssl_ca_file="/ca", ssl_cert_file="/c", ssl_key_file="/k")

    assert set(bus.rabbit_options()) <= known
    assert set(options.INSTEAD) - {"transport_url"} <= known


@pytest.mark.parametrize("url", ["fake://", "kombu+memory:///", "rabbit://h", "rabbit://u:p%40x@h:5672/%2Fnova"])
def test_transports_that_are_taken(tmp_path: Path, url: str) -> None:
    """RabbitMQ, and the two that live in one process."""
    assert url == read(tmp_path, f"[bus]\ntransport_url = {url}\n").buses[0].transport_url


def test_a_dollar_sign_is_written_twice(tmp_path: Path) -> None:
    """'$' begins the name of another option, as everywhere in OpenStack; '$$' is the sign."""
    url = read(tmp_path, "[bus]\ntransport_url = rabbit://u:pa$$word@h/\n").buses[0].transport_url

    assert "rabbit://u:pa$word@h/" == url


# The cloud.


def test_no_cloud_means_none(tmp_path: Path) -> None:
    """Without [cloud], or with nothing in it that says which, there is no API side; the latter is pointed out."""
    found = read(tmp_path, "[cloud]\ntimeout_s = 5\n")

    assert load([]).cloud is None
    assert found.cloud is None
    assert "neither cloud nor auth_url" in found.warnings[0]


def test_a_cloud_by_name_needs_nothing_else(tmp_path: Path) -> None:
    """[cloud] cloud names an entry of clouds.yaml; openstacksdk is told no more than that and the limits."""
    found = read(tmp_path, "[cloud]\ncloud = prod\nregion_name = north\n").cloud

    assert found is not None
    assert {"cloud": "prod", "region_name": "north", "api_timeout": 10.0} == found.connect_options()


def test_openstacksdk_takes_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of keystoneauth in the file end in a session of openstacksdk that uses them, whatever OS_* says."""
    monkeypatch.setenv("OS_USERNAME", "somebody-else")
    found = read(tmp_path, KEYSTONE + "cafile = /ca.pem\ninterface = internal\n").cloud
    assert found is not None
    told = found.connect_options()
    how = {name: told.pop(name) for name in ("load_yaml_config", "load_envvars")}

    region = openstack.config.OpenStackConfig(**how).get_one(**told)

    auth = region.get_auth()
    assert "http://keystone:5000/v3" == auth.auth_url
    assert "maintd" == region.config["auth"]["username"]
    assert "internal" == region.get_interface("compute")
    assert "/ca.pem" == region.get_requests_verify_args()[0]


def test_any_plugin_of_keystoneauth_can_log_in(tmp_path: Path) -> None:
    """The options of the chosen auth_type are accepted beside ours, and only those."""
    credential = (
        "[cloud]\nauth_type = v3applicationcredential\nauth_url = http://k\n"
        "application_credential_id = i\napplication_credential_secret = s\nuser_domain_id = d\n"
    )
    found = read(tmp_path, credential).cloud
    assert found is not None

    assert {
        "auth_type",
        "auth_url",
        "application_credential_id",
        "application_credential_secret",
        "user_domain_id",
    } == {*found.options}
    assert "does not take it" in refusal(tmp_path, KEYSTONE + "application_credential_secret = s\n")


# Files.


def test_later_files_win_and_directories_are_read_in_order(tmp_path: Path) -> None:
    """Files in the order given, then *.conf of the directory by name; each option's last word counts."""
    parts = tmp_path / "conf.d"
    parts.mkdir()
    first, second = tmp_path / "a.conf", tmp_path / "b.conf"
    first.write_text("[drain]\nsettle_s = 1\nstalled_after_s = 1\n[api]\nlisten = 127.0.0.1:1\n")
    second.write_text("[drain]\nsettle_s = 2\n[api]\nlisten = 127.0.0.1:2\n")
    (parts / "20.conf").write_text("[api]\nlisten = 127.0.0.1:20\n")
    (parts / "10.conf").write_text("[api]\nlisten = 127.0.0.1:10\n")
    (parts / "99.conf.orig").write_text("nonsense")

    found = load([first, second], parts)

    assert (1.0, 2.0, 20) == (found.drain.stalled_after_s, found.drain.settle_s, found.api.port)
    assert ["a.conf", "b.conf", "10.conf", "20.conf"] == [path.name for path in found.files]


def test_the_environment_is_not_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oslo.config's OS_GROUP__OPTION variables change nothing."""
    monkeypatch.setenv("OS_DRAIN__SETTLE_S", "99")
    monkeypatch.setenv("OS_DEFAULT__INSTALLATION", "elsewhere")

    assert Config() == load([])


def test_a_secret_that_everybody_can_read_is_pointed_out(tmp_path: Path) -> None:
    """A file with a password that others may read gives a warning with the command that mends it."""
    path = tmp_path / "m.conf"
    path.write_text("[bus]\ntransport_url = rabbit://u:p@h/\n")
    path.chmod(0o644)

    assert (f"{path} holds a secret and everybody may read it; run: chmod o-r {path}",) == load([path]).warnings


def test_a_key_that_everybody_can_read_is_pointed_out(tmp_path: Path) -> None:
    """The file of the keys that encrypt subscriptions' secrets is as secret as they are."""
    key = tmp_path / "key"
    key.write_text("k")
    for mode, told in (
        (0o644, (f"{key} holds a secret and everybody may read it; run: chmod o-r {key}",)),
        (0o600, ()),
    ):
        key.chmod(mode)
        assert told == read(tmp_path, f"[subscriptions]\nkey_file = {key}\n").warnings


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    """The repr of a whole configuration has no password, no webhook secret, no URL that may hold one."""
    found = read(
        tmp_path,
        f"[bus]\ntransport_url = rabbit://u:hunter2@h/\n{KEYSTONE}\n[database]\nconnection = mysql+pymysql://u:hunter2@h/d\n"
        f"[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/hunter2\nsecret = {SECRET}\n"
        "[keystone_authtoken]\npassword = hunter2\n",
    )

    assert "hunter2" in found.webhooks[0].url
    assert "hunter2" not in repr(found)
    assert SECRET not in repr(found)


# Webhooks, libraries.


def test_webhooks_are_the_operators_own(tmp_path: Path) -> None:
    """Loopback and http are allowed, the default is every event; an unused group and a missing secret are named."""
    found = read(
        tmp_path,
        f"[webhooks]\nenabled = a, b\n[webhook:a]\nurl = http://127.0.0.1:9/x\nsecret = {SECRET}\n"
        "[webhook:b]\nurl = https://10.0.0.1/\nevent_types = maintd.host.*, maintd.drain.stalled.v1\n"
        "[webhook:c]\nurl = https://10.0.0.2/\n",
    )

    assert ["a", "b"] == [webhook.name for webhook in found.webhooks]
    assert ("*",) == found.webhooks[0].event_types
    assert ("maintd.host.*", "maintd.drain.stalled.v1") == found.webhooks[1].event_types
    assert ["[webhook:c]: not used", "[webhook:b] secret: missing"] == [
        said.partition(", ")[2][: len(want)]
        for said, want in zip(found.warnings, ("[webhook:c]: not used", "[webhook:b] secret: missing"), strict=True)
    ]


def test_where_the_endpoints_of_projects_may_be(tmp_path: Path) -> None:
    """By default what the policy has by default; a file's networks, ports and proxy reach the policy as they are."""
    found = read(
        tmp_path,
        "[subscriptions]\nallowed_networks = 10.20.0.0/16, fd00:1::/64\ndenied_networks = 10.20.1.0/24\n"
        "allow_http = true\nallowed_ports = 80, 443\nproxy = http://u:hunter2@proxy:3128\n",
    )

    assert Egress() == egress_of(Config())
    assert Egress(
        (ip_network("10.20.0.0/16"), ip_network("fd00:1::/64")),
        (ip_network("10.20.1.0/24"),),
        True,
        (80, 443),
        "http://u:hunter2@proxy:3128",
    ) == egress_of(found)


def test_the_other_sinks(tmp_path: Path) -> None:
    """A bus sink has a topic of our own by default; a program's words are split as a shell would, and only split."""
    found = read(
        tmp_path,
        "[bus_sinks]\nenabled = a\n[bus_sink:a]\ntransport_url = rabbit://u:hunter2@h/\nquorum_queue = true\n"
        "[exec_sinks]\nenabled = b\n[exec_sink:b]\nprogram = /bin/sh -x 'a b' c\\ d $$HOME *\n"
        "event_types = maintd.host.*\n",
    )
    (topic,), (program,) = found.bus_sinks, found.exec_sinks

    assert ("maintd", "maintd", ("*",)) == (topic.exchange, topic.topic, topic.event_types)
    assert topic.rabbit_options()["rabbit_quorum_queue"]
    assert ("/bin/sh", "-x", "a b", "c d", "$HOME", "*") == program.argv
    assert 30.0 == program.timeout_s
    assert {"bus_sink:a": ("*",), "exec_sink:b": ("maintd.host.*",)} == found.wanted()
    assert "hunter2" not in repr(found)


def test_a_librarys_group_is_a_warning(tmp_path: Path) -> None:
    """What was copied from nova.conf does not stop maintd; it says what counts instead."""
    warnings = read(
        tmp_path,
        "[oslo_messaging_rabbit]\nheartbeat_timeout_threshold = 5\nfoo = 1\n[oslo_concurrency]\nlock_path = x\n",
    ).warnings

    assert ["use [bus] heartbeat_s.", "does not read this group.", "does not read this group."] == [
        warnings[0][-22:],
        *(said[-25:] for said in warnings[1:]),
    ]


def test_keystones_group_is_handed_on(tmp_path: Path) -> None:
    """[keystone_authtoken] is kept as text for the middleware, without a warning."""
    found = read(tmp_path, "[api]\nauth = keystone\nlisten = 0.0.0.0:8779\n[keystone_authtoken]\nauth_url = http://k\n")

    assert ("0.0.0.0", 8779, "keystone") == (found.api.host, found.api.port, found.api.auth)
    assert {"auth_url": "http://k"} == found.library["keystone_authtoken"]
    assert () == found.warnings


def test_a_policy_that_nobody_is_asked_for_is_a_warning(tmp_path: Path) -> None:
    """[oslo_policy] does nothing with auth none, and says so; with keystone it is handed on."""
    policy = "[oslo_policy]\npolicy_file = /etc/maintd/policy.yaml\n"
    keystone = "[api]\nauth = keystone\n[keystone_authtoken]\nauth_url = http://k\n"

    assert "[oslo_policy]: not used" in read(tmp_path, policy).warnings[0]
    found = read(tmp_path, policy + keystone)
    assert ((), {"policy_file": "/etc/maintd/policy.yaml"}) == (found.warnings, found.library["oslo_policy"])


def test_the_key_for_subscriptions_may_be_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without key_file it is systemd's, where there is one and it is not the empty one of the unit; a file wins."""
    credential = tmp_path / "maintd-subscriptions"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert read(tmp_path, "").subscriptions.key_file is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read(tmp_path, "").subscriptions.key_file is None
    credential.write_text("\n")
    assert read(tmp_path, "").subscriptions.key_file is None
    credential.write_text("key\n")
    assert credential == read(tmp_path, "").subscriptions.key_file
    assert Path("/k") == read(tmp_path, "[subscriptions]\nkey_file = /k\n").subscriptions.key_file


# Refusals: each a sentence with file, group, option and what to do.

REFUSED = [
    ("[drian]\nsettle_s = 1", "maintd.conf, [drian]: maintd has no such group; the nearest is drain."),
    ("[drain]\nsetle_s = 1", "maintd.conf, [drain] setle_s: maintd has no such option; the nearest is settle_s."),
    ("[drain]\nsettle-s = 1", "maintd.conf, [drain] settle-s: maintd has no such option; the nearest is settle_s."),
    (
        "[DEFAULT]\ntransport_url = rabbit://u:hunter2@h/",
        "maintd.conf, [DEFAULT] transport_url: maintd has no such option in this group; it belongs in [bus].",
    ),
    ("[DEFAULT]\nconfig_source = x", "maintd has no such option"),
    ("[drain]\nsettle_s = soon", "maintd.conf, [drain] settle_s: 'soon' is not a number from 1 to 600."),
    ("[drain]\nsettle_s = 0.5", "maintd.conf, [drain] settle_s: '0.5' is not a number from 1 to 600."),
    ("[drain]\nsettle_s = nan", "[drain] settle_s: nan is not a number of seconds."),
    ("[drain]\naccept_residue = perhaps", "[drain] accept_residue: 'perhaps' is not true or false."),
    ("[DEFAULT]\nlog_level = loud", "'loud' is not one of debug, info, warning, error."),
    ("[DEFAULT]\ninstallation = a b", "'a b' is not a name of at most 63 letters"),
    ("settle_s = 1", "maintd.conf, line 1, cannot be understood: Section must be started"),
    ("[bus]\ntransport_url", "maintd.conf, line 2, cannot be understood"),
    ("[bus]\ntransport_url hunter2:x", "maintd.conf, [bus]: a line in this group is not 'name = value'."),
    ("[bus]\ntransport_url = amqp://u:hunter2@h/", "[bus] transport_url: begins with none of rabbit://"),
    ("[bus]\ntransport_url = rabbit://u:hunter2@x@h/", "%40"),
    ("[bus]\ntransport_url = rabbit://u:hunter2$x@h/", "write '$$' for the sign itself"),
    ("[bus]\ntransport_url = rabbit://h/\nssl_ca_file = /ca", "set ssl = true"),
    ("[bus]\ntransport_url = rabbit://h/\nssl = true\nssl_key_file = /k", "go together"),
    ("[buses]\nenabled = cell1", "[buses] enabled: there is no group [bus:cell1]; add it."),
    ("[buses]\nenabled = cell1\n[bus:cell1]\ntopic = t", "[bus:cell1] transport_url: an enabled bus needs one"),
    ("[buses]\nenabled = default\n[bus:default]\ntopic = t", "default is the name of [bus] itself"),
    ("[buses]\nenabled = a,a\n[bus:a]\ntransport_url = rabbit://h/", "a is there twice"),
    ("[bus:CELL]\ntopic = t", "the name of a bus is made of a-z"),
    ("[cloud]\ncloud = x\npassword = hunter2", "[cloud] password: goes with clouds.yaml or not at all"),
    ("[cloud]\nusername = u", "[cloud] auth_url: missing"),
    ("[cloud]\nauth_url = keystone:5000", "[cloud] auth_url: not a URL that begins with http://"),
    ("[cloud]\nauth_type = pasword\nauth_url = http://k", "no such plugin; the nearest is"),
    ("[cloud]\nauth_url = http://k\nusernme = u", "the nearest is username"),
    ("[cloud]\nauth_type = v3applicationcredential\nauth_url = http://k", "cannot be set up"),
    ("[database]\nconnection = mysql://u:hunter2@h/d", "begin it with mysql+pymysql://."),
    ("[database]\nconnection = /var/lib/x", "not an SQLAlchemy URL"),
    ("[database]\nquarantine_bytes = 1.5", "is not a whole number from 0 to"),
    ("[api]\nlisten = 0.0.0.0:8779", "0.0.0.0 is not; use 127.0.0.1, or set auth = keystone."),
    ("[api]\nlisten = controller1:8779", "only listens on loopback"),
    ("[api]\nlisten = 8779", "is not HOST:PORT"),
    ("[api]\nstreams = 17", "17 is more than half of threads, which is 32"),
    ("[api]\nthreads = 8\nstreams = 5", "[api] streams: 5 is more than half of threads, which is 8"),
    ("[metrics]\nlisten = 127.0.0.1:99999", "is not HOST:PORT"),
    ("[api]\nauth = keystone", "needs a group [keystone_authtoken]"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nsecret = x", "[webhook:a] url: an enabled webhook needs one"),
    ("[bus_sinks]\nenabled = a\n[bus_sink:a]\ntopic = t", "[bus_sink:a] transport_url: an enabled bus sink needs one"),
    ("[bus_sinks]\nenabled = a\n[bus_sink:a]\ntransport_url = fake://", "begins with rabbit:// or reaches nobody"),
    ("[bus_sinks]\nenabled = a\n[bus_sink:a]\ntransport_url = rabbit://u:hunter2@x@h/", "%40"),
    ("[bus_sinks]\nenabled = a\n[bus_sink:a]\ntransport_url = rabbit://h/\nssl_ca_file = /ca", "set ssl = true"),
    ("[bus_sinks]\nenabled = a\n[bus_sink:a]\ntransport_url = rabbit://h/\npool = p", "maintd has no such option"),
    (
        "[exec_sinks]\nenabled = a\n[exec_sink:a]\ntimeout_s = 3",
        "[exec_sink:a] program: an enabled exec sink needs one",
    ),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = on-event", "'on-event' is no absolute path"),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /bin/sh -c 'x", "cannot be split into words (no closing"),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /nonexistent -v", "/nonexistent cannot be run: no such file"),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /tmp", "/tmp cannot be run: it is no file."),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /etc/passwd", "not executable; run: chmod +x /etc/passwd."),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /bin/sh\ntimeout_s = 0", "is not a number from 1 to 300"),
    ("[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /bin/sh\nevent_types = a b", "'a b' is no glob"),
    (
        "[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/\n"
        "[exec_sinks]\nenabled = a\n[exec_sink:a]\nprogram = /bin/sh",
        "[exec_sinks] enabled: a is the name of [webhook:a] already.",
    ),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = ftp://hunter2/", "begins with http:// or https://"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h:99999/", "malformed"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/\nsecret = hunter2", "begins with whsec_"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/\nsecret = whsec_hunter2!", "is not base64"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/\nsecret = whsec_aHVudGVyMg==", "holds 7 bytes"),
    ("[webhooks]\nenabled = a\n[webhook:a]\nurl = http://h/\nevent_types = a b", "'a b' is no glob"),
    (
        "[stall]\nobserve_only = late, not_convergin",
        "[stall] observe_only: 'not_convergin' is no reason to call a migration stalled; the nearest is not_conv",
    ),
    ("[stall]\nobserve_only = *", "there are frozen, host_down, late, not_converging, not_started, orphan_task"),
    ("[stall]\nlive_migration_downtime_ms = 50", "'50' is not a whole number from 100 to 2000000."),
    ("[stall]\nlive_migration_timeout_action = pause", "'pause' is not one of abort, force_complete."),
    ("[stall]\nlive_migration_downtime = 500", "no such option; the nearest is live_migration_downtime"),
    (
        "[subscriptions]\nallowed_networks = 10.0.0.0/8, 10.1.2.3/16",
        "maintd.conf, [subscriptions] allowed_networks: '10.1.2.3/16' has bits set behind its prefix.",
    ),
    ("[subscriptions]\ndenied_networks = inside", "denied_networks: 'inside' is no network such as 10.20.0.0/16."),
    ("[subscriptions]\nallowed_networks = 0.0.0.0/0", "0.0.0.0/0 has this machine itself and the metadata service in"),
    ("[subscriptions]\nallowed_networks = ::/0", "::/0 has this machine itself"),
    (
        "[subscriptions]\nallowed_ports = 443, 70000",
        "'443, 70000' is not comma-separated whole numbers from 1 to 65535",
    ),
    ("[subscriptions]\nallowed_ports =", "allowed_ports: without a port nothing can be sent."),
    ("[subscriptions]\nallow_http = maybe", "'maybe' is not true or false."),
    (
        "[subscriptions]\nproxy = proxy:3128",
        "[subscriptions] proxy: not http://HOST:PORT or http://USER:PASSWORD@HOST:PORT.",
    ),
    ("[subscriptions]\nproxy = https://u:hunter2@proxy", "not http://HOST:PORT"),
    ("[subscriptions]\nproxy = http://u:hunter2@proxy/path", "not http://HOST:PORT"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """A mistake is refused at start with where it is and what to do, and the sentence repeats no secret."""
    said = refusal(tmp_path, text)

    assert sentence in said
    assert said.startswith("maintd.conf, ")
    assert said.endswith(".")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b"[drain]\n\xff\xfe = 1\n"), "is not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: object, why: str) -> None:
    """A missing or unreadable file is a sentence that names it."""
    path = tmp_path / "gone.conf"
    make(path)  # type: ignore[operator]

    with pytest.raises(OperatorError, match=f"{path} .*{why}"):
        load([path])


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing directory is refused, not passed over."""
    with pytest.raises(OperatorError, match="directory .* cannot be read: no such file"):
        load([], tmp_path / "none.d")


# Small things.


def test_loopback_is_only_loopback() -> None:
    """Names and addresses that another machine could reach are not loopback."""
    assert all(config.is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(config.is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "controller", "localhost.evil"))


def test_stall_times_are_given_by_reason() -> None:
    """Each reason to call a migration stalled has its time, the core's, under the reason's own name, gravest first."""
    assert STALL_AFTER_S == config.StallConfig().by_reason() == Policy().stall_after_s
    assert tuple(STALL_AFTER_S) == options.REASONS
    timed = {field.name.removesuffix("_after_s") for field in fields(config.StallConfig) if "_after_s" in field.name}
    assert set(STALL_AFTER_S) == timed


def test_the_cores_policy_without_a_file_is_its_own_but_for_shadow_mode() -> None:
    """What the daemon tells the core by default is what the core believes by itself; not_converging alone is only
    noted by the daemon, and published by a replay without a configuration file."""
    daemons, own = policy_of(load([])), Policy()

    assert (frozenset({"not_converging"}), frozenset()) == (daemons.observe_only, own.observe_only)
    assert own == replace(daemons, observe_only=frozenset(), has_bus=own.has_bus)


def test_what_nova_does_by_itself_reaches_the_core(tmp_path: Path) -> None:
    """Nova's live_migration_... options, named as in nova.conf with a unit, become the core's, in seconds."""
    policy = policy_of(
        read(
            tmp_path,
            "[stall]\nlive_migration_downtime_ms = 2500\nlive_migration_downtime_steps = 3\n"
            "live_migration_downtime_delay_s = 30\nlive_migration_completion_timeout_s = 0\n"
            "live_migration_timeout_action = force_complete\nexpected_bandwidth_mib_s = 1.5\n"
            "late_after_s = 7\nobserve_only = late, frozen,late\n",
        )
    )

    assert NovaLive(2.5, 3, 30.0, 0.0, "force_complete") == policy.nova
    assert (1.5 * 1024**2, 7.0) == (policy.expected_bandwidth, policy.stall_after_s["late"])
    assert frozenset({"late", "frozen"}) == policy.observe_only


def test_shadow_mode_can_be_ended(tmp_path: Path) -> None:
    """An empty observe_only publishes every verdict; a replay does so unless its file gives observe_only."""
    silent, empty, given = (
        read(tmp_path, f"[stall]\n{line}\n") for line in ("", "observe_only =", "observe_only = late")
    )

    assert frozenset() == policy_of(empty).observe_only
    assert [frozenset(), frozenset(), frozenset({"late"})] == [
        policy_of(one, shadow=False).observe_only for one in (silent, empty, given)
    ]


def test_a_cloud_built_by_hand_says_what_it_wants() -> None:
    """insecure becomes openstacksdk's verify=False and nothing else does."""
    assert {"cloud": "c", "api_timeout": 3.0, "verify": False} == CloudConfig(
        cloud="c", timeout_s=3.0, insecure=True
    ).connect_options()


def test_owners_who_cannot_ask_are_a_warning(tmp_path: Path) -> None:
    """Owners ask with tokens; where no tokens are looked at, that they are told things is probably a mistake."""
    (warning,) = read(tmp_path, "[tenants]\nenabled = true\n").warnings

    assert "no owner can ask" in warning
    assert () == read(tmp_path, "[tenants]\njitter_s = 3\n").warnings
