"""/metrics, /livez and /readyz: for Prometheus and for whoever restarts or routes to this process.

*Alive* means that the loops tick; a process that is not alive should be restarted. *Ready* means that the database
answers and has the tables this version needs; a process that is not ready should get no requests. A lost broker is
neither: the API still answers, so it is reported as `degraded`, with 200. These never go through the API's
authentication, and tell nothing beyond the health of the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import falcon
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from maintd.errors import OperatorError, StoreUnavailable
from maintd.store import Store


@dataclass(frozen=True, slots=True)
class Tick:
    """A loop's sign of life: how long ago it last came round, and how long that may take."""

    name: str
    age_s: float
    limit_s: float

    @property
    def fresh(self) -> bool:
        return self.age_s <= self.limit_s


@dataclass(frozen=True, slots=True)
class Health:
    """What the health endpoints are given. `degraded` returns sentences about what is not as it should be."""

    store: Store
    registry: CollectorRegistry
    ticks: Callable[[], Sequence[Tick]] = tuple
    degraded: Callable[[], Sequence[str]] = tuple

    def alive(self) -> tuple[bool, dict[str, Any]]:
        ticks = self.ticks()
        rows = [
            {"loop": t.name, "fresh": t.fresh, "age_seconds": round(t.age_s, 3), "limit_seconds": t.limit_s}
            for t in ticks
        ]
        return all(t.fresh for t in ticks), {"ticks": rows}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        try:
            self.store.ping()
            current, head = self.store.version()
        except (StoreUnavailable, OperatorError) as wrong:
            return False, {"reason": f"The database cannot be used: {wrong}", "degraded": []}
        if current != head:
            reason = f"The database has schema revision {current}, this maintd needs {head}: run maintd db upgrade."
            return False, {"reason": reason, "degraded": []}
        return True, {"reason": None, "degraded": list(self.degraded())}


class Probe:
    """A yes or no with its reasons: 200 or 503."""

    def __init__(self, word: str, ask: Callable[[], tuple[bool, dict[str, Any]]]) -> None:
        self._word, self._ask = word, ask

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        yes, detail = self._ask()
        resp.status = 200 if yes else 503
        resp.content_type = falcon.MEDIA_JSON
        resp.text = json.dumps({self._word: yes, **detail})


class Metrics:
    """The registry in the exposition format that the scraper asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        encode, content_type = choose_encoder(req.get_header("Accept") or "")
        resp.content_type = content_type
        resp.data = encode(self._registry)
