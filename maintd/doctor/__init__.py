"""`maintd doctor`: is everything that maintd needs as it must be, and if not, what is to be done?

It looks from a controller, with or without a daemon beside it. The probes (`probes/`) ask, listen and connect, each
within a bounded time, and judge nothing. The judges (`judging/`) turn the facts they bring into findings, and ask
nobody. `examination` puts them together, within a time of its own, so that whatever hangs is itself a finding.

It changes nothing but one temporary queue of its own per bus (and, on request, sends a test event); it takes no message
of the daemon's; it prints no secret. What it could not look at, it calls unknown.
"""

from __future__ import annotations

from maintd.doctor.examination import Options, Report, examine, refused
from maintd.doctor.findings import EXIT_CODES, Finding, Level

__all__ = ["EXIT_CODES", "Finding", "Level", "Options", "Report", "examine", "refused"]
