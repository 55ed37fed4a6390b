"""Secrets at rest: what is written into the database is encrypted, under keys that never are in it.

The keys come from a file of their own (a systemd credential), one a line: the first encrypts, all decrypt. So a key is
changed by putting a new one first, and the old one can go once everything has been written anew (`renewed`). Fernet
(AES-128-CBC with HMAC-SHA256, `cryptography`) does the work; nothing here invents any. Without keys there is no vault,
and whoever needs one is told what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from maintd.errors import OperatorError

HOW = "make one with `maintd subscriptions key > FILE` (mode 0600), and name it in [subscriptions] key_file"


class Vault:
    """Encrypts and decrypts texts. Its repr shows no key."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises OperatorError where there is no key, or one is not a Fernet key; never shows it."""
        if not keys:
            raise OperatorError(f"There is no key to encrypt subscriptions' secrets with: {HOW}.")
        try:
            fernets = [Fernet(key.encode()) for key in keys]
        except ValueError:
            raise OperatorError(f"The key for subscriptions' secrets is not a Fernet key: {HOW}.") from None
        self._newest = fernets[0]
        self._fernet = MultiFernet(fernets)

    def encrypt(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, text: str) -> str:
        """Raises OperatorError for what was encrypted under a key that is not among ours."""
        try:
            return self._fernet.decrypt(text.encode()).decode()
        except InvalidToken:
            raise OperatorError(
                "A subscription's secret was encrypted under another key: put the old key into [subscriptions] "
                "key_file again, below the new one."
            ) from None

    def renewed(self, text: str) -> str:
        """The same under the newest key, or as it is where it is under that already. Raises as `decrypt` does."""
        try:
            self._newest.decrypt(text.encode())
        except InvalidToken:
            return self.encrypt(self.decrypt(text))
        return text


def new_key() -> str:
    """A key, for a file of keys."""
    return Fernet.generate_key().decode()


def read_vault(path: Path) -> Vault:
    """The vault whose keys are in this file, one a line. Raises OperatorError with what to do."""
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) else "it is not text"
        raise OperatorError(f"[subscriptions] key_file: {path} cannot be read ({why}): {HOW}.") from None
    return Vault(lines)
