"""Which options exist: names, defaults, bounds and what they mean, for `config` to read and for the sample file.

`etc/maintd/maintd.conf` is generated from these tables (`make config`) and a test compares the two, so what an operator
reads there is what the code does. Every help text ends in the unit. A number has a least and a greatest value: there
is no setting by which maintd could be asked to work without limits.

Nothing is read or checked here.
"""

from __future__ import annotations

import re

from oslo_config import cfg
from oslo_config import types as opt_types

MINUTE, HOUR, DAY, MIB = 60.0, 3600.0, 86400.0, 1024**2


def _seconds(name: str, default: float, at_least: float, at_most: float, text: str) -> cfg.Opt:
    return cfg.FloatOpt(name, default=default, min=at_least, max=at_most, help=f"{text} Unit: seconds.")


_DEFAULT_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "installation",
        default="main",
        regex=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        help="Name of this installation, the last part of every event's source (/maintd/NAME) and the name of the "
        "fleet lease. Controllers that share a database and a region share it. Unit: a name of at most 63 letters, "
        "digits, '.', '_' and '-'.",
    ),
    cfg.StrOpt(
        "log_level",
        default="info",
        choices=[
            ("debug", "everything, libraries included from their level info on"),
            ("info", "one line per published event, and what maintd itself starts, stops and loses"),
            ("warning", "only what deserves a look"),
            ("error", "only what is broken"),
        ],
        help="How much is logged. Unit: none.",
    ),
    cfg.StrOpt(
        "log_format",
        default="auto",
        choices=[
            ("auto", "text on a terminal, JSON elsewhere"),
            ("json", "one JSON object a line"),
            ("text", "for eyes"),
        ],
        help="How it is logged; always to standard error. Unit: none.",
    ),
)


def _durability(whose: str, why: str) -> tuple[cfg.Opt, ...]:
    """How exchange and queues are declared, which all who declare them must agree on."""
    return (
        cfg.BoolOpt("durable_queues", default=False, help=f"{whose} amqp_durable_queues; {why} Unit: true or false."),
        cfg.BoolOpt(
            "quorum_queue",
            default=False,
            help=f"{whose} rabbit_quorum_queue; {why} Implies durable. Unit: true or false.",
        ),
    )


_TLS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.BoolOpt("ssl", default=False, help="Connect to the broker by TLS. Unit: true or false."),
    cfg.StrOpt(
        "ssl_ca_file", help="Certificate authority that signed the broker's certificate. Unit: path of a PEM file."
    ),
    cfg.StrOpt("ssl_cert_file", help="Certificate shown to the broker. Unit: path of a PEM file."),
    cfg.StrOpt("ssl_key_file", help="Its key. Unit: path of a PEM file."),
)

BUS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "transport_url",
        secret=True,
        sample_default="rabbit://maintd:PASSWORD@controller:5672/",
        help="The broker on which Nova publishes, as in nova.conf; a right to read is not enough, see the README. "
        "Without it this bus does not exist. Percent-encode '@', ':' and '/' in the password and write '$' as '$$'. "
        "Better kept in a file of its own, readable by root only. Unit: a URL, rabbit:// (or kombu+memory:// and "
        "fake:// within one process).",
    ),
    cfg.StrOpt(
        "exchange",
        default="nova",
        regex=r"^[^\s#*]{1,127}$",
        help="Nova's control_exchange. Unit: a name of at most 127 characters.",
    ),
    cfg.StrOpt(
        "topic",
        default="versioned_notifications",
        regex=r"^[^\s#*]{1,127}$",
        help="One of Nova's [notifications] versioned_notifications_topics. Unit: a name of at most 127 characters.",
    ),
    cfg.StrOpt(
        "pool",
        default="maintd",
        regex=r"^[^\s#*]{0,127}$",
        help="Name of the queue of our own that gets a copy of every notification; one name per installation. Empty: "
        "consume the topic's own queues, which only makes sense when the topic is for maintd alone, for other "
        "consumers of it would each get a part. Unit: a name of at most 127 characters.",
    ),
    _seconds(
        "max_pause_s",
        900.0,
        10.0,
        DAY,
        "How long notifications are left on the broker while the database cannot be used. Then they are acknowledged "
        "and dropped, maintd declares itself blind, and the API repairs what was missed: a full broker would stop "
        "Nova.",
    ),
    *_durability("Nova's", "must be what Nova has, for the exchange is shared."),
    cfg.BoolOpt(
        "auto_delete",
        default=False,
        help="Nova's amqp_auto_delete; must be what Nova has. Unit: true or false.",
    ),
    cfg.IntOpt(
        "heartbeat_s",
        default=20,
        min=0,
        max=600,
        help="AMQP heartbeat; a connection that died silently is noticed after twice this time. 0: none. "
        "Unit: seconds.",
    ),
    *_TLS_OPTS,
)

_NAMES = opt_types.List(item_type=opt_types.String())

REASONS = (
    "host_down",
    "orphan_task",
    "frozen",
    "not_converging",
    "not_started",
    "queue_blocked",
    "slow_step",
    "late",
)
"""Why a migration may be called stalled, the gravest first, as `domain.model.STALL_AFTER_S` has them."""

_BUSES_OPTS: tuple[cfg.Opt, ...] = (
    cfg.Opt(
        "enabled",
        type=_NAMES,
        default=[],
        help="Names of further buses (cells with brokers of their own); each NAME has a group [bus:NAME] with the "
        "options of [bus] and its own transport_url. [bus] itself is the bus named default. Unit: comma-separated "
        "names of a-z, 0-9, '_', '-'.",
    ),
)

CLOUD_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "cloud",
        help="Name of the cloud in clouds.yaml. Either this or the options from auth_type on. Unit: a name.",
    ),
    cfg.StrOpt("region_name", help="Region whose hosts are watched, if the cloud has several. Unit: a name."),
    cfg.StrOpt(
        "interface",
        choices=["public", "internal", "admin"],
        help="Which endpoints of the catalogue are used; else clouds.yaml decides. Unit: none.",
    ),
    _seconds("timeout_s", 10.0, 1.0, 300.0, "Limit for every single call of an OpenStack API."),
    cfg.StrOpt("cafile", help="Certificate authority for the OpenStack APIs. Unit: path of a PEM file."),
    cfg.StrOpt("certfile", help="Client certificate. Unit: path of a PEM file."),
    cfg.StrOpt("keyfile", help="Its key. Unit: path of a PEM file."),
    cfg.BoolOpt(
        "insecure",
        default=False,
        help="Do not check the certificates of the OpenStack APIs; for laboratories. Unit: true or false.",
    ),
    cfg.StrOpt(
        "auth_type",
        default="password",
        help="keystoneauth plugin to log in with; its options stand beside it, also those not listed here. Unit: none.",
    ),
)

AUTH_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt("auth_url", help="Keystone. Unit: a URL, http or https."),
    cfg.StrOpt("username", help="User to log in as. Unit: a name."),
    cfg.StrOpt("password", secret=True, help="Password of the user; write '$' as '$$'. Unit: none."),
    cfg.StrOpt("user_domain_name", help="Domain of the user. Unit: a name."),
    cfg.StrOpt("project_name", help="Project to log in to. Unit: a name."),
    cfg.StrOpt("project_domain_name", help="Domain of the project. Unit: a name."),
    cfg.StrOpt("system_scope", help="'all' for a system-scoped token in place of a project. Unit: none."),
    cfg.StrOpt("application_credential_id", help="With auth_type v3applicationcredential. Unit: an id."),
    cfg.StrOpt(
        "application_credential_secret", secret=True, help="With auth_type v3applicationcredential. Unit: none."
    ),
)

_DATABASE_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "connection",
        default="sqlite:////var/lib/maintd/maintd.sqlite",
        secret=True,
        help="Where maintd keeps its state. SQLite is for one controller and a local disk; mysql+pymysql:// and "
        "postgresql+psycopg:// are for several. Unit: an SQLAlchemy URL.",
    ),
    _seconds("events_age_s", 30 * DAY, HOUR, 3650 * DAY, "How long published events are kept and can be read again."),
    _seconds("deliveries_age_s", 7 * DAY, HOUR, 3650 * DAY, "How long finished deliveries and attempts are kept."),
    _seconds(
        "message_ids_age_s",
        2 * DAY,
        HOUR,
        365 * DAY,
        "How long the ids of notifications are remembered, so that a second copy is known as one.",
    ),
    _seconds("quarantine_age_s", 7 * DAY, HOUR, 365 * DAY, "How long unreadable messages are kept."),
    cfg.IntOpt(
        "quarantine_bytes",
        default=100 * MIB,
        min=0,
        max=1024 * 1024 * MIB,
        help="How much is kept of unreadable messages at most; the oldest go first. Unit: bytes.",
    ),
)

_DRAIN_OPTS: tuple[cfg.Opt, ...] = (
    _seconds(
        "settle_s",
        15.0,
        1.0,
        600.0,
        "Time between the two verification passes that must agree before a host is called empty. It has to be longer "
        "than the moment between Nova's freeing a server and its freeing the allocation.",
    ),
    _seconds(
        "stalled_after_s",
        900.0,
        1.0,
        7 * DAY,
        "A drain is stalled when nothing has left and no migration of it has moved for so long.",
    ),
    cfg.Opt(
        "reason_match",
        type=_NAMES,
        default=["*maint*", "*drain*"],
        help="A closed host whose disabled reason matches one of these is being drained from the start; other closed "
        "hosts are when the first server leaves. Case does not matter. Empty: never by reason. "
        "Unit: comma-separated globs.",
    ),
    cfg.Opt(
        "removal_match",
        type=_NAMES,
        default=["*decommission*", "*retire*"],
        help="A closed host whose disabled reason matches one of these is being drained, and goes for good: "
        "drain.started says so, and so do the events of its servers' owners. Case does not matter. Empty: only "
        "`maintd drain start --removal` says it. Unit: comma-separated globs.",
    ),
    cfg.BoolOpt(
        "accept_residue",
        default=False,
        help="Call a host empty although evacuated or deleted servers may have left files or running guests on it; "
        "the proof then lists them. Unit: true or false.",
    ),
)

_TENANTS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Tell owners what touches their servers: a drain of the host, moves, the loss of the host. They ask with "
        "tokens of their own, so [api] auth has to be keystone for them. Set it once all controllers that share the "
        "database have this version. Unit: true or false.",
    ),
    _seconds(
        "jitter_s",
        0.0,
        0.0,
        600.0,
        "What follows from one cause is told to each project after a delay of its own, drawn anew each time, of up to "
        "so long: two projects can then not tell by the time that their servers share a host.",
    ),
)

_RESIDUE_OPTS: tuple[cfg.Opt, ...] = (
    cfg.BoolOpt(
        "trust_reap",
        default=False,
        help="Take a dead host's return as proof that Nova has removed the servers deleted meanwhile. Nova does not "
        "report a failure to do so. Unit: true or false.",
    ),
)

_SERVICES_OPTS: tuple[cfg.Opt, ...] = (
    _seconds(
        "lost_after_s",
        12.0,
        0.0,
        3600.0,
        "A compute service that Nova calls down (after its own service_down_time) is looked at again and again, and is "
        "lost once it has been down for so long. The way back takes as long. A heartbeat that flaps is believed after "
        "a minute.",
    ),
    cfg.IntOpt(
        "many_lost",
        default=5,
        min=2,
        max=100000,
        help="So many services that are lost at once are told in one event, services.lost, in place of one for each. "
        "Where so many were lost within two minutes, owners are told so (host_lost, widespread): it is likelier that "
        "the cloud has lost sight of them. Unit: services.",
    ),
)

_STALL_OPTS: tuple[cfg.Opt, ...] = (
    _seconds(
        "host_down_after_s",
        60.0,
        1.0,
        7 * DAY,
        "host_down: the source's or the destination's nova-compute is down or forced down (of an evacuation the "
        "destination's): who should do the work is gone. Counted from when that was seen.",
    ),
    _seconds(
        "orphan_task_after_s",
        120.0,
        1.0,
        7 * DAY,
        "orphan_task: the server's task_state says that it moves, and Nova has no migration under way for it, as when "
        "a queue was dropped at the shutdown of nova-compute.",
    ),
    _seconds(
        "frozen_after_s",
        60.0,
        1.0,
        7 * DAY,
        "frozen: running, and neither a counter nor the row has changed. Nova writes them every 5 s "
        "(live_migration_monitor_interval): keep it at 12 of these at least.",
    ),
    _seconds(
        "not_converging_after_s",
        30.0,
        1.0,
        7 * DAY,
        "not_converging: the guest writes to its memory as fast as it is copied, and what is left to copy at the "
        "beginnings of passes does not fall below what the permitted downtime can take. So long it must have held.",
    ),
    _seconds(
        "not_started_after_s",
        300.0,
        1.0,
        7 * DAY,
        "not_started: accepted, but nothing happens. What nova-conductor does there takes seconds.",
    ),
    _seconds(
        "queue_blocked_after_s",
        300.0,
        1.0,
        7 * DAY,
        "queue_blocked: queued on a source where nothing moves. A queue that moves is none "
        "(max_concurrent_live_migrations is 1 by default).",
    ),
    _seconds(
        "slow_step_after_s",
        1800.0,
        1.0,
        7 * DAY,
        "slow_step: any other step (preparing, cleaning up, a cold migration's copy, an evacuation's rebuild) without "
        "any sign of life. Nova itself waits for an answer for long_rpc_timeout, 1800 s.",
    ),
    _seconds(
        "late_after_s",
        120.0,
        1.0,
        7 * DAY,
        "late: a move takes longer than what has to be copied needs at expected_bandwidth_mib_s, several times over. "
        "This is added to that.",
    ),
    cfg.FloatOpt(
        "expected_bandwidth_mib_s",
        default=110.0,
        min=0.1,
        max=100000.0,
        help="late: what a migration should copy in a second, at the least. 110 is what 1 Gbit/s leaves. Unit: MiB per "
        "second.",
    ),
    cfg.Opt(
        "observe_only",
        type=_NAMES,
        default=["not_converging"],
        help="Shadow mode: for these reasons nothing is published; that it would have been is noted, and "
        "`maintd stalls report` holds the notes against how the migrations ended. Empty: every verdict is published. "
        f"Unit: comma-separated reasons: {', '.join(REASONS)}.",
    ),
    cfg.IntOpt(
        "live_migration_downtime_ms",
        default=500,
        min=100,
        max=2000000,
        help="As nova.conf of the computes has it, [libvirt] live_migration_downtime: the pause of the guest that is "
        "permitted in the end. Unit: milliseconds.",
    ),
    cfg.IntOpt(
        "live_migration_downtime_steps",
        default=10,
        min=3,
        max=10000,
        help="As nova.conf has it, [libvirt] live_migration_downtime_steps: in how many steps that much is permitted. "
        "Unit: steps.",
    ),
    _seconds(
        "live_migration_downtime_delay_s",
        75.0,
        3.0,
        DAY,
        "As nova.conf has it, [libvirt] live_migration_downtime_delay: how long each of the steps lasts, for every GiB "
        "of memory (2 at least) and of disks that are copied.",
    ),
    _seconds(
        "live_migration_completion_timeout_s",
        800.0,
        0.0,
        7 * DAY,
        "As nova.conf has it, [libvirt] live_migration_completion_timeout: how long Nova lets a live migration take, "
        "for every GiB as above, before live_migration_timeout_action. 0: for ever.",
    ),
    cfg.StrOpt(
        "live_migration_timeout_action",
        default="abort",
        choices=[
            ("abort", "Nova gives the migration up; the server stays on its source"),
            ("force_complete", "Nova pauses the guest, or switches it to post-copy where that is permitted"),
        ],
        help="As nova.conf has it, [libvirt] live_migration_timeout_action: what Nova does then. Unit: none.",
    ),
)

_API_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "listen",
        default="127.0.0.1:8779",
        help="Address of the API. What others than operators reach needs a proxy before it that ends TLS and takes in "
        "slow clients: the README has what it must do. Unit: HOST:PORT, [IPV6]:PORT.",
    ),
    cfg.StrOpt(
        "auth",
        default="none",
        choices=[
            ("none", "whoever reaches it is an operator; refused on an address that is not loopback"),
            (
                "keystone",
                "a token of Keystone, checked as [keystone_authtoken] says; docs/policy.md has what which role may do, "
                "and [oslo_policy] policy_file changes it",
            ),
        ],
        help="Who may ask. Unit: none.",
    ),
    cfg.IntOpt(
        "threads",
        default=32,
        min=4,
        max=256,
        help="How many requests are answered at once. Unit: threads.",
    ),
    cfg.IntOpt(
        "streams",
        default=16,
        min=2,
        max=128,
        help="How many of them may be event streams and long polls (GET /v1/events), each of which holds a thread for "
        "as long as it waits; one caller may have half of these. At most half of threads, so that other requests stay "
        "prompt. Unit: streams.",
    ),
)

_METRICS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "listen",
        default="127.0.0.1:9779",
        help="Address of /metrics, /livez and /readyz, which ask nobody who they are and name hosts: at most an "
        "address of the management network. Unit: HOST:PORT, [IPV6]:PORT.",
    ),
)


def _enabled(what: str, kind: str) -> tuple[cfg.Opt, ...]:
    """The list of names that says which groups [kind:NAME] count."""
    return (
        cfg.Opt(
            "enabled",
            type=_NAMES,
            default=[],
            help=f"Names of the {what} in use; each NAME has a group [{kind}:NAME]. "
            "Unit: comma-separated names of a-z, 0-9, '_', '-'.",
        ),
    )


_EVENT_TYPES = cfg.Opt(
    "event_types",
    type=_NAMES,
    default=["*"],
    help="Which events are sent. '*' never includes maintd.server.*. "
    "Unit: comma-separated globs over types such as maintd.host.emptied.v1.",
)

WEBHOOK_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "url",
        secret=True,
        sample_default="https://receiver.example/maintd",
        help="Where events are POSTed. It is yours: http, loopback and private addresses are allowed. "
        "Unit: a URL, http or https.",
    ),
    cfg.StrOpt(
        "secret",
        secret=True,
        sample_default="whsec_BASE64",
        help="Key of the Standard Webhooks signature. Make one with: "
        "echo whsec_$(head -c 32 /dev/urandom | base64). Without it requests are not signed. "
        "Unit: whsec_ and the base64 of 24 to 64 bytes.",
    ),
    _EVENT_TYPES,
)

BUS_SINK_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "transport_url",
        secret=True,
        sample_default="rabbit://maintd:PASSWORD@controller:5672/",
        help="The broker on which events are published; maintd needs configure, write and read rights there, on "
        "exchange and queue. Percent-encode '@', ':' and '/' in the password and write '$' as '$$'. Better kept in a "
        "file of its own, readable by root only. Unit: a URL, rabbit://.",
    ),
    cfg.StrOpt(
        "exchange",
        default="maintd",
        regex=r"^[^\s#*]{1,127}$",
        help="The exchange, which is declared as a topic exchange; consumers name it in their target. "
        "Unit: a name of at most 127 characters.",
    ),
    cfg.StrOpt(
        "topic",
        default="maintd",
        regex=r"^[^\s#*]{1,100}$",
        help="The topic. Events are published with the routing key TOPIC.info, and a queue of that name is made, which "
        "fills until somebody reads it. Bound it first, and likewise the pools of its consumers: "
        "rabbitmqctl set_policy maintd-events '^maintd\\.info$' "
        """'{"max-length":200000,"max-length-bytes":1073741824,"overflow":"drop-head"}' --apply-to queues """
        "(with the topic's own name, and -p with the vhost). Unit: a name of at most 100 characters.",
    ),
    *_durability("The consumers'", "all must have the same."),
    *_TLS_OPTS,
    _EVENT_TYPES,
)

EXEC_SINK_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "program",
        sample_default="/usr/local/bin/on-event --verbose",
        help="Run once for each event, with the event as JSON on its standard input; exit code 0 means delivered, "
        "everything else is tried again. Words are split as a shell does it, with quotes and backslashes, but there "
        "is no shell: no variable, no glob, no pipe. Quotes around the whole line are dropped before. It runs as "
        "maintd's user in maintd's sandbox, and ps shows its arguments: no secret belongs there. "
        "Unit: an absolute path and arguments.",
    ),
    _seconds(
        "timeout_s",
        30.0,
        1.0,
        300.0,
        "How long the program may take. Then its process group is ended (SIGTERM, two seconds later SIGKILL).",
    ),
    _EVENT_TYPES,
)

_NETWORKS_UNIT = "Unit: comma-separated networks such as 10.20.0.0/16 or 2001:db8:1::/48."

_SUBSCRIPTIONS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "key_file",
        sample_default="/etc/maintd/subscriptions.key",
        help="Keys that encrypt subscriptions' secrets in the database, one a line: the first encrypts, all decrypt. "
        "Make one with: maintd subscriptions key. Change it with: maintd db rekey, as the README says. Controllers "
        "that share a database share it. By default the credential maintd-subscriptions of systemd, where there is "
        "one; without a key nobody can subscribe. "
        "Unit: path of a file.",
    ),
    _seconds(
        "overlap_s",
        86400.0,
        0.0,
        30 * DAY,
        "How long a secret signs beside the one that replaced it.",
    ),
    cfg.IntOpt(
        "max_per_project",
        default=10,
        min=0,
        max=1000,
        help="How many subscriptions a project may have. Unit: a number.",
    ),
    cfg.IntOpt(
        "max_operator",
        default=100,
        min=0,
        max=1000,
        help="How many subscriptions the operators may have together. Unit: a number.",
    ),
    cfg.Opt(
        "allowed_networks",
        type=_NAMES,
        default=[],
        help="Networks to which events may be sent although they are private or special, where the endpoints of "
        "projects are. An IPv4 address inside of an IPv6 one (NAT64, 6to4) must be allowed as well. " + _NETWORKS_UNIT,
    ),
    cfg.Opt(
        "denied_networks",
        type=_NAMES,
        default=[],
        help="Networks to which no event is sent, whatever else is allowed: those of management and the controllers' "
        "own, where they are inside of an allowed network or have global addresses. " + _NETWORKS_UNIT,
    ),
    cfg.BoolOpt(
        "allow_http",
        default=False,
        help="Allow endpoints without TLS; add 80 to allowed_ports too. Unit: true or false.",
    ),
    cfg.Opt(
        "allowed_ports",
        type=opt_types.List(item_type=opt_types.Integer(min=1, max=65535)),
        default=[443, 8443],
        help="Ports that endpoints may have. Unit: comma-separated whole numbers from 1 to 65535.",
    ),
    cfg.StrOpt(
        "proxy",
        secret=True,
        sample_default="http://USER:PASSWORD@proxy.example:3128",
        help="Proxy through which events are sent, by CONNECT for https. It looks up the names then, so it is the "
        "proxy that must refuse addresses inside; here only those written in URLs are judged. Percent-encode '@', ':' "
        "and '/' in the password and write '$' as '$$'. Unit: a URL, http.",
    ),
    cfg.StrOpt(
        "origin",
        regex=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,252}$",
        sample_default="maintd.cloud.example",
        help="What maintd calls itself when it asks an endpoint whether it may send (WebHook-Request-Origin); a DNS "
        "name, says the CloudEvents specification. Without it, the name of the installation. Unit: a name.",
    ),
    _seconds(
        "give_up_after_s",
        5 * DAY,
        HOUR,
        60 * DAY,
        "An endpoint that fails for so long without a break is disabled.",
    ),
    _seconds(
        "probe_every_s",
        HOUR,
        MINUTE,
        7 * DAY,
        "How often a disabled endpoint is sent a test event; it is active again when it takes one.",
    ),
)

GROUPS: dict[str, tuple[str, tuple[cfg.Opt, ...]]] = {
    "DEFAULT": ("", _DEFAULT_OPTS),
    "bus": ("Nova's notifications. Without a transport_url maintd polls the API, and says so.", BUS_OPTS),
    "buses": ("More than one broker.", _BUSES_OPTS),
    "cloud": (
        "The OpenStack APIs. Without this group maintd lives on notifications alone and can never call a host empty.",
        CLOUD_OPTS + AUTH_OPTS,
    ),
    "database": ("State, and how long it is kept; purged once a day.", _DATABASE_OPTS),
    "drain": ("Hosts on their way to empty.", _DRAIN_OPTS),
    "residue": ("What evacuations and deletes leave on a dead host.", _RESIDUE_OPTS),
    "services": ("Heartbeats of compute services.", _SERVICES_OPTS),
    "stall": (
        "When a migration is called stalled, by reason: for so long it must have held. Nothing is ever aborted or "
        "moved because of it. What Nova does by itself is computed from live_migration_..., which must be as in "
        "nova.conf.",
        _STALL_OPTS,
    ),
    "api": ("The API that the commands, scripts and projects use.", _API_OPTS),
    "metrics": ("For Prometheus and for probes.", _METRICS_OPTS),
    "webhooks": ("Where events go.", _enabled("webhooks", "webhook")),
    "bus_sinks": ("Events as notifications on a message bus.", _enabled("bus sinks", "bus_sink")),
    "exec_sinks": ("Programs that are run for events.", _enabled("exec sinks", "exec_sink")),
    "tenants": (
        "What owners of servers are told: maintd.server.* events, and GET /v1/servers/maintenance. Never a host.",
        _TENANTS_OPTS,
    ),
    "subscriptions": (
        "Endpoints that were asked for over the API. They are chosen by others, so addresses are judged where they are "
        "dialled: only global ones are, unless said otherwise here.",
        _SUBSCRIPTIONS_OPTS,
    ),
}

NAMED_GROUPS: dict[str, tuple[cfg.Opt, ...]] = {
    "bus": BUS_OPTS,
    "webhook": WEBHOOK_OPTS,
    "bus_sink": BUS_SINK_OPTS,
    "exec_sink": EXEC_SINK_OPTS,
}
"""Groups of which there may be several, as [bus:NAME]."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""The names of buses, webhooks and other sinks: they become labels of metrics and parts of events."""

HANDED_ON = ("keystone_authtoken", "oslo_policy")
"""Groups of libraries whose texts are handed on as they are."""

LIBRARY = re.compile(r"oslo_[a-z_]+|keystone_authtoken|keystone|service_auth|cors|healthcheck|profiler|audit")
"""Groups that an operator may have copied from another service: a warning, not an error."""

INSTEAD = {
    "amqp_durable_queues": "durable_queues",
    "amqp_auto_delete": "auto_delete",
    "heartbeat_timeout_threshold": "heartbeat_s",
    "rabbit_quorum_queue": "quorum_queue",
    "ssl": "ssl",
    "ssl_ca_file": "ssl_ca_file",
    "ssl_cert_file": "ssl_cert_file",
    "ssl_key_file": "ssl_key_file",
    "transport_url": "transport_url",
}
"""oslo.messaging's names, and ours in [bus]."""


def list_opts() -> list[tuple[cfg.OptGroup | str, list[cfg.Opt]]]:
    """Every option, for oslo.config's generator (entry point oslo.config.opts)."""
    listed: list[tuple[cfg.OptGroup | str, list[cfg.Opt]]] = []
    for name, (text, opts) in GROUPS.items():
        listed.append(("DEFAULT" if name == "DEFAULT" else cfg.OptGroup(name, help=text), list(opts)))
    for kind, what, opts in (
        ("webhook", "webhook", WEBHOOK_OPTS),
        ("bus_sink", "bus sink", BUS_SINK_OPTS),
        ("exec_sink", "exec sink", EXEC_SINK_OPTS),
    ):
        text = f"One {what}; 'example' is its name, see [{kind}s] enabled."
        listed.append((cfg.OptGroup(f"{kind}:example", help=text), list(opts)))
    return listed
