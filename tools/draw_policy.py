#!/usr/bin/env python3
"""Draws docs/policy.md from the table of routes and the rules in maintd/web/auth.py.

    tools/draw_policy.py            write it
    tools/draw_policy.py --check    say whether it is up to date (exit code 1 when not)

Which rule a route needs is read from the table by which it is answered, and what a rule permits from its default; so
the page cannot leave a route out, nor say of one what is not so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maintd.web.auth import RULES  # noqa: E402
from maintd.web.server import ROUTES  # noqa: E402

PAGE = ROOT / "docs" / "policy.md"

HEAD = """\
# Who may ask what

Drawn by `tools/draw_policy.py` from the code; do not edit.

With `[api] auth = none` whoever reaches the API is an operator, and it listens on the loopback only. With `keystone`
every request needs a token (`X-Auth-Token`; the commands take it from `OS_TOKEN`), and its roles decide:

- Whoever passes a route's *operator* rule is an operator there, and sees everything.
- Whoever passes only its *project* rule is answered about the token's own project, as if there were no other. Another
  project's events, deliveries and subscriptions are 404, as what never was. Projects are answered only while they are
  told anything (`[tenants] enabled`).
- Without a valid token it is 401, without the roles 403. A route without a project rule is for operators.

`role:reader` and `role:member` are Keystone's own; a member is a reader too, an admin both. An operator may read,
pause, try and delete a project's subscription, but neither change what it says nor make it a new secret.

To change a rule, name a file in `[oslo_policy] policy_file` (a whole path) and write its name and its new text there,
in [oslo.policy's language](https://docs.openstack.org/oslo.policy/latest/admin/policy-yaml-file.html). It is read at
start; a rule that does not exist or cannot be understood is refused then. `role:`, `project_id:`, `user_id:` and
`system_scope:` can be asked for.

```yaml
"maintd:fleet:read": "rule:maintd:operator:read or role:noc"      # let a role of your own see the fleet
"maintd:subscriptions:write_own": "!"                             # projects make no subscriptions of their own
```
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Routes\n", "| route | operator rule | project rule |\n|---|---|---|"]
    for path, methods in ROUTES.items():
        for method, route in methods.items():
            own = f"`{route.needs.own}`" if route.needs.own else ""
            parts.append(f"| `{method} {path}` | `{route.needs.operator}` | {own} |")
    parts += ["\n## Rules\n", "| rule | default | permits |\n|---|---|---|"]
    parts += [f"| `{name}` | `{rule.default}` | {rule.about} |" for name, rule in RULES.items()]
    return "\n".join(parts) + "\n"


def outdated() -> bool:
    """Whether the page is not what the code says."""
    return not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say whether the page is up to date")
    if parser.parse_args().check:
        if outdated():
            print(f"{PAGE.relative_to(ROOT)} is not what the code says: run tools/draw_policy.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
