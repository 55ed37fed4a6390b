"""Makes the recordings that no real Nova was there to give: stories played by the simulator, with the API's answers.

    python -m tests.recordings.make [STORY...]

plays every story of `stories.py` (or those named) on a manual clock and writes `<story>.jsonl`, the same bytes each
time. A story is what operators, users and accidents do to a small cloud; what maintd asks meanwhile is asked by the
daemon's own schedule (`Polls`) and client (`NovaApi`), of the simulator's own HTTP application, in this process and
without a socket. So a recording holds the questions of the daemon at the moments at which the daemon asks them, and
whole verification passes among them.

Time goes by while a question is asked, so Nova goes on between two answers of one pass, as it would. Besides the passes
that the fleet wants, a story may have passes made at any moment (`Stage.prove`): those a maintd that had missed
something would make. They are there to see that a complete look at a host that is *not* empty says so, and, where one
is, to prove it again when every late or repeated notification is through.

Bodies are cut down to the fields that maintd reads, as those of the real recordings are. Nothing here says what the
events should be: that is reviewed in `<story>.events`.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter

from maintd.clock import ManualClock
from maintd.config import CloudConfig
from maintd.domain.events import CloudEvent, instant_text
from maintd.domain.fleet import Fleet
from maintd.domain.model import Knowledge, Policy
from maintd.domain.observations import Observation
from maintd.ingest.admit import Admission
from maintd.ingest.polls import Polls
from maintd.ingest.recording import answer_line
from maintd.nova.answers import Answer
from maintd.nova.api import NovaApi
from maintd.nova.notifications import read_wire
from maintd.simulator.model import Cloud, Migration, Server, Timing
from maintd.simulator.notifications import Json
from maintd.simulator.rest import Api

HERE = Path(__file__).parent
BEGINS_AT = 1_796_000_000.0
URL = "http://nova.sim.test"
HALF_A_CALL_S = 0.02
"""How long a question is under way before the API answers it, and the answer before it is here."""

QUIET_S = 1.0
"""So long nothing is heard before a pass begins, here: passes that a breath of lateness would disturb make a recording
that says one thing today and another tomorrow."""

SETTLE_S = Policy().settle_s
"""The fleet wants passes in a quicker sequence after those that found something; here they would only fill the file."""


class InProcess(BaseAdapter):
    """Carries requests to a WSGI application in this process; time goes by on the way there and on the way back."""

    def __init__(self, application: Callable[..., Any], passes: Callable[[float], None]) -> None:
        super().__init__()
        self._application = application
        self._passes = passes
        self._http = HTTPAdapter()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self._passes(HALF_A_CALL_S)
        url = urllib3.util.parse_url(request.url or "")
        body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": url.path or "/",
            "QUERY_STRING": url.query or "",
            "HTTP_HOST": url.netloc,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        for name, value in request.headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value if isinstance(value, str) else value.decode()
        said: list[Any] = []
        content = b"".join(self._application(environ, lambda status, headers: said.extend((status, headers))))
        raw = urllib3.HTTPResponse(
            body=io.BytesIO(content), headers=dict(said[1]), status=int(said[0].split()[0]), preload_content=False
        )
        self._passes(HALF_A_CALL_S)
        return self._http.build_response(request, raw)

    def close(self) -> None:
        self._http.close()


# -- what is kept of what was said ------------------------------------------------------------------------------------

NOTIFIED = frozenset(
    "uuid tenant_id display_name host state task_state updated_at progress request_id fault exception "
    "exception_message instance_uuid reason binary disabled disabled_reason forced_down".split()
)
ANSWERED = frozenset(
    "id uuid name status tenant_id updated progress fault message code OS-EXT-SRV-ATTR:host OS-EXT-STS:task_state "
    "OS-EXT-STS:vm_state OS-EXT-STS:power_state OS-SRV-USG:terminated_at binary host state updated_at "
    "disabled_reason forced_down service hypervisor_hostname servers server hypervisors hypervisor services "
    "migrations resource_providers allocations traits itemNotFound source_compute dest_compute instance_uuid "
    "migration_type project_id created_at server_uuid memory_total_bytes memory_processed_bytes "
    "memory_remaining_bytes disk_total_bytes disk_processed_bytes disk_remaining_bytes parent_provider_uuid "
    "root_provider_uuid errors detail".split()
)


def cut_notification(inner: Json) -> Json:
    """The message with the fields of its payload that somebody reads."""

    kept = NOTIFIED | {"flavor", "new_flavor", "flavorid"} if "resize_prep" in inner["event_type"] else NOTIFIED

    def cut(value: Any) -> Any:
        if not isinstance(value, dict) or "nova_object.data" not in value:
            return value
        data = value["nova_object.data"]
        return {**value, "nova_object.data": {k: cut(v) for k, v in data.items() if k in kept}}

    return {
        **{k: inner[k] for k in ("message_id", "publisher_id", "event_type", "priority")},
        "payload": cut(inner["payload"]),
        "timestamp": inner["timestamp"],
        "_context_request_id": inner["_context_request_id"],
    }


def cut_answer(body: Any) -> Any:
    """A parsed body with the fields that somebody reads. What Placement keys by consumer is kept, without amounts."""
    if isinstance(body, list):
        return [cut_answer(row) for row in body]
    if not isinstance(body, Mapping):
        return body
    held = body.get("allocations")
    if isinstance(held, Mapping):
        return {"allocations": {consumer: {} for consumer in held}}
    return {k: cut_answer(v) for k, v in body.items() if k in ANSWERED}


def wire_line(at: str, routing_key: str, inner: Json) -> str:
    """The line of a notification, with its newline."""
    message = json.dumps(inner, separators=(",", ":"))
    body = json.dumps({"oslo.version": "2.0", "oslo.message": message}, separators=(",", ":"))
    fields = {"at": at, "kind": "notification", "routing_key": routing_key, "body": body}
    return json.dumps(fields, separators=(",", ":")) + "\n"


# -- the stage --------------------------------------------------------------------------------------------------------


class Stage:
    """A small cloud, a maintd beside it, and the lines of what passes between them."""

    def __init__(self, name: str, *, hosts: int = 2, progress: bool = False, **timing: Any) -> None:
        self.lines: list[str] = []
        self.clock = ManualClock(BEGINS_AT)
        self.cloud = Cloud(
            self.clock, self._hear, seed=zlib.crc32(name.encode()), timing=Timing(**timing), controller="ctl-01"
        )
        self.cloud.knobs.set("live_migration", seconds=2.0)
        for number in range(1, hosts + 1):
            self.cloud.add_host(f"cmp-{number:02d}")
        self._heard_at = 0.0
        self._progress = progress
        self._door: Admission | None = None
        self._last: dict[str, float] = {}
        self._looked_at: dict[str, float] = {}
        self.fleet = Fleet(Policy(has_cloud=True))
        self.application = Api(self.cloud, serve_without_tokens=True)
        self.application.base = URL

    def server(self, host: str, name: str, **options: Any) -> Server:
        """A server that has been there since before anybody looked."""
        return self.cloud.add_server(host, name, **options)

    def begin(self) -> None:
        """maintd is started beside the cloud as it now is, and reads it for the first time."""
        numbers = itertools.count(1)
        self.fleet.put(Knowledge(memory_since=self.clock.now()))
        self._door = _Door(
            self.cloud, self.fleet, clock=self.clock, ids=lambda: f"{next(numbers):012d}", installation="main"
        )
        options = {
            "auth_type": "admin_token",
            "endpoint": f"{URL}/compute/v2.1",
            "token": self.application.admin_token,
        }
        api = NovaApi(_Cloud(options), self.clock)
        api._connection.session.session.mount(URL, InProcess(self.application, self._passes))
        self.polls = Polls(api, self._door, self.clock, on_answer=self._answered, pace=lambda purpose: True)
        self.polls.whole_once()
        assert not self.polls.errors(), self.polls.errors()
        self.wait(2.0)

    # time

    def _passes(self, seconds: float) -> None:
        self.cloud.advance(self.clock.now() + seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass, for the cloud and for maintd, which looks around every second."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.cloud.advance(min(end, self.clock.now() + 1.0))
            self._turn()

    def settle(self, limit_s: float = 300.0) -> None:
        """Let time pass until nothing is going on in the cloud."""
        end = self.clock.now() + limit_s
        while self.cloud.next_due() is not None and self.clock.now() < end:
            self.wait(1.0)

    def prove(self, *, at_rest: bool = True) -> None:
        """Let maintd look as it wants to, and at each closed host twice more, when all that is late must be through;
        first wait until nothing is going on in the cloud, unless told not to.
        """
        if at_rest:
            self.settle()
        self.wait(max(0.0, self._heard_at + 31.0 - self.clock.now()))
        for _ in range(2):
            for host in sorted(self.fleet.closed_hosts()):
                self.look(host)
            self.wait(16.0)

    def cut(self, seconds: float) -> None:
        """So much time passes of which the recording has nothing but the notifications."""
        self.cloud.advance(self.clock.now() + seconds)

    def look(self, host: str) -> None:
        """A whole verification pass over a host, wanted or not. One that is disturbed by what it finds is repeated."""
        for _ in range(3):
            if self.polls.verify(host) == "whole":
                return
        raise AssertionError(f"no pass over {host} came to its end: {self.polls.errors()}")

    def row(self, server: Server) -> Migration:
        """The server's newest migration."""
        return self.cloud.migrations_of[server.id][-1]

    # maintd

    def _turn(self) -> None:
        if self._door is None:
            return
        now = self.clock.now()
        self._door.tick(now)
        self._every("services", 30.0, self.polls.look_at_services)
        self._every("drains", 5.0, self.polls.look_at_drains)
        if self._progress:
            self._every("progress", 5.0, self.polls.look_at_progress)
        self._every("emptied", 15.0, self.polls.look_at_emptied)
        self.polls.look_at_ends()
        if self.clock.now() - self._heard_at < QUIET_S:
            return
        for host in self.polls.passes_due():
            if now - self._looked_at.get(host, 0.0) >= SETTLE_S:
                self._looked_at[host] = now
                self.polls.verify(host)
        while not self.polls._passes.empty():
            host = self.polls._passes.get_nowait()
            self.polls.verify(host)
            self.polls._in_hand.discard(host)

    def _every(self, name: str, seconds: float, job: Callable[[], bool]) -> None:
        if self.clock.now() - self._last.setdefault(name, self.clock.now()) >= seconds:
            self._last[name] = self.clock.now()
            assert job() or self.polls.errors(), name

    # the recording

    def _hear(self, routing_key: str, inner: Json) -> None:
        now = self.cloud.now()
        self._heard_at = now
        if self._door is None or inner["event_type"].startswith("scheduler."):
            return
        line = wire_line(instant_text(now), routing_key, cut_notification(inner))
        self.lines.append(line)
        self._door.admit_notifications([read_wire(json.loads(line)["body"], received_at=now)])

    def _answered(self, answer: Answer) -> None:
        self.lines.append(answer_line(replace(answer, body=cut_answer(answer.body))))

    def text(self) -> str:
        """The recording."""
        assert not self.application.crashes, self.application.crashes
        return "".join(json.dumps(json.loads(line), separators=(",", ":")) + "\n" for line in self.lines)


class _Door(Admission):
    """The daemon's door, and whoever looks into the racks meanwhile: no story is kept in which `host.emptied` is false.

    Files of failed resizes do not count: they are warned of, and an operator may take them (see `README.md`).
    """

    def __init__(self, cloud: Cloud, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._racks = cloud

    def admit(self, observations: Iterable[Observation]) -> list[CloudEvent]:
        events = super().admit(observations)
        for event in events:
            if event.type == "maintd.host.emptied.v1":
                assert not self._racks.physically_on(event.subject, strays=False), event.subject
        return events


class _Cloud(CloudConfig):
    """The cloud's configuration, with endpoints in place of a catalogue."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options=options, region_name="RegionOne")

    def connect_options(self) -> dict[str, Any]:
        ends = {"compute_endpoint_override": f"{URL}/compute/v2.1", "placement_endpoint_override": f"{URL}/placement"}
        return {**super().connect_options(), **ends}


def main(names: list[str]) -> int:
    """Make the stories of these names, or all."""
    from tests.recordings.cases import draw
    from tests.recordings.stories import STORIES

    wrong = [name for name in names if name not in STORIES]
    if wrong:
        print(f"There is no story {', '.join(wrong)}; there are {', '.join(STORIES)}.", file=sys.stderr)
        return 2
    for name in names or STORIES:
        text = STORIES[name].play(name).text()
        (HERE / f"{name}.jsonl").write_text(text)
        print(f"{name}.jsonl  {text.count(chr(10))} lines, {len(text) // 1024} kB")
    draw(HERE / "README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
