"""What is shipped, and what a bare machine is asked for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

import maintd

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> ModuleType:
    """A script of tools/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_has_what_the_program_needs_at_run_time(tmp_path: Path) -> None:
    """Built from a tree without git, the wheel holds every module, schema revision and data file."""
    tree = tmp_path / "maintd-src"
    listed = subprocess.run(
        [
            "tar",
            "-cf",
            "-",
            "setup.cfg",
            "pyproject.toml",
            "MANIFEST.in",
            "LICENSE",
            "README.md",
            "maintd",
            "etc",
            "systemd",
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    tree.mkdir()
    subprocess.run(["tar", "-xf", "-"], cwd=tree, input=listed.stdout, check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )

    (wheel,) = tmp_path.glob("maintd-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert f"maintd-{maintd.__version__}-py3-none-any.whl" == wheel.name
    kept = (".py", ".json", ".typed", ".mako", ".html", ".css", ".js")
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "maintd").rglob("*")
        if path.suffix in kept or path.name == "py.typed"
    }
    assert set() == wanted - held
    data = f"maintd-{maintd.__version__}.data/data"
    assert {f"{data}/etc/maintd/maintd.conf", f"{data}/lib/systemd/system/maintd.service"} <= held


def test_every_listed_data_file_exists() -> None:
    """What setup.cfg wants to install is in the tree, and not empty."""
    said = ConfigParser()
    said.read(ROOT / "setup.cfg")
    files = [line for value in said["options.data_files"].values() for line in value.split()]

    assert files
    assert [] == [name for name in files if not (ROOT / name).stat().st_size]


@pytest.mark.parametrize(
    ("profile", "platform", "expected"),
    [
        ("base", "dpkg", ["python3-venv", "make"]),
        ("base", "rpm", ["make"]),
        ("test", "dpkg", ["rabbitmq-server"]),
        ("lint", "rpm", ["systemd"]),
        ("languages", "dpkg", ["nodejs", "npm", "php-cli", "ruby"]),
        ("nothing", "dpkg", []),
    ],
)
def test_bindep_is_understood(profile: str, platform: str, expected: list[str]) -> None:
    """The little reader of bindep.txt finds each profile's packages on each platform."""
    assert expected == tool("bindep").wanted(profile, platform, (ROOT / "bindep.txt").read_text())


@pytest.mark.parametrize(
    ("verify", "exposure", "fault"),
    [
        ("", "1.1", None),
        ("maintd.service:15: Failed to parse service type, ignoring: notify-relaod", "1.1", "notify-relaod"),
        ("", "1.6", "exposure level 1.6 is above 1.5"),
        ("", "", "gave no exposure level"),
    ],
)
def test_a_unit_that_systemd_merely_grumbles_about_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str, exposure: str, fault: str | None
) -> None:
    """A line that systemd would ignore is a fault although it ends with status 0; so is an exposure above the limit."""
    rated = f"→ Overall exposure level for maintd.service: {exposure} OK" if exposure else "?"
    systemd = tmp_path / "systemd-analyze"
    systemd.write_text(f"#!/bin/sh\ncase $1 in verify) echo '{verify}' >&2;; security) echo '{rated}';; esac\n")
    systemd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    found = tool("check_unit").faults("maintd.service")

    assert ([] == found) if fault is None else (fault in found[0])
