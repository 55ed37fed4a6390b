"""Who may ask what: the caller of a request, and the policy that says what a caller may do.

With `[api] auth = keystone` keystonemiddleware checks the token and replaces whatever identity a request claims for
itself; the roles in its answer decide, by rules of oslo.policy. Each line of the table of routes (`server.ROUTES`)
names what it needs: a rule for operators, who see all, and, only where a project has anything of its own behind it, a
second rule for projects. Whoever passes the first is an operator there; whoever passes only the second is answered
about its own project, as if nothing else were there. A route without a second rule is closed to projects, and so is
everything while projects are not told anything (`[tenants] enabled`).

The rules are code; an operator's file (`[oslo_policy] policy_file`) may change each. It is read once, at start, and one
that cannot be understood is refused then: oslo.policy itself would go on without it. With `auth = none` whoever reaches
the API is an operator, and it is never served beyond the loopback (`server.HttpServer`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import falcon

from maintd.errors import OperatorError, OurFault


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `project_id` is the token's project, whether or not the caller is an operator."""

    operator: bool
    project_id: str | None = None
    user_id: str | None = None
    roles: frozenset[str] = frozenset()
    system_scope: str | None = None

    @property
    def owner(self) -> str | None:
        """Whose things are answered for: a project's, or None for the operators'."""
        if not self.operator and self.project_id is None:
            raise OurFault("a request of neither an operator nor a project was let in")
        return None if self.operator else self.project_id


OPERATOR: Final = Caller(operator=True)
"""Whoever reaches an API without authentication."""


class Needs(NamedTuple):
    """The rules of a route: what makes an operator there, and what suffices for a project's own (None: nothing)."""

    operator: str
    own: str | None = None


FLEET_READ: Final = Needs("maintd:fleet:read")
FLEET_WRITE: Final = Needs("maintd:fleet:write")
EVENTS_READ: Final = Needs("maintd:events:read", "maintd:events:read_own")
SERVERS_READ: Final = Needs("maintd:servers:read", "maintd:servers:read_own")
DELIVERIES_READ: Final = Needs("maintd:deliveries:read", "maintd:deliveries:read_own")
DELIVERIES_WRITE: Final = Needs("maintd:deliveries:write", "maintd:deliveries:write_own")
SUBSCRIPTIONS_READ: Final = Needs("maintd:subscriptions:read", "maintd:subscriptions:read_own")
SUBSCRIPTIONS_WRITE: Final = Needs("maintd:subscriptions:write", "maintd:subscriptions:write_own")


class Rule(NamedTuple):
    """A rule: its text unless a file says otherwise, and what it permits."""

    default: str
    about: str


_OPERATOR_READS: Final = "rule:maintd:operator:read"
_OPERATOR_WRITES: Final = "rule:maintd:operator:write"
_PROJECT_READS: Final = "rule:maintd:project:read"
_PROJECT_WRITES: Final = "rule:maintd:project:write"

RULES: Final[Mapping[str, Rule]] = {
    "maintd:operator:read": Rule(
        "role:admin or role:service or (role:reader and system_scope:all)",
        "See everything: every host, every project's servers, all that was said and sent.",
    ),
    "maintd:operator:write": Rule("role:admin", "Change what is the operators'."),
    "maintd:project:read": Rule("role:reader and project_id:%(project_id)s", "See what is the token's project's own."),
    "maintd:project:write": Rule("role:member and project_id:%(project_id)s", "Change what is the project's own."),
    "maintd:fleet:read": Rule(_OPERATOR_READS, "Status, hosts, drains, migrations, stalls and residue."),
    "maintd:fleet:write": Rule(_OPERATOR_WRITES, "Begin a drain, clear residue."),
    "maintd:events:read": Rule(_OPERATOR_READS, "The operators' event log, and any project's."),
    "maintd:events:read_own": Rule(_PROJECT_READS, "The project's own event log."),
    "maintd:servers:read": Rule(_OPERATOR_READS, "What touches the servers of any project."),
    "maintd:servers:read_own": Rule(_PROJECT_READS, "What touches the project's own servers."),
    "maintd:deliveries:read": Rule(_OPERATOR_READS, "All deliveries and the attempts at them."),
    "maintd:deliveries:read_own": Rule(_PROJECT_READS, "Deliveries to the project's own subscriptions."),
    "maintd:deliveries:write": Rule(_OPERATOR_WRITES, "Send any delivery again."),
    "maintd:deliveries:write_own": Rule(_PROJECT_WRITES, "Send deliveries to the project's own subscriptions again."),
    "maintd:subscriptions:read": Rule(_OPERATOR_READS, "The operators' subscriptions, and any project's."),
    "maintd:subscriptions:read_own": Rule(_PROJECT_READS, "The project's own subscriptions."),
    "maintd:subscriptions:write": Rule(
        _OPERATOR_WRITES, "Make and change the operators' subscriptions; try, pause and delete any project's."
    ),
    "maintd:subscriptions:write_own": Rule(_PROJECT_WRITES, "Make and change the project's own subscriptions."),
}
"""Every rule there is. What they do not permit is not permitted."""


# --- the policy ------------------------------------------------------------------------------------------------------


class Policies:
    """The rules as an operator's file leaves them."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """`options` are those of [oslo_policy], as text. Raises OperatorError for what cannot be used."""
        from oslo_policy import policy

        path = _policy_file(options)
        changed = {} if path is None else _read(path)
        self._enforcer = policy.Enforcer(_conf(options), use_conf=False)
        self._enforcer.register_defaults(
            [policy.RuleDefault(name, changed.pop(name, rule.default), rule.about) for name, rule in RULES.items()]
        )
        # What else a file defines are rules of its own, for ours to refer to.
        self._enforcer.register_defaults([policy.RuleDefault(name, text) for name, text in changed.items()])
        rules = {name: default.check for name, default in self._enforcer.registered_rules.items()}
        self._enforcer.set_rules(rules)
        with _muted("oslo_policy"):
            try:
                self._enforcer.check_rules(raise_on_violation=True)
            except policy.InvalidDefinitionError as wrong:
                names = ", ".join(re.findall(r"'([^']+)'", str(wrong)))
                raise _wrong(f"{path}: refers to a rule that is not defined, or to itself: {names}") from None

    def allow(self, rule: str, caller: Caller) -> bool:
        """Whether a rule lets a caller in, who asks for what is its own project's."""
        own = {} if caller.project_id is None else {"project_id": caller.project_id}
        credentials = {"roles": sorted(caller.roles), **own}
        for name, value in (("user_id", caller.user_id), ("system_scope", caller.system_scope)):
            if value is not None:
                credentials[name] = value
        return bool(self._enforcer.authorize(rule, own, credentials))


def _conf(options: Mapping[str, str]) -> Any:
    """What oslo.policy wants to be configured by: made of the options handed on, read from nowhere."""
    from oslo_config import cfg
    from oslo_policy import opts

    conf = cfg.ConfigOpts()
    conf([], project="maintd", default_config_files=[], default_config_dirs=[], use_env=False)
    opts.set_defaults(conf)
    known = [name for name in conf.oslo_policy if name != "policy_dirs"]
    for name, text in options.items():
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise OperatorError(f"[oslo_policy] {name}: maintd has no such option; the nearest is {near}.")
        try:
            conf.set_override(name, text, "oslo_policy")
        except (ValueError, cfg.Error):
            raise OperatorError(f"[oslo_policy] {name}: {text!r} is not a value that oslo.policy takes.") from None
    return conf


def _policy_file(options: Mapping[str, str]) -> Path | None:
    text = options.get("policy_file", "").strip()
    if not text:
        return None
    if not Path(text).is_absolute():
        raise _wrong(f"{text!r} is not a whole path, such as /etc/maintd/policy.yaml")
    return Path(text)


def _read(path: Path) -> dict[str, Any]:
    """The rules in a file, by name. Raises OperatorError for a file or a rule that cannot be understood."""
    from oslo_policy import policy

    try:
        rules = policy.parse_file_contents(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise _wrong(f"{path} cannot be read ({(wrong.strerror or type(wrong).__name__).lower()})") from None
    except ValueError as wrong:
        raise _wrong(f"{path} is not YAML ({' '.join(str(wrong).split())})") from None
    if not isinstance(rules, dict):
        raise _wrong(f'{path} holds no rules; a rule is a line such as "maintd:fleet:read": "role:admin"')
    for name, text in rules.items():
        if str(name).startswith("maintd:") and name not in RULES:
            near = get_close_matches(name, RULES, n=1, cutoff=0.0)[0]
            raise _wrong(f"{path}: maintd has no rule {name!r}; the nearest is {near}")
        if not isinstance(text, str) or not _understood(text):
            raise _wrong(f"{path}: the rule {name!r} cannot be understood: {text!r}")
    return dict(rules)


_CREDENTIALS: Final = ("project_id", "user_id", "system_scope")
"""What a rule may compare, besides roles."""


def _understood(text: str) -> bool:
    """Whether a rule can be parsed and compares what there is. oslo.policy closes any other without a word."""
    from oslo_policy import policy

    with _muted("oslo_policy"):
        checks = list(_parts(policy.RuleDefault("maintd", text).check))
    closed = sum(type(check).__name__ == "FalseCheck" for check in checks)
    compared = [check.kind for check in checks if type(check).__name__ == "GenericCheck"]
    literal = re.compile(r"'.*'|\".*\"|True|False|None|[0-9]+")
    return closed == len(re.findall(r"(?<![^\s(])!(?![^\s)])", text)) and all(
        kind in _CREDENTIALS or literal.fullmatch(kind) for kind in compared
    )


def _parts(check: Any) -> Iterator[Any]:
    """A check and all that it is made of."""
    yield check
    for part in (*getattr(check, "rules", ()), *([check.rule] if hasattr(check, "rule") else [])):
        yield from _parts(part)


def _wrong(what: str) -> OperatorError:
    return OperatorError(f"[oslo_policy] policy_file: {what}.")


@contextmanager
def _muted(library: str) -> Iterator[None]:
    """Keep a library from logging what is raised as a sentence."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- the guard -------------------------------------------------------------------------------------------------------


class Guard:
    """Refuses requests without a valid token, and tells what the caller of the others may do."""

    def __init__(self, policies: Policies, keystone_url: str | None, *, open_to_projects: bool) -> None:
        """`keystone_url` is Keystone's public address, for whoever comes without a token; None: it is not told."""
        self._policies = policies
        self._challenge = f'Keystone uri="{keystone_url}"' if keystone_url else "Keystone"
        self._open_to_projects = open_to_projects

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Before anything is looked up: without a token there is no answer, not even about what exists."""
        if req.env.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
            raise falcon.HTTPUnauthorized(
                title="No valid token",
                description="Send a valid Keystone token in X-Auth-Token (maintd's commands take it from OS_TOKEN).",
                challenges=[self._challenge],
            )

    def caller(self, req: falcon.Request, needs: Needs) -> Caller:
        """Who asks, and whether as an operator. Raises a 403 with a sentence."""
        caller = _caller(req.env)
        if self._policies.allow(needs.operator, caller):
            return replace(caller, operator=True)
        if needs.own is None:
            raise _forbidden(f"This is for operators, and your token's roles do not permit it ({needs.operator}).")
        if not self._open_to_projects:
            raise _forbidden("This maintd answers operators only: it is not open to projects ([tenants] enabled).")
        if caller.project_id is None:
            raise _forbidden("Your token is for no project: take one for the project whose servers this is about.")
        if not self._policies.allow(needs.own, caller):
            raise _forbidden(f"Your token's roles do not permit this ({needs.own}).")
        return caller


def _caller(env: Mapping[str, Any]) -> Caller:
    """The caller as keystonemiddleware found it; not yet an operator."""
    roles = (role.strip() for role in (env.get("HTTP_X_ROLES") or "").split(","))
    # The header for the scope is the service token's where there is one (keystonemiddleware, _set_auth_headers).
    token = (env.get("keystone.token_info") or {}).get("token", {})
    return Caller(
        operator=False,
        project_id=env.get("HTTP_X_PROJECT_ID") or None,
        user_id=env.get("HTTP_X_USER_ID") or None,
        roles=frozenset(role for role in roles if role),
        system_scope="all" if token.get("system", {}).get("all") else None,
    )


def _forbidden(description: str) -> falcon.HTTPForbidden:
    return falcon.HTTPForbidden(title="Not permitted", description=description)


def checked(app: Callable[..., Any], keystone: Mapping[str, str]) -> Callable[..., Any]:
    """The application behind keystonemiddleware. `keystone` are the options of [keystone_authtoken], as text."""
    from keystonemiddleware.auth_token import AuthProtocol

    # Left to the middleware, a refusal would be a page; `Guard` says it as the API says everything.
    protocol: Any = AuthProtocol(app, {**keystone, "delay_auth_decision": "true"})
    # All it does there is to add a second challenge to a 401, with auth_url, which may be an internal address, where
    # no public one is set.
    protocol.process_response = lambda response: response
    checked_app: Callable[..., Any] = protocol
    return checked_app
