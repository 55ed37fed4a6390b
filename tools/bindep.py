#!/usr/bin/env python3
"""Bring what bindep.txt names, where we may; else say exactly what to install.

    tools/bindep.py PROFILE [PACKAGE...]

Understands the part of bindep's format that bindep.txt uses, because a bare machine has no bindep; needs nothing but
Python. Installs by apt-get when it is root and apt-get is there, and lets no service start meanwhile: the tests
start what they need themselves. On other systems, and for other users, it ends with status 1 and one sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINDEP = Path(__file__).resolve().parent.parent / "bindep.txt"
POLICY = Path("/usr/sbin/policy-rc.d")


def wanted(profile: str, platform: str, text: str) -> list[str]:
    """The packages of a profile on a platform (dpkg or rpm); the profile `base` is what carries no profile."""
    packages = []
    for line in text.splitlines():
        found = re.fullmatch(r"\s*([A-Za-z0-9.+_-]+)\s*(?:\[([^\]]*)\])?\s*", line.partition("#")[0])
        if found is None:
            continue
        words = (found[2] or "").split()
        platforms = [word.removeprefix("platform:") for word in words if word.startswith("platform:")]
        profiles = [word for word in words if not word.startswith("platform:")]
        if (not platforms or platform in platforms) and (profiles or ["base"]) == [profile]:
            packages.append(found[1])
    return packages


def missing(packages: list[str]) -> list[str]:
    """Those that dpkg does not have installed."""
    lacking = []
    for package in packages:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True, check=False
        )
        if asked.stdout != "installed":
            lacking.append(package)
    return lacking


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Forbid packages to start their services, unless the machine has a policy of its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: tools/bindep.py PROFILE [PACKAGE...]", file=sys.stderr)
        return 2
    profile, only = arguments[0], arguments[1:]
    if shutil.which("dpkg-query") is None:
        packages = [name for name in wanted(profile, "rpm", BINDEP.read_text()) if not only or name in only]
        print(f"maintd: please install with your package manager: {' '.join(packages)}", file=sys.stderr)
        return 1
    lacking = missing([name for name in wanted(profile, "dpkg", BINDEP.read_text()) if not only or name in only])
    if not lacking:
        return 0
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *lacking]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"maintd: please run: sudo apt-get install --no-install-recommends {' '.join(lacking)}", file=sys.stderr)
        return 1
    print(f"maintd: installing {' '.join(lacking)} with apt-get (no service is started)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for command in (install, ["apt-get", "update", "-q"], install):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if command is install and done.returncode == 0:
                return 0
    print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
    print(f"maintd: apt-get failed; please install yourself: {' '.join(lacking)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
