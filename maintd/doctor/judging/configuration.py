"""Is the configuration good, and does it leave out something that an operator will miss?"""

from __future__ import annotations

from collections.abc import Iterator

from maintd.doctor.facts import ConfigFacts
from maintd.doctor.findings import Check, Finding

LOADED = Check(
    "config.load",
    "whether the configuration can be read: every file, group, option and value",
    means_error="The daemon does not start with it.",
)
WARNED = Check(
    "config.warnings",
    "what reading the configuration found odd: secrets that others may read, webhooks without a secret, options that "
    "count for nothing",
    means_warning="The daemon starts, and says the same in its log.",
)
SECRETS = Check(
    "config.clouds_yaml",
    "whether only its owner may read the clouds.yaml with the password of `[cloud]`",
    means_warning="Everybody on this machine may read the password.",
)
WHOLE = Check(
    "config.whole",
    "whether there is both a bus to listen to and a cloud to ask",
    means_warning="maintd works with one of them only, and can do less: it says what.",
)
VERIFIED = Check(
    "config.tls",
    "whether the certificates of servers are looked at where TLS is used",
    means_warning="Whoever sits between may pose as the broker or as Nova.",
)
PATTERNS = Check(
    "config.event_types",
    "whether every pattern of a webhook or another sink matches an event type",
    means_warning="The pattern is most likely misspelt, and the receiver gets less than it should.",
)
CHECKS = (LOADED, WARNED, SECRETS, WHOLE, VERIFIED, PATTERNS)


def judge(facts: ConfigFacts) -> Iterator[Finding]:
    yield from loaded(facts)
    yield from whole(facts)
    yield from secrets(facts)
    yield from verified(facts)
    yield from patterns(facts)


def loaded(facts: ConfigFacts) -> Iterator[Finding]:
    """It was read, or there would be no facts; its warnings are passed on."""
    yield LOADED.ok(f"The configuration is good ({', '.join(facts.files) or 'no file, the defaults'}).")
    for warning in facts.warnings:
        yield WARNED.warning(warning, "Mend it in that file, then: maintd run --check-config")


def whole(facts: ConfigFacts) -> Iterator[Finding]:
    """Is there a bus and a cloud?"""
    if not facts.has_bus:
        yield WHOLE.warning(
            "There is no [bus] transport_url: closed hosts are polled, and what happens in between is not seen.",
            "[bus]\ntransport_url = rabbit://USER:PASSWORD@HOST:5672/   # as Nova's own",
        )
    if not facts.has_cloud:
        yield WHOLE.warning(
            "There is no [cloud]: nothing can be proven, and host.emptied is never published.",
            "[cloud]\ncloud = NAME   # of clouds.yaml",
        )
    if facts.has_bus and facts.has_cloud:
        yield WHOLE.ok("There is a bus to listen to and a cloud to ask.")


def secrets(facts: ConfigFacts) -> Iterator[Finding]:
    """May others read the password of the cloud?"""
    for path in facts.readable:
        yield SECRETS.warning(f"{path} holds a secret and everybody may read it.", f"chmod o-r {path}")


def verified(facts: ConfigFacts) -> Iterator[Finding]:
    """Is TLS more than a decoration?"""
    for option in facts.unverified:
        yield VERIFIED.warning(
            f"{option}: the server's certificate is not looked at.",
            "[cloud] cafile, [bus] ssl_ca_file: name the authority that signed it, and remove insecure.",
        )


def patterns(facts: ConfigFacts) -> Iterator[Finding]:
    """Do webhooks and other sinks ask for events that exist?"""
    for group, pattern in facts.mistaken:
        yield PATTERNS.warning(
            f"[{group}] event_types: {pattern!r} matches no event type that maintd has.",
            "Types are written in full, as in maintd.host.*; docs/events.md lists them.",
            group.partition(":")[2],
        )
