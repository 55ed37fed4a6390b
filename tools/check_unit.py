#!/usr/bin/env python3
"""Hold unit files against systemd: `verify` says nothing at all, and `security` finds an exposure of at most 1.5.

    tools/check_unit.py UNIT...

`systemd-analyze verify` ends with status 0 after merely warning that it ignores a line, so its silence is what counts.
"""

from __future__ import annotations

import re
import subprocess
import sys

AT_MOST = 1.5


def faults(unit: str) -> list[str]:
    """What is wrong with a unit file, one sentence each."""
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    said = [line for line in (verified.stdout + verified.stderr).splitlines() if line.strip()]
    found = [f"{unit}: systemd-analyze verify: {line}" for line in dict.fromkeys(said)]
    if verified.returncode and not said:
        found.append(f"{unit}: systemd-analyze verify ended with status {verified.returncode}")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", rated.stdout)
    if exposure is None:
        found.append(f"{unit}: systemd-analyze security gave no exposure level: {rated.stderr.strip()}")
    elif float(exposure[1]) > AT_MOST:
        found.append(f"{unit}: exposure level {exposure[1]} is above {AT_MOST}")
    else:
        print(f"{unit}: verified; exposure level {exposure[1]}, at most {AT_MOST} is allowed")
    return found


if __name__ == "__main__":
    wrong = [fault for unit in sys.argv[1:] for fault in faults(unit)]
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    sys.exit(bool(wrong))
