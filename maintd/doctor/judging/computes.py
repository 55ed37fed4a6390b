"""Which computes are heard, and which are not although they should be?

A compute with nothing to do says nothing, and that is no fault. So silence alone is `unknown`; only a compute on which
the API shows a server that changed while we listened ought to have been heard, and even that may have been the API's or
a conductor's own doing, which is why it is a warning and says "most likely".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maintd.doctor.facts import ApiFacts, BusFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import NOVA_CONF, counted, named, seconds
from maintd.doctor.stream import Form

COMPUTES = Check(
    "stream.computes",
    "from which of Nova's computes notifications arrive (several buses together)",
    means_unknown="Some said nothing; nothing is known to have happened there, or not every bus could be listened to.",
    means_warning="A server changed on a compute that said nothing: most likely it sends no versioned notifications.",
)
CHECKS = (COMPUTES,)


def judge(buses: Sequence[BusFacts], api: ApiFacts | None, *, all_listened: bool = True) -> Iterator[Finding]:
    """`all_listened`: no bus was missed; else a silent compute may be heard there."""
    heard = [bus.heard for bus in buses if bus.heard is not None]
    if api is None or not any(one.count(Form.VERSIONED) for one in heard):
        return  # what is wrong then, is wrong for all of them
    up = {compute.host for compute in api.computes if compute.up and not compute.unknown}
    if not up:
        return
    spoke = {host for one in heard for host in one.hosts()}
    behind = {host for one in heard for service, host in one.unconverted() if service == "nova-compute"}
    silent = up - spoke - behind
    span = seconds(max(bus.listened_s for bus in buses))
    suspects = {one.host: one for one in api.changed or () if one.host in silent and all_listened}
    if suspects:
        example = min(suspects.values(), key=lambda one: one.host)
        yield COMPUTES.warning(
            f"Nothing was heard of {named(suspects)} within {span}, although servers changed there meanwhile (such as "
            f"{example.server_id} on {example.host}): most likely nova-compute sends no versioned notifications there, "
            "or to another broker.",
            NOVA_CONF,
        )
    quiet = silent - set(suspects)
    if quiet:
        why = "it is not known whether anything happened there"
        if not all_listened:
            why = "not every bus could be listened to"
        elif api.changed is not None:
            why = "the API shows nothing that changed there, so that proves nothing"
        yield COMPUTES.unknown(
            f"{len(quiet)} of {counted(len(up), 'compute')} said nothing within {span}, and {why}: {named(quiet)}.",
            "Listen for longer (--listen 600), or while servers are started and stopped there.",
        )
    if not silent:
        yield COMPUTES.ok(f"All of {counted(len(up), 'compute')} that {'is' if len(up) == 1 else 'are'} up were heard.")
