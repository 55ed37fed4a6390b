"""The exec sink: a program of the operator's, run once for each attempt, with the event on its standard input.

No shell is involved: the configuration is split into words as a shell would split it, and the words are the program's
arguments. What an event says is never among them; it comes as JSON on standard input, the stored bytes, and its type,
id and subject in three variables of an environment that holds little else.

Exit code 0 is a delivery, everything else is tried again. Each way in which a program can be a nuisance has its limit:
it need not read, it may write (4 KB are kept, more than 1 MB ends it), it may take `timeout_s`. Then its process group
is asked to end (SIGTERM) and, two seconds later, made to (SIGKILL); when maintd stops, at once. Whatever it started and
left behind in its group ends with it: an event must not leave a process that nobody counts. What is to live on has to
leave the group itself.

It runs with maintd's user, rights and sandbox, and nothing more.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import threading
from contextlib import suppress
from time import monotonic
from typing import IO, TYPE_CHECKING, Final

from maintd.delivery.outcome import Outcome, OutcomeKind, presentable
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.delivery.sinks.threads import Threads

if TYPE_CHECKING:
    from maintd.config import ExecSinkConfig

PATH: Final = "/usr/local/bin:/usr/bin:/bin"
AT_ONCE: Final = 8
"""As many as the dispatcher has in flight of one endpoint, so that no attempt spends its time waiting for its turn."""
GRACE_S: Final = 2.0
"""From SIGTERM to SIGKILL, and from there until a process that does not even die is left behind."""
START_S: Final = 1.0
OUTPUT_BYTES: Final = 4096
FLOOD_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 65536


def exec_endpoint(sink: ExecSinkConfig) -> Endpoint:
    """An endpoint for one configured exec sink."""
    program = ExecSink(sink)
    return Endpoint(sink.name, sink.event_types, Signer(()), program, overtime_s=program.deadline_s)


class ExecSink:
    """Runs one program."""

    def __init__(self, sink: ExecSinkConfig) -> None:
        self._sink = sink
        self.deadline_s = START_S + sink.timeout_s + 2 * GRACE_S
        self._threads: Threads | None = None

    async def open(self) -> None:
        self._threads = Threads(f"maintd-exec-{self._sink.name}", AT_ONCE)

    async def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    async def send(self, message: Message) -> Outcome:
        if self._threads is None:
            raise RuntimeError("the sink is not open")
        run = _Run(self._sink.argv, environment(message), message.body, self._sink.timeout_s)
        try:
            return await self._threads.run(run.go, self.deadline_s)
        except TimeoutError:
            return Outcome(OutcomeKind.TIMED_OUT, detail="the program could not even be started in time")
        finally:
            run.end()  # given up on, most likely because maintd stops


def environment(message: Message) -> dict[bytes, bytes]:
    """All that a program finds in its environment. Bytes: what they are must not hang on maintd's own locale."""
    event = json.loads(message.body)
    return {
        b"PATH": PATH.encode(),
        b"LANG": b"C.UTF-8",
        b"MAINTD_EVENT_TYPE": event["type"].encode(),
        b"MAINTD_EVENT_ID": message.event_id.encode(),
        b"MAINTD_EVENT_SUBJECT": event["subject"].encode(),
    }


class _Run:
    """One run of a program, from its start to the end of its process group. `go` blocks; `end` is for other threads."""

    def __init__(self, argv: tuple[str, ...], env: dict[bytes, bytes], body: bytes, timeout_s: float) -> None:
        self._argv, self._env, self._body, self._timeout_s = argv, env, body, timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # from its start until it is reaped
        self._given_up = threading.Event()
        self._late = False
        self._written = 0
        self._output = b""

    def end(self) -> None:
        """Kill what runs, at once; run nothing that has not begun."""
        self._given_up.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """To the whole group. Under the lock its leader is not reaped meanwhile, nor the number given to another."""
        with self._lock, suppress(ProcessLookupError, PermissionError):
            if self._process is not None:
                os.killpg(self._process.pid, number)

    def go(self) -> Outcome:
        if self._given_up.is_set():
            return Outcome(OutcomeKind.BROKEN, detail="maintd stopped")
        try:
            process = subprocess.Popen(  # noqa: S603  (the operator's own program)
                self._argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._env,
                start_new_session=True,
            )
        except (OSError, ValueError) as wrong:
            why = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else str(wrong)
            return Outcome(OutcomeKind.UNREACHABLE, detail=presentable(f"{self._argv[0]} cannot be run: {why}"))
        with self._lock:
            self._process = process
        if self._given_up.is_set():
            self._signal(signal.SIGKILL)  # `end` came while it started, and could not
        stdin, stdout = _pipes(process)
        with stdin, stdout:
            ended = self._follow(process.pid, stdin, stdout)
            self._signal(signal.SIGKILL)  # what it left behind
            self._read(stdout)
            return self._judge(self._reap(process) if ended else None)

    def _follow(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> bool:
        """Write, read and keep the time until the program has ended. False: it did not even when it was killed."""
        left = memoryview(self._body)
        orders = [signal.SIGKILL, signal.SIGTERM]
        until = monotonic() + self._timeout_s
        exited = os.pidfd_open(pid)
        try:
            with selectors.DefaultSelector() as waits:
                waits.register(exited, selectors.EVENT_READ)
                for pipe, what in ((stdin, selectors.EVENT_WRITE), (stdout, selectors.EVENT_READ)):
                    os.set_blocking(pipe.fileno(), False)
                    waits.register(pipe, what)
                while True:
                    ready = {key.fileobj for key, _ in waits.select(max(0.0, until - monotonic()))}
                    if exited in ready:
                        return True
                    if stdin in ready:
                        left = _write(stdin, left)
                        if not left:
                            waits.unregister(stdin)
                            stdin.close()
                    if stdout in ready and not self._read(stdout):
                        waits.unregister(stdout)
                    if self._written > FLOOD_BYTES and signal.SIGKILL in orders:
                        orders, until = [], monotonic() + GRACE_S
                        self._signal(signal.SIGKILL)
                    elif monotonic() >= until:
                        if not orders:
                            return False
                        self._late, until = True, monotonic() + GRACE_S
                        self._signal(orders.pop())
        finally:
            os.close(exited)

    def _read(self, stdout: IO[bytes]) -> bool:
        """Take what has been written so far, up to a bound. False when no more will be taken."""
        with suppress(BlockingIOError):
            while self._written <= FLOOD_BYTES:
                part = os.read(stdout.fileno(), _CHUNK_BYTES)
                if not part:
                    return False
                self._written += len(part)
                self._output += part[: OUTPUT_BYTES - len(self._output)]
            return False
        return True

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        with self._lock:
            self._process = None
            return process.wait()

    def _judge(self, code: int | None) -> Outcome:
        if self._written > FLOOD_BYTES:
            return self._failed(OutcomeKind.BROKEN, f"it wrote more than {FLOOD_BYTES // 1024**2} MB and was killed")
        if code is None:
            return self._failed(OutcomeKind.TIMED_OUT, f"not over after {self._timeout_s:g} s, and cannot be killed")
        if self._late:
            return self._failed(OutcomeKind.TIMED_OUT, f"not over after {self._timeout_s:g} s, and was ended")
        if code == 0:
            return Outcome(OutcomeKind.DELIVERED)
        if code < 0:
            return self._failed(OutcomeKind.REFUSED, f"ended by signal {-code}")
        return self._failed(OutcomeKind.REFUSED, f"exit code {code}")

    def _failed(self, kind: OutcomeKind, what: str) -> Outcome:
        return Outcome(kind, detail=presentable(f"{what}: {self._output.decode('utf-8', 'replace')}").rstrip(": "))


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("both were asked to be pipes")
    return process.stdin, process.stdout


def _write(stdin: IO[bytes], left: memoryview) -> memoryview:
    """What is left to write; nothing when it does not want the rest, which is its own affair."""
    try:
        return left[os.write(stdin.fileno(), left[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return left
    except OSError:
        return left[:0]
