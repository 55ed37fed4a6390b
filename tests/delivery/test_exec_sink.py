"""The exec sink, with real programs from the well-behaved to the unruly."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import stat
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from maintd.clock import ManualClock
from maintd.config import ExecSinkConfig
from maintd.delivery.dispatcher import LEASE_S
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.sinks.exec import FLOOD_BYTES, GRACE_S, OUTPUT_BYTES, ExecSink, exec_endpoint
from tests.delivery.databases import eventually
from tests.delivery.sending import EVENT, dispatching, message, send

Write = Callable[[str], str]

LIMIT_S = 3.0
"""Time enough for a program to begin, and to say that it will not end."""


@pytest.fixture
def program(tmp_path: Path) -> Write:
    """Writes a Python program that knows its folder as `here`; its path."""

    def write(text: str) -> str:
        path = tmp_path / "program"
        head = f"#!{sys.executable} -S\nimport os, signal, sys, time\nhere = {str(tmp_path)!r}\n"
        path.write_text(head + textwrap.dedent(text))
        path.chmod(stat.S_IRWXU)
        return str(path)

    return write


def sink(*argv: str, timeout_s: float = 20.0) -> ExecSink:
    return ExecSink(ExecSinkConfig("pager", argv, timeout_s))


def outcome_of(*argv: str, timeout_s: float = 20.0) -> Outcome:
    return send(sink(*argv, timeout_s=timeout_s))[0]


def is_over(pid: int) -> bool:
    """Whether a process is gone, or waits to be buried by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True  # the second where it goes between the opening and the reading


def pid_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


SLEEPS = """
    with open(here + "/pid", "w") as file:
        print(os.getpid(), file=file)
    time.sleep(60)
"""


def test_the_event_comes_on_standard_input(program: Write, tmp_path: Path) -> None:
    """The program reads exactly the stored bytes; exit code 0 is a delivery."""
    path = program("open(here + '/got', 'wb').write(sys.stdin.buffer.read())")

    assert Outcome(OutcomeKind.DELIVERED) == outcome_of(path)
    assert message().body == (tmp_path / "got").read_bytes()


def test_a_large_event_comes_whole(program: Write) -> None:
    """An event of more than a pipe holds is written as fast as it is read."""
    path = program("time.sleep(0.1); sys.exit(len(sys.stdin.buffer.read()) < 3_000_000)")
    large = message(data={"text": "x" * 3_000_000})

    assert OutcomeKind.DELIVERED is send(sink(path), large)[0].kind


def test_the_environment_is_small(program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of maintd's own environment is handed on, only where programs are, a language, and what the event is."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/maintd")
    path = program("import json; json.dump([dict(os.environ), os.getcwd()], open(here + '/got', 'w'))")

    send(sink(path), message(subject="zoë"))
    found, folder = json.loads((tmp_path / "got").read_text())
    found.pop("LC_CTYPE", None)  # Python's own, where LANG has no meaning
    assert {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MAINTD_EVENT_TYPE": "maintd.host.emptied.v1",
        "MAINTD_EVENT_ID": "event-1",
        "MAINTD_EVENT_SUBJECT": "zoë",
    } == found
    assert "/" == folder


def test_there_is_no_shell(program: Write, tmp_path: Path) -> None:
    """Arguments reach the program as they were configured, and nothing of the event is one."""
    path = program("import json; json.dump(sys.argv[1:], open(here + '/got', 'w'))")

    outcome_of(path, "$HOME", "*", "a b", ">", "`id`")
    assert ["$HOME", "*", "a b", ">", "`id`"] == json.loads((tmp_path / "got").read_text())


def test_another_exit_code_is_a_failure(program: Write) -> None:
    """The attempt's detail has the code and the beginning of what the program wrote, on one line."""
    outcome = outcome_of(program("print('no', 'such pager', sep='\\n', flush=True); sys.exit('really')"))

    assert Outcome(OutcomeKind.REFUSED, None, "exit code 1: no such pager really") == outcome
    assert outcome.again_can_help


def test_a_program_that_dies_of_a_signal_failed(program: Write) -> None:
    """Its detail names the signal."""
    outcome = outcome_of(program("os.kill(os.getpid(), signal.SIGUSR1)"))

    assert Outcome(OutcomeKind.REFUSED, None, f"ended by signal {int(signal.SIGUSR1)}") == outcome


@pytest.mark.parametrize("text", ["", "os.close(0)", "sys.stdin.buffer.read(10); os.close(0); time.sleep(0.1)"])
def test_a_program_need_not_read(program: Write, text: str) -> None:
    """One that ignores its standard input, or closes it early, decides by its exit code like any other."""
    large = message(data={"text": "x" * 1_000_000})

    assert Outcome(OutcomeKind.DELIVERED) == send(sink(program(text)), large)[0]


@pytest.mark.parametrize("reads", [0, 5000])
def test_a_program_that_does_not_read_on_is_ended_in_time(program: Write, tmp_path: Path, reads: int) -> None:
    """One that leaves its input unread, or a part of it, and goes on is ended at its time limit."""
    path = program(f"os.read(0, {reads})\n" + textwrap.dedent(SLEEPS))
    began = time.monotonic()
    large = message(data={"text": "x" * 1_000_000})
    outcome = send(sink(path, timeout_s=LIMIT_S), large)[0]

    assert Outcome(OutcomeKind.TIMED_OUT, None, f"not over after {LIMIT_S:g} s, and was ended") == outcome
    assert time.monotonic() - began < LIMIT_S + GRACE_S
    assert is_over(pid_in(tmp_path / "pid"))


def test_a_program_that_ignores_sigterm_is_killed(program: Write, tmp_path: Path) -> None:
    """Asked to end, it has two seconds; then it is made to, and what it wrote until then is kept."""
    path = program("signal.signal(signal.SIGTERM, lambda *_: print('not I', flush=True))\n" + textwrap.dedent(SLEEPS))
    began = time.monotonic()
    outcome = outcome_of(path, timeout_s=LIMIT_S)

    said = f"not over after {LIMIT_S:g} s, and was ended: not I"
    assert (OutcomeKind.TIMED_OUT, said) == (outcome.kind, outcome.detail)
    assert GRACE_S <= time.monotonic() - began < LIMIT_S + 3 * GRACE_S
    assert is_over(pid_in(tmp_path / "pid"))


@pytest.mark.parametrize("ends", ["os._exit(0)", "time.sleep(60)"])
def test_children_that_keep_the_pipe_hold_up_nobody(program: Write, tmp_path: Path, ends: str) -> None:
    """A child that inherited the output is not waited for, and ends with the program, however that ended."""
    path = program(f"""
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open(here + "/pid", "w") as file:
                print(os.getpid(), file=file)
            time.sleep(60)
        while not os.path.exists(here + "/pid") or not open(here + "/pid").read():
            time.sleep(0.01)
        {ends}
    """)
    began = time.monotonic()
    outcome = outcome_of(path, timeout_s=20.0 if ends.startswith("os") else LIMIT_S)

    assert (OutcomeKind.DELIVERED if ends.startswith("os") else OutcomeKind.TIMED_OUT) is outcome.kind
    assert time.monotonic() - began < LIMIT_S + 3 * GRACE_S
    pid = pid_in(tmp_path / "pid")
    eventually(lambda: is_over(pid))


def test_a_flood_is_stopped(program: Write) -> None:
    """A program that writes without end is killed long before its time, and maintd has kept next to nothing of it."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    outcome = outcome_of(program("while True: os.write(1, b'spam ' * 20000)"))

    assert OutcomeKind.BROKEN is outcome.kind
    assert time.monotonic() - began < 10.0
    assert outcome.detail.startswith("it wrote more than 1 MB and was killed: spam spam")
    assert outcome.again_can_help
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_much_output_is_no_flood(program: Write) -> None:
    """More than is kept, and more than a pipe holds, hangs nobody."""
    assert 65536 < FLOOD_BYTES // 2
    outcome = outcome_of(program(f"sys.stdout.write('x' * {FLOOD_BYTES // 2}); sys.stdout.flush(); sys.exit(3)"))

    assert outcome.detail.startswith("exit code 3: xxx")
    assert len(outcome.detail) <= OUTPUT_BYTES


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.chmod(0o600), "Permission denied"),
        (lambda path: path.write_text("\0"), "Exec format error"),
        (lambda path: path.write_text("#!/no/such/interpreter\n"), "No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_run(program: Write, make: Callable[[Path], object], why: str) -> None:
    """It is said in a sentence and tried again: somebody may put it back."""
    path = program("")
    make(Path(path))

    outcome = outcome_of(path)
    assert Outcome(OutcomeKind.UNREACHABLE, None, f"{path} cannot be run: {why}") == outcome
    assert outcome.again_can_help


def test_nothing_is_left_open(program: Write) -> None:
    """After many runs, good and bad, the process has the descriptors it had."""
    good, bad = sink(program("")), sink("/no/such/program")
    send(good, message())
    gc.collect()  # what others have left to it is not to be closed in between
    before = sorted(os.listdir("/proc/self/fd"))
    send(good, *[message()] * 20)
    send(bad, *[message()] * 20)

    assert before == sorted(os.listdir("/proc/self/fd"))


def test_a_stop_kills_at_once(program: Write, tmp_path: Path) -> None:
    """Whoever gives up on an attempt, as a stopping maintd does, leaves no program running."""
    runner = sink(program(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{textwrap.dedent(SLEEPS)}"))

    async def run() -> int:
        await runner.open()
        attempt = asyncio.create_task(runner.send(message()))
        pid = await asyncio.to_thread(pid_in, tmp_path / "pid")
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        await runner.close()
        return pid

    pid = asyncio.run(run())
    eventually(lambda: is_over(pid), timeout_s=GRACE_S / 2)


def test_programs_of_one_sink_run_side_by_side(program: Write) -> None:
    """Eight at once, so that a slow one holds up the events of its own subject only."""
    path = program("""
        open(here + f"/{os.getpid()}.here", "w").close()
        while len([name for name in os.listdir(here) if name.endswith(".here")]) < 8:
            time.sleep(0.01)
    """)
    runner = sink(path)

    async def run() -> list[Outcome]:
        await runner.open()
        outcomes = await asyncio.gather(*(runner.send(message()) for _ in range(8)))
        await runner.close()
        return outcomes

    assert [Outcome(OutcomeKind.DELIVERED)] * 8 == asyncio.run(run())


def test_the_dispatcher_delivers_and_tries_again(program: Write, tmp_path: Path) -> None:
    """An event that the program refused comes again under its id when the schedule says, and is delivered."""
    clock = ManualClock(1_800_000_000.0)
    path = program("""
        with open(here + "/ids", "a") as file:
            print(os.environ["MAINTD_EVENT_ID"], file=file)
        sys.exit(0 if len(open(here + "/ids").readlines()) > 1 else "not yet")
    """)
    endpoint = exec_endpoint(ExecSinkConfig("pager", (path,)))
    with dispatching(tmp_path, endpoint, clock=clock) as (database, dispatcher):
        event_id = database.emit(1)
        dispatcher.wake()
        eventually(lambda: [1] == [delivery.attempts for delivery in database.deliveries.list()])
        clock.advance(5.0)
        dispatcher.wake()
        eventually(lambda: database.deliveries.counts() == {("pager", "delivered"): 1})
        attempts = database.deliveries.attempts(database.deliveries.list()[0].id)

    assert [event_id] * 2 == (tmp_path / "ids").read_text().split()
    assert ["exit code 1: not yet", ""] == [attempt.detail for attempt in attempts]


def test_a_claim_outlives_the_program(program: Write, tmp_path: Path) -> None:
    """A program that may take longer than a claim usually holds is not started a second time meanwhile."""
    clock = ManualClock(1_800_000_000.0)
    path = program("""
        open(here + f"/{os.getpid()}.run", "w").close()
        while not os.path.exists(here + "/over"):
            time.sleep(0.01)
    """)
    endpoint = exec_endpoint(ExecSinkConfig("pager", (path,), timeout_s=60.0))
    with dispatching(tmp_path, endpoint, clock=clock) as (database, dispatcher):
        database.emit(1)
        dispatcher.wake()
        eventually(lambda: [] != list(tmp_path.glob("*.run")))

        assert clock.now() + LEASE_S + 60.0 < (database.deliveries.next_due_at() or 0.0)
        clock.advance(LEASE_S + 60.0)
        assert [] == database.deliveries.claim("somebody else", clock.now(), LEASE_S, 10)
        (tmp_path / "over").touch()
        eventually(lambda: database.deliveries.counts() == {("pager", "delivered"): 1})


def test_a_stopping_dispatcher_leaves_no_program(program: Write, tmp_path: Path) -> None:
    """What still runs when the time for stopping is over is killed, and the delivery is left to its lease."""
    path = program(SLEEPS)
    with dispatching(tmp_path, exec_endpoint(ExecSinkConfig("pager", (path,)))) as (database, dispatcher):
        database.emit(1)
        dispatcher.wake()
        pid = pid_in(tmp_path / "pid")
        dispatcher.stop(0.1)

        assert {("pager", "claimed"): 1} == database.deliveries.counts()
        eventually(lambda: is_over(pid))


def test_what_is_sent_is_json(program: Write) -> None:
    """`json.load(sys.stdin)` is all that a program needs."""
    path = program(f"import json; event = json.load(sys.stdin); sys.exit(event != {EVENT!r})")

    assert OutcomeKind.DELIVERED is outcome_of(path).kind
