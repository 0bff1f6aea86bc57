"""PKCS#11 modules in this process: loaded once, initialised while a session uses them, each owned by one thread.

python-pkcs11 initialises a module without locking, so no two threads may be in it, whatever their tokens (PKCS#11 v2.40,
C_Initialize). Who initialises it next sees the tokens that came meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import PKCS11Error, TokenFlag

from optima_bridge.errors import LinkError, LinkLost, LinkNotFound
from optima_bridge.link.cryptoki_errors import name_of
from optima_bridge.link.owner import OwnerThread

if TYPE_CHECKING:
    from optima_bridge.link.cryptoki import TokenSession


class Library:
    """One module in this process, the thread that owns it, and the sessions that use it."""

    def __init__(self, path: str) -> None:
        self.thread = OwnerThread(f"the module {path}")
        self.users: set[TokenSession] = set()
        self._path = path

    def enter(self, session: TokenSession) -> None:
        if not self.users:
            try:
                self._lib = pkcs11.lib(self._path)
            except PKCS11Error as error:
                if "while loading" in str(error):
                    raise LinkNotFound(
                        f"the module {self._path} cannot be loaded",
                        cause="it is not installed, not at this path, or not for this machine",
                        next_step=f"ls -l {self._path}; then correct module-path in the URI",
                    ) from error
                raise LinkError(
                    f"the module {self._path} does not start: {name_of(error)}",
                    cause="its own configuration, a service that it needs, or another user of it in this process",
                    next_step=f"try it: pkcs11-tool --module {self._path} --list-slots",
                ) from error
        self.users.add(session)

    def leave(self, session: TokenSession) -> None:
        if session in self.users:
            self.users.discard(session)
            if not self.users:
                with suppress(PKCS11Error):  # nothing is left to be saved
                    self._lib.finalize()

    def tokens(self) -> Iterator[pkcs11.Token]:
        """All tokens that are in; a slot that does not answer hides no other."""
        try:
            slots = self._lib.get_slots(token_present=True)
        except PKCS11Error as error:
            raise LinkLost(f"the module {self._path} does not answer: {name_of(error)}") from error
        for slot in slots:
            with suppress(PKCS11Error):
                token = slot.get_token()
                if token.flags & TokenFlag.TOKEN_INITIALIZED:
                    yield token


_libraries: dict[str, Library] = {}
_making = threading.Lock()


def library(path: str) -> Library:
    """The module at this path; a process loads it once."""
    with _making:
        if path not in _libraries:
            _libraries[path] = Library(path)
        return _libraries[path]
