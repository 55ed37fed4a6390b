"""The runbooks: one for every reason and every alert about it, with commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from maintd.cli import parser
from maintd.domain.model import STALL_AFTER_S

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ROOT / "docs" / "runbooks"
RULES = (ROOT / "etc" / "maintd" / "maintd.prometheus-rules.yaml").read_text()


def maintd_commands() -> list[str]:
    """Every command of ours on any page, in a block or in the text."""
    found = set()
    for page in PAGES.glob("*.md"):
        text = page.read_text()
        found |= set(re.findall(r"^ *\$ (maintd [^#\n]+)", text, re.MULTILINE))
        found |= set(re.findall(r"`(maintd [^`]+)`", text.replace("\n", " ")))
    return sorted(found)


@pytest.mark.parametrize("reason", [*STALL_AFTER_S, "drain_stalled"])
def test_every_reason_has_a_page(reason: str) -> None:
    """It says what the reason means, how to look and what to do, names its alert, and stands in the list of pages."""
    page = (PAGES / f"{reason}.md").read_text()

    assert ["## What it means", "## How to look", "## What to do"] == re.findall("^## .*", page, re.MULTILINE)
    assert f"]({reason}.md)" in (PAGES / "README.md").read_text()
    (alerts,) = re.findall(r"^Alerts?: .*", page, re.MULTILINE)
    for alert in re.findall("`(Maintd[A-Za-z]+)`", alerts):
        assert f"alert: {alert}\n" in RULES


@pytest.mark.parametrize("reason", STALL_AFTER_S)
def test_a_page_says_the_default(reason: str) -> None:
    """Where a page says after how many seconds a reason is said, it is the default."""
    page = (PAGES / f"{reason}.md").read_text().replace("\n", " ")

    for seconds in re.findall(rf"{reason}_after_s` \((\d+) s\)", page):
        assert STALL_AFTER_S[reason] == float(seconds)


def test_every_alert_about_maintenance_names_a_page() -> None:
    """Its page exists, for every reason that the alert can have."""
    group = RULES[: RULES.index("- name: maintd\n")]
    pages = re.findall("runbook_page: docs/runbooks/(.*)", group)

    assert len(pages) >= group.count("- alert: Maintd") - 1  # MaintdDrainLong says all there is to do
    for page in pages:
        for reason in STALL_AFTER_S:
            assert (PAGES / page.replace("{{ $labels.reason }}", reason)).exists()


def test_pages_are_linked_rightly() -> None:
    """Every link between the pages, and out of them, leads to a file."""
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("command", maintd_commands())
def test_commands_exist(command: str) -> None:
    """What a page tells to type is understood by the command line."""
    assert callable(parser().parse_args(shlex.split(command)[1:]).do)
