"""A host whose compute speaks on a second broker, and what becomes of it while that broker cannot be heard.

Nova on the host sends its notifications elsewhere than the rest of the cloud (another virtual host will do); that way
is taken from the environment, MAINTD_SECOND_TRANSPORT_URL, and its broker has to listen on the loopback, because the
story puts a proxy of its own before it.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from tests.acceptance.cloud import Sentence, until
from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import closed, drain_live, emptied, first, reopen, rest, stay
from tests.acceptance.subject import Settings
from tests.support.rabbitmq import Proxy

SECOND = "second"


def second_bus(stage: Stage) -> Facts:
    """The bus that speaks for a host is lost while it is drained: unknown, not empty, until the bus is heard again."""
    stage.need(servers=2)
    url = os.environ.get("MAINTD_SECOND_TRANSPORT_URL", "")
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost"):
        raise Sentence(
            "This story wants a host whose Nova notifies on a second bus: HOST=..., and the way to that bus, on the "
            "loopback, in the environment variable MAINTD_SECOND_TRANSPORT_URL."
        )
    way = Proxy(parts.port or 5672)
    try:
        servers = stage.create()
        stage.go(_settings(stage, parts._replace(netloc=parts.netloc.replace(str(parts.port), str(way.port))).geturl()))
        facts = closed(stage, servers)
        facts.gaps = ("bus.blinded", "bus.healed")
        drain_live(stage, first(servers))
        assert stage.maintd is not None
        maintd = stage.maintd
        if not until(lambda: maintd.host(stage.host).get("heard_on") == SECOND, 15.0):
            raise Fault(f"{stage.host} was not heard on the second bus: {maintd.host(stage.host).get('heard_on')}")
        way.refuse()
        if not until(
            lambda: any(h.type == "bus.blinded" for h in stage.receiver.heard if h.event["subject"] == SECOND), 60.0
        ):
            raise Fault("bus.blinded of the second bus did not come")
        stage.say("webhook: bus.blinded second; the host is drained meanwhile")
        drain_live(stage, rest(servers))
        stay(stage, facts)
        if maintd.host(stage.host)["empty"] is not None or {kind for kind, _ in stage.kinds()} != {"blind"}:
            raise Fault(f"the host is not unknown for its bus alone: {maintd.host(stage.host)}")
        stage.say("maintd calls the host unknown, and says that its bus is not heard")
        way.accept()
        emptied(stage, facts, within_s=90.0)
        return reopen(stage, facts)
    finally:
        stage.halt()
        way.close()


def _blinded(heard: Heard) -> bool:
    return heard.type == "bus.blinded" and heard.event["subject"] == SECOND


def _settings(stage: Stage, url: str) -> Settings:
    pool = f"maintd-acceptance-{SECOND}-{os.getpid()}"
    return {"buses": {"enabled": SECOND}, f"bus:{SECOND}": {"transport_url": url, "pool": pool}}


STORIES = (second_bus,)
