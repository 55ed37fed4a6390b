"""Do Nova's and Placement's APIs answer what maintd asks, in full, and soon enough?"""

from __future__ import annotations

from collections.abc import Iterator

from maintd.doctor.facts import ApiFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import counted, dotted, named, seconds
from maintd.nova.rights import Tried

NAMES = {"compute": "Nova", "placement": "Placement"}

REACHABLE = Check(
    "api.reachable",
    "whether Keystone takes the credentials of `[cloud]`, and Nova and Placement are found and answer",
    means_error="Nothing can be asked: nothing can be proven.",
)
VERSIONS = Check(
    "api.microversion",
    "whether Nova speaks microversion 2.75 and Placement 1.14, without which there is no proof",
    means_warning="It is enough, and older than any that has been tried: some questions are asked in an older form.",
    means_error="It is too old: some question of a proof cannot be asked.",
)
RIGHTS = Check(
    "api.rights",
    "whether every question may be asked: each is, once",
    means_error="A question is refused, and no host can be proven empty.",
)
FILTER = Check(
    "api.host_filter",
    "whether lists are filtered by host: Nova's policy may drop the filter without a word",
    means_error="The whole cloud comes back for every host, and no host can be proven empty.",
)
HIDDEN = Check(
    "api.hidden",
    "whether servers and migrations are shown with their hosts",
    means_error="They are not, and no host can be proven empty.",
)
ANSWERS = Check(
    "api.answers",
    "whether the answers come, whole",
    means_error="An answer failed, came too late, or was not what was asked for.",
)
UNTRIED = Check(
    "api.untried",
    "what could not be asked, because there is nothing yet to ask about",
    means_unknown="Run the doctor again when there is.",
)
SPEED = Check(
    "api.speed",
    "how long the slowest answer took, against `[cloud] timeout_s`",
    means_warning="More than half of what it may take: proofs will fail when the cloud is busier.",
)
SERVICES = Check(
    "api.computes",
    "what os-services says of the computes",
    means_unknown="There is none yet.",
    means_warning="The database of some cell does not answer: hosts there are unknown, never empty.",
)
CHECKS = (REACHABLE, VERSIONS, RIGHTS, FILTER, HIDDEN, ANSWERS, UNTRIED, SPEED, SERVICES)


def judge(facts: ApiFacts) -> Iterator[Finding]:
    if facts.trouble is not None:
        yield REACHABLE.error(
            facts.trouble, "[cloud]: see that `openstack --os-cloud NAME compute service list` works."
        )
        return
    yield from versions(facts)
    yield from answers(facts)
    yield from speed(facts)
    yield from computes(facts)


def versions(facts: ApiFacts) -> Iterator[Finding]:
    """Are the services there, and new enough?"""
    for version in facts.versions:
        name = NAMES[version.service]
        if version.trouble is not None:
            text = (
                "[cloud]: see that the catalogue has it, for region_name and interface, and that it answers from here."
            )
            yield REACHABLE.error(version.trouble, text, version.service)
            continue
        yield REACHABLE.ok(f"{name} answers at {version.endpoint or 'its endpoint'}.", version.service)
        if version.spoken is None:
            continue
        said = f"{name} speaks microversion {dotted(version.spoken)}"
        if version.too_old:
            yield VERSIONS.error(
                f"{said}, and a proof needs {dotted(version.needed)}.",
                f"Upgrade {name} to Train or newer; until then maintd publishes everything but host.emptied.",
                version.service,
            )
        elif version.spoken < version.wanted:
            yield VERSIONS.warning(
                f"{said}: enough for a proof, but older than {dotted(version.wanted)}, in which maintd asks.",
                f"Nothing has to be done; with {name} of Ussuri or newer maintd asks as it was tried.",
                version.service,
            )
        else:
            yield VERSIONS.ok(f"{said}; {dotted(version.needed)} is needed.", version.service)


def answers(facts: ApiFacts) -> Iterator[Finding]:
    """Was every question answered, in full?"""
    too_old = {version.service for version in facts.versions if version.too_old}
    lost = {version.service for version in facts.versions if version.trouble is not None}
    told: set[str] = set()
    for tried in facts.tried:
        if tried.untried is not None:
            yield UNTRIED.unknown(tried.untried, "maintd doctor, once there is.")
        if tried.wrong is None or tried.wrong in told:
            continue
        if tried.status is None and tried.service in too_old | lost:
            continue  # said already
        told.add(tried.wrong)
        yield _wrong(tried)
    if facts.tried and not told:
        asked = sum(1 for tried in facts.tried if tried.wrong is None and tried.untried is None)
        yield RIGHTS.ok(f"{counted(asked, 'question')} asked and answered, with every right that they need.")


def _wrong(tried: Tried) -> Finding:
    assert tried.wrong is not None  # noqa: S101 - the caller has looked
    if tried.status in (401, 403, 404):
        return RIGHTS.error(tried.wrong, tried.advice, tried.what)
    if tried.status == 200:
        check = FILTER if tried.host_filter else HIDDEN
        return check.error(
            tried.wrong, f"Grant {tried.rules}, and what the sentence names, to the user of [cloud].", tried.what
        )
    service = NAMES.get(tried.service, tried.service)
    return ANSWERS.error(
        tried.wrong, f"See the log of {service}'s API, and whether it answers from this machine.", tried.what
    )


def speed(facts: ApiFacts) -> Iterator[Finding]:
    """Is the slowest answer far from being too late?"""
    answered = [tried for tried in facts.tried if tried.status is not None]
    if not answered:
        return
    slowest = max(answered, key=lambda tried: tried.took_s)
    took = f"The slowest answer ({slowest.what}) took {seconds(slowest.took_s)}"
    text = f"{took}; [cloud] timeout_s is {facts.timeout_s:g} s."
    if slowest.took_s > facts.timeout_s / 2:
        yield SPEED.warning(
            text, f"[cloud]\ntimeout_s = {facts.timeout_s * 3:g}      # or find out what slows the API down"
        )
    else:
        yield SPEED.ok(text)


def computes(facts: ApiFacts) -> Iterator[Finding]:
    """Does Nova know of its computes?"""
    unknown = {one.host for one in facts.computes if one.unknown}
    if unknown:
        yield SERVICES.warning(
            f"Nova cannot say how these computes stand, as their cell does not answer: {named(unknown)}.",
            "Bring that cell's database back; nova-manage cell_v2 list_cells shows where it is.",
        )
    if not facts.computes:
        if any(tried.what == "os-services" and tried.wrong is None for tried in facts.tried):
            yield SERVICES.unknown("os-services lists no nova-compute yet.", None)
        return
    up = sum(1 for one in facts.computes if one.up)
    enabled = sum(1 for one in facts.computes if one.enabled)
    yield SERVICES.ok(f"{counted(len(facts.computes), 'compute')}: {up} up, {enabled} enabled.")
