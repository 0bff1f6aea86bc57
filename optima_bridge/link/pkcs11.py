"""A link to one token behind a PKCS#11 module: no byte pipe but calls, each on the thread that owns the module.

    info = await link.call(lambda token: token.begin())

What a call may do is in `optima_bridge.link.cryptoki`; python-pkcs11 is imported only when such a link is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from optima_bridge.errors import DriverError, LinkLost
from optima_bridge.link.pkcs11_uri import TokenUri, parse

if TYPE_CHECKING:
    from optima_bridge.link.cryptoki import TokenSession

CALL_TIMEOUT_S = 15.0  # a card that makes a key, or writes a certificate at 9600 baud

T = TypeVar("T")


class TokenInfo(msgspec.Struct, frozen=True):
    """What a token says of itself (CK_TOKEN_INFO).

    Attributes:
        pin_doubted: the last PIN given to it, by whomever, was wrong.
        pin_final_try: one more wrong PIN locks it.
    """

    label: str
    manufacturer: str
    model: str
    serial: str
    firmware: str
    write_protected: bool = False
    pin_doubted: bool = False
    pin_final_try: bool = False
    pin_locked: bool = False

    @property
    def attempts_remaining(self) -> int | None:
        """How many PINs it still takes, where it tells; None: not known."""
        return 0 if self.pin_locked else 1 if self.pin_final_try else None


class Entry(msgspec.Struct, frozen=True):
    """An object on a token; good in the session that found it.

    Attributes:
        label: CKA_LABEL.
        value: CKA_VALUE; of a public key its uncompressed point.
        object: what the library knows it by.
    """

    label: str
    value: bytes
    object: Any = None


class Pkcs11Link:
    """Our place at one token. Any number of tasks may call; the calls take turns."""

    def __init__(self, uri: TokenUri, session: TokenSession) -> None:
        self._uri = uri
        self._session = session
        self._closed = False

    @property
    def name(self) -> str:
        return self._uri.text

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def call(self, step: Callable[[TokenSession], T]) -> T:
        """Run `step` on the owner thread. Cancelled, it ends when the step has ended.

        Raises:
            LinkTimeout: it did not end within CALL_TIMEOUT_S.
            LinkLost: the link was closed. What else: see the methods of TokenSession.
        """
        if self._closed:
            raise LinkLost(f"{self.name} was closed")
        return await self._session.thread.call(partial(step, self._session), CALL_TIMEOUT_S)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._session.thread.submit(self._session.release)


def token_session(uri: TokenUri) -> TokenSession:
    """A session that is not begun yet.

    Raises:
        DriverError: python-pkcs11 is not installed.
    """
    try:
        from optima_bridge.link.cryptoki import TokenSession
    except ModuleNotFoundError as error:
        if error.name != "pkcs11":
            raise
        raise DriverError(
            "PKCS#11 tokens need the library python-pkcs11, which is not installed",
            cause="optima-bridge was installed without its extra pkcs11",
            next_step="pip install 'optima-bridge[pkcs11]'",
        ) from error
    return TokenSession(uri)


async def open_pkcs11(port: str) -> Pkcs11Link:
    """Load the module. Whether its token is there shows when a session begins.

    Raises:
        UsageError: the port is not a PKCS#11 URI as we take them.
        DriverError: python-pkcs11 is not installed.
        LinkNotFound, LinkError: the module cannot be loaded, or does not start.
    """
    uri = parse(port)
    link = Pkcs11Link(uri, token_session(uri))
    try:
        await link.call(lambda token: token.claim())
    except BaseException:
        link.close()
        raise
    return link
