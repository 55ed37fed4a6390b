"""Memory and reload of the real daemon in a large cloud.

The daemon is started on a database that holds the whole fleet, with a broker and a webhook, and given notifications to
work on. How long it took to load the fleet after it had the lease, it says itself; the memory is the kernel's word on
the whole process (resident, everything in it).
"""

from __future__ import annotations

from bench import mix, support
from bench.support import Daemon, Receiver, Row, Setting, sections, tell

BAR_MIB, BAR_S = 500.0, 10.0
LARGE = (10_000, 200_000)


def measure(setting: Setting) -> Row:
    """Start on the large fleet, work, look."""
    (hosts, servers), count = ((500, 10_000), 2_000) if setting.quick else (LARGE, 11_000)
    folder = setting.folder / "large"  # the same cloud as in `scale`
    tell(f"making a cloud of {hosts} hosts and {servers} servers")
    load = mix.prepare(folder, hosts=hosts, servers=servers, count=count)
    receiver = Receiver()
    with support.broker() as url:
        daemon = Daemon(folder, sections(load.database_for("size"), receiver.url, transport_url=url))
        try:
            loaded = daemon.wait_said("fleet_loaded", 120.0)
            daemon.wait_said("bus_state", state="connected")
            at_rest, _ = daemon.memory_mib()
            tell(f"loaded in {loaded['took_s']:.1f} s, {at_rest:.0f} MiB; {count} notifications follow")
            support.run("bench.publisher", url, load.messages, 2000, folder / "published")
            support.wait_quiet(receiver)
            working, most = daemon.memory_mib()
        finally:
            daemon.stop()
            receiver.close()
    return Row(
        f"memory, and reload, at {hosts} hosts / {servers} servers",
        f"<= {BAR_MIB:.0f} MiB; <= {BAR_S:.0f} s",
        f"{working:.0f} MiB (peak {most:.0f}); {loaded['took_s']:.1f} s",
        most <= BAR_MIB and loaded["took_s"] <= BAR_S,
        {"loaded_mib": at_rest, "working_mib": working, "peak_mib": most, "reload_s": loaded["took_s"]},
    )
