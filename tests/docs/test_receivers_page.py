"""docs/receivers.md says what the code does: its numbers, its table of answers, its links."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from maintd.cli.common import Parser
from maintd.config import ApiConfig, DatabaseConfig, SubscriptionsConfig
from maintd.delivery.breaker import PAUSE_MOST_S, SLOW_S, WHILE_SLOW, Limits
from maintd.delivery.egress import URL_CHARS
from maintd.delivery.outcome import DETAIL_CHARS, Outcome, OutcomeKind, kind_of_status
from maintd.delivery.retry import (
    EXPIRES_AFTER_S,
    GIVE_UP_AFTER_S,
    HOUR_S,
    RETRY_AFTER_CAP_S,
    SCHEDULE_S,
    RetryAt,
    next_attempt,
)
from maintd.delivery.sinks import bus, exec
from maintd.delivery.sinks.webhook import (
    ANSWER_BYTES,
    CONNECT_S,
    CONTENT_TYPE,
    KEEPALIVE_S,
    RECEIVED_BYTES,
    TOTAL_S,
)
from maintd.delivery.subscribers import VERIFY_AGAIN_S
from maintd.delivery.subscription_events import TEST, VERIFY
from maintd.domain.events import CATALOGUE
from maintd.domain.tenant_events import TENANT_CATALOGUE
from maintd.web.events import WAIT_MAX_S
from maintd.web.stream import AGE_S, PING_S, RETRY_S, SEND_S

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "receivers.md"


def words() -> str:
    """The page with its lines joined."""
    return " ".join(PAGE.read_text().split())


@pytest.mark.parametrize(
    "said",
    [
        f"`{CONTENT_TYPE}`",
        f"may take {TOTAL_S:.0f} s, connecting {CONNECT_S:.0f} s of them",
        f"used again within {KEEPALIVE_S:.0f} s; at most {Limits().per_endpoint} requests of one maintd",
        f"Up to {ANSWER_BYTES // 1024} KB of an answer are read, the first {DETAIL_CHARS} characters",
        f"on which {RECEIVED_BYTES // 1024} KB are taken at most",
        f"of at most {URL_CHARS} characters",
        "on port " + " or ".join(map(str, SubscriptionsConfig().allowed_ports)),
        f"confirmed it, within {bus.TOTAL_S:.0f} s",
        f"always `{bus.PRIORITY}`: the routing key, and the name of the queue, is `maintd.{bus.PRIORITY.lower()}`",
        f"SIGTERM to its process group, SIGKILL {exec.GRACE_S:.0f} s later",
        f"writes more than {exec.FLOOD_BYTES // 1024**2} MB",
        f"Up to {exec.AT_ONCE} run at once",
        f"never longer than about {sum(SCHEDULE_S) / 3600:.0f} hours",
        f"`events_age_s` ({DatabaseConfig().events_age_s / 86400:.0f} days)".replace("`events", "`[database] events"),
        f"`wait=20` answers at once when there is something, else when something comes, else after so many seconds "
        f"({WAIT_MAX_S} at most)",
        f"retry: {RETRY_S * 1000:.0f}",
        f"a comment every {PING_S:.0f} s",
        f"do not take what it sends for {SEND_S:.0f} s",
        f"`[api] streams` ({ApiConfig().streams}) may",
        f"deliveries_age_s` ({DatabaseConfig().deliveries_age_s / 86400:.0f} days)",
        f"[subscriptions] give_up_after_s` ({SubscriptionsConfig().give_up_after_s / 86400:.0f} days)",
        f"[subscriptions] probe_every_s` ({SubscriptionsConfig().probe_every_s / 3600:.0f} hour)",
        f"with a pause of at most {PAUSE_MOST_S:.0f} s after each try",
        f"half of the {Limits().in_all:,} requests",
        f"`{VERIFY}`",
        f"`{TEST}`",
    ],
)
def test_its_numbers_are_the_codes(said: str) -> None:
    """Every time and size on the page is the constant's."""
    assert said in words()


def test_its_hour_is_the_codes() -> None:
    """A stream ends after the time that the page calls an hour."""
    assert ("ends a stream after an hour" in words(), 3600.0) == (True, AGE_S)


def test_its_ages_are_the_codes() -> None:
    """What the page says goes stale in an hour does, and nothing else of what maintd says."""
    found = re.search(r"\| (`migration\.started`.*?) \| 1 hour \| \| all others \| (\d+) hours \|", words())
    assert found is not None
    said = set()
    for part in found[1].split("; "):
        noun = part.split(".")[0].strip("`")
        said |= {f"maintd.{noun}{name}.v1" for name in re.findall(r"(\.\w+)`", part)}
    known = {f"maintd.{middle}.v1" for middle in [*CATALOGUE, *TENANT_CATALOGUE]} | said
    ages = {name: next(age for pattern, age in EXPIRES_AFTER_S if fnmatchcase(name, pattern)) for name in known}

    assert said == {name for name, age in ages.items() if age == HOUR_S}
    assert {HOUR_S, int(found[2]) * HOUR_S} == set(ages.values())


def test_its_verifications_are_the_codes() -> None:
    """When verification is tried again, and what a slow endpoint gets."""
    found = re.search(r"its `url` changed, and then after (.*?); after that", words())
    assert found is not None
    unit_s = {"s": 1.0, "min": 60.0, "h": 3600.0}
    said = [float(n) * unit_s[unit] for n, unit in (t.split() for t in re.split(", | and ", found[1]))]
    assert list(VERIFY_AGAIN_S) == said
    assert (2.0, 2) == (SLOW_S, WHILE_SLOW) and "(two seconds), two at a time" in words()


def test_its_schedule_is_the_codes() -> None:
    """Nine attempts at the times listed, given up after a day, an hour's patience at most."""
    found = re.search(r"At most nine attempts, each after a random part of: at once, (.*?)\. So half", words())
    assert found is not None
    unit_s = {"s": 1.0, "min": 60.0, "h": 3600.0}
    said = [float(n) * unit_s[unit] for n, unit in (text.split() for text in found[1].split(", "))]
    assert list(SCHEDULE_S) == [0.0, *said]
    assert (9, 86400.0, 3600.0) == (len(SCHEDULE_S), GIVE_UP_AFTER_S, RETRY_AFTER_CAP_S)


@pytest.mark.parametrize("status", [*range(200, 208), *range(300, 309), *range(400, 430), *range(500, 512)])
def test_its_answers_are_the_codes(status: int) -> None:
    """What the table says of a status is what becomes of it: delivered, given up, throttled, or tried again."""
    kind = kind_of_status(status)
    again = kind is not OutcomeKind.DELIVERED and isinstance(next_attempt(1, Outcome(kind, status), 0, 0, 0.5), RetryAt)

    assert (kind is OutcomeKind.DELIVERED) == (200 <= status < 300)
    assert again == (status >= 300 and status not in (410, 415))
    assert (kind is OutcomeKind.THROTTLED) == (status in (429, 502, 503, 504))
    assert Outcome(kind, status).disables == (status == 410)


def test_a_program_has_as_many_threads_as_there_can_be_attempts() -> None:
    """No attempt of an exec sink waits for its turn, for that would count as its own time."""
    assert Limits().per_endpoint <= exec.AT_ONCE


def test_what_it_says_of_the_sandbox_is_in_the_unit() -> None:
    """Every setting of the unit that the page names is there."""
    unit = (PAGE.parent.parent / "systemd" / "maintd.service").read_text()
    named = (
        "NoNewPrivileges ProtectSystem=strict PrivateTmp MemoryDenyWriteExecute TasksMax MemoryMax OOMPolicy=continue"
    )

    assert [] == [name for name in named.split() if f"`{name}`" not in words() or f"\n{name}" not in unit]


def test_its_links_lead_somewhere() -> None:
    """Every file it links to is there."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()) if "://" not in link]
    assert links
    assert [] == [link for link in links if not (PAGE.parent / link).exists()]


def test_its_commands_are_commands() -> None:
    """Every `maintd listen` on the page is accepted by the parser."""
    from maintd.cli import parser

    root = parser()
    assert isinstance(root, Parser)
    lines = re.findall(r"^\$ maintd (listen [^#\n]*)", PAGE.read_text(), re.MULTILINE)
    assert 3 == len(lines)
    for line in lines:
        assert "listen" == root.parse_args(line.split()).command
