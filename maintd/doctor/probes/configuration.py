"""Looks at the configuration that was read, and at the files beside it that hold secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from maintd.config import Config
from maintd.delivery.routing import mistaken
from maintd.doctor.facts import ConfigFacts
from maintd.domain.events import CATALOGUE


def look(config: Config) -> ConfigFacts:
    """What is worth knowing of a configuration that was good enough to be read."""
    known = [f"maintd.{middle}.v1" for middle in CATALOGUE]
    return ConfigFacts(
        files=tuple(map(str, config.files)),
        warnings=config.warnings,
        has_bus=bool(config.buses),
        has_cloud=config.cloud is not None,
        readable=tuple(_readable_secrets()) if config.cloud is not None and config.cloud.cloud is not None else (),
        unverified=tuple(_unverified(config)),
        mistaken=tuple(
            (group, pattern)
            for group, event_types in config.wanted().items()
            for pattern in mistaken(event_types, known)
        ),
    )


def _unverified(config: Config) -> Iterator[str]:
    for bus in config.buses:
        if bus.ssl and not bus.ssl_ca_file:
            yield f"{'[bus]' if bus.name == 'default' else f'[bus:{bus.name}]'} ssl without ssl_ca_file"
    for sink in config.bus_sinks:
        if sink.ssl and not sink.ssl_ca_file:
            yield f"[bus_sink:{sink.name}] ssl without ssl_ca_file"
    if config.cloud is not None and config.cloud.insecure:
        yield "[cloud] insecure"


def _readable_secrets() -> Iterator[str]:
    """The clouds.yaml and secure.yaml that the SDK would find, as far as everybody may read a password in them."""
    places = [Path.cwd(), Path.home() / ".config" / "openstack", Path("/etc/openstack")]
    given = os.environ.get("OS_CLIENT_CONFIG_FILE")
    files = [Path(given)] if given else [place / "clouds.yaml" for place in places]
    for path in (*files, *(place / "secure.yaml" for place in places)):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            open_to_all = path.stat().st_mode & stat.S_IROTH
        except OSError:
            continue
        if open_to_all and any(word in text for word in ("password:", "secret:", "token:")):
            yield str(path)
