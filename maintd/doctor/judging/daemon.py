"""Does a daemon run here, and is it content?"""

from __future__ import annotations

from collections.abc import Iterator

from maintd.doctor.facts import DaemonFacts, DatabaseFacts
from maintd.doctor.findings import Check, Finding

RUNNING = Check(
    "daemon.running",
    "whether the daemon of this configuration answers at `[metrics] listen`",
    means_unknown="None answers: it does not run here, or this configuration is not its own.",
)
CONTENT = Check(
    "daemon.content",
    "what the running daemon itself says in `/readyz`",
    means_warning="It works, and lacks something: it says what.",
    means_error="It does not work: it says why.",
)
CHECKS = (RUNNING, CONTENT)

STANDBY = "This controller stands by"


def judge(facts: DaemonFacts, database: DatabaseFacts | None) -> Iterator[Finding]:
    if not facts.answers:
        led = database.led if database else None
        where = "; one on another controller leads" if led else ""
        yield RUNNING.unknown(f"No daemon answers at {facts.where}{where}.", "systemctl status maintd")
        return
    yield RUNNING.ok(f"A daemon answers at {facts.where}.")
    if not facts.ready:
        yield CONTENT.error(f"The daemon says: {' '.join(facts.said)}", "Mend what it names; its log says more.")
        return
    said = [text for text in facts.said if not text.startswith(STANDBY)]
    for text in said:
        yield CONTENT.warning(f"The daemon says: {text}", "Mend what it names; its log says more.")
    if not said:
        yield CONTENT.ok("The daemon lacks nothing.")
