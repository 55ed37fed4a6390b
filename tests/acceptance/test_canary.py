"""Nothing leaks: of a busy cloud, an owner of servers can read nothing that is not hers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import pytest

from maintd.domain.tenant_events import TENANT_CATALOGUE
from maintd.web.server import ROUTES
from tests.acceptance.canary import LEAVES, RACK_7, Played, disguises, found_in, play

RANDOM = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}")
PASSING = re.compile(
    r"\d{4}-\d\d-\d\dT[0-9:.]+Z|(?<=duration_seconds\":)[0-9.e-]+|whsec_[A-Za-z0-9+/=]+|\b[1-6]\d{4}\b|"
    r"(?i:(?:date|content-length|webhook-signature|webhook-timestamp): [^\r]*)"
)
"""Times, signatures, lengths, ports: what differs each time."""
SILENT = {"secret", "token", "configuration"}
"""What neither operators nor anybody else is ever shown."""
COMPACT = json.JSONEncoder(separators=(",", ":")).encode
LISTS = ("subscriptions", "deliveries")
"""Lists that are in the order of random ids."""


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    """The story in a busy cloud, once for all."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield play(monkeypatch, others=True)


@pytest.fixture(scope="module")
def alone() -> Iterator[Played]:
    """The same with nobody but Ada in the cloud."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield play(monkeypatch, others=False)


def test_canaries_are_found() -> None:
    """Whatever the case, in URLs, in escaped JSON and in base64 wherever it begins; and not where they are not."""
    text = f'{LEAVES} "\u00fcber"'
    canaries = {text: "it"}
    for written in (text, text.upper(), json.dumps(text), json.dumps({"a": text}, ensure_ascii=False)):
        assert found_in(written.encode(), canaries)
    assert found_in(re.sub(r"\W", lambda c: "".join(f"%{b:02X}" for b in c[0].encode()), text).encode(), canaries)
    for before in ("", "x", "xy"):
        assert found_in(base64.b64encode((before + text + "z").encode()), canaries)
    assert [] == found_in(f"{RACK_7} {LEAVES}".encode(), canaries)
    assert all(len(form) > 8 for forms in disguises(RACK_7) for form in forms)


def test_what_is_kept_from_owners_is_known_here(played: Played) -> None:
    """Each canary stands in what maintd was told, or in what operators read: else not to find it would mean nothing."""
    for canaries in played.canaries.values():
        found = found_in(played.known, canaries)
        spoken = {text: what for text, what in canaries.items() if what not in SILENT}
        assert [] == [f"{what}: {text}" for text, what in spoken.items() if f"{what}: {text}" not in found]
    read = {what.partition(":")[0] for what in found_in(played.operators, played.canaries["ada"])}
    assert {"host", "server", "drain", "migration", "request id", "subscription", "project", "another's event"} <= read


def test_everything_was_tried(played: Played) -> None:
    """Every route, method and kind of answer, every kind of request to an endpoint, and every change that there is."""
    for owner in (played.owners["ada"], played.owners["bob"]):
        statuses = {answer[9:12].decode() for what, answer in owner.answers if what != "stream"}
        assert {"200", "201", "400", "401", "403", "404", "405", "409", "413", "415"} <= statuses
        asked = {re.sub(r"\?.*", "", RANDOM.sub("ASKED", what)) for what, _ in owner.answers}
        for path, methods in ROUTES.items():
            for method in methods:
                assert f"{method} {re.sub('{.*}', 'ASKED', path)}" in asked
        sent = {(method, path) for method, path, _ in owner.hook.requests}
        assert {("OPTIONS", "/challenge"), ("POST", "/challenge"), ("OPTIONS", "/origin"), ("POST", "/gone")} <= sent
        streamed = b"".join(answer for what, answer in owner.answers if what == "stream")
        assert streamed.count(b"\nevent: maintd.server.") > 10
    ada, bob = (played.owners[name].read().decode("utf-8", "replace") for name in ("ada", "bob"))
    for kind in TENANT_CATALOGUE:
        assert f"maintd.{kind}.v1" in ada
        assert f"maintd.{kind}.v1" in bob or kind == "server.move_stalled"
    assert '"no_progress"' in ada and '"removal":true' in ada and '"asked_for_by":"owner"' in ada


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_nothing_leaks(played: Played, name: str) -> None:
    """No canary is in any byte that an owner was sent or could read, however it may be written there."""
    read = played.owners[name].read()

    assert [] == found_in(read, played.canaries[name])
    assert b"hostid" not in read.lower() and b"host_id" not in read.lower()


def test_owners_share_no_id(played: Played) -> None:
    """Whoever compares what two owners were told finds no id in both: not of an event, a move, a request or a drain."""
    ada, bob = (set(RANDOM.findall(played.owners[name].read().decode("utf-8", "replace"))) for name in ("ada", "bob"))

    assert len(ada) > 30 and len(bob) > 30
    assert set() == ada & bob


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_what_is_another_s_is_as_little_there_as_what_never_was(played: Played, name: str) -> None:
    """Status, headers and text are the same for ids of others, of operators and of nobody."""
    strange = played.owners[name].strange

    assert len(strange) > 100
    assert {} == {what: said for what, said in strange.items() if len(said) > 1}


def test_numbers_count_nothing_of_others(played: Played, alone: Played) -> None:
    """With others in the cloud an owner reads and is sent what she would without them, times and random ids apart."""
    busy, quiet = readable(played), readable(alone)

    assert len(busy) > 200 and busy.keys() == quiet.keys()
    for what, said in busy.items():
        for one, other in zip(said, quiet[what], strict=True):
            lines, others = (text.replace("},{", "},\n{").splitlines() for text in (one, other))
            assert [] == [pair for pair in zip(lines, others, strict=True) if pair[0] != pair[1]], what


def readable(played: Played) -> dict[str, list[str]]:
    """All that Ada could read, by what she asked or was sent, without what differs each time."""
    ada, found = played.owners["ada"], dict[str, list[str]]()
    names = {server.id: name for name, server in played.servers.items()}

    def plain(text: str) -> str:
        for server_id, name in names.items():
            text = text.replace(server_id, name)
        return PASSING.sub("PASSING", RANDOM.sub("RANDOM", text)).replace("ASKED", "RANDOM")

    def sorted_plain(raw: bytes) -> str:
        head, _, content = raw.decode("utf-8", "replace").partition("\r\n\r\n")
        try:
            answer = json.loads(content)
        except ValueError:
            return plain(head + content)
        for one in LISTS:
            if isinstance(answer, dict) and isinstance(answer.get(one), list):
                answer[one].sort(key=lambda item: plain(COMPACT(item)))
        return plain(head + COMPACT(answer))

    for what, answer in ada.answers:
        if what != "stream" and "wait=" not in what:
            found.setdefault(plain(what), []).append(sorted_plain(answer))
    for method, path, raw in ada.hook.requests:
        found.setdefault(f"{method} {path}", []).append(sorted_plain(raw))
    return {what: sorted(said) for what, said in found.items()}
