"""The table of routes, and the two HTTP servers: the API on `[api]`, health on `[metrics]`.

Each line of the table is a path, and for each method an `Operation` (`operations.py`) with what a caller needs to be
answered by it (`auth.py`). The request is read by its declaration; its handler gets an `Asked`, which says who asks,
and returns what becomes the JSON answer (with a status, where it is not 200), or a stream. What all requests have in
common stands here: errors as `{"title", "description"}` with a sentence, strict reading of bodies, and the guard
against browsers. With `auth = none` the API trusts everybody on this machine, so it must not trust web pages that
happen to be open on it: the Host header must name the loopback (else a page could rebind its own name to 127.0.0.1),
and a request that changes something must be declared as JSON (a page cannot send that to another origin without asking
first, and nobody here answers the question; nor can it send a PATCH or a DELETE).

The health server has threads of its own, so that slow API requests cannot make a live daemon look dead.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import falcon
import structlog
from cheroot import wsgi

from maintd.errors import LeaseLost, OperatorError, OurFault, StoreUnavailable
from maintd.web import auth, deliveries, events, fleet, stalls, stream, subscriptions, tenants
from maintd.web.asking import Asked, bad
from maintd.web.auth import OPERATOR, Caller, Guard, Needs, Policies, checked
from maintd.web.context import WebApp
from maintd.web.health import Health, Metrics, Probe
from maintd.web.operations import EVENT_STREAM, JSON, Operation

log = structlog.get_logger(__name__)


class Route(NamedTuple):
    """An operation, and what a caller needs to be answered by it."""

    operation: Operation
    needs: Needs


ROUTES: Final[Mapping[str, Mapping[str, Route]]] = {
    "/v1/status": {"GET": Route(fleet.status, auth.FLEET_READ)},
    "/v1/hosts": {"GET": Route(fleet.hosts, auth.FLEET_READ)},
    "/v1/hosts/{host}": {"GET": Route(fleet.host, auth.FLEET_READ)},
    "/v1/drains": {
        "GET": Route(fleet.drains, auth.FLEET_READ),
        "POST": Route(fleet.start_drain, auth.FLEET_WRITE),
    },
    "/v1/drains/{drain_id}": {"GET": Route(fleet.drain, auth.FLEET_READ)},
    "/v1/migrations": {"GET": Route(fleet.migrations, auth.FLEET_READ)},
    "/v1/migrations/{migration_key}": {"GET": Route(fleet.migration, auth.FLEET_READ)},
    "/v1/stalls": {"GET": Route(stalls.stalls, auth.FLEET_READ)},
    "/v1/residue": {"GET": Route(fleet.residue, auth.FLEET_READ)},
    "/v1/residue/{host}/clear": {"POST": Route(fleet.clear_residue, auth.FLEET_WRITE)},
    "/v1/events": {"GET": Route(events.events, auth.EVENTS_READ)},
    "/v1/events/{event_id}": {"GET": Route(events.event, auth.EVENTS_READ)},
    "/v1/servers/maintenance": {"GET": Route(tenants.maintenance, auth.SERVERS_READ)},
    "/v1/deliveries": {"GET": Route(deliveries.deliveries, auth.DELIVERIES_READ)},
    "/v1/deliveries/redeliver": {"POST": Route(deliveries.redeliver, auth.DELIVERIES_WRITE)},
    "/v1/deliveries/{delivery_id}": {"GET": Route(deliveries.delivery, auth.DELIVERIES_READ)},
    "/v1/subscriptions": {
        "GET": Route(subscriptions.subscriptions, auth.SUBSCRIPTIONS_READ),
        "POST": Route(subscriptions.create, auth.SUBSCRIPTIONS_WRITE),
    },
    "/v1/subscriptions/{subscription_id}": {
        "GET": Route(subscriptions.subscription, auth.SUBSCRIPTIONS_READ),
        "PATCH": Route(subscriptions.change, auth.SUBSCRIPTIONS_WRITE),
        "DELETE": Route(subscriptions.delete, auth.SUBSCRIPTIONS_WRITE),
    },
    "/v1/subscriptions/{subscription_id}/rotate": {
        "POST": Route(subscriptions.rotate, auth.SUBSCRIPTIONS_WRITE),
    },
    "/v1/subscriptions/{subscription_id}/verify": {
        "POST": Route(subscriptions.verify, auth.SUBSCRIPTIONS_WRITE),
    },
    "/v1/subscriptions/{subscription_id}/test": {
        "POST": Route(subscriptions.test, auth.SUBSCRIPTIONS_WRITE),
    },
    "/v1/subscriptions/{subscription_id}/enable": {
        "POST": Route(subscriptions.enable, auth.SUBSCRIPTIONS_WRITE),
    },
}

BODY_MAX_BYTES: Final = 64 * 1024


def api(
    web: WebApp, *, keystone: Mapping[str, str] | None = None, policies: Policies | None = None
) -> Callable[..., Any]:
    """The API as a WSGI application.

    With `keystone` (the options of [keystone_authtoken]) every request needs a token, and `policies` (by default those
    in the code) say what its roles permit. Without, it answers only to requests made to the loopback, and `HttpServer`
    refuses to serve it anywhere else.
    """
    if keystone is None:
        return _routed(web, LoopbackOnly(), Unguarded)
    guard = Guard(policies or Policies({}), keystone.get("www_authenticate_uri"), open_to_projects=web.policy.tenants)
    return checked(_routed(web, guard, falcon.App), keystone)


class Unguarded(falcon.App[Any, Any]):
    """An API that trusts everybody who can reach it."""


def _routed(web: WebApp, guard: Guard | LoopbackOnly, kind: type[falcon.App[Any, Any]]) -> falcon.App[Any, Any]:
    app = kind(middleware=[guard])
    app.req_options.strip_url_path_trailing_slash = True
    _speak_json(app)
    for path, methods in ROUTES.items():
        app.add_route(path, _Resource(web, guard, methods))
    return app


def health_api(health: Health) -> falcon.App[Any, Any]:
    """/metrics, /livez and /readyz as a WSGI application."""
    app = falcon.App()
    _speak_json(app)
    app.add_route("/metrics", Metrics(health.registry))
    app.add_route("/livez", Probe("alive", health.alive))
    app.add_route("/readyz", Probe("ready", health.ready))
    return app


class LoopbackOnly:
    """Refuses a Host header that does not name the loopback; everybody else is an operator."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        given = req.env.get("HTTP_HOST")
        if given is not None and not names_loopback(given):
            raise falcon.HTTPForbidden(
                title="Wrong host",
                description="This API has no authentication and answers only to requests made to the loopback "
                "(127.0.0.1, ::1 or localhost).",
            )

    def caller(self, req: falcon.Request, needs: Needs) -> Caller:
        return OPERATOR


def names_loopback(host_header: str) -> bool:
    """Whether a Host header names this machine's loopback: localhost or a literal address, with or without a port."""
    name, _, port = host_header.strip().rpartition(":")
    if not name or "]" in port:
        name, port = host_header.strip(), ""
    if port and not port.isdigit():
        return False
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    return is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether only this machine can be meant by, or reach, an address or name."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Resource:
    """What falcon wants to see for one line of the table."""

    def __init__(self, web: WebApp, guard: Guard | LoopbackOnly, methods: Mapping[str, Route]) -> None:
        self._web = web
        self._guard = guard
        for method, route in methods.items():
            setattr(self, f"on_{method.lower()}", self._responder(route))

    def _responder(self, route: Route) -> Callable[..., None]:
        operation = route.operation
        streams = any(answer.streams for answer in operation.answers.values())

        def respond(req: falcon.Request, resp: falcon.Response, **path: str) -> None:
            caller = req.context.caller = self._guard.caller(req, route.needs)
            body = _body(req) if operation.body is not None else {}
            asked = Asked(
                self._web,
                operation.read(path, req.params, req.get_header, body, operator=caller.operator),
                caller,
                frozenset(body),
                caller.project_id or req.remote_addr,
                streams and req.client_prefers((JSON, EVENT_STREAM)) == EVENT_STREAM,
                req.env.get(stream.SOCKET),
            )
            answer = operation.handler(asked, **path)
            if isinstance(answer, stream.Stream):
                return _stream(resp, answer)
            if isinstance(answer, tuple):
                resp.status, answer = answer
            _answer(resp, answer)

        return respond


def _stream(resp: falcon.Response, answer: stream.Stream) -> None:
    resp.content_type = EVENT_STREAM
    _protect(resp)
    resp.set_header("X-Accel-Buffering", "no")  # nginx would keep events back until it has a buffer full of them
    resp.stream = answer


def _answer(resp: falcon.Response, answer: Any) -> None:
    resp.content_type = JSON
    _protect(resp)
    resp.data = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _protect(resp: falcon.Response) -> None:
    resp.set_header("Cache-Control", "no-store")
    resp.set_header("X-Content-Type-Options", "nosniff")


def _body(req: falcon.Request) -> dict[str, Any]:
    if (req.content_type or "").partition(";")[0].strip().lower() != JSON:
        raise falcon.HTTPUnsupportedMediaType(
            title="Not JSON", description="Send a JSON object, with Content-Type: application/json."
        )
    raw = req.bounded_stream.read(BODY_MAX_BYTES + 1)
    if len(raw) > BODY_MAX_BYTES:
        raise falcon.HTTPContentTooLarge(
            title="Too much", description=f"A body has {BODY_MAX_BYTES // 1024} KiB at most."
        )
    try:
        body = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        raise bad("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise bad('The body must be a JSON object, such as {"host": "cmp-17"}.')
    return body


# --- errors ----------------------------------------------------------------------------------------------------------


def _speak_json(app: falcon.App[Any, Any]) -> None:
    app.set_error_serializer(_serialise_error)
    for error, handler in (
        (Exception, _our_fault),
        (OperatorError, _operators_fault),
        (StoreUnavailable, _no_store),
        (LeaseLost, _no_lease),
    ):
        app.add_error_handler(error, handler)


def _serialise_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    description = error.description
    if not description:
        if isinstance(error, falcon.HTTPNotFound):
            description = f"There is nothing at {req.path}; begin at /v1/status."
        elif isinstance(error, falcon.HTTPMethodNotAllowed):
            allowed = (error.headers or {}).get("Allow", "") if isinstance(error.headers, dict) else ""
            description = f"{req.path} cannot be asked with {req.method}; it takes {allowed}."
        else:
            description = "The request cannot be answered."
    title = error.title.partition(" ")[2].capitalize() if error.title[:3].isdigit() else error.title
    _answer(resp, {"title": title, "description": description})


def _our_fault(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    log.error("request_failed", method=req.method, path=req.path, exc_info=error)
    resp.status = 500
    _answer(resp, {"title": "Internal error", "description": "This is maintd's fault; its log has the details."})


def _operators_fault(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    resp.status = 409
    _answer(resp, {"title": "Not possible", "description": str(error)})


def _no_store(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    resp.status = 503
    resp.set_header("Retry-After", "5")
    # Where the database is, and what is wrong with it, is nobody's business but the operators'.
    caller = getattr(req.context, "caller", None)
    why = f": {error}" if caller is not None and caller.operator else "; try again in a moment."
    _answer(resp, {"title": "No database", "description": f"The database cannot be used now{why}"})


def _no_lease(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    resp.status = 503
    resp.set_header("Retry-After", "5")
    description = "Another controller holds the fleet, or none does yet: ask the leader that /v1/status names."
    _answer(resp, {"title": "Not the leader", "description": description})


# --- serving ---------------------------------------------------------------------------------------------------------


class _Cheroot(wsgi.Server):
    """Cheroot, complaining into our log."""

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        log.log(max(level, logging.INFO), "http_server_complains", detail=msg, exc_info=traceback)


class _Gateway(wsgi.Gateway_10):
    """Hands the client's socket on, so that who waits for the log can see that nobody waits for the answer."""

    def __init__(self, req: Any) -> None:
        super().__init__(req)
        self.env[stream.SOCKET] = req.conn.socket


class HttpServer:
    """One HTTP server in a thread of its own. `start` binds, so that a taken port is known at once."""

    def __init__(self, name: str, app: Callable[..., Any], host: str, port: int, threads: int = 8) -> None:
        if isinstance(app, Unguarded) and not is_loopback(host):
            raise OurFault(f"an API without authentication was to be served on {host}, which is not the loopback")
        self.name = name
        self._server = _Cheroot(
            (host, port),
            app,
            numthreads=threads,
            server_name="maintd",
            timeout=10,
            shutdown_timeout=2,
            request_queue_size=64,
        )
        self._server.gateway = _Gateway
        self._server.max_request_header_size = 32 * 1024
        self._server.max_request_body_size = 2 * BODY_MAX_BYTES
        self._server.version = self._server.software = "maintd"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and serve from now on. Raises OperatorError where the address cannot be had."""
        host, port = self._server.bind_addr
        try:
            self._server.prepare()
        except OSError as wrong:
            raise OperatorError(
                f"[{self.name}] listen: {host}:{port} cannot be listened on ({_reason(wrong)}); choose another "
                "address, or stop what uses it."
            ) from wrong
        self._thread = threading.Thread(target=self._server.serve, name=f"http-{self.name}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on; the port is the real one, where 0 was asked for."""
        host, port = self._server.bind_addr[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Stop listening; requests under way get two seconds. Harmless when it never started, or twice."""
        ending = threading.Thread(target=self._server.stop, name=f"http-{self.name}-end", daemon=True)
        ending.start()
        # Cheroot looks twice a second whether it should end, or when somebody connects.
        while ending.is_alive():
            with suppress(OSError):
                socket.create_connection(self.address, timeout=0.1).close()
            ending.join(0.02)
        if self._thread is not None:
            self._thread.join(timeout=5)


def _reason(wrong: OSError) -> str:
    """The system's word for what went wrong, out of the text that cheroot wraps it in."""
    found = re.search(r"\[Errno -?\d+\] ([^)]*)", str(wrong))
    return found[1] if found else str(wrong)
