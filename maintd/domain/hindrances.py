"""What a server's flavor says against moving it live: the few extra specs that Nova refuses, or that commonly fail.

Only what Nova's own code decides by is listed. Where it refuses the request whatever the destination, the server
*cannot* be moved live; where it depends on the destination, it *may not*, and that is no more than a remark: Nova
moves servers with pinned CPUs and huge pages since Train, if there is a host with the same to spare.

What cannot be seen here: devices that come from a port (its vnic type is neither in a notification nor in Nova's API)
or from properties of the image. Of these the first attempt tells, and what Nova said then is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})


@dataclass(frozen=True, slots=True)
class Hindrance:
    """`spec` is the extra spec; `cold` whether Nova moves such a server while it is stopped."""

    spec: str
    refused: bool
    means: str
    cold: bool = True


REFUSED = (
    Hindrance("accel:device_profile", True, "Nova moves no server with an accelerator, live or not", cold=False),
    Hindrance("hw:mem_encryption", True, "Nova live-migrates no server with encrypted memory"),
    Hindrance(
        "hw:tpm_version",
        True,
        "Nova live-migrates no server with an emulated TPM whose secret is not kept by the host "
        "(hw:tpm_secret_security=host)",
    ),
    Hindrance(
        "pci_passthrough:alias",
        True,
        "Nova live-migrates no server with a PCI device from its flavor, unless the alias says live_migratable "
        "(2025.1 and later)",
    ),
)
REMARKED = (
    Hindrance("resources:VGPU", False, "a virtual GPU moves live only since 2024.1, and not with every driver"),
    Hindrance("hw:cpu_policy", False, "its CPUs are pinned: the destination must have as many to spare"),
    Hindrance("resources:PCPU", False, "its CPUs are pinned: the destination must have as many to spare"),
    Hindrance("hw:mem_page_size", False, "it has huge pages: the destination must have as many to spare"),
    Hindrance("hw:numa_nodes", False, "it has a NUMA topology: the destination must have room for the same"),
)
HINDRANCES: dict[str, Hindrance] = {h.spec: h for h in (*REFUSED, *REMARKED)}
"""The worst first: of several, one is kept."""

_RANK = {spec: number for number, spec in enumerate(HINDRANCES)}


@lru_cache(maxsize=1024)
def _once(text: str) -> str:
    """The same text as one object: many servers have a flavor alike."""
    return text


def of_flavor(extra_specs: Mapping[str, object]) -> str:
    """The worst extra spec of a flavor, as `name=value`; "" where none is known to matter."""
    worst, text = len(_RANK), ""
    for name, value in extra_specs.items():
        spec = name
        if name.startswith("resources"):  # resources:VGPU, and resources1:VGPU of a numbered group
            spec = "resources:" + name.partition(":")[2]
        rank = _RANK.get(spec)
        if rank is not None and rank < worst and _matters(spec, str(value), extra_specs):
            worst, text = rank, f"{name}={value}"
    return _once(text[:255])


def _matters(spec: str, value: str, extra_specs: Mapping[str, object]) -> bool:
    if spec == "hw:mem_encryption":
        return value.strip().lower() in _TRUE
    if spec == "hw:tpm_version":
        return extra_specs.get("hw:tpm_secret_security") != "host"
    if spec == "hw:cpu_policy":
        return value in ("dedicated", "mixed")
    if spec == "hw:mem_page_size":
        return value != "small"
    if spec.startswith("resources:"):
        return value != "0"
    return True


def known(hindrance: str | None) -> Hindrance | None:
    """What stands behind the text that `of_flavor` gave."""
    if not hindrance:
        return None
    name = hindrance.partition("=")[0]
    return HINDRANCES.get("resources:" + name.partition(":")[2] if name.startswith("resources") else name)


def sentence(hindrance: str) -> str:
    """The text that `of_flavor` gave, and what it means."""
    found = known(hindrance)
    return f"{found.means} ({hindrance})" if found else hindrance
