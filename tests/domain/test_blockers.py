"""Why a host is not empty: every kind, whose it is, since when, what Nova said, and a command that exists.

The kinds come from real values and real passes; what is looked at is what `maintd why`, the API and `drain.stalled`
show, which is one list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import maintd
from maintd.domain import emptiness, hindrances
from maintd.domain.events import DrainStalled, Event, HostEmptied
from maintd.domain.fleet import Fleet
from maintd.domain.model import (
    Because,
    Blocker,
    Finding,
    Host,
    HostSlice,
    Kind,
    Migration,
    Phase,
    Policy,
    Residue,
    Server,
)
from maintd.domain.observations import (
    BusSeen,
    MigrationSeen,
    NodesSeen,
    PassRead,
    ResidueCleared,
    ServerSeen,
    Step,
    TaskFailed,
    TimerDue,
)
from tests.domain.test_proof import API, BUS, H, Story, emptied, row

NOW = 5000.0
CLOSED = Host(H, disabled=True, up=True)
DOWN = Host(H, forced_down=True, up=False)


def server(**given: object) -> Server:
    base = Server("s1", "p1", host=H, vm_state="active", seen_at=NOW - 1, since=NOW - 60)
    return replace(base, **given)  # type: ignore[arg-type]


def moving(phase: Phase, **given: object) -> Migration:
    base = Migration("m1", "s1", Kind.LIVE, phase, H, "cmp-02", migration_id=7, project_id="p1", begun_at=NOW - 60)
    return replace(base, **given)  # type: ignore[arg-type]


def why(
    host: Host = CLOSED,
    servers: tuple[Server, ...] = (),
    migrations: tuple[Migration, ...] = (),
    residue: tuple[Residue, ...] = (),
    policy: Policy | None = None,
) -> tuple[Blocker, ...]:
    held = HostSlice(host, servers, migrations, residue)
    return emptiness.blockers(held, host, policy or Policy(has_cloud=True), NOW)


HELD: dict[str, list[tuple[Blocker, ...]]] = {
    "not_attempted": [why(servers=(server(),)), why(servers=(server(vm_state="paused"),))],
    "last_attempt_failed": [why(servers=(server(failed_at=NOW - 60, fault="NoValidHost: No valid host was found."),))],
    "cannot_live_migrate": [
        why(servers=(server(vm_state=state),))
        for state in ("stopped", "suspended", "rescued", "shelved", "resized", "error")
    ]
    + [why(servers=(server(hindrance="pci_passthrough:alias=gpu:1"),))],
    "unconfirmed_resize": [
        why(migrations=(moving(Phase.AWAITING_CONFIRMATION, kind=Kind.RESIZE, moved_at=NOW - 60),)),
        why(
            servers=(server(vm_state="resized"),),
            migrations=(moving(Phase.AWAITING_CONFIRMATION, kind=Kind.RESIZE, destination=H, moved_at=NOW - 60),),
        ),
    ],
    "soft_deleted": [why(servers=(server(vm_state="soft-delete"),))],
    "stalled": [
        why(servers=(server(),), migrations=(moving(phase, stalled="frozen", stalled_since=NOW - 60),))
        for phase in (Phase.RUNNING, Phase.QUEUED)
    ],
    "moving": [why(servers=(server(),), migrations=(moving(Phase.RUNNING),))],
    "incoming": [
        why(servers=(server(host=None, landing=H, vm_state="building"),)),
        why(servers=(server(vm_state="building"),)),
        why(servers=(server(vm_state="shelved_offloaded"),)),
        why(migrations=(moving(Phase.PREPARING, source="cmp-02", destination=H),)),
    ],
    "residue": [
        why(residue=(Residue(H, "s1", kind, NOW - 60, project_id="p1"),))
        for kind in ("evacuated", "deleted_while_down")
    ],
}
"""What is held, by the kind that comes of it: always of s1 in project p1, since a minute."""

OF_THE_HOST: dict[str, tuple[Blocker, ...]] = {
    "not_closed": why(Host(H)),
    "history_unknown": why(replace(DOWN, history_unknown=True, down_since=NOW - 60)),
    "cell_unknown": why(replace(CLOSED, cell_unknown=True)),
    "several_nodes": why(replace(CLOSED, nodes=("n1", "n2"))),
    "no_cloud": why(policy=Policy()),
    "verifying": why(),
}


def passes(**changed: object) -> tuple[Blocker, ...]:
    """Why a host is not empty after a pass that found this."""
    story = Story().closed()
    blind = changed.pop("blind", False)
    if blind:
        story.see(BusSeen(story.now, Because("clock"), "default", "connected"))
        story.see(BusSeen(story.now, Because("clock"), "default", "lost"))

    def change(reads: dict[str, PassRead]) -> None:
        for name, found in changed.items():
            over = {"error": found} if isinstance(found, str) else {"found": found}
            reads[name] = replace(reads[name], **over)  # type: ignore[arg-type]

    story.verify(change)
    return blockers_of(story.fleet)


def blockers_of(fleet: Fleet, host: str = H, now: float = NOW) -> tuple[Blocker, ...]:
    held = fleet.slice(host)
    assert held is not None
    return emptiness.blockers(held, held.host, fleet.policy, now)


HELD_ROW = replace(row("finished", Kind.RESIZE), created_at=900.0, updated_at=950.0)
OF_A_PASS: dict[str, tuple[Blocker, ...]] = {
    "hidden_server": passes(hypervisor=("s1",), before=(HELD_ROW,), after=(HELD_ROW,)),
    "ambiguous_service": passes(service=()),
    "allocation": passes(allocations=("mig-1",), before=(row("completed"),), after=(row("completed"),)),
    "unverified": passes(servers="503 Service Unavailable"),
    "blind": passes(blind=True),
}


def everything() -> list[Blocker]:
    held = [b for made in HELD.values() for found in made for b in found]
    return [*held, *(b for made in (OF_THE_HOST, OF_A_PASS) for found in made.values() for b in found)]


def test_every_kind_has_a_case() -> None:
    """No kind is documented that never comes, and none has two places in these tables."""
    assert sorted([*HELD, *OF_THE_HOST, *OF_A_PASS]) == sorted(emptiness.BLOCKER_KINDS)


@pytest.mark.parametrize("kind", HELD)
def test_what_is_held_of_a_server_is_one_blocker_of_its_kind(kind: str) -> None:
    """It names the server and its project, and since when."""
    for found in HELD[kind]:
        assert [(kind, "s1", "p1", NOW - 60)] == [(b.kind, b.server_id, b.project_id, b.since) for b in found]


@pytest.mark.parametrize("kind", [*OF_THE_HOST, *OF_A_PASS])
def test_what_is_true_of_the_host_is_one_blocker_of_its_kind(kind: str) -> None:
    """A host without anything else has that one blocker, with a detail in words."""
    (blocker,) = {**OF_THE_HOST, **OF_A_PASS}[kind]

    assert (kind, True) == (blocker.kind, bool(blocker.detail))


@pytest.mark.parametrize("kind", OF_A_PASS)
def test_what_a_pass_found_is_dated(kind: str) -> None:
    """What only a pass knows is at least as old as the pass that first said so."""
    assert OF_A_PASS[kind][0].since is not None


def literals() -> set[str]:
    """The kinds of all blockers that the code makes."""
    found: set[str] = set()
    for path in Path(maintd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in ("Blocker", "blocker") and isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def test_the_code_makes_every_kind_and_no_other() -> None:
    """The list of kinds is closed: nothing makes one that is not in it."""
    assert literals() == set(emptiness.BLOCKER_KINDS)


CLIENT = (
    r"compute service list --service nova-compute --host HOST",
    r"compute service set --disable HOST nova-compute",
    r"hypervisor list --long",
    r"server delete --force SERVER",
    r"server evacuate SERVER",
    r"(--os-compute-api-version 2\.(?:[3-9]\d) )server migrate --live-migration SERVER",
    r"server migrate --wait SERVER",
    r"(--os-compute-api-version 2\.65 )server migration abort SERVER \d+",
    r"server migration confirm SERVER",
    r"server migration list --server SERVER",
    r"server resume SERVER",
    r"server set --state (?:active|error) SERVER",
    r"server shelve --offload SERVER",
    r"server unpause SERVER",
    r"server unrescue SERVER",
    r"server unshelve --wait SERVER",
)
"""What openstackclient 10 documents, as its `openstack help` says it. Before 2.25 it asks for shared disks when it
live-migrates, and older releases of it speak 2.1 unless they are told otherwise; an abort in the queue needs 2.65."""
OURS = (r"residue clear HOST(?: --server SERVER)?",)
COMMANDS = [
    re.compile(f"{program} {form}".replace("SERVER", "s1").replace("HOST", H))
    for program, forms in (("openstack", CLIENT), ("maintd", OURS))
    for form in forms
]


def ways() -> list[str | None]:
    states = ("active", "paused", "stopped", "suspended", "rescued", "resized", "shelved", "error", None)
    hindered = (None, "", *(f"{spec}=1" for spec in hindrances.HINDRANCES))
    return [
        emptiness.way_out(server(vm_state=state, hindrance=hindrance), host)[0]
        for state in states
        for hindrance in hindered
        for host in (CLOSED, DOWN)
    ]


def test_every_remedy_is_a_command_that_exists() -> None:
    """Each can be copied as it is, and is one of the client's or ours, with options that it has."""
    for remedy in {*(b.remedy for b in everything()), *ways()} - {None}:
        for one in str(remedy).split(" && "):
            assert any(form.fullmatch(one) for form in COMMANDS), one


@pytest.mark.parametrize(
    ("state", "host", "remedy"),
    [
        ("active", CLOSED, "openstack --os-compute-api-version 2.30 server migrate --live-migration s1"),
        ("stopped", CLOSED, "openstack server migrate --wait s1 && openstack server migration confirm s1"),
        ("suspended", CLOSED, "openstack server resume s1"),
        ("rescued", CLOSED, "openstack server unrescue s1"),
        ("resized", CLOSED, "openstack server migration confirm s1"),
        ("shelved", CLOSED, "openstack server unshelve --wait s1 && openstack server shelve --offload s1"),
        ("error", CLOSED, "openstack server set --state active s1"),
        ("active", DOWN, "openstack server evacuate s1"),
        ("error", DOWN, "openstack server evacuate s1"),
        ("suspended", DOWN, "openstack server set --state error s1"),
        ("shelved", DOWN, None),
    ],
)
def test_the_remedy_is_what_nova_takes_in_that_state(state: str, host: Host, remedy: str | None) -> None:
    """Nova refuses a live migration, a cold one and an evacuation in most states; the next step is named instead."""
    (blocker,) = why(host, servers=(server(vm_state=state),))

    assert remedy == blocker.remedy


@pytest.mark.parametrize(
    ("specs", "hindrance", "kind"),
    [
        ({}, "", "not_attempted"),
        ({"hw_rng:allowed": "True", "aggregate_instance_extra_specs:ssd": "true"}, "", "not_attempted"),
        ({"pci_passthrough:alias": "gpu:1"}, "pci_passthrough:alias=gpu:1", "cannot_live_migrate"),
        ({"accel:device_profile": "fpga"}, "accel:device_profile=fpga", "cannot_live_migrate"),
        ({"hw:mem_encryption": "True"}, "hw:mem_encryption=True", "cannot_live_migrate"),
        ({"hw:mem_encryption": "False"}, "", "not_attempted"),
        ({"hw:tpm_version": "2.0"}, "hw:tpm_version=2.0", "cannot_live_migrate"),
        ({"hw:tpm_version": "2.0", "hw:tpm_secret_security": "host"}, "", "not_attempted"),
        ({"resources:VGPU": "1"}, "resources:VGPU=1", "not_attempted"),
        ({"resources1:VGPU": "1"}, "resources1:VGPU=1", "not_attempted"),
        ({"hw:cpu_policy": "dedicated"}, "hw:cpu_policy=dedicated", "not_attempted"),
        ({"hw:cpu_policy": "shared"}, "", "not_attempted"),
        ({"resources:PCPU": "4", "resources:VCPU": "0"}, "resources:PCPU=4", "not_attempted"),
        ({"hw:mem_page_size": "large"}, "hw:mem_page_size=large", "not_attempted"),
        ({"hw:mem_page_size": "small"}, "", "not_attempted"),
        ({"pci_passthrough:alias": "a:2", "hw:numa_nodes": "2"}, "pci_passthrough:alias=a:2", "cannot_live_migrate"),
    ],
)  # fmt: skip
def test_a_flavor_hinders_as_nova_does(specs: dict[str, str], hindrance: str, kind: str) -> None:
    """Of a flavor's extra specs the worst is kept; what Nova refuses cannot be moved live, the rest is a remark."""
    found = hindrances.of_flavor(specs)
    (blocker,) = why(servers=(server(hindrance=found),))

    assert (hindrance, kind) == (found, blocker.kind)
    assert hindrance in (blocker.detail or "")


def test_an_accelerator_is_shelved_away() -> None:
    """Nova moves a server with a device profile neither live nor cold."""
    (blocker,) = why(servers=(server(hindrance="accel:device_profile=fpga"),))

    assert "openstack server shelve --offload s1" == blocker.remedy


# -- what is known and what a pass found ------------------------------------------------------------------------------


def found(*blockers: Blocker) -> Host:
    return replace(CLOSED, finding=Finding(NOW - 10, blockers))


def test_a_server_is_named_once_by_what_is_known_now() -> None:
    """What is held is younger than the last pass; the pass fills in what is not held."""
    passed = Blocker("not_attempted", "s1", since=NOW - 99, detail="old", project_id="p1")
    (same,) = why(found(passed), servers=(server(project_id=None, since=None),))
    (other,) = why(found(passed), servers=(server(),), migrations=(moving(Phase.RUNNING),))

    assert ("not_attempted", "p1", NOW - 99) == (same.kind, same.project_id, same.since)
    assert "moving" == other.kind


def test_what_only_the_pass_saw_is_said_too() -> None:
    """A server that nobody has told of but the pass, since that pass at least."""
    both = why(found(Blocker("not_attempted", "s2")), servers=(server(),))

    assert {"s1": NOW - 60, "s2": NOW - 10} == {b.server_id: b.since for b in both}


def test_what_a_pass_found_ends_with_its_server() -> None:
    """While another server is here no pass runs; the one that left is not named any more all the same."""
    story = Story().closed()
    here(story)
    here(story, server_id="s2")
    both = (Blocker("not_attempted", "s1"), Blocker("not_attempted", "s2"), Blocker("hidden_server", "s3"))
    host = story.fleet.host(H)
    assert host is not None
    story.fleet.put(replace(host, finding=Finding(story.now, both)))
    here(story, host="cmp-02")

    assert [("not_attempted", "s2"), ("hidden_server", "s3")] == [(b.kind, b.server_id) for b in story.blockers()]
    assert ["s2", "s3"] == [b.server_id for b in blockers_of(story.fleet)]
    here(story, server_id="s2", deleted=True)
    assert ["s3"] == [b.server_id for b in blockers_of(story.fleet)]


def test_a_server_and_its_residue_are_two_things() -> None:
    """One that was evacuated and came back is here, and may have left something; each is said once."""
    here = why(
        found(Blocker("residue", "s1"), Blocker("not_attempted", "s1")),
        servers=(server(),),
        residue=(Residue(H, "s1", "evacuated", NOW - 500),),
    )

    assert ["not_attempted", "residue"] == [b.kind for b in here]


def test_a_resize_between_cells_is_one_blocker_that_says_so() -> None:
    """The hidden row and the migration row are of one server: it is hidden, and confirming frees the host. Whose it is
    the migration row does not tell: that has the project of who asked for the move."""
    (blocker,) = OF_A_PASS["hidden_server"]

    assert ("s1", None, 950.0) == (blocker.server_id, blocker.project_id, blocker.since)
    assert "between cells" in str(blocker.detail)
    assert "openstack server migration confirm s1" == blocker.remedy
    (only,) = why(found(blocker), migrations=(moving(Phase.AWAITING_CONFIRMATION, kind=Kind.RESIZE),))
    assert "hidden_server" == only.kind


def test_a_host_with_several_nodes_is_never_empty() -> None:
    """Ironic's services have many nodes: recognised before any pass, and by every pass, as one blocker."""
    story = Story().closed()
    story.see(NodesSeen(story.now, API, H, ("node-1", "node-2")))

    def two(reads: dict[str, PassRead]) -> None:
        reads["providers"] = replace(reads["providers"], found=("node-1", "node-2"))
        second = {
            "hypervisor": replace(reads["hypervisor"], target="node-2"),
            "providers": replace(reads["providers"], target="node-2"),
            "allocations": replace(reads["allocations"], target="node-2"),
        }
        copy = dict(reads)
        reads.clear()
        for name, read in copy.items():
            reads[name] = read
            if name in second:
                reads[name + "2"] = second[name]

    for _ in range(4):
        assert ["several_nodes"] == [b.kind for b in blockers_of(story.fleet)]
        assert [] == emptied(story.verify(two))
        assert ["several_nodes"] == [b.kind for b in story.blockers()]
        story.now += 20


def test_what_is_to_be_done_comes_first() -> None:
    """The summary counts and the list are in one order: an operator's work before what goes by itself."""
    here = why(
        servers=(
            server(server_id="s2", vm_state="building"),
            server(server_id="s3"),
            server(server_id="s4"),
            server(server_id="s5", vm_state="stopped"),
        ),
        migrations=(moving(Phase.RUNNING), moving(Phase.AWAITING_CONFIRMATION, key="m2", server_id="s6")),
    )

    assert emptiness.summary(here) == (
        "2 servers nobody has asked to move, 1 that cannot be moved live, 1 unconfirmed resize, 1 on its way, "
        "1 coming here"
    )
    order = [list(emptiness.BLOCKER_KINDS).index(b.kind) for b in here]
    assert sorted(order) == order


@pytest.mark.parametrize("kind", emptiness.BLOCKER_KINDS)
@pytest.mark.parametrize("number", [1, 3])
def test_every_kind_is_in_the_summary(kind: str, number: int) -> None:
    """No kind goes unsaid in the line that an operator reads first."""
    text = emptiness.summary([Blocker(kind)] * number)

    assert text and "{" not in text


# -- faults and times, as they come and go ----------------------------------------------------------------------------


def held(story: Story) -> Server:
    s = story.fleet.server("s1")
    assert s is not None
    return s


def here(story: Story, **given: object) -> None:
    """A row of the API about s1."""
    story.now += 10
    base = ServerSeen(
        story.now, API, "s1", "p1", host=H, vm_state="active", trusted=True, emitted_at=story.now, asked_at=story.now
    )
    story.see(replace(base, **given))  # type: ignore[arg-type]


def began(story: Story) -> None:
    story.now += 10
    seen = MigrationSeen(
        story.now, API, "s1", 7, f"mig-{story.now}", Kind.LIVE, "accepted", H, "cmp-02", asked_at=story.now
    )
    story.see(seen)


def ended(story: Story, status: str) -> None:
    story.now += 10
    (migration,) = (m for m in story.fleet.migrations_of("s1") if m.open)
    seen = MigrationSeen(
        story.now,
        API,
        "s1",
        7,
        str(migration.migration_uuid),
        Kind.LIVE,
        status,
        H,
        "cmp-02",
        updated_at=story.now,
        asked_at=story.now,
    )
    story.see(seen)


def test_no_valid_host_is_kept_until_the_next_attempt_begins() -> None:
    """The only word of a failure before any compute acted is the conductor's: its name and message stay."""
    story = Story().closed()
    here(story)
    story.see(TaskFailed(story.now, BUS, "s1", "migrate_server", "NoValidHost: No valid host was found.", "active"))
    failed_at = story.now
    for _ in range(3):
        here(story)

    (blocker,) = blockers_of(story.fleet)
    assert ("last_attempt_failed", failed_at, "p1") == (blocker.kind, blocker.since, blocker.project_id)
    assert "NoValidHost: No valid host was found." == blocker.detail
    began(story)
    assert ["moving"] == [b.kind for b in blockers_of(story.fleet)]
    assert (None, None) == (held(story).failed_at, held(story).fault)


@pytest.mark.parametrize(
    ("status", "said"),
    [("error", "failed, and Nova has not said why"), ("cancelled", "was cancelled")],
)
def test_an_attempt_that_only_the_api_told_of_is_said_to_have_ended(status: str, said: str) -> None:
    """An aborted or failed move is an attempt: nobody is told that nobody has asked."""
    story = Story().closed()
    here(story)
    began(story)
    ended(story, status)

    (blocker,) = blockers_of(story.fleet)
    assert "last_attempt_failed" == blocker.kind
    assert f"the live-migration to cmp-02 {said}" == blocker.detail


def timers(story: Story, until: float) -> list[Event]:
    """Let every timer ring that is due by then."""
    said: list[Event] = []
    story.now = until
    while taken := story.fleet.take_due(until):
        said += story.see(TimerDue(until, subject=taken[1]))
    return said


def test_a_rolled_back_migration_keeps_what_nova_said() -> None:
    """The fault of a step is the fault of the attempt."""
    story = Story().closed()
    here(story)
    step = ServerSeen(
        story.now, BUS, "s1", host=H, vm_state="active", source=H, destination="cmp-02", emitted_at=story.now
    )
    story.see(replace(step, step=Step.LIVE_PRE_START, reporter="cmp-02"))
    ending = replace(step, step=Step.LIVE_ROLLBACK_END, reporter=H, fault="NovaException: driver")
    story.see(replace(ending, emitted_at=story.now + 1))
    assert ["moving"] == [b.kind for b in blockers_of(story.fleet)]
    timers(story, story.now + 60)

    (blocker,) = blockers_of(story.fleet)
    assert ("last_attempt_failed", "NovaException: driver") == (blocker.kind, blocker.detail)


def test_the_fault_of_a_server_in_error_is_what_the_api_says() -> None:
    """It stays with the state and goes with it; it is no failed attempt."""
    story = Story().closed()
    here(story)
    here(story, vm_state="error", fault="libvirtError: out of disk")
    since = story.now
    here(story, vm_state="error", fault="libvirtError: out of disk")

    (blocker,) = blockers_of(story.fleet)
    assert ("cannot_live_migrate", since) == (blocker.kind, blocker.since)
    assert str(blocker.detail).startswith("it is in ERROR: libvirtError: out of disk")
    here(story)
    assert ["not_attempted"] == [b.kind for b in blockers_of(story.fleet)]


def test_a_failed_attempt_that_left_an_error_is_both() -> None:
    """The kind is the attempt's, the words are Nova's, and the command is the one that helps a server in ERROR."""
    story = Story().closed()
    here(story)
    began(story)
    ended(story, "error")
    here(story, vm_state="error", fault="libvirtError: crashed")

    (blocker,) = blockers_of(story.fleet)
    assert ("last_attempt_failed", "openstack server set --state active s1") == (blocker.kind, blocker.remedy)
    assert str(blocker.detail).startswith("libvirtError: crashed")


def test_a_server_elsewhere_has_no_failed_attempt() -> None:
    """What failed on the old host is not said of the new one."""
    story = Story().closed()
    here(story)
    story.see(TaskFailed(story.now, BUS, "s1", "migrate_server", "NoValidHost", "active"))
    here(story, host="cmp-02")

    assert (None, None, story.now) == (held(story).failed_at, held(story).fault, held(story).since)


def test_since_is_when_it_came_or_took_its_state() -> None:
    """Being seen again changes nothing; another state or another host does."""
    story = Story().closed()
    here(story)
    came = story.now
    here(story, task_state="rebooting")
    assert came == held(story).since
    here(story, vm_state="stopped")
    assert story.now == held(story).since


def test_a_flavor_that_is_not_shown_is_remembered() -> None:
    """A row without extra specs says nothing of them; one with none says that there are none."""
    story = Story().closed()
    here(story, hindrance="pci_passthrough:alias=gpu:1")
    here(story)
    assert "pci_passthrough:alias=gpu:1" == held(story).hindrance
    here(story, hindrance="")
    assert "" == held(story).hindrance


# -- drain.stalled, residue -------------------------------------------------------------------------------------------


def test_a_stalled_drain_says_what_why_says() -> None:
    """drain.stalled carries the very list that `maintd why` shows."""
    story = Story().closed()
    here(story)
    here(story, server_id="s2", vm_state="stopped")
    story.now += 1000
    said = timers(story, story.now)

    (stalled,) = (e for e in said if isinstance(e, DrainStalled))
    assert stalled.blockers == blockers_of(story.fleet, now=story.now)
    assert ["not_attempted", "cannot_live_migrate"] == [b.kind for b in stalled.blockers]
    assert {"p1"} == {b.project_id for b in stalled.blockers}


def dead(story: Story) -> Callable[[dict[str, PassRead]], None]:
    def down(reads: dict[str, PassRead]) -> None:
        reads["service"] = replace(reads["service"], found=(story.service(up=False, forced_down=True),))
        reads["traits"] = replace(reads["traits"], found=())

    return down


def local_delete(story: Story, server_id: str) -> None:
    seen = ServerSeen(story.now, BUS, server_id, "p1", host=H, vm_state="active", trusted=True, emitted_at=story.now)
    story.see(seen, replace(seen, vm_state="deleted", deleted=True, local_delete=True))


def test_residue_is_cleared_one_server_at_a_time() -> None:
    """With a server, nothing else is cleared, and a history nobody saw is not accepted."""
    story = Story()
    story.see(story.service(up=False, forced_down=True), NodesSeen(story.now, API, H, ("node-1",)))
    local_delete(story, "s1")
    local_delete(story, "s2")
    assert {("residue", "s1", "p1"), ("residue", "s2", "p1"), ("history_unknown", None, None)} == {
        (b.kind, b.server_id, b.project_id) for b in blockers_of(story.fleet)
    }

    story.see(ResidueCleared(story.now, Because("operator"), H, "ada", frozenset({"s1"}), False))
    assert {"s2", None} == {b.server_id for b in blockers_of(story.fleet)}
    story.see(ResidueCleared(story.now, Because("operator"), H, "ada"))
    assert ["verifying"] == [b.kind for b in blockers_of(story.fleet)]
    cleared = {r.server_id: r.cleared_by for r in story.fleet._tables[Residue].values()}
    assert {"ada"} == set(cleared.values())


@pytest.mark.parametrize("accept", [False, True])
def test_emptied_carries_residue_only_where_it_is_accepted(accept: bool) -> None:
    """Without accept_residue what was left blocks; with it the event says what was left."""
    story = Story(Policy(has_cloud=True, accept_residue=accept)).closed()
    local_delete(story, "s1")
    said: list[HostEmptied] = []
    for _ in range(4):
        said += emptied(story.verify())
        story.now += 20

    if accept:
        assert [("deleted_while_down", "s1")] == [(note.kind, note.server_id) for note in said[0].residue]
    else:
        assert [] == said
        assert ["residue"] == [b.kind for b in blockers_of(story.fleet)]


def test_a_host_found_down_is_not_empty_until_its_history_is_accepted() -> None:
    """However often a pass finds nothing on it, the blocker stays, with since when it is down; an operator ends it."""
    story = Story()
    story.see(
        story.service(up=False, forced_down=True, down_since=story.now - 70), NodesSeen(story.now, API, H, ("node-1",))
    )
    for _ in range(4):
        story.now += 20
        assert [] == emptied(story.verify(dead(story)))
        (blocker,) = blockers_of(story.fleet)
        assert ("history_unknown", 930.0, f"maintd residue clear {H}") == (blocker.kind, blocker.since, blocker.remedy)
    story.see(ResidueCleared(story.now, Because("operator"), H, "ada"))
    for _ in range(3):
        story.now += 20
        story.verify(dead(story))
    host = story.fleet.host(H)

    assert host is not None and host.emptied
