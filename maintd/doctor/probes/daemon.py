"""Asks the daemon of this configuration, if one runs here, how it is and what it has heard since it began."""

from __future__ import annotations

import http.client
import json
import re

from maintd.config import Config
from maintd.doctor.facts import DaemonFacts

_ANSWER_S = 3.0
_MAX_BYTES = 16 * 1024 * 1024
_RECEIVED = re.compile(r'^maintd_notifications_received_total\{event_type="([^"]+)"\} (\S+)', re.MULTILINE)


def look(config: Config) -> DaemonFacts:
    """The daemon at `[metrics] listen`."""
    host, port = config.metrics.host, config.metrics.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to be reached, not listened on
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        ready = _get(host, port, "/readyz")
        state = json.loads(ready)
        said = [state["reason"]] if state.get("reason") else state.get("degraded", [])
        metrics = _get(host, port, "/metrics").decode("utf-8", "replace")
        received = {name: int(float(count)) for name, count in _RECEIVED.findall(metrics)}
        return DaemonFacts(True, where, bool(state["ready"]), tuple(map(str, said)), received)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return DaemonFacts(False, where)


def _get(host: str, port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(_MAX_BYTES)
    finally:
        connection.close()
