"""The demonstration of two projects comes out as it must: it checks itself what nobody may have heard."""

from __future__ import annotations

import subprocess
import sys


def test_the_story_of_two_projects_comes_out() -> None:
    """`maintd demo --story tenants` ends with 0, having searched what both projects received for what is not theirs."""
    played = subprocess.run(
        [sys.executable, "-m", "maintd", "demo", "--story", "tenants"], capture_output=True, text=True, timeout=120
    )

    assert 0 == played.returncode, played.stdout + played.stderr
    assert 2 == played.stdout.count("name NO host or stranger")
    assert "0 refused" in played.stdout
