"""/v1/status, hosts, drains, migrations and residue, asked as a script would ask."""

from __future__ import annotations

import json

import pytest

from maintd.domain.model import (
    Bus,
    Drain,
    Host,
    Kind,
    Knowledge,
    Migration,
    Note,
    Phase,
    Progress,
    Residue,
    Server,
)
from maintd.errors import LeaseLost, OperatorError, StoreUnavailable
from tests.web.serving import AT, CLOUD, Served, closed, empty, occupied


def names(answer: dict, noun: str, key: str) -> list[str]:
    return [row[key] for row in answer[noun]]


def test_hosts_go_by_name_page_by_page(served: Served) -> None:
    """Following `next` shows every host once, and it is null on the last page."""
    served.put(*(Host(f"cmp-{n:02}") for n in range(7)))
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        status, answer = served.get(f"/v1/hosts?limit=3&after={cursor}")
        seen += names(answer, "hosts", "host")
        cursor, pages = answer["next"], pages + 1

        assert 200 == status

    assert [f"cmp-{n:02}" for n in range(7)] == seen
    assert 3 == pages


def test_a_full_last_page_has_no_next(served: Served) -> None:
    """A page that is full by chance does not promise another one."""
    served.put(Host("cmp-1"), Host("cmp-2"))

    assert served.get("/v1/hosts?limit=2")[1]["next"] is None
    assert "cmp-1" == served.get("/v1/hosts?limit=1")[1]["next"]


def test_hosts_can_be_narrowed_to_closed_ones(served: Served) -> None:
    """closed=true shows disabled and forced-down hosts, closed=false the others."""
    served.put(Host("open"), closed("disabled"), Host("dead", forced_down=True, closed_at=AT))

    assert ["dead", "disabled"] == names(served.get("/v1/hosts?closed=true")[1], "hosts", "host")
    assert ["open"] == names(served.get("/v1/hosts?closed=false")[1], "hosts", "host")


def test_empty_is_null_while_a_host_is_open(served: Served) -> None:
    """An open host is neither empty nor not: nobody asked."""
    served.put(Host("a-open"), empty("b-empty"), occupied("c-full", "not_attempted"))

    answers = [row["empty"] for row in served.get("/v1/hosts")[1]["hosts"]]

    assert [None, True, False] == answers


@pytest.mark.parametrize("path", ["/v1/hosts", "/v1/hosts/cmp-1", "/v1/status"])
@pytest.mark.parametrize("sight", ["whole", "nobody", "unheard"])
def test_empty_is_null_while_nobody_knows(served: Served, path: str, sight: str) -> None:
    """What was proven is an old memory once no maintd holds the fleet, or a bus that speaks for the host is lost."""
    served.put(empty("cmp-1"), Bus("default", connected=sight != "unheard"), Knowledge(AT - 86400, AT - 86000))
    if sight == "nobody":
        served.clock.advance(3601)

    answer = served.get(path)[1]

    (shown,) = answer.get("hosts", [answer])
    assert (True if sight == "whole" else None) is shown["empty"]
    assert "counts" not in answer or (sight == "whole") == answer["counts"]["hosts_empty"]


@pytest.mark.parametrize("deaf", [1, 2])
def test_sight_is_lost_once_every_bus_is_deaf(served: Served, deaf: int) -> None:
    """While one bus is heard, its hosts go on; those of the deaf one are unknown, each by itself."""
    buses = [Bus(f"bus-{n}", connected=True, deaf_from=AT - 9 if n < deaf else None) for n in range(2)]
    served.put(*buses, Knowledge(AT - 86400, AT - 86000))

    assert (deaf == 2) == bool(served.get("/v1/status")[1]["lost_sight"])


def test_a_host_shows_why_it_is_not_empty(served: Served) -> None:
    """Blockers come from the last pass and from what is known since, warnings and proof from the pass."""
    host = occupied("cmp-17", "soft_deleted")
    served.put(
        host,
        Server("srv-1", host="cmp-17", vm_state="active", seen_at=AT - 60),
        Server("srv-gone", host="cmp-17", deleted_at=AT - 5),
        Migration("m1", "srv-2", Kind.LIVE, Phase.RUNNING, source="cmp-17", destination="cmp-18", begun_at=AT - 30),
        Migration("m0", "srv-3", Kind.LIVE, Phase.COMPLETED, source="cmp-17", ended_at=AT - 99),
        Residue("cmp-17", "srv-9", "evacuated", AT - 500),
        Residue("cmp-17", "srv-8", "evacuated", AT - 500, cleared_at=AT - 400),
    )

    status, answer = served.get("/v1/hosts/cmp-17")

    assert 200 == status
    assert {
        ("not_attempted", "srv-1"),
        ("moving", "srv-2"),
        ("residue", "srv-9"),
        ("soft_deleted", "srv-soft_deleted"),
    } == {(b["kind"], b["server_id"]) for b in answer["blockers"]}
    assert ["srv-1"] == names(answer, "servers", "server_id")
    assert ["srv-9"] == names(answer, "residue", "server_id")
    assert "2025-12-31T23:59:30.000000Z" == next(b for b in answer["blockers"] if b["server_id"] == "srv-2")["since"]
    assert "2025-12-31T23:59:55.000000Z" == answer["checked_at"]


def test_a_blocker_says_whose_it_is_and_what_helps(served: Served) -> None:
    """Project, since when and remedy stand with each, the sentence for people beside them."""
    served.put(
        closed("cmp-17"),
        Server(
            "srv-1", "p-1", host="cmp-17", vm_state="active", seen_at=AT - 1, since=AT - 99, failed_at=AT - 60,
            fault="NoValidHost: No valid host was found.", hindrance="hw:cpu_policy=dedicated",
        ),
    )  # fmt: skip

    _, answer = served.get("/v1/hosts/cmp-17")

    (blocker,) = answer["blockers"]
    assert ("last_attempt_failed", "srv-1", "p-1") == (blocker["kind"], blocker["server_id"], blocker["project_id"])
    assert "2025-12-31T23:59:00.000000Z" == blocker["since"]
    assert blocker["detail"].startswith("NoValidHost: No valid host was found.; its CPUs are pinned")
    assert blocker["remedy"].endswith("--live-migration srv-1")
    assert "1 whose last move failed" == answer["summary"]
    (server,) = answer["servers"]
    assert ("2025-12-31T23:59:00.000000Z", "hw:cpu_policy=dedicated") == (server["failed_at"], server["hindrance"])


def test_an_empty_host_shows_its_proof(served: Served) -> None:
    """An empty host has no blockers, and the reads of the proof with their pass and time."""
    served.put(empty("cmp-17"))

    answer = served.get("/v1/hosts/cmp-17")[1]

    assert [] == answer["blockers"]
    assert [1, 2] == [read["pass"] for read in answer["proof"]]
    assert "2025-12-31T23:59:50.000000Z" == answer["emptied_at"]


def test_what_is_unknown_is_404_with_a_sentence(served: Served) -> None:
    """Every single thing that is not there is a 404 that says so."""
    for path in ("hosts/x", "drains/x", "migrations/x", "events/x", "deliveries/17", "deliveries/x", "nonsense"):
        status, answer = served.get(f"/v1/{path}")

        assert 404 == status
        assert answer["title"] == "Not found"
        assert answer["description"].endswith((".", ")."))


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=ten", "limit=-1", "limit=%2B5", "closed=perhaps", "colour=red", "after=a&after=b"],
)
def test_a_bad_parameter_is_400_with_a_sentence(served: Served, query: str) -> None:
    """What is not understood is refused, never ignored."""
    status, answer = served.get(f"/v1/hosts?{query}")

    assert 400 == status
    assert answer["description"].endswith(".")


def test_drains_show_how_they_stand(served: Served) -> None:
    """A drain under way comes with what remains; one that is over with its outcome."""
    served.put(
        closed("cmp-17", drain_id="d2"),
        Server("srv-1", host="cmp-17", vm_state="active"),
        Drain("d1", "cmp-16", AT - 900, ended_at=AT - 100, outcome="ended", moved_at=AT - 200),
        Drain("d2", "cmp-17", AT - 600, reason="maintenance", servers_total=4, stalled_at=AT - 20),
    )

    assert ["d1", "d2"] == names(served.get("/v1/drains")[1], "drains", "drain_id")
    assert ["d2"] == names(served.get("/v1/drains?open=true")[1], "drains", "drain_id")
    one = served.get("/v1/drains/d2")[1]
    assert (1, 4, "2025-12-31T23:59:40.000000Z") == (one["servers_remaining"], one["servers_total"], one["stalled_at"])
    assert ["not_attempted"] == [b["kind"] for b in one["blockers"]]
    assert "servers_remaining" not in served.get("/v1/drains/d1")[1]


def test_migrations_can_be_narrowed(served: Served) -> None:
    """By being under way, by either host, by server; Nova's words and byte counters are kept."""
    served.put(
        Migration(
            "m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="a", destination="b", status="running", migration_id=7,
            progress=Progress(memory_remaining_bytes=5), stalled="frozen", stalled_since=AT - 3,
        ),
        Migration("m2", "srv-2", Kind.COLD, Phase.COMPLETED, source="b", destination="c", ended_at=AT - 1),
    )  # fmt: skip

    for query, wanted in (
        ("", ["m1", "m2"]),
        ("?open=true", ["m1"]),
        ("?host=b", ["m1", "m2"]),
        ("?host=c", ["m2"]),
        ("?server_id=srv-1", ["m1"]),
    ):
        assert wanted == names(served.get(f"/v1/migrations{query}")[1], "migrations", "migration_key")
    one = served.get("/v1/migrations/m1")[1]
    assert ("running", "running", "live-migration", 7) == tuple(
        one[key] for key in ("status", "phase", "kind", "migration_id")
    )
    assert 5 == one["progress"]["memory_remaining_bytes"]
    assert "2025-12-31T23:59:57.000000Z" == one["stalled_since"]
    assert one["ended_at"] is None


def test_a_drain_is_started_on_a_closed_host(served: Served) -> None:
    """POST /v1/drains hands the wish to the daemon."""
    served.put(closed("cmp-17"))

    status, answer = served.post("/v1/drains", {"host": "cmp-17"})

    assert (202, "cmp-17") == (status, answer["host"])
    assert ["cmp-17"] == served.drains_requested


def test_a_drain_that_is_under_way_is_not_started_again(served: Served) -> None:
    """Asking twice is harmless: the drain there is is the answer."""
    served.put(closed("cmp-17", drain_id="d1"), Drain("d1", "cmp-17", AT))

    status, answer = served.post("/v1/drains", {"host": "cmp-17"})

    assert (200, "d1") == (status, answer["drain_id"])
    assert [] == served.drains_requested


@pytest.mark.parametrize(
    ("body", "wanted"),
    [({"host": "nowhere"}, 404), ({"host": "cmp-open"}, 409), ({}, 400), ({"host": 7}, 400), ({"hots": "x"}, 400),
     ([], 400)],
)  # fmt: skip
def test_a_drain_that_cannot_be(served: Served, body: object, wanted: int) -> None:
    """Unknown and open hosts, and bodies that make no sense, are refused before the daemon is asked."""
    served.put(Host("cmp-open"))

    assert wanted == served.post("/v1/drains", body)[0]
    assert [] == served.drains_requested


def test_residue_is_listed_and_cleared(served: Served) -> None:
    """What was cleared is shown only when asked for; clearing says who said so."""
    served.put(
        closed("cmp-17"),
        Residue("cmp-17", "srv-1", "evacuated", AT - 9),
        Residue("cmp-17", "srv-2", "deleted_while_down", AT - 9, cleared_at=AT - 1, cleared_by="eve"),
    )

    assert ["srv-1"] == names(served.get("/v1/residue")[1], "residue", "server_id")
    assert ["srv-1", "srv-2"] == names(served.get("/v1/residue?cleared=true")[1], "residue", "server_id")
    assert [] == served.get("/v1/residue?host=cmp-1")[1]["residue"]
    answer = {"host": "cmp-17", "cleared": 1, "servers": ["srv-1"], "history_accepted": False}
    assert (200, answer) == served.post("/v1/residue/cmp-17/clear", {"who": "ada"})
    assert [("cmp-17", "ada", ["srv-1"], False)] == served.residue_cleared  # and nothing that is noted only now


def test_residue_is_cleared_of_one_server(served: Served) -> None:
    """With a server, that one is counted, and a history that nobody saw is not accepted with it."""
    served.put(
        closed("cmp-17", history_unknown=True),
        Residue("cmp-17", "srv-1", "evacuated", AT - 9),
        Residue("cmp-17", "srv-2", "deleted_while_down", AT - 9),
    )

    answer = {"host": "cmp-17", "cleared": 1, "servers": ["srv-2"], "history_accepted": False}
    assert (200, answer) == served.post("/v1/residue/cmp-17/clear", {"who": "ada", "server_id": "srv-2"})
    assert 0 == served.post("/v1/residue/cmp-17/clear", {"server_id": "srv-3"})[1]["cleared"]
    assert 400 == served.post("/v1/residue/cmp-17/clear", {"server_id": 3})[0]
    assert [("cmp-17", "ada", ["srv-2"], False)] == served.residue_cleared


def test_nothing_to_clear_asks_nobody(served: Served) -> None:
    """A host without residue needs no observation; one with an unknown history does."""
    served.put(closed("cmp-1"), closed("cmp-2", history_unknown=True))

    assert 0 == served.post("/v1/residue/cmp-1/clear", {})[1]["cleared"]
    assert [] == served.residue_cleared
    assert served.post("/v1/residue/cmp-2/clear", {})[1]["history_accepted"]
    assert [("cmp-2", None, [], True)] == served.residue_cleared


@pytest.mark.parametrize(
    ("refusal", "wanted", "word"),
    [
        (LeaseLost("x"), 503, "leader"),
        (StoreUnavailable("the disk is full"), 503, "the disk is full"),
        (OperatorError("Not today."), 409, "Not today."),
        (ZeroDivisionError("secret"), 500, "maintd's fault"),
    ],
)
def test_what_the_daemon_refuses_is_explained(served: Served, refusal: Exception, wanted: int, word: str) -> None:
    """Each fault has its status and its sentence; our own faults tell nothing of their inside."""
    served.put(closed("cmp-17"))
    served.refusal = refusal

    status, answer = served.post("/v1/drains", {"host": "cmp-17"})

    assert wanted == status
    assert word in answer["description"]
    assert "secret" not in json.dumps(answer)


def test_status_tells_all_at_a_glance(served: Served) -> None:
    """Leader, buses, cloud, counts and every closed host."""
    served.put(
        empty("cmp-1"),
        closed("cmp-2", drain_id="d1"),
        Host("cmp-3"),
        Drain("d1", "cmp-2", AT - 900, stalled_at=AT - 7),
        Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-2", stalled="frozen"),
        Bus("default", connected=True, last_message_at=AT - 1),
        Knowledge(AT - 86400, AT - 86000),
    )

    answer = served.get("/v1/status")[1]

    assert ("main", "ctl-1", None) == (answer["installation"], answer["leader"]["owner"], answer["lost_sight"])
    assert [("default", True)] == [(bus["bus"], bus["connected"]) for bus in answer["buses"]]
    assert "2025-12-31T23:59:58.000000Z" == answer["cloud"]["last_success_at"]
    assert "2025-12-31T00:00:00.000000Z" == answer["memory_since"]
    counts = answer["counts"]
    assert (2, 1, 1, 1, 1, 1) == tuple(
        counts[name]
        for name in (
            "hosts_closed",
            "hosts_empty",
            "drains_open",
            "drains_stalled",
            "migrations_open",
            "migrations_stalled",
        )  # fmt: skip
    )
    assert [("cmp-1", True, None), ("cmp-2", False, "2025-12-31T23:59:53.000000Z")] == [
        (h["host"], h["empty"], h["stalled_at"]) for h in answer["hosts"]
    ]


@pytest.mark.parametrize(
    ("cloud", "leads", "word"),
    [
        (CLOUD, True, None),
        (CLOUD, False, "fleet lease"),
        ({"configured": False}, True, "[cloud]"),
        ({**CLOUD, "ok": False, "last_error": "HTTP 503"}, True, "HTTP 503"),
        ({**CLOUD, "ok": None}, True, None),
    ],
)
def test_status_says_when_sight_is_lost(served: Served, cloud: dict, leads: bool, word: str | None) -> None:
    """Without a leader, a cloud, or its answers nobody can say that a host is empty; the reason is a sentence."""
    served.status = {"cloud": cloud}
    if not leads:
        served.clock.advance(3601)

    lost = served.get("/v1/status")[1]["lost_sight"]

    assert (word is None) == (lost is None)
    assert word is None or word in lost


def test_values_keep_what_a_note_says(served: Served) -> None:
    """Warnings of the last pass are shown beside the blockers."""
    from dataclasses import replace

    host = empty("cmp-17")
    assert host.finding is not None
    served.put(
        replace(host, finding=replace(host.finding, warnings=(Note("failed_migration", "srv-1", "left files"),)))
    )

    assert [{"kind": "failed_migration", "server_id": "srv-1", "detail": "left files"}] == served.get(
        "/v1/hosts/cmp-17"
    )[1]["warnings"]
