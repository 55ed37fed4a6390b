"""Configuration: the files of the operator, read once, into frozen values.

`load` is the only way in. oslo.config parses and converts; this module adds what it leaves out: a name nobody knows is
refused with the nearest one that exists, a bad value is refused at start and not when it is first used, and every
complaint is one sentence naming file, group and option. Environment variables (`OS_GROUP__OPTION`) are deliberately
not a source: two places that can silently win over the file are two places nobody looks at three in the morning.

The groups fall in two kinds. Those declared in `options` are maintd's: anything unknown in them is an error. Those of a
library ([keystone_authtoken], [oslo_...]) are kept as text in `Config.library` where maintd hands them on, else
answered with a warning. No other module reads oslo.config's values; everybody is given a piece of `Config`.

What it does not do: it opens no connection, resolves no name and imports no library to check that a value works. The
looks it takes at the machine are whether the program of an exec sink is there, and who may read what is secret.
Durations are seconds, sizes are bytes, and the names say so. Secrets are kept out of every `repr` and every sentence.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import math
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from oslo_config import cfg
from oslo_config import types as opt_types

from maintd.errors import OperatorError
from maintd.options import (
    AUTH_OPTS,
    BUS_OPTS,
    BUS_SINK_OPTS,
    CLOUD_OPTS,
    DAY,
    GROUPS,
    HANDED_ON,
    INSTEAD,
    LIBRARY,
    MIB,
    NAME,
    NAMED_GROUPS,
    REASONS,
)

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = MappingProxyType({})

_OWN_NETWORKS = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10"))
"""What nobody means who allows a wide network: this machine, and what answers on the link, metadata services first."""


# --- the values ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged and how: `level` debug, info, warning or error; `format` auto, json or text."""

    level: str = "info"
    format: str = "auto"


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """A topic on a message broker, to read from it or to publish on it, and how the broker is reached."""

    name: str
    transport_url: str = field(repr=False)
    exchange: str
    topic: str
    durable_queues: bool = False
    quorum_queue: bool = False
    auto_delete: bool = False
    heartbeat_s: int = 20
    ssl: bool = False
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None

    def rabbit_options(self) -> dict[str, object]:
        """The same in oslo.messaging's names, as overrides for its group `oslo_messaging_rabbit`."""
        options: dict[str, object] = {
            "amqp_durable_queues": self.durable_queues,
            "amqp_auto_delete": self.auto_delete,
            "rabbit_quorum_queue": self.quorum_queue,
            "heartbeat_timeout_threshold": self.heartbeat_s,
            "ssl": self.ssl,
        }
        for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
            value = getattr(self, name)
            if value is not None:
                options[name] = value
        return options


@dataclass(frozen=True, slots=True)
class BusConfig(BrokerConfig):
    """One stream of notifications. `pool` None means that the topic's own queues are consumed."""

    exchange: str = "nova"
    topic: str = "versioned_notifications"
    pool: str | None = "maintd"
    max_pause_s: float = 900.0


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """How Nova's, Placement's and Keystone's APIs are reached.

    Either `cloud` names an entry of clouds.yaml, or `options` holds `auth_type` and the options of that keystoneauth
    plugin. `timeout_s` bounds every single call.
    """

    cloud: str | None = None
    options: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)
    region_name: str | None = None
    interface: str | None = None
    timeout_s: float = 10.0
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    insecure: bool = False

    def connect_options(self) -> dict[str, Any]:
        """Keyword arguments for `openstack.connect`; without `cloud`, neither clouds.yaml nor OS_* variables count."""
        wanted: dict[str, Any] = {"api_timeout": self.timeout_s}
        if self.cloud is not None:
            wanted["cloud"] = self.cloud
        else:
            auth = dict(self.options)
            wanted.update(load_yaml_config=False, load_envvars=False, auth_type=auth.pop("auth_type"), auth=auth)
        found = {
            "region_name": self.region_name,
            "interface": self.interface,
            "cacert": self.cafile,
            "cert": self.certfile,
            "key": self.keyfile,
        }
        wanted.update({name: value for name, value in found.items() if value is not None})
        if self.insecure:
            wanted["verify"] = False
        return wanted


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """Where state lives, and how long it is kept."""

    connection: str = field(default="sqlite:////var/lib/maintd/maintd.sqlite", repr=False)
    events_age_s: float = 30 * DAY
    deliveries_age_s: float = 7 * DAY
    message_ids_age_s: float = 2 * DAY
    quarantine_age_s: float = 7 * DAY
    quarantine_bytes: int = 100 * MIB


@dataclass(frozen=True, slots=True)
class DrainConfig:
    """When a closed host is a drain, when a drain is stalled, when it is proven empty."""

    settle_s: float = 15.0
    stalled_after_s: float = 900.0
    reason_match: tuple[str, ...] = ("*maint*", "*drain*")
    removal_match: tuple[str, ...] = ("*decommission*", "*retire*")
    accept_residue: bool = False


@dataclass(frozen=True, slots=True)
class TenantsConfig:
    """Whether owners of servers are told anything, and by how much what they are told may be late."""

    enabled: bool = False
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ResidueConfig:
    """What is believed about leftovers on dead hosts."""

    trust_reap: bool = False


@dataclass(frozen=True, slots=True)
class ServicesConfig:
    """When a compute service is lost, and how many at once are one event."""

    lost_after_s: float = 12.0
    many_lost: int = 5


@dataclass(frozen=True, slots=True)
class StallConfig:
    """For how long each reason must have held before a migration is called stalled, which of them are only noted, and
    how Nova is configured to let a live migration end (live_migration_...)."""

    host_down_after_s: float = 60.0
    orphan_task_after_s: float = 120.0
    frozen_after_s: float = 60.0
    not_converging_after_s: float = 30.0
    not_started_after_s: float = 300.0
    queue_blocked_after_s: float = 300.0
    slow_step_after_s: float = 1800.0
    late_after_s: float = 120.0
    expected_bandwidth_mib_s: float = 110.0
    observe_only: tuple[str, ...] = ("not_converging",)
    live_migration_downtime_ms: int = 500
    live_migration_downtime_steps: int = 10
    live_migration_downtime_delay_s: float = 75.0
    live_migration_completion_timeout_s: float = 800.0
    live_migration_timeout_action: str = "abort"
    observe_only_said: bool = False
    """Whether a file gave observe_only, and not the default."""

    def by_reason(self) -> dict[str, float]:
        """The times by the reason that a verdict carries."""
        return {reason: getattr(self, f"{reason}_after_s") for reason in REASONS}


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The read API. `auth` is none or keystone; none only ever listens on loopback. `streams` of its `threads` may wait
    for events."""

    host: str = "127.0.0.1"
    port: int = 8779
    auth: str = "none"
    threads: int = 32
    streams: int = 16


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where /metrics, /livez and /readyz are served; no authentication, so a management address at most."""

    host: str = "127.0.0.1"
    port: int = 9779


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """One receiver of the operator's own. `secret` None: requests are not signed. The URL may itself be a secret."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    event_types: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class SubscriptionsConfig:
    """Endpoints asked for over the API. `key_file` None: there is no key, and nobody can subscribe. `proxy` is the URL
    of a proxy for all of them, None for a direct way; `origin` what we call ourselves there, None for the name of the
    installation."""

    key_file: Path | None = None
    overlap_s: float = 86400.0
    max_per_project: int = 10
    max_operator: int = 100
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    denied_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    allow_http: bool = False
    allowed_ports: tuple[int, ...] = (443, 8443)
    proxy: str | None = field(default=None, repr=False)
    origin: str | None = None
    give_up_after_s: float = 432000.0
    probe_every_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class BusSinkConfig(BrokerConfig):
    """A topic of our own, for consumers in the control plane."""

    exchange: str = "maintd"
    topic: str = "maintd"
    event_types: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class ExecSinkConfig:
    """A program that is run for events: an absolute path and its arguments."""

    name: str
    argv: tuple[str, ...]
    timeout_s: float = 30.0
    event_types: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. `warnings` are sentences to log once; `library` holds [keystone_authtoken] and the like as text."""

    installation: str = "main"
    log: LogConfig = LogConfig()
    buses: tuple[BusConfig, ...] = ()
    cloud: CloudConfig | None = None
    database: DatabaseConfig = DatabaseConfig()
    drain: DrainConfig = DrainConfig()
    residue: ResidueConfig = ResidueConfig()
    services: ServicesConfig = ServicesConfig()
    stall: StallConfig = StallConfig()
    api: ApiConfig = ApiConfig()
    metrics: MetricsConfig = MetricsConfig()
    webhooks: tuple[WebhookConfig, ...] = ()
    tenants: TenantsConfig = TenantsConfig()
    subscriptions: SubscriptionsConfig = SubscriptionsConfig()
    bus_sinks: tuple[BusSinkConfig, ...] = ()
    exec_sinks: tuple[ExecSinkConfig, ...] = ()
    files: tuple[Path, ...] = ()
    library: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _NOTHING, repr=False)
    warnings: tuple[str, ...] = ()

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """Which event types each way out wants, by its group."""
        return {
            **{f"webhook:{hook.name}": hook.event_types for hook in self.webhooks},
            **{f"bus_sink:{sink.name}": sink.event_types for sink in self.bus_sinks},
            **{f"exec_sink:{sink.name}": sink.event_types for sink in self.exec_sinks},
        }


# --- reading ---------------------------------------------------------------------------------------------------------


def load(config_files: Sequence[Path], config_dir: Path | None = None) -> Config:
    """Read files, then the *.conf of a directory in the order of their names; what comes later wins.

    No file at all gives the defaults. Raises OperatorError, one sentence, at the first thing that is wrong.
    """
    files = tuple(config_files) + _files_of(config_dir)
    return _Reader(files).config()


def _files_of(directory: Path | None) -> tuple[Path, ...]:
    if directory is None:
        return ()
    try:
        return tuple(sorted(path for path in directory.iterdir() if path.suffix == ".conf"))
    except OSError as wrong:
        raise OperatorError(f"The configuration directory {directory} cannot be read: {_why(wrong)}.") from wrong


class _Reader:
    """One reading of some files: first who says what and where, then oslo.config's values, then our own checks."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self.files = files
        self.warnings: list[str] = []
        self.library: dict[str, dict[str, str]] = {}
        self.said: dict[tuple[str, str], tuple[Path, str]] = {}
        self.groups: dict[str, Path] = {}
        for path in files:
            self._scan(path)
        self.conf = cfg.ConfigOpts()
        for name, (_, opts) in GROUPS.items():
            self.conf.register_opts(opts, group=None if name == "DEFAULT" else name)
        self._check_names()
        # No command line, no environment: the files and nothing else.
        self.conf([], project="maintd", default_config_files=[str(path) for path in files], use_env=False)

    def _scan(self, path: Path) -> None:
        sections: dict[str, dict[str, list[str]]] = {}
        try:
            cfg.ConfigParser(str(path), sections).parse()
        except OSError as wrong:
            raise OperatorError(f"The configuration file {path} cannot be read: {_why(wrong)}.") from wrong
        except UnicodeDecodeError:
            raise OperatorError(f"The configuration file {path} is not text in UTF-8.") from None
        except cfg.ParseError as wrong:
            # The line itself may hold a secret.
            raise OperatorError(
                f"{path}, line {wrong.lineno}, cannot be understood: {wrong.msg}; an option is 'name = value', "
                "a group is '[name]'."
            ) from None
        secret = False
        for group, options in sections.items():
            self.groups.setdefault(group, path)
            for name, values in options.items():
                self.said[group, name] = (path, values[-1])
                secret = secret or _holds_secret(group, name, values[-1])
                if len(values) > 1:
                    self.warnings.append(f"{path}, [{group}] {name}: given {len(values)} times, the last one counts.")
        if secret:
            self._warn_where_open(path)

    def _warn_where_open(self, path: Path) -> None:
        """Of a file with a secret that everybody may read; one that is not there is said by whoever needs it."""
        with suppress(OSError):
            if path.stat().st_mode & stat.S_IROTH:
                self.warnings.append(f"{path} holds a secret and everybody may read it; run: chmod o-r {path}")

    # Names.

    def _check_names(self) -> None:
        for group, path in self.groups.items():
            kind, colon, name = group.partition(":")
            if group in GROUPS:
                continue
            if colon and kind in NAMED_GROUPS:
                if not NAME.fullmatch(name):
                    raise OperatorError(
                        f"{path}, [{group}]: the name of a {kind} is made of a-z, 0-9, '_' and '-' and has at most 63 "
                        "characters."
                    )
                self.conf.register_opts(NAMED_GROUPS[kind], group=group)
            elif LIBRARY.fullmatch(group):
                self._keep_library(group, path)
            else:
                groups = [*GROUPS, *(f"{kind}:NAME" for kind in NAMED_GROUPS)]
                raise OperatorError(f"{path}, [{group}]: maintd has no such group; {_nearest(group, groups)}.")
        for (group, name), (path, _) in self.said.items():
            known = self._known(group)
            if known is None or name in known:
                continue
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                # No '=' but a ':' somewhere: not a name, and perhaps a secret.
                raise OperatorError(f"{path}, [{group}]: a line in this group is not 'name = value'.")
            where = f"{path}, [{group}] {name}: maintd has no such option"
            elsewhere = [other for other, (_, opts) in GROUPS.items() if name in {opt.dest for opt in opts}]
            if elsewhere:
                raise OperatorError(f"{where} in this group; it belongs in [{elsewhere[0]}].")
            raise OperatorError(f"{where}; {_nearest(name, known)}.")

    def _known(self, group: str) -> set[str] | None:
        """The options that exist in a group; None for a library's."""
        if group in GROUPS:
            known = {opt.dest for opt in GROUPS[group][1]}
            return known | set(self._plugin_options()) if group == "cloud" else known
        kind, colon, _ = group.partition(":")
        return {opt.dest for opt in NAMED_GROUPS[kind]} if colon and kind in NAMED_GROUPS else None

    def _keep_library(self, group: str, path: Path) -> None:
        options = {name: value for (where, name), (_, value) in self.said.items() if where == group}
        if group in HANDED_ON:
            self.library[group] = options
            return
        for name in options:
            instead = INSTEAD.get(name) if group.startswith("oslo_messaging") else None
            hint = f"; use [bus] {instead}" if instead else ""
            self.warnings.append(f"{path}, [{group}] {name}: maintd does not read this group{hint}.")

    def _plugin_options(self) -> dict[str, bool]:
        """The options of the chosen keystoneauth plugin, and whether each is a secret; empty when none is asked for."""
        names = {name for (group, name) in self.said if group == "cloud"}
        if not names - {opt.dest for opt in CLOUD_OPTS if opt.dest != "auth_type"}:
            return {}
        from keystoneauth1 import loading  # slow to import, and most commands need no cloud

        auth_type = self.said.get(("cloud", "auth_type"), (None, "password"))[1]
        try:
            plugin: Any = loading.get_plugin_loader(auth_type)
        except Exception:  # whatever a plugin of somebody else's raises at import
            kinds = sorted(loading.get_available_plugin_names())
            raise self._wrong(
                "cloud", "auth_type", f"keystoneauth has no such plugin; {_nearest(auth_type, kinds)}"
            ) from None
        return {option.dest: option.secret for option in plugin.get_options()}

    # Values.

    def _wrong(self, group: str, name: str, reason: str) -> OperatorError:
        path, _ = self.said.get((group, name), (self.groups.get(group), ""))
        where = f"{path}, " if path else ""
        return OperatorError(f"{where}[{group}] {name}: {reason}.")

    def value(self, group: str, name: str) -> Any:
        """An option's value, converted and within its bounds."""
        holder = self.conf if group == "DEFAULT" else self.conf[group]
        try:
            value = holder[name]
        except (cfg.Error, ValueError) as wrong:
            raise self._refuse(group, name, wrong) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(group, name, f"{value} is not a number of seconds")
        return value

    def _refuse(self, group: str, name: str, wrong: Exception) -> OperatorError:
        if isinstance(wrong, (cfg.TemplateSubstitutionError, cfg.NoSuchOptError, cfg.NoSuchGroupError)):
            return self._wrong(group, name, "'$' begins the name of another option; write '$$' for the sign itself")
        opts = GROUPS[group][1] if group in GROUPS else NAMED_GROUPS[group.partition(":")[0]]
        opt = next(opt for opt in opts if opt.dest == name)
        text = "the value" if opt.secret else repr(self.said[group, name][1])
        return self._wrong(group, name, f"{text} is not {_wanted(opt)}")

    def text(self, group: str, name: str) -> str | None:
        """An option's text; empty is the same as not given."""
        value = self.value(group, name)
        return value.strip() or None if isinstance(value, str) else None

    def config(self) -> Config:
        """Everything, checked."""
        config = Config(
            installation=self.value("DEFAULT", "installation"),
            log=LogConfig(self.value("DEFAULT", "log_level"), self.value("DEFAULT", "log_format")),
            buses=self._buses(),
            cloud=self._cloud(),
            database=self._database(),
            drain=self._drain(),
            residue=self._fill(ResidueConfig, "residue"),
            services=self._fill(ServicesConfig, "services"),
            stall=self._stall(),
            api=self._api(),
            metrics=MetricsConfig(*self._listen("metrics")),
            webhooks=self._webhooks(),
            tenants=self._tenants(),
            subscriptions=self._subscriptions(),
            bus_sinks=tuple(self._bus_sink(name, f"bus_sink:{name}") for name in self._named("bus_sink", "bus_sinks")),
            exec_sinks=tuple(
                self._exec_sink(name, f"exec_sink:{name}") for name in self._named("exec_sink", "exec_sinks")
            ),
            files=self.files,
            library=MappingProxyType(self.library),
        )
        self._check_one_name_each(config)
        return _with_warnings(config, self.warnings)

    def _check_one_name_each(self, config: Config) -> None:
        """Deliveries and metrics know a way out by its name alone."""
        taken: dict[str, str] = {}
        for group in config.wanted():
            kind, _, name = group.partition(":")
            if name in taken:
                raise self._wrong(f"{kind}s", "enabled", f"{name} is the name of [{taken[name]}] already")
            taken[name] = group

    def _fill(self, kind: Callable[..., T], group: str, **given: Any) -> T:
        opts = GROUPS[group][1]
        return kind(**{opt.dest: self.value(group, opt.dest) for opt in opts if opt.dest not in given} | given)

    def _drain(self) -> DrainConfig:
        globs = {name: tuple(self.value("drain", name)) for name in ("reason_match", "removal_match")}
        return self._fill(DrainConfig, "drain", **globs)

    def _tenants(self) -> TenantsConfig:
        tenants = self._fill(TenantsConfig, "tenants")
        if tenants.enabled and self.value("api", "auth") == "none":
            self.warnings.append(
                f"{self.groups['tenants']}, [tenants] enabled: no owner can ask or subscribe, because [api] auth is "
                "none; only webhooks whose event_types name maintd.server. are sent these events."
            )
        return tenants

    def _stall(self) -> StallConfig:
        reasons: list[str] = self.value("stall", "observe_only")
        for reason in reasons:
            if reason not in REASONS:
                no = f"{reason!r} is no reason to call a migration stalled; {_nearest(reason, REASONS)}"
                raise self._wrong("stall", "observe_only", no)
        said = ("stall", "observe_only") in self.said
        return self._fill(StallConfig, "stall", observe_only=tuple(reasons), observe_only_said=said)

    def _named(self, kind: str, enabled: str) -> list[str]:
        """The names in a list of names, each with a group of its own."""
        names: list[str] = self.value(enabled, "enabled")
        for name in names:
            if not NAME.fullmatch(name):
                raise self._wrong(enabled, "enabled", f"{name!r} is no name; it is made of a-z, 0-9, '_' and '-'")
            if names.count(name) > 1:
                raise self._wrong(enabled, "enabled", f"{name} is there twice")
            if f"{kind}:{name}" not in self.groups:
                raise self._wrong(enabled, "enabled", f"there is no group [{kind}:{name}]; add it")
        for group in self.groups:
            said = any(where == group for where, _ in self.said)
            if said and group.startswith(f"{kind}:") and group.partition(":")[2] not in names:
                self.warnings.append(
                    f"{self.groups[group]}, [{group}]: not used, because [{enabled}] enabled does not name it."
                )
        return names

    def _buses(self) -> tuple[BusConfig, ...]:
        buses = []
        if self.text("bus", "transport_url"):
            buses.append(self._bus("default", "bus"))
        elif any(group == "bus" for group, _ in self.said):
            self.warnings.append(f"{self.groups['bus']}, [bus]: not used, because it has no transport_url.")
        for name in self._named("bus", "buses"):
            if name == "default":
                raise self._wrong("buses", "enabled", "default is the name of [bus] itself; choose another")
            buses.append(self._bus(name, f"bus:{name}"))
        return tuple(buses)

    def _bus(self, name: str, group: str) -> BusConfig:
        url = self.text(group, "transport_url")
        if url is None:
            raise self._wrong(group, "transport_url", "an enabled bus needs one, such as rabbit://user:pass@host:5672/")
        if reason := _bad_transport_url(url):
            raise self._wrong(group, "transport_url", reason)
        values = self._broker_values(group, BUS_OPTS) | {"transport_url": url, "pool": self.text(group, "pool")}
        return BusConfig(name=name, **values)

    def _broker_values(self, group: str, opts: Iterable[cfg.Opt]) -> dict[str, Any]:
        """A group's options where some of them are TLS's, which have to fit together."""
        values = {opt.dest: self.value(group, opt.dest) for opt in opts}
        for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
            values[name] = self.text(group, name)
        if (values["ssl_cert_file"] is None) != (values["ssl_key_file"] is None):
            raise self._wrong(group, "ssl_cert_file", "ssl_cert_file and ssl_key_file go together")
        if not values["ssl"] and (values["ssl_ca_file"] or values["ssl_cert_file"]):
            raise self._wrong(group, "ssl", "certificates are given but ssl is false; set ssl = true")
        return values

    def _cloud(self) -> CloudConfig | None:
        said = {name for group, name in self.said if group == "cloud"}
        own = {opt.dest for opt in CLOUD_OPTS}
        cloud = self.text("cloud", "cloud")
        auth = {name: self._plugin_value(name) for name in said - own}
        auth = {name: value for name, value in auth.items() if value}
        if cloud is None and not auth:
            if said:
                self.warnings.append(
                    f"{self.groups['cloud']}, [cloud]: not used, because it has neither cloud nor auth_url."
                )
            return None
        if cloud is not None and (auth or "auth_type" in said):
            other = min(auth or {"auth_type"})
            raise self._wrong("cloud", other, "goes with clouds.yaml or not at all; remove it, or remove cloud")
        if cloud is None:
            self._check_auth(auth)
            auth["auth_type"] = self.value("cloud", "auth_type")
        return CloudConfig(
            cloud=cloud,
            options=MappingProxyType(auth),
            region_name=self.text("cloud", "region_name"),
            interface=self.text("cloud", "interface"),
            timeout_s=self.value("cloud", "timeout_s"),
            cafile=self.text("cloud", "cafile"),
            certfile=self.text("cloud", "certfile"),
            keyfile=self.text("cloud", "keyfile"),
            insecure=self.value("cloud", "insecure"),
        )

    def _plugin_value(self, name: str) -> str:
        if name in {opt.dest for opt in AUTH_OPTS}:
            return self.text("cloud", name) or ""
        self.conf.register_opt(cfg.StrOpt(name, secret=True), group="cloud")
        try:
            return self.conf["cloud"][name] or ""
        except (cfg.Error, ValueError) as wrong:
            raise self._wrong("cloud", name, f"cannot be used ({type(wrong).__name__}); write '$$' for '$'") from None

    def _check_auth(self, auth: dict[str, str]) -> None:
        from keystoneauth1 import loading

        auth_type = self.value("cloud", "auth_type")
        accepted = self._plugin_options()
        for name in sorted(set(auth) - set(accepted)):
            raise self._wrong("cloud", name, f"auth_type {auth_type} does not take it")
        if "auth_url" in accepted:
            url = auth.get("auth_url")
            if url is None:
                raise self._wrong("cloud", "auth_url", "missing; give Keystone's URL, or cloud to use clouds.yaml")
            if reason := _bad_http_url(url):
                raise self._wrong("cloud", "auth_url", reason)
        try:
            loading.get_plugin_loader(auth_type).load_from_options(**auth)
        except Exception as wrong:
            known = type(wrong).__module__.startswith("keystoneauth1")
            reason = str(wrong) if known else type(wrong).__name__
            raise self._wrong("cloud", "auth_type", f"{auth_type} cannot be set up: {reason.rstrip('.')}") from None

    def _database(self) -> DatabaseConfig:
        connection = self.text("database", "connection") or ""
        scheme = connection.partition(":")[0]
        base, _, driver = scheme.partition("+")
        if base not in ("sqlite", "mysql", "mariadb", "postgresql") or ":" not in connection:
            raise self._wrong(
                "database",
                "connection",
                "not an SQLAlchemy URL of sqlite, mysql+pymysql or postgresql+psycopg, such as "
                "sqlite:////var/lib/maintd/maintd.sqlite",
            )
        drivers = {"sqlite": ("", "pysqlite"), "postgresql": ("psycopg",)}.get(base, ("pymysql",))
        if driver not in drivers:
            raise self._wrong("database", "connection", f"begin it with {base}+{drivers[0]}://".replace("+://", "://"))
        return self._fill(DatabaseConfig, "database", connection=connection)

    def _listen(self, group: str) -> tuple[str, int]:
        text = self.value(group, "listen")
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
        if found is None or int(found[3]) > 65535:
            raise self._wrong(group, "listen", f"{text!r} is not HOST:PORT, such as 127.0.0.1:8779 or [::1]:8779")
        return found[1] or found[2], int(found[3])

    def _api(self) -> ApiConfig:
        host, port = self._listen("api")
        auth = self.value("api", "auth")
        if auth == "none" and not is_loopback(host):
            raise self._wrong(
                "api",
                "listen",
                f"with auth none maintd only listens on loopback, and {host} is not; "
                "use 127.0.0.1, or set auth = keystone",
            )
        if auth == "keystone" and not self.library.get("keystone_authtoken"):
            raise self._wrong("api", "auth", "keystone needs a group [keystone_authtoken], as Nova has one")
        if auth == "none" and self.library.get("oslo_policy"):
            self.warnings.append(f"{self.groups['oslo_policy']}, [oslo_policy]: not used, because [api] auth is none.")
        threads, streams = self.value("api", "threads"), self.value("api", "streams")
        if streams > threads // 2:
            raise self._wrong(
                "api",
                "streams",
                f"{streams} is more than half of threads, which is {threads}; the other requests need the other half",
            )
        return ApiConfig(host, port, auth, threads, streams)

    def _key_file(self) -> Path | None:
        """The file that is named, else the credential that systemd hands over, where it does."""
        named = self.text("subscriptions", "key_file")
        if named is not None:
            self._warn_where_open(Path(named))
            return Path(named)
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        found = Path(credentials, "maintd-subscriptions") if credentials else None
        # The unit puts an empty one in the place of one that is missing.
        return found if found is not None and found.is_file() and found.stat().st_size > 1 else None

    def _webhooks(self) -> tuple[WebhookConfig, ...]:
        return tuple(self._webhook(name, f"webhook:{name}") for name in self._named("webhook", "webhooks"))

    def _webhook(self, name: str, group: str) -> WebhookConfig:
        if name.startswith("sub-"):
            raise OperatorError(
                f"{self.groups[group]}, [{group}]: 'sub-' begins the names of subscriptions; choose another name."
            )
        url = self.text(group, "url")
        if url is None:
            raise self._wrong(group, "url", "an enabled webhook needs one, such as https://receiver.example/maintd")
        if reason := _bad_http_url(url):
            raise self._wrong(group, "url", reason)
        secret = self.text(group, "secret")
        if secret is None:
            self.warnings.append(
                f"{self.groups[group]}, [{group}] secret: missing, so the receiver cannot tell our events from others."
            )
        elif reason := _bad_secret(secret):
            raise self._wrong(group, "secret", reason)
        return WebhookConfig(name, url, secret, self._event_types(group))

    def _event_types(self, group: str) -> tuple[str, ...]:
        globs = tuple(self.value(group, "event_types"))
        for glob in globs or ("",):
            if not re.fullmatch(r"[A-Za-z0-9_.*?\[\]!-]+", glob):
                raise self._wrong(group, "event_types", f"{glob!r} is no glob over event types, such as maintd.host.*")
        return globs

    def _bus_sink(self, name: str, group: str) -> BusSinkConfig:
        url = self.text(group, "transport_url")
        if url is None:
            raise self._wrong(
                group, "transport_url", "an enabled bus sink needs one, such as rabbit://user:pass@host:5672/"
            )
        if not url.startswith("rabbit://"):
            raise self._wrong(group, "transport_url", "begins with rabbit:// or reaches nobody outside of maintd")
        if reason := _bad_transport_url(url):
            raise self._wrong(group, "transport_url", reason)
        values = self._broker_values(group, BUS_SINK_OPTS)
        values |= {"transport_url": url, "event_types": self._event_types(group)}
        return BusSinkConfig(name=name, **values)

    def _exec_sink(self, name: str, group: str) -> ExecSinkConfig:
        program = self.text(group, "program")
        if program is None:
            raise self._wrong(group, "program", "an enabled exec sink needs one, such as /usr/local/bin/on-event")
        try:
            argv = tuple(shlex.split(program))
        except ValueError as wrong:
            what = f"cannot be split into words ({str(wrong).lower()}); close what is open"
            raise self._wrong(group, "program", what) from None
        if reason := _bad_program(argv[0] if argv else ""):
            raise self._wrong(group, "program", reason)
        return ExecSinkConfig(name, argv, self.value(group, "timeout_s"), self._event_types(group))

    def _subscriptions(self) -> SubscriptionsConfig:
        allowed, denied = self._networks("allowed_networks"), self._networks("denied_networks")
        for network in allowed:
            if any(network.overlaps(own) and network.prefixlen < own.prefixlen for own in _OWN_NETWORKS):
                why = (
                    f"{network} has this machine itself and the metadata service in it; name the networks of receivers"
                )
                raise self._wrong("subscriptions", "allowed_networks", why)
        ports: list[int] = self.value("subscriptions", "allowed_ports")
        if not ports:
            raise self._wrong("subscriptions", "allowed_ports", "without a port nothing can be sent")
        proxy = self.text("subscriptions", "proxy")
        if proxy is not None and (reason := _bad_proxy(proxy)):
            raise self._wrong("subscriptions", "proxy", reason)
        return self._fill(
            SubscriptionsConfig,
            "subscriptions",
            key_file=self._key_file(),
            allowed_networks=allowed,
            denied_networks=denied,
            allowed_ports=tuple(ports),
            proxy=proxy,
        )

    def _networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        networks = []
        for text in self.value("subscriptions", name):
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as wrong:
                host_bits = "host bits" in str(wrong)
                why = "has bits set behind its prefix" if host_bits else "is no network such as 10.20.0.0/16"
                raise self._wrong("subscriptions", name, f"{text!r} {why}") from None
        return tuple(networks)


# --- small judgements ------------------------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _with_warnings(config: Config, warnings: Iterable[str]) -> Config:
    return replace(config, warnings=tuple(dict.fromkeys(warnings)))


def _holds_secret(group: str, name: str, value: str) -> bool:
    """Whether an option of a file is one that other users of the machine must not read."""
    if name in ("transport_url", "connection", "proxy"):
        return "@" in value
    if group in HANDED_ON:
        return "password" in name or "secret" in name
    return value != "" and name in ("secret", "password", "application_credential_secret", "token", "passcode")


def _why(wrong: OSError) -> str:
    return (wrong.strerror or type(wrong).__name__).lower()


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"


def _wanted(opt: cfg.Opt) -> str:
    """What an option takes, for the end of a sentence."""
    kind = opt.type
    if isinstance(kind, opt_types.Number):
        whole = "a whole number" if isinstance(kind, opt_types.Integer) else "a number"
        return f"{whole} from {kind.min:.15g} to {kind.max:.15g}"
    if isinstance(kind, opt_types.Boolean):
        return "true or false"
    choices = getattr(kind, "choices", None)
    if choices:
        return f"one of {', '.join(choices)}"
    unit = (opt.help or "").rpartition("Unit: ")[2].rstrip(".")
    return unit if unit not in ("", "none") else "made as etc/maintd/maintd.conf says"


def _bad_http_url(url: str) -> str | None:
    """What is wrong with a URL to send requests to; never repeats it, for it may hold a secret."""
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        return "not a URL; its port or its [IPv6 address] is malformed"
    if parts.scheme not in ("http", "https"):
        return "not a URL that begins with http:// or https://"
    if not parts.hostname or re.search(r"[\s\x00-\x1f]", url) or port == 0:
        return "not a URL with a host, such as https://receiver.example/maintd"
    if parts.fragment:
        return "a URL to send to has no '#'"
    return None


def _bad_proxy(url: str) -> str | None:
    """What is wrong with a proxy's URL; never repeats it."""
    if _bad_http_url(url) is None:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.path in ("", "/") and not parts.query:
            return None
    return "not http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"


def _bad_transport_url(url: str) -> str | None:
    """What is wrong with a transport URL; never repeats it."""
    scheme, slashes, rest = url.partition("://")
    if scheme not in ("rabbit", "kombu+memory", "fake") or not slashes:
        return "begins with none of rabbit://, kombu+memory://, fake://"
    if scheme != "rabbit":
        return None
    for place in rest.partition("/")[0].split(","):
        address = place.rpartition("@")[2]
        found = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", address)
        if found is None or place.count("@") > 1 or int(found[1] or 5672) > 65535:
            return (
                "not rabbit://USER:PASSWORD@HOST:PORT/VHOST (several USER:PASSWORD@HOST:PORT by commas); "
                "'@', ':', '/' and ',' in the password are written %40, %3A, %2F and %2C"
            )
    return None


def _bad_secret(secret: str) -> str | None:
    """What is wrong with a Standard Webhooks secret; never repeats it."""
    prefix, _, body = secret.partition("_")
    if prefix != "whsec":
        return "a secret begins with whsec_"
    try:
        size = len(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        return "what follows whsec_ is not base64"
    return None if 24 <= size <= 64 else f"holds {size} bytes, and a secret has 24 to 64"


def _bad_program(path: str) -> str | None:
    """Why a program could not be run."""
    if not path.startswith("/"):
        return f"{path!r} is no absolute path; there is no shell that would look for it"
    try:
        mode = Path(path).stat().st_mode
    except OSError as wrong:
        return f"{path} cannot be run: {_why(wrong)}"
    if not stat.S_ISREG(mode):
        return f"{path} cannot be run: it is no file"
    return None if os.access(path, os.X_OK) else f"{path} cannot be run: it is not executable; run: chmod +x {path}"
