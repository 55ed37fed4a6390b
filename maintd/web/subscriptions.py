"""Subscriptions: who wants to be told, where and of what; made, changed and tried over the API.

A subscription is an operator's and is told what operators are told, or a project's own and is told of its own servers
only. A project finds its own and no other: another's is not there (404). Operators see everybody's, for somebody must
be able to stop one; but what a project's subscription says, and its secret, are the project's alone.

Nothing is sent to a URL before it is verified, and a URL that is changed is unverified again. Judging a URL, verifying
and trying it are the dispatcher's affair: they come as functions (`WebApp`). Here a request becomes a row, or a
sentence that says why not. No answer but the two that make a secret shows one.
"""

from __future__ import annotations

import re
import secrets
import uuid
from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import falcon
import structlog

from maintd.domain.audiences import default_patterns, fault_of
from maintd.errors import OperatorError
from maintd.store import Subscription
from maintd.store.subscriptions import ACTIVE, DISABLED, PAUSED, UNVERIFIED
from maintd.web.asking import (
    AFTER,
    LIMIT,
    Asked,
    Field,
    bad,
    choice,
    flag,
    for_operators,
    storable,
    text,
    truth,
    unknown,
)
from maintd.web.operations import Answer, members, nothing_of_that_name, operation, page, ref, single
from maintd.web.seats import NoSeat, Seat, come_back
from maintd.web.shapes import attempt_shape, moment, subscription_fields

log = structlog.get_logger(__name__)

NAME_CHARS: Final = 64
URL_CHARS: Final = 2048
KEY_CHARS: Final = 255
PATTERNS_MAX: Final = 20
SERVERS_MAX: Final = 500
SECRET_BYTES: Final = 32

_PATTERN: Final = r"[A-Za-z0-9_.*?\[\]!-]{1,128}"
_SERVER: Final = r"[A-Za-z0-9-]{1,64}"


# --- what can be given -----------------------------------------------------------------------------------------------


def _line(name: str, about: str, longest: int, *, missing: str | None = None, clears: bool = False) -> Field:
    """A text of one line, without space around it; with `clears`, null or nothing takes away what was there."""

    def read(name: str, value: Any) -> str | None:
        if clears and value in (None, ""):
            return None
        fits = isinstance(value, str) and 0 < len(value) <= longest and storable(value)
        if not (fits and value.isprintable() and value.strip() == value):
            raise bad(f"{name} must be a text of 1 to {longest} characters, without space around it.")
        return str(value)

    kind = ["string", "null"] if clears else "string"
    schema = {"type": kind, "maxLength": longest} | ({} if clears else {"minLength": 1})
    return Field(name, about, schema, read, missing=missing)


def _several(name: str, about: str, most: int, pattern: str, what: str) -> Field:
    """A list of texts; null is the same as an empty one."""

    def read(name: str, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if not (
            isinstance(value, list)
            and len(value) <= most
            and all(isinstance(one, str) and re.fullmatch(pattern, one) for one in value)
        ):
            raise bad(f"{name} must be a list of at most {most} {what}.")
        return tuple(dict.fromkeys(value))

    schema = {
        "type": ["array", "null"],
        "items": {"type": "string", "pattern": f"^(?:{pattern})$"},
        "maxItems": most,
    }
    return Field(name, about, schema, read)


_NAME: Final = _line("name", "what you call it", NAME_CHARS)
_URL: Final = _line("url", "where events are sent", URL_CHARS)
_CHOSEN: Final = (
    _several("event_types", "globs over the types that are sent; none: all that there are for its owner", PATTERNS_MAX,
             _PATTERN, "globs over event types"),
    _several("servers", "only about these servers, by id; none: all of the project's", SERVERS_MAX, _SERVER,
             "ids of servers"),
    _line("metadata_key", "only about servers whose metadata has this key", KEY_CHARS, clears=True),
)  # fmt: skip
_ID: Final = text("subscription_id", "the subscription, by its id")
_NONE_SUCH: Final = nothing_of_that_name("subscription")
_NOT_NOW: Final = {**_NONE_SUCH, 409: "It stands so that this cannot be done; the description says how."}
_NOT_YOURS: Final = {403: "It is a project's, or there are too many; the description says which."}


def subscription_shape(one: Subscription, asked: Asked) -> dict[str, Any]:
    """A subscription without its secrets. Of a project's URL an operator sees only where it leads: the rest may be a
    secret."""
    url = urlsplit(one.url)
    return {
        **subscription_fields(one),
        "scope": "operator" if one.project_id is None else "project",
        "url": one.url if _owns(asked, one) else f"{url.scheme}://{url.netloc}/...",
        "failing_since": moment(one.failing_since),
        "previous_secret_until": moment(one.previous_until) if _overlaps(one, asked.web.clock.now()) else None,
    }


# --- reading ---------------------------------------------------------------------------------------------------------


@operation(
    page("subscriptions", "Subscription"),
    query=(
        AFTER,
        LIMIT,
        for_operators(text("project_id", "this project's, in place of the operators'")),
        for_operators(flag("all", "everybody's")),
    ),
)
def subscriptions(asked: Asked) -> dict[str, Any]:
    """GET /v1/subscriptions: by id. A project's own; for operators the operators', with `project_id` that project's,
    with `all=true` everybody's."""
    owner = asked.caller.owner or asked["project_id"]
    everybody, after, store = bool(asked["all"]), asked["after"] or "", asked.web.store.subscriptions
    if everybody and owner is not None:
        raise bad("Give project_id or all, not both.")
    return asked.page(
        "subscriptions",
        lambda limit: store.list(project_id=owner, everybody=everybody, after=after, limit=limit),
        lambda one: one.id,
        lambda one: subscription_shape(one, asked),
    )


@operation(single("Subscription", "The subscription."), path=(_ID,), errors=_NONE_SUCH)
def subscription(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """GET /v1/subscriptions/{subscription_id}: one subscription and how it stands."""
    return subscription_shape(_found(asked, subscription_id), asked)


# --- making and changing ---------------------------------------------------------------------------------------------


@operation(
    {201: Answer("It is made.", ref("SubscriptionWithSecret"))},
    body=(
        replace(_NAME, missing="A subscription needs a name."),
        replace(_URL, missing="A subscription needs a url."),
        *_CHOSEN,
        choice("scope", "whose it is to be; else a project's for a project, the operators' for an operator",
               ("operator", "project")),
        _line("project_id", "the project, for an operator who makes one for it", KEY_CHARS),
    ),
    errors={**_NOT_YOURS, 409: "There is no key to encrypt its secret with, or projects are told nothing."},
)  # fmt: skip
def create(asked: Asked) -> tuple[int, dict[str, Any]]:
    """POST /v1/subscriptions: make one; `secret` is in this answer and in no other.

    `name` and `url` must be given; `event_types` (globs), and for a project `servers` (ids) and `metadata_key`, narrow
    what is sent. For operators `scope` is operator, or project with a `project_id` (else the token's).
    """
    project_id = _project_of_new(asked)
    wanted = _members(asked, project=project_id is not None)
    wanted.setdefault("event_types", default_patterns(project=project_id is not None))
    secret, now = _new_secret(), asked.web.clock.now()
    made = Subscription(
        id=uuid.uuid4().hex,
        project_id=project_id,
        secrets=(secret,),
        created_at=now,
        created_by=asked.caller.user_id,
        updated_at=now,
        verify_due_at=now,
        **wanted,
    )
    option = "max_operator" if project_id is None else "max_per_project"
    quota = getattr(asked.web, option)
    if asked.web.store.subscriptions.add(made, quota=quota) is None:
        raise falcon.HTTPForbidden(
            title="Too many",
            description=f"There are {quota} subscriptions already, and no more are permitted ([subscriptions] "
            f"{option}): delete one first.",
        )
    _done(asked, made, "subscription_created")
    return 201, {**subscription_shape(made, asked), "secret": secret}


@operation(
    single("Subscription", "As it is now."),
    path=(_ID,),
    body=(_NAME, _URL, *_CHOSEN, truth("paused", "nothing is sent while it is", default=False)),
    either=("name", "url", "event_types", "servers", "metadata_key", "paused"),
    errors={**_NOT_NOW, **_NOT_YOURS},
)
def change(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """PATCH /v1/subscriptions/{subscription_id}: change what is given; a new `url` has to be verified anew.

    `paused` true stops it until it is false again. That much operators may do to a project's too.
    """
    found = _found(asked, subscription_id)
    if asked.said != {"paused"}:
        _require_own(asked, found)
    wanted, now = _members(asked, project=found.project_id is not None), asked.web.clock.now()
    paused = asked["paused"] if "paused" in asked.said else None

    def how(was: Subscription) -> Subscription:
        changed = replace(was, **wanted)
        if changed.url != was.url:
            changed = _unverified(changed, now)
        if paused is not None:
            changed = _paused(changed) if paused else _resumed(changed, now)
        return changed if changed == was else replace(changed, updated_at=now)

    return _changed(asked, found, how, "subscription_changed")


@operation({200: Answer("It is forgotten.", members({"deleted": {"type": "string"}}))}, path=(_ID,), errors=_NONE_SUCH)
def delete(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """DELETE /v1/subscriptions/{subscription_id}: forget it, and its secrets; nothing more is sent."""
    found = _found(asked, subscription_id)
    asked.web.store.subscriptions.remove(found.id)
    _done(asked, found, "subscription_deleted")
    return {"deleted": found.id}


@operation(
    {200: Answer("It has a new secret.", ref("SubscriptionWithSecret"))},
    path=(_ID,),
    body=(),
    errors={**_NOT_NOW, **_NOT_YOURS},
)
def rotate(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """POST /v1/subscriptions/{subscription_id}/rotate: a new secret, in this answer and in no other.

    The one before signs too until `previous_secret_until`; one still older no more.
    """
    found = _found(asked, subscription_id)
    _require_own(asked, found)
    secret, now = _new_secret(), asked.web.clock.now()

    def how(was: Subscription) -> Subscription:
        until = now + asked.web.secret_overlap_s
        return replace(was, secrets=(secret, *was.secrets[:1]), previous_until=until, updated_at=now)

    return {**_changed(asked, found, how, "subscription_secret_rotated"), "secret": secret}


@operation(single("Subscription", "It is to be verified."), path=(_ID,), body=(), errors=_NOT_NOW)
def enable(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """POST /v1/subscriptions/{subscription_id}/enable: take a disabled one up again; it is verified first."""
    found, now = _found(asked, subscription_id), asked.web.clock.now()

    def how(was: Subscription) -> Subscription:
        if was.state != DISABLED:
            raise OperatorError(f"This subscription is {was.state}, not disabled: there is nothing to enable.")
        return replace(_unverified(was, now), updated_at=now)

    return _changed(asked, found, how, "subscription_enabled")


# --- trying ----------------------------------------------------------------------------------------------------------


@operation({200: Answer("What came of it.", ref("SubscriptionTried"))}, path=(_ID,), body=(), errors=_NOT_NOW)
def verify(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """POST /v1/subscriptions/{subscription_id}/verify: try the handshake now, and see how it stands."""
    found = _found(asked, subscription_id)
    if found.state == DISABLED:
        raise OperatorError("This subscription is disabled: enable it, which verifies it too.")
    with closing(_seat(asked)):
        attempt = asked.web.verify_now(found.id)
    return {**subscription_shape(_found(asked, subscription_id), asked), "attempt": attempt_shape(attempt)}


@operation({200: Answer("What came of it.", ref("Attempt"))}, path=(_ID,), body=(), errors=_NOT_NOW)
def test(asked: Asked, subscription_id: str) -> dict[str, Any]:
    """POST /v1/subscriptions/{subscription_id}/test: send `maintd.subscription.test.v1` now; what came of it."""
    found = _found(asked, subscription_id)
    if found.verified_at is None:
        raise OperatorError("This subscription is not verified yet, and nothing is sent before it is: verify it first.")
    with closing(_seat(asked)):
        return attempt_shape(asked.web.test_now(found.id))


def _seat(asked: Asked) -> Seat:
    """An endpoint may keep us waiting, and one project no other: it tries one at a time."""
    try:
        return asked.web.trials.take(asked.caller.owner)
    except NoSeat as refused:
        raise come_back("Too many at once", refused) from None


# --- how it stands ---------------------------------------------------------------------------------------------------


def _unverified(was: Subscription, now: float) -> Subscription:
    """To be verified (again) before anything is sent, with a clean slate. A paused one stays paused."""
    return replace(
        was,
        state=PAUSED if was.state == PAUSED else UNVERIFIED,
        reason=None,
        verified_at=None,
        verify_due_at=now,
        verify_tries=0,
        failing_since=None,
        disabled_at=None,
        probe_at=None,
    )


def _paused(was: Subscription) -> Subscription:
    if was.state == DISABLED:
        raise OperatorError("This subscription is disabled, so nothing is sent; enable it before you pause it.")
    return replace(was, state=PAUSED, reason=None)


def _resumed(was: Subscription, now: float) -> Subscription:
    """Where it was, with a clean slate: that it failed before the pause is no reason to give it up after it."""
    if was.state != PAUSED:
        return was
    if was.verified_at is None:
        return _unverified(replace(was, state=UNVERIFIED), now)
    return replace(was, state=ACTIVE, failing_since=None)


def _overlaps(one: Subscription, now: float) -> bool:
    return one.previous_until is not None and one.previous_until > now


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


# --- whose it is -----------------------------------------------------------------------------------------------------


def _found(asked: Asked, subscription_id: str) -> Subscription:
    """The subscription, without secrets. Raises a 404; another project's is as little there as one that never was."""
    found, owner = asked.web.store.subscriptions.get(subscription_id, secrets=False), asked.caller.owner
    if found is None or (owner is not None and found.project_id != owner):
        raise unknown(f"There is no subscription {subscription_id!r}.")
    return found


def _owns(asked: Asked, one: Subscription) -> bool:
    return one.project_id is None or one.project_id == asked.caller.project_id


def _require_own(asked: Asked, one: Subscription) -> None:
    if not _owns(asked, one):
        raise falcon.HTTPForbidden(
            title="Not yours",
            description="This subscription is a project's: an operator may pause, try and delete it, and nothing else.",
        )


def _project_of_new(asked: Asked) -> str | None:
    """Whose a new one is to be: a project's, or with None the operators'."""
    scope, project_id = asked["scope"], asked["project_id"]
    if not asked.caller.operator:
        if scope == "operator" or project_id not in (None, asked.caller.project_id):
            raise falcon.HTTPForbidden(
                title="Not permitted", description="You may subscribe for your token's project and for nobody else."
            )
        return asked.caller.project_id
    if scope == "operator" and project_id is not None:
        raise bad("An operator's subscription has no project_id.")
    if scope != "project" and project_id is None:
        return None
    if not asked.web.policy.tenants:
        raise OperatorError("Projects are told nothing here: set [tenants] enabled = true, and restart maintd.")
    project_id = project_id or asked.caller.project_id
    if project_id is None:
        raise bad("Say whose it is to be: give project_id.")
    return str(project_id)


def _changed(asked: Asked, found: Subscription, how: Any, what: str) -> dict[str, Any]:
    """Keep a change, and the subscription as it is then. Raises a 404 where it was deleted meanwhile."""
    changed = asked.web.store.subscriptions.change(found.id, how)
    if changed is None:
        raise unknown(f"There is no subscription {found.id!r}.")
    _done(asked, changed, what)
    return subscription_shape(changed, asked)


def _done(asked: Asked, one: Subscription, what: str) -> None:
    log.info(what, subscription=one.id, project_id=one.project_id, state=one.state, by=asked.caller.user_id)
    asked.web.wake_delivery()


# --- what was given --------------------------------------------------------------------------------------------------


def _members(asked: Asked, *, project: bool) -> dict[str, Any]:
    """The members of the body that are the subscription's own, checked."""
    own = ("name", "url", "event_types", "servers", "metadata_key")
    found = {name: asked[name] for name in own if name in asked.said}
    if "url" in found and (fault := asked.web.url_refused(found["url"])):
        raise bad(f"url: {fault.rstrip('.')}.")
    for pattern in found.get("event_types", ()):
        if fault := fault_of(pattern, project=project):
            raise bad(f"event_types: {fault}")
    if found.get("event_types") == ():
        found["event_types"] = default_patterns(project=project)
    if not project and (found.get("servers") or found.get("metadata_key")):
        raise bad("servers and metadata_key are for projects: operators' events are mostly about hosts.")
    return found
