"""Sign, catch, and let every language judge: python -m tests.acceptance.languages. Status 1 if one of them is wrong.

With STANDARD_WEBHOOKS, a checkout of the sources of the Standard Webhooks libraries, those for PHP and Ruby judge too:
they are not in the registries that these checks install from.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from maintd.clock import Clock, SystemClock
from maintd.domain.events import CloudEvent
from tests.delivery.receivers import Receiver, answer
from tests.receivers.sending import OTHER_SECRET, SECRET, sender

HERE = Path(__file__).resolve().parent
FOREIGN_SECRET = "whsec_" + base64.b64encode(b"f" * 32).decode()
OLD_S, AHEAD_S = 301.0, 900.0
"""Off by more than the five minutes that the libraries allow; ahead by much more, for the time that the checks take."""
EVENT = CloudEvent(
    "5f0c", "maintd.service.disabled.v1", "/maintd/west", "cmp-1", 1_800_000_000.0, 7,
    {"host": "cmp-1", "reason": "Zürich \u2014 \U0001f6e0 \\ \" </script>"},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Language:
    """A program in a language, and by what it verifies."""

    name: str
    argv: tuple[str, ...]
    by: str


LANGUAGES = (
    Language("Python", (sys.executable, "verify.py"), "library standardwebhooks, from PyPI"),
    Language("JavaScript", ("node", "verify.cjs"), "library standardwebhooks, from npm"),
    Language("PHP", ("php", "verify.php"), "the specification; no library"),
    Language("Ruby", ("ruby", "verify.rb"), "the specification; no library"),
)
FROM_SOURCES = (
    Language("PHP", ("php", "library.php"), "library standard-webhooks, of the checkout"),
    Language("Ruby", ("ruby", "library.rb"), "library standardwebhooks, of the checkout"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, and the secret by which it is verified."""

    headers: dict[str, str]
    body: bytes
    secret: str = SECRET

    def header(self, name: str, change: Callable[[str], str]) -> Request:
        """The same with one header changed."""
        return replace(self, headers=self.headers | {name: change(self.headers[name])})


class Off:
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._clock, self._seconds = SystemClock(), seconds

    def now(self) -> float:
        return self._clock.now() + self._seconds

    def monotonic(self) -> float:
        return self._clock.monotonic()


def sent(clock: Clock) -> Request:
    """The event, as a maintd with this clock and two secrets sends it."""
    receiver = Receiver(answer(204))
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            sender(Path(folder), receiver.url, secrets=(SECRET, OTHER_SECRET), clock=clock) as sending,
        ):
            sending.publish(EVENT)
            sending.settle(1)
    finally:
        receiver.close()
    (came,) = receiver.received
    return Request(came.headers, came.body)


def cases() -> dict[str, tuple[Request, str]]:
    """What each language has to say of which request."""
    good = sent(SystemClock())
    old, early = sent(Off(-OLD_S)), sent(Off(AHEAD_S))
    middle = len(good.body) // 2
    changed = good.body[:middle] + bytes([good.body[middle] ^ 1]) + good.body[middle + 1 :]
    return {
        "as it came": (good, "verified"),
        "by the older secret": (replace(good, secret=OTHER_SECRET), "verified"),
        "by a foreign secret": (replace(good, secret=FOREIGN_SECRET), "refused"),
        "a byte of the body changed": (replace(good, body=changed), "refused"),
        "a byte of the body missing": (replace(good, body=good.body[:-1]), "refused"),
        "another id": (good.header("webhook-id", lambda was: was + "0"), "refused"),
        "another timestamp": (good.header("webhook-timestamp", lambda was: str(int(was) - 1)), "refused"),
        "no signature of ours": (good.header("webhook-signature", lambda was: "v1,bm9uZQ=="), "refused"),
        "signed too long ago": (old, "refused"),
        "signed too far ahead": (early, "refused"),
    }


def judged(language: Language, request: Request) -> str:
    """What a language's program says of a request."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_text(request.secret)
        (Path(folder) / "headers.json").write_text(json.dumps(request.headers))
        (Path(folder) / "body").write_bytes(request.body)
        said = subprocess.run([*language.argv, folder], cwd=HERE, capture_output=True, text=True, timeout=60)
    return said.stdout.strip() if said.returncode == 0 else f"ended with {said.returncode}: {said.stderr.strip()}"


def main() -> int:
    lacking = [language.argv[0] for language in LANGUAGES if shutil.which(language.argv[0]) is None]
    if lacking:
        print(f"Not installed: {', '.join(lacking)}. `make acceptance-languages` brings them.", file=sys.stderr)
        return 2
    sources = os.environ.get("STANDARD_WEBHOOKS")
    if sources:
        if not (Path(sources) / "libraries" / "php" / "init.php").is_file():
            print(f"No checkout of the Standard Webhooks libraries: STANDARD_WEBHOOKS={sources}", file=sys.stderr)
            return 2
        os.environ["STANDARD_WEBHOOKS"] = str(Path(sources).resolve())  # for programs that run in another folder
    faults = 0
    table = cases()
    for language in LANGUAGES + (FROM_SOURCES if sources else ()):
        wrong = 0
        for name, (request, wanted) in table.items():
            said = judged(language, request)
            if said != wanted:
                wrong += 1
                print(f"FAULT: {language.name}, {name}: {said!r}, not {wanted!r}", file=sys.stderr)
        print(f"{language.name:<11} {len(table) - wrong} of {len(table)} right  (by {language.by})")
        faults += wrong
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
