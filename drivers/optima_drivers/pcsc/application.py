"""The PIV application of the card in a session: each command with what its answers mean.

    00 a4 04 00 05 a000000308 00          select                  -> 61 { 4f, 79, 50 }
    00 cb 3f ff 05 5c 03 tag 00           read an object          -> 53 { value }, 6a82: there is none
    00 db 3f ff … 5c 03 tag 53 { value }  write one
    00 87 alg 9b … 7c { 80 }              management key          -> 7c { 80 witness }
    00 87 alg 9b … 7c { 80 witness 81 challenge }                 -> 7c { 82 response }
    00 47 00 9e 05 ac { 80 11 } 00        make a P-256 key        -> 7f49 { 86 point }
    00 87 11 9e … 7c { 82 81 digest } 00  sign                    -> 7c { 82 signature }
    00 f8 00 00 00                        serial number, where the vendor has one (Yubico)

Whatever was shown to the application is forgotten at the next select or reset. Source: NIST SP 800-73pt2-5, chapter 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from optima_bridge.errors import (
    DeviceError,
    NotAuthorised,
    RemoteProtocolError,
    SecretLocked,
    SlotError,
    WrongSecret,
)
from optima_bridge.link.card import CardSession
from optima_bridge.model import DeviceIdentity
from optima_bridge.text import printable
from optima_drivers.pcsc import objects, tlv
from optima_drivers.pcsc.apdu import OK, PIECE_BYTES, Answer, Command, decode
from optima_drivers.pcsc.management import Algorithm, decrypt, encrypt

AID = bytes.fromhex("A000000308")
CARD_AUTHENTICATION = 0x9E  # the slot whose key signs without a PIN
P256 = 0x11
GUID_DIGITS = 32

_NOT_FOUND = 0x6A82
_SECURITY, _BLOCKED, _NO_ROOM = 0x6982, 0x6983, 0x6A84
_NO_SUCH_KEY = {0x6A80, 0x6A81, 0x6A86, 0x6A88, 0x6D00}
_NAMES = {
    0x6700: "wrong length",
    0x6883: "last command of the chain expected",
    _SECURITY: "security status not satisfied",
    _BLOCKED: "authentication method blocked",
    0x6985: "conditions of use not satisfied",
    0x6A80: "incorrect data",
    0x6A81: "function not supported",
    _NOT_FOUND: "not found",
    _NO_ROOM: "not enough memory",
    0x6A86: "incorrect P1 P2",
    0x6A88: "referenced data not found",
    0x6D00: "instruction not supported",
    0x6E00: "class not supported",
}

Written = Callable[[int], None]
"""Called with how many bytes of an object have been written."""


class Application:
    """One card, in one session; `identify` comes first."""

    def __init__(self, session: CardSession) -> None:
        self._session = session

    async def identify(self, expected: DeviceIdentity | None = None) -> DeviceIdentity:
        """Select the application, and ask the card who it is; as short as will do to know the `expected` one again.

        Raises:
            DeviceError: it has no PIV application, or cannot be told from others.
        """
        answer = await self._ask(Command(0xA4, 0x04, 0x00, AID))
        if answer.status != OK:
            raise DeviceError(
                f"the card has no PIV application (status {answer.status:04X})",
                cause="it is another kind of card",
                next_step="put a PIV card in",
            )
        return DeviceIdentity(model=_label(answer.data), serial=await self._number(expected))

    async def get(self, tag: int) -> bytes:
        """What an object holds; empty where there is none.

        Raises:
            FrameError: ``tag``, ``length``: what came is no object.
        """
        answer = await self._ask(Command(0xCB, 0x3F, 0xFF, tlv.encode(0x5C, tag.to_bytes(3))))
        if answer.status == _NOT_FOUND:
            return b""
        _check(answer, f"give the object {tag:06X}")
        return tlv.only(0x53, answer.data) if answer.data else b""

    async def put(self, tag: int, value: bytes, written: Written = lambda _: None) -> None:
        """Write an object; empty: delete it. Needs the management key.

        Raises:
            SlotError: it does not fit. NotAuthorised, DeviceError: the card refused.
        """
        data = tlv.encode(0x5C, tag.to_bytes(3)) + tlv.encode(0x53, value)
        answer = await self._ask(Command(0xDB, 0x3F, 0xFF, data, answers=False), written)
        _check(answer, f"take {len(value)} bytes into the object {tag:06X}")

    async def authenticate(self, algorithm: Algorithm, key: bytes) -> None:
        """Show the management key, and have the card show that it knows it too.

        Raises:
            WrongSecret, SecretLocked: the card does not accept it. NotAuthorised: it has none of this kind.
            RemoteProtocolError: the card does not know it.
        """
        answer = await self._general(algorithm.number, 0x9B, {0x80: b""})
        if answer.status in _NO_SUCH_KEY:
            raise NotAuthorised(
                f"the card has no {algorithm} management key (status {answer.status:04X})",
                cause="its management key is of another kind",
                next_step="set management_algorithm to the kind that the card has",
            )
        _check(answer, "begin with its management key")
        witness = self._part(answer, 0x80, algorithm.block_bytes)
        challenge = os.urandom(algorithm.block_bytes)
        shown = {0x80: decrypt(algorithm, key, witness), 0x81: challenge}
        answer = await self._general(algorithm.number, 0x9B, shown)
        if answer.status == _SECURITY or answer.status == 0x6300:
            raise WrongSecret("the card refused the management key", attempts_remaining=None)
        _check(answer, "accept the management key")
        if self._part(answer, 0x82, algorithm.block_bytes) != encrypt(algorithm, key, challenge):
            raise RemoteProtocolError(
                "the card does not know its own management key",
                cause="it is an imitation, or answers were mixed up",
                next_step="put the right card in; if this is it, replace it",
            )

    async def generate(self) -> bytes:
        """Make a new P-256 key for card authentication; the old one is gone. Returns its public point, uncompressed."""
        wanted = tlv.encode(0xAC, tlv.encode(0x80, bytes([P256])))
        answer = await self._ask(Command(0x47, 0x00, CARD_AUTHENTICATION, wanted))
        _check(answer, "make a P-256 key")
        return tlv.only(0x86, tlv.only(0x7F49, answer.data))

    async def sign(self, digest: bytes) -> bytes | None:
        """ECDSA over a SHA-256 digest, DER, with the key for card authentication; None: there is no P-256 key."""
        answer = await self._general(P256, CARD_AUTHENTICATION, {0x82: b"", 0x81: digest})
        if answer.status in _NO_SUCH_KEY:
            return None
        _check(answer, "sign")
        return tlv.only(0x82, tlv.only(0x7C, answer.data))

    async def _number(self, expected: DeviceIdentity | None) -> str:
        """The vendor's serial number; the GUID where there is none. ykman makes a new GUID with each import."""
        if expected is None or len(expected.serial) != GUID_DIGITS:
            answer = await self._ask(Command(0xF8, 0x00, 0x00))
            if answer.status == OK and len(answer.data) == 4:
                return str(int.from_bytes(answer.data))
        chuid = await self.get(objects.CHUID)
        if chuid and (guid := objects.guid(chuid)):
            return guid
        raise DeviceError(
            "the card has neither a serial number nor a CHUID with a number, so it cannot be told from others",
            cause="it was never initialised",
            next_step="initialise it: yubico-piv-tool -a set-chuid",
        )

    async def _general(self, algorithm: int, key: int, template: dict[int, bytes]) -> Answer:
        """GENERAL AUTHENTICATE."""
        data = b"".join(tlv.encode(tag, value) for tag, value in template.items())
        return await self._ask(Command(0x87, algorithm, key, tlv.encode(0x7C, data)))

    def _part(self, answer: Answer, tag: int, size_bytes: int) -> bytes:
        part = tlv.only(tag, tlv.only(0x7C, answer.data))
        if len(part) != size_bytes:
            raise RemoteProtocolError(f"a block of {len(part)} bytes from the card, not {size_bytes}")
        return part

    async def _ask(self, command: Command, written: Written = lambda _: None) -> Answer:
        """Send a command in its pieces."""
        answer, sent = Answer(b"", OK), 0
        for piece in command.pieces():
            answer = decode(await self._session.transmit(piece))
            if answer.status != OK:
                break
            sent += PIECE_BYTES
            written(min(sent, len(command.data)))
        return answer


def _label(template: bytes) -> str:
    """The application's name for itself, where it has one; some cards leave the template out."""
    parts = dict(tlv.elements(template))
    parts = dict(tlv.elements(parts.get(0x61, template)))
    return printable(parts.get(0x50, b"").decode("utf-8", errors="replace")) or "PIV card"


def _check(answer: Answer, doing: str) -> None:
    status = answer.status
    if status == OK:
        return
    named = f"status {status:04X}" + (f", {_NAMES[status]}" if status in _NAMES else "")
    what = f"the card did not {doing} ({named})"
    if status == _SECURITY:
        raise NotAuthorised(what)
    if status == _BLOCKED:
        raise SecretLocked(what)
    if status & 0xFFF0 == 0x63C0:
        raise WrongSecret(what, attempts_remaining=status & 0xF)
    if status == _NO_ROOM:
        raise SlotError(what, cause="other objects fill the card", next_step="delete certificates of unused slots")
    raise DeviceError(what)
