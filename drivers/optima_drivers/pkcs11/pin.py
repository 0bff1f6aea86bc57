"""Which PIN is given to a token, and when none: attempts belong to people."""

from __future__ import annotations

from collections.abc import Callable

from optima_bridge.errors import NotAuthorised, SecretLocked, SecretMissing, WrongSecret
from optima_bridge.link.pkcs11 import TokenInfo
from optima_bridge.secrets import Secret


class Pin:
    """The PIN of the settings, and in its stead one that somebody gave. Each is refused once and then left alone."""

    def __init__(self, configured: Secret | None) -> None:
        self._configured = configured
        self._given = b""
        self._refused: set[str] = set()

    def give(self, pin: bytes) -> None:
        """Use this one; empty: that of the settings again."""
        self._given = pin
        self._refused.discard("given")

    def show(self, info: TokenInfo, login: Callable[[bytes], None]) -> None:
        """Call `login` with the PIN, where that may be done.

        Raises:
            SecretMissing, NotAuthorised, WrongSecret, SecretLocked: see `optima_bridge.store.LockedStore`; ConfigError:
            the PIN of the settings cannot be read.
        """
        if info.pin_locked:
            raise SecretLocked(f"the PIN of the token {info.serial} is locked")
        source = "given" if self._given else "configured"
        if source in self._refused:
            raise WrongSecret(
                f"the {source} PIN was refused by the token {info.serial} before; it is not tried again",
                attempts_remaining=info.attempts_remaining,
            )
        if not self._given and self._configured is None:
            raise SecretMissing(f"the PIN of the token {info.serial} is not known")
        if not self._given and info.pin_doubted:
            raise NotAuthorised(
                f"the last PIN that somebody gave to the token {info.serial} was wrong, so the configured one is not tried",
                cause="a typing mistake, or the PIN was changed",
                attempts_remaining=info.attempts_remaining,
            )
        try:
            login(self._given or self._configured_pin())
        except (WrongSecret, SecretLocked):
            self._refused.add(source)
            raise

    def _configured_pin(self) -> bytes:
        assert self._configured is not None
        return self._configured.read()
