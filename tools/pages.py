"""What the tools that draw one page of YAML share: how it is written, and the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


class Plain(yaml.SafeDumper):
    """YAML without anchors, which few readers of these documents expect; texts of several lines stay as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _in_lines(dumper: Plain, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Plain.add_representer(str, _in_lines)


def text_of(document: Mapping[str, Any], tool: str) -> str:
    """A document as YAML, with the tool that drew it."""
    drawn = yaml.dump(document, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
    return f"# Drawn by tools/{tool}; do not edit.\n{drawn}"


def draw(page: Path, document: Mapping[str, Any], tool: str) -> int:
    """Write a page, or with --check say whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=f"Draw {page.relative_to(ROOT)} from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    args = parser.parse_args()
    text = text_of(document, tool)
    if page.exists() and page.read_text(encoding="utf-8") == text:
        return 0
    if args.check:
        print(f"{page.relative_to(ROOT)} is not up to date: run tools/{tool}", file=sys.stderr)
        return 1
    page.write_text(text, encoding="utf-8")
    print(page.relative_to(ROOT))
    return 0
