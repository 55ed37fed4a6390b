#!/usr/bin/env python3
"""Draws docs/doctor.md from the checks that maintd/doctor declares.

    tools/draw_checks.py            write it
    tools/draw_checks.py --check    say whether it is up to date (exit code 1 when not)

What a check looks at, and what each level of it means, is read from its declaration, without which it can make no
finding; so the page cannot leave out what the command says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maintd.doctor.findings import Check  # noqa: E402
from maintd.doctor.judging import CHECKS  # noqa: E402

PAGE = ROOT / "docs" / "doctor.md"

GROUPS = {
    "config": "The configuration",
    "database": "The database",
    "daemon": "The running daemon",
    "bus": "The broker",
    "stream": "What Nova sends",
    "api": "The APIs",
    "clock": "The clocks",
    "webhook": "The webhooks",
    "doctor": "The doctor itself",
}
"""What the first word of a check's name stands for."""

HEAD = """\
# What `maintd doctor` looks at

Drawn by `tools/draw_checks.py` from the code; do not edit.

```console
$ maintd doctor --config-file /etc/maintd/maintd.conf --config-file /etc/maintd/secrets.conf
```

It looks at everything that maintd needs, from a controller, with or without a daemon beside it, and says what is wrong
in sentences, each with what to do. It changes nothing but one temporary queue of its own per bus, takes no message of
the daemon's, tells no secret, and ends in bounded time whatever hangs. `--json` prints one object for scripts; the
names below are its `check`, and a promise.

| exit code | what was found |
|---|---|
| 0 | nothing wrong |
| 1 | warnings: maintd works, and lacks something |
| 2 | errors: maintd does not work, or cannot prove anything |

*unknown* is what could not be looked at. It is no fault and changes no exit code, but it is not called *ok* either.
Three options turn unknowns into answers:

- `--listen SECONDS` (60): for how long each bus is listened to. It ends sooner when every compute that is up was heard.
  A compute with nothing to do says nothing, and no tool can tell that from one that is set up wrongly; so a quiet
  compute is *unknown*, and only one on which the API shows a server that changed meanwhile is a *warning*.
- `--management-url http://HOST:15672`: what bounds a queue, and who reads it, is not shown by AMQP but by RabbitMQ's
  management plugin. It is asked as the user of `transport_url`, who needs the tag `management` for it.
- `--send-test-event`: every webhook gets a signed `maintd.doctor.test.v1`, whatever its `event_types`. It is not stored
  and not repeated; its `data` has the webhook's name and a `because` of origin `operator`, and nothing has happened.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, checks in groupby(sorted(CHECKS, key=_place), key=_group):
        parts.append(f"\n## {GROUPS[group]}\n")
        parts.append("| check | looks at | unknown | warning | error |\n|---|---|---|---|---|")
        parts.extend(_row(check) for check in checks)
    return "\n".join(parts) + "\n"


def _group(check: Check) -> str:
    return check.id.partition(".")[0]


def _place(check: Check) -> int:
    return list(GROUPS).index(_group(check))


def _row(check: Check) -> str:
    return f"| {' | '.join(_cells(check))} |"


def _cells(check: Check) -> Iterator[str]:
    yield f"`{check.id}`"
    for text in (check.looks_at, check.means_unknown, check.means_warning, check.means_error):
        yield (text or "").replace("|", "\\|")


def outdated() -> bool:
    """Whether the page is not what the code says."""
    return not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say whether the page is up to date")
    if parser.parse_args().check:
        if outdated():
            print(f"{PAGE.relative_to(ROOT)} is not what the code says: run tools/draw_checks.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
