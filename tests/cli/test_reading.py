"""Commands that ask the API: what they print, for people and for scripts, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maintd.cli import events, main
from maintd.client import Client, Unreachable
from maintd.domain.model import Bus, Drain, Host, Kind, Knowledge, Migration, Phase, Residue, Server
from maintd.store import Subscription
from tests.support.rabbitmq import free_port
from tests.web.serving import AT, Served, closed, disabled, emptied, empty, occupied


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command against the served API: (exit code, stdout, stderr)."""
    monkeypatch.setenv("MAINTD_API", served.url)

    def command(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def fill(served: Served) -> None:
    served.put(
        empty("cmp-1"),
        closed("cmp-2", drain_id="d1"),
        Host("cmp-3", up=False),
        Server("srv-1", host="cmp-2", vm_state="active", seen_at=AT - 60),
        Drain("d1", "cmp-2", AT - 900, reason="maintenance", servers_total=3, stalled_at=AT - 7),
        Migration("m1", "srv-2", Kind.LIVE, Phase.RUNNING, source="cmp-2", destination="cmp-3", percent=40),
        Migration("m0", "srv-3", Kind.COLD, Phase.FAILED, source="cmp-2", destination="cmp-3", ended_at=AT - 50),
        Residue("cmp-2", "srv-9", "evacuated", AT - 500),
        Bus("default", connected=True, last_message_at=AT - 1),
        Knowledge(AT - 86400, AT - 86000),
    )
    served.publish(disabled("cmp-2"), emptied("cmp-1"))
    served.store.deliveries.fan_out(lambda event_type: ("ha",), AT)


LISTS = ("hosts", "drains", "migrations", "residue", "deliveries")


@pytest.mark.parametrize("noun", LISTS)
def test_a_bare_noun_lists(served: Served, run, noun: str) -> None:
    """The noun alone, `list`, and --json before or after it say the same; JSON has the API's shape."""
    fill(served)

    code, table, err = run(noun)

    assert (0, "") == (code, err)
    assert table == run(noun, "list")[1]
    as_json = run(noun, "--json")[1]
    assert as_json == run(noun, "list", "--json")[1] == run(noun, "--json", "list")[1]
    answer = json.loads(as_json)
    assert {noun, "next"} == set(answer)
    assert len(answer[noun]) == len(table.splitlines()) - 1


def test_options_of_the_noun_hold_for_its_verb(served: Served, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--api is taken before the verb and after it, and wins over MAINTD_API."""
    monkeypatch.setenv("MAINTD_API", "http://127.0.0.1:9")

    assert 6 == run("hosts", "list")[0]
    assert 0 == run("hosts", "--api", served.url, "list")[0]
    assert 0 == run("hosts", "list", "--api", served.url)[0]


@pytest.mark.parametrize("noun", [*LISTS, "events"])
def test_nothing_is_said_in_a_sentence(served: Served, run, noun: str) -> None:
    """An empty list is a sentence for people, and an empty list for scripts."""
    code, out, _ = run(noun)

    assert 0 == code
    assert out.rstrip().endswith((".", ")."))
    as_json = run(noun, "--json")[1]
    assert as_json == "" if noun == "events" else [] == json.loads(as_json)[noun]


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (("hosts", "show", "cmp-2"), "cmp-2"),
        (("drains", "show", "d1"), "maintenance"),
        (("migrations", "show", "m1"), "live-migration"),
        (("events", "show", "event-1"), "maintd.service.disabled.v1"),
        (("deliveries", "show", "1"), "event-1"),
    ],
)
def test_show_shows_one(served: Served, run, argv: tuple[str, ...], wanted: str) -> None:
    """`show ID` shows one, for people and as one JSON object; an unknown one is exit code 2 and a sentence."""
    fill(served)

    code, out, _ = run(*argv)

    assert 0 == code
    assert wanted in out
    assert isinstance(json.loads(run(*argv, "--json")[1]), dict)
    code, out, err = run(argv[0], "show", "nonesuch")
    assert (2, "") == (code, out)
    assert err.startswith("maintd: ")
    assert 1 == err.count("\n")


def test_status_fits_on_a_screen(served: Served, run) -> None:
    """Who leads, what is heard, and each closed host with how it stands."""
    fill(served)

    code, out, _ = run("status")

    assert 0 == code
    for word in ("ctl-1", "default: connected", "answers", "1 stalled", "ha 2 pending"):
        assert word in out
    rows = [line.split() for line in out.splitlines() if line.startswith("cmp-")]
    assert [("cmp-1", "EMPTY"), ("cmp-2", "no")] == [(row[0], row[1]) for row in rows]
    assert "STALLED" in rows[1]
    assert json.loads(run("status", "--json")[1])["counts"]["hosts_closed"] == 2


def test_status_shouts_when_sight_is_lost(served: Served, run) -> None:
    """What makes every other line doubtful cannot be missed."""
    served.status = {"cloud": {"configured": True, "ok": False, "last_error": "HTTP 503 from Nova"}}

    assert "SIGHT LOST" in run("status")[1]


def test_why_names_every_blocker_and_its_remedy(served: Served, run) -> None:
    """Kind, server, since when, and the command that helps."""
    served.put(
        occupied("cmp-17", "soft_deleted"),
        Server("srv-1", "project-1", host="cmp-17", vm_state="active", seen_at=AT - 5, since=AT - 60),
    )

    code, out, _ = run("why", "cmp-17")

    assert 0 == code
    assert out.startswith(
        "cmp-17 is not empty: 1 server nobody has asked to move, 1 soft-deleted server "
        "(last verified 2025-12-31 23:59:55Z)."
    )
    lines = [line.split() for line in out.splitlines()]
    assert ["not_attempted", "srv-1", "project-1", "2025-12-31", "23:59:00Z"] in [line[:5] for line in lines]
    assert "--live-migration srv-1" in out
    assert ["soft_deleted", "srv-soft_deleted", "-", "2025-12-31", "23:59:55Z"] in [line[:5] for line in lines]
    assert {"not_attempted", "soft_deleted"} == {
        blocker["kind"] for blocker in json.loads(run("why", "cmp-17", "--json")[1])["blockers"]
    }


def test_why_is_read_at_night(served: Served, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be done comes first, each kind from the oldest on, and each command stands once, to be copied."""
    monkeypatch.setattr("maintd.cli.fleet.SystemClock", lambda: served.clock)
    served.put(
        closed("cmp-17", drain_id="d1"),
        Drain("d1", "cmp-17", AT - 600, servers_total=12, stalled_at=AT - 60),
        Server("srv-1", "p-1", host="cmp-17", vm_state="active", since=AT - 3600),
        Server("srv-2", "p-1", host="cmp-17", vm_state="active", since=AT - 7200),
        Server("srv-3", "p-2", host="cmp-17", vm_state="stopped", since=AT - 60),
        Server("srv-4", "p-2", host="cmp-17", vm_state="active", since=AT - 60),
        Migration("m1", "srv-4", Kind.LIVE, Phase.RUNNING, "cmp-17", "cmp-18", begun_at=AT - 30),
        Migration("m2", "srv-5", Kind.COLD, Phase.AWAITING_CONFIRMATION, "cmp-17", "cmp-18", moved_at=AT - 300),
    )

    said = [" ".join(line.split()) for line in run("why", "cmp-17")[1].splitlines()]

    assert "When its moves will be done is unknown" in said.pop(2)
    assert said == [
        "cmp-17 is not empty: 2 servers nobody has asked to move, 1 that cannot be moved live, 1 unconfirmed resize, "
        "1 on its way (not verified yet).",
        "Draining since 2025-12-31 23:50:00Z (10 min), STALLED since 2025-12-31 23:59:00Z (60 s): "
        "4 servers still here; 12 when it began.",
        "",
        "KIND SERVER PROJECT SINCE AGE DETAIL",
        "not_attempted srv-2 p-1 2025-12-31 22:00:00Z 2 h 0 min -",
        "not_attempted srv-1 p-1 2025-12-31 23:00:00Z 60 min -",
        "cannot_live_migrate srv-3 p-2 2025-12-31 23:59:00Z 60 s it is stopped",
        "unconfirmed_resize srv-5 - 2025-12-31 23:55:00Z 5 min "
        "it runs elsewhere, its disks are still here, and a revert brings it back",
        "moving srv-4 p-2 2025-12-31 23:59:30Z 30 s live-migration to cmp-18: running",
        "",
        "what helps next:",
        "openstack --os-compute-api-version 2.30 server migrate --live-migration srv-2",
        "openstack --os-compute-api-version 2.30 server migrate --live-migration srv-1",
        "openstack server migrate --wait srv-3 && openstack server migration confirm srv-3",
        "openstack server migration confirm srv-5",
    ]


def test_why_of_an_empty_host_is_its_proof(served: Served, run) -> None:
    """It says what empty means, and on which reads it rests."""
    served.put(empty("cmp-17"))

    out = run("why", "cmp-17")[1]

    assert out.startswith("cmp-17 is empty of Nova servers: proven 2025-12-31 23:59:50Z.")
    assert "pass 2" in out


def test_control_characters_do_not_reach_the_terminal(served: Served, run) -> None:
    """A reason or name with escape sequences is shown, but does nothing."""
    served.put(Host("cmp-1", disabled=True, disabled_reason="a\x1b[2J\u202eb\nc", closed_at=AT))

    for argv in (("status",), ("hosts",), ("hosts", "show", "cmp-1")):
        out = run(*argv)[1]

        assert "a·[2J·b·c" in out
        assert not {"\x1b", "\u202e"} & set(out)


def test_events_show_the_last_ones_in_order(served: Served, run) -> None:
    """The last N, oldest first; with a filter, the last N of those; --after and --all as they say."""
    served.publish(*(emptied(f"cmp-{n}") if n % 2 else disabled(f"cmp-{n}") for n in range(1, 9)))

    def ids(*argv: str) -> list[str]:
        return [json.loads(line)["id"] for line in run("events", "--json", *argv)[1].splitlines()]

    assert [f"event-{n}" for n in range(1, 9)] == ids() == ids("--all")
    assert ["event-7", "event-8"] == ids("-n", "2")
    assert ["event-5", "event-7"] == ids("-n", "2", "--type", "host.*")
    assert ["event-5", "event-7"] == ids("-n", "2", "--type", "host.emptied")
    assert ["event-8"] == ids("--after", f"{7:020d}")
    assert ["event-2"] == ids("--subject", "cmp-2")
    assert [] == ids("-n", "0")


def test_an_event_is_one_line_for_people(served: Served, run) -> None:
    """Time, type, subject and what matters of it."""
    served.publish(disabled("cmp-2"))

    line = run("events")[1]

    assert line.split() == ["2026-01-01", "00:00:01Z", "service.disabled", "cmp-2", "reason", "maintenance"]


def test_a_drain_is_started(served: Served, run) -> None:
    """`drain start HOST` asks the daemon; an open host is exit code 1 and says what to do first."""
    served.put(closed("cmp-17"), Host("cmp-18"))

    assert 0 == run("drain", "start", "cmp-17")[0]
    assert ["cmp-17"] == served.drains_requested
    code, _, err = run("drains", "start", "cmp-18")
    assert 1 == code
    assert "disable" in err
    assert 2 == run("drain", "start", "cmp-99")[0]


def test_residue_is_cleared_by_name(served: Served, run) -> None:
    """`residue clear HOST` says who said so."""
    served.put(closed("cmp-17"), Residue("cmp-17", "srv-1", "evacuated", AT - 9))

    code, out, _ = run("residue", "clear", "cmp-17")

    assert 0 == code
    assert "1 left behind" in out and out.endswith("  srv-1\n")
    ((host, who, server_ids, history),) = served.residue_cleared
    assert ("cmp-17", True, ["srv-1"], False) == (host, bool(who), server_ids, history)
    assert (
        "Nothing is known to be left on cmp-17 by srv-2." in run("residue", "clear", "cmp-17", "--server", "srv-2")[1]
    )
    assert "1 left behind" in run("residue", "clear", "cmp-17", "--server", "srv-1")[1]
    assert ["srv-1"] == served.residue_cleared[-1][2] and 2 == len(served.residue_cleared)


def test_deliveries_show_what_the_last_attempt_came_to(served: Served, run) -> None:
    """The list of deliveries shows status, time taken and the beginning of the answer."""
    from tests.web.test_deliveries import deliver

    served.publish(emptied("cmp-1"))
    deliver(served, "dead")
    shown = run("deliveries")[1]

    assert "500" in shown and "0.250 s" in shown and " no " in shown


def test_deliveries_are_redelivered(served: Served, run) -> None:
    """By id or by endpoint; nothing found is exit code 1, nothing named is 2."""
    from tests.web.test_deliveries import deliver

    served.publish(emptied("cmp-1"))
    number = deliver(served, "dead")

    assert 2 == run("deliveries", "redeliver")[0]
    assert 1 == run("deliveries", "redeliver", "999")[0]
    assert 0 == run("deliveries", "redeliver", str(number))[0]
    assert 1 == run("deliveries", "--endpoint", "ha", "redeliver")[0]  # it is pending already


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("active", ""),
        ("paused", "is paused; they wait for: maintd subscriptions resume s1."),
        ("disabled", "is disabled; they wait for: maintd subscriptions enable s1."),
        ("unverified", "is unverified; they wait for: maintd subscriptions verify s1."),
        (None, "is deleted; they will be given up."),
    ],
)
def test_a_redelivery_that_waits_says_for_what(served: Served, run, state: str | None, says: str) -> None:
    """To a subscription that is not active nothing is sent now, and the answer has the command that changes it."""
    if state is not None:
        served.store.subscriptions.add(
            Subscription("s1", None, "m", "https://r.example/", ("*",), state=state, secrets=("whsec_1",))
        )
    served.publish(emptied("cmp-1"))
    served.store.deliveries.fan_out(lambda event: ("sub-s1",), AT, refused={"sub-s1"})

    code, out, _ = run("deliveries", "--subscription", "s1", "redeliver")

    assert (0, "1 will be sent again.") == (code, out.splitlines()[0])
    assert (f"Of these, 1 not now: the subscription s1 {says}" if says else "") == "".join(out.splitlines()[1:])


def test_following_over_a_gap_shows_nothing_twice(served: Served, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait, and the second one meets a restart: the first is not shown again."""
    monkeypatch.setattr(events, "PAGE", 2)
    monkeypatch.setattr(events, "AGAIN_S", 0.0)
    get, asked = Client.get, list[object]()

    def restarting(self: Client, *path: str, **params: object) -> dict[str, object]:
        asked.append(params.get("after"))
        if len(asked) == 3:
            raise Unreachable("it restarts")
        if len(asked) == 6:
            raise KeyboardInterrupt
        answer = get(self, *path, **(params | {"wait": 0}))
        if len(asked) == 1:
            served.publish(*(emptied(f"cmp-{n}") for n in range(5)))
        return answer

    monkeypatch.setattr(Client, "get", restarting)
    code, out, _ = run("events", "--follow", "--after", "0")

    assert 130 == code
    assert [f"cmp-{n}" for n in range(5)] == [line.split()[3] for line in out.splitlines()]


def test_nobody_there_is_exit_code_6(capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that does not run is a sentence that names the URL."""
    for argv in (("status",), ("wait", "cmp-1"), ("events", "--follow")):
        assert 6 == main([*argv, "--api", "http://127.0.0.1:9"])
        err = capsys.readouterr().err
        assert "http://127.0.0.1:9" in err
        assert 1 == err.count("\n")


def test_somebody_else_there_is_exit_code_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not maintd is said to be that."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert 6 == main(["status", "--api", f"http://127.0.0.1:{server.server_port}"])
        assert "is not maintd's API" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()


def test_a_kept_connection_that_was_closed_is_opened_again(served: Served) -> None:
    """An API that was restarted between two questions answers the second one."""
    port = free_port()
    served.serve(port)
    client = Client(served.url)
    client.get("status")

    served.serve(port)

    assert "main" == client.get("status")["installation"]
    client.close()
