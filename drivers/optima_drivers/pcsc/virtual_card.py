"""A PIV card without plastic: the device's side of `optima_drivers.pcsc.application`, and stricter than most cards.

    card = VirtualPivCard(path=Path("card.json"))         PIN 123456, management key 010203… (3DES)
    python -m optima_drivers.pcsc.vpcd card.json          puts it into the reader of vsmartcard's vpcd

Its power can be cut at any command (`cut_at`): before it, in the middle of what it writes, after it and before the answer.
Source: NIST SP 800-73pt2-5 chapter 3, ISO/IEC 7816-4:2020 chapter 5.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from optima_bridge.errors import FrameError
from optima_drivers.pcsc import tlv
from optima_drivers.pcsc.management import Algorithm, encrypt
from optima_drivers.pcsc.virtual_files import PIN_TRIES, CardFiles, Writes

AID = bytes.fromhex("A000000308 00001000 0100")
ATR = bytes.fromhex("3B88800100000073C8400000900062")
PIN = b"123456\xff\xff"
MANAGEMENT_KEY = bytes.fromhex("0102030405060708" * 3)
LABEL = b"Optima virtual PIV"
MAX_OBJECT_BYTES = 3072
ADMIN, P256, P384, RSA2048 = 0x9B, 0x11, 0x14, 0x07
SIGNING_ALWAYS, NEVER_PIN = 0x9C, 0x9E
SLOTS = {0x9A, 0x9C, 0x9D, 0x9E, *range(0x82, 0x96)}
WITH_PIN = {0x5FC103, 0x5FC108, 0x5FC109, 0x5FC121}  # objects that are read with the PIN only
CHUID = 0x5FC102
FASC_N = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB")


class Refused(Exception):
    """The card answers with a status word only."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}")
        self.status = status


class VirtualPivCard:
    """One card.

    Attributes:
        operations: commands since `cut_at`; writes: of all, those that could change something.
        on_operation: called before each command; on_power_cut: when the power goes.
        apdus: every command and its answer, for tests; kept where it is a list.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        guid: bytes = bytes(range(1, 17)),
        serial: int | None = None,
        writes: Writes = Writes.ATOMIC,
        algorithm: Algorithm = Algorithm.TDES,
        management_key: bytes = MANAGEMENT_KEY,
        atr: bytes = ATR,
        uid: bytes = b"",
    ) -> None:
        self.files = CardFiles(path, writes)
        self.atr = atr
        self.uid = uid
        self.algorithm, self.management_key = algorithm, management_key
        self.serial = serial
        if guid:
            self.files.objects.setdefault(CHUID, chuid(guid))
        self.operations = self.writes = 0
        self.on_operation: Callable[[], None] = lambda: None
        self.on_power_cut: Callable[[], None] = lambda: None
        self.apdus: list[tuple[bytes, bytes]] | None = None
        self.powered = True
        self._cut: tuple[int, str] | None = None
        self._chance = random.Random(0)  # noqa: S311 - tears, the same ones each time
        self.reset()

    def reset(self) -> None:
        """Forget all that is volatile."""
        self._selected = self._admin = self._pin = False
        self._sent: bytes | None = None  # witness or challenge, as it has to come back
        self._chain = bytearray()
        self._chained_by = b""
        self._waiting = b""

    def restart(self) -> None:
        """Give the power back."""
        self.powered, self._cut = True, None
        self.reset()

    def cut_at(self, operation: int, when: str, seed: int = 0) -> None:
        """Cut the power at that command from now, 1 is the next one: ``before`` it, ``torn`` in its middle, or ``after`` it."""
        self.operations = 0
        self._cut = (operation, when)
        self._chance.seed(seed)

    def exchange(self, apdu: bytes) -> bytes:
        """Answer a command; empty: the power is gone."""
        if self.powered:
            self.on_operation()
            self.operations += 1
            when = self._cut[1] if self._cut and self._cut[0] == self.operations else ""
            answer = b"" if when == "before" else self._answer(apdu, torn=when == "torn")
            if not when:
                if self.apdus is not None:
                    self.apdus.append((apdu, answer))
                return answer
            self.powered = False
        self.on_power_cut()
        return b""

    def _answer(self, apdu: bytes, *, torn: bool) -> bytes:
        try:
            answer, wanted = self._take(*parse(apdu), torn=torn)
        except Refused as refused:
            return refused.status.to_bytes(2)
        except FrameError:
            return b"\x6a\x80"
        return self._give(answer, wanted)

    def _take(self, cla: int, ins: int, p1: int, p2: int, data: bytes, wanted: int, *, torn: bool) -> tuple[bytes, int]:
        """A command, or a piece of one: the whole answer, and how much of it is wanted."""
        waiting, self._waiting = self._waiting, b""
        if (cla, ins) == (0x00, 0xC0):
            return waiting, wanted
        if (cla, ins) == (0xFF, 0xCA) and self.uid:
            return self.uid, wanted
        if cla not in (0x00, 0x10):
            raise Refused(0x6E00)
        if bytes([ins, p1, p2]) != self._chained_by:
            self._chain.clear()
        self._chain += data
        if len(self._chain) > MAX_OBJECT_BYTES + 16:
            self._chain.clear()
            raise Refused(0x6A84)
        come, more = bytes(self._chain), bool(cla & 0x10)
        self._chained_by = bytes([ins, p1, p2]) if more else b""
        if not more:
            self._chain.clear()
        if ins == 0xDB:
            self._put(p1, p2, come, len(data), torn=torn, more=more)
            return b"", wanted
        return b"" if more else self._do(ins, p1, p2, come), wanted

    def _give(self, answer: bytes, wanted: int) -> bytes:
        """As much as is `wanted`, and word of what is left."""
        self._waiting = answer[wanted:]
        left = len(self._waiting)
        return answer[:wanted] + (bytes([0x61, left if left < 256 else 0]) if left else b"\x90\x00")

    def _do(self, ins: int, p1: int, p2: int, data: bytes) -> bytes:
        if ins == 0xA4:
            return self._select(p1, p2, data)
        if not self._selected:
            raise Refused(0x6985)
        match ins:
            case 0xCB if (p1, p2) == (0x3F, 0xFF):
                return self._get(data)
            case 0x20 if p1 == 0x00 and p2 == 0x80:
                return self._verify(data)
            case 0x87:
                return self._general_authenticate(p1, p2, data)
            case 0x47 if p1 == 0x00:
                return self._generate(p2, data)
            case 0xFD:
                return b"\x04\x03\x05"
            case 0xF8 if self.serial is not None:
                return self.serial.to_bytes(4)
            case 0xCB | 0x20 | 0x47:
                raise Refused(0x6A86)
        raise Refused(0x6D00)

    def _select(self, p1: int, p2: int, data: bytes) -> bytes:
        if p1 != 0x04 or p2 != 0x00:
            raise Refused(0x6A86)
        if len(data) < 5 or not AID.startswith(data):
            raise Refused(0x6A82)
        self.reset()
        self._selected = True
        authority = tlv.encode(0x79, tlv.encode(0x4F, AID[:5]))
        return tlv.encode(0x61, tlv.encode(0x4F, AID[5:]) + authority + tlv.encode(0x50, LABEL))

    def _get(self, data: bytes) -> bytes:
        wanted = tlv.only(0x5C, data)
        if wanted == b"\x7e":
            return tlv.encode(0x7E, tlv.encode(0x4F, AID) + tlv.encode(0x5F2F, b"\x40\x00"))
        tag = int.from_bytes(wanted)
        if tag in WITH_PIN and not self._pin:
            raise Refused(0x6982)
        if tag not in self.files.objects:
            raise Refused(0x6A82)
        return tlv.encode(0x53, self.files.objects[tag])

    def _put(self, p1: int, p2: int, come: bytes, new_bytes: int, *, torn: bool, more: bool) -> None:
        self.writes += 1
        if not self._selected:
            raise Refused(0x6985)
        if not self._admin:
            raise Refused(0x6982)
        if (p1, p2) != (0x3F, 0xFF):
            raise Refused(0x6A86)
        whole = not more
        if torn and self.files.writes is Writes.ATOMIC:
            whole = whole and self._chance.random() < 0.5
        elif torn:
            come, whole = come[: len(come) - self._chance.randrange(new_bytes or 1)], False
        if not self.files.write(come, whole=whole):
            raise Refused(0x6A80)

    def _verify(self, data: bytes) -> bytes:
        files = self.files
        if files.pin_tries == 0:
            raise Refused(0x6983)
        if not data:
            if self._pin:
                return b""
            raise Refused(0x63C0 | files.pin_tries)
        self._pin = compare_digest(data, PIN)
        files.pin_tries = PIN_TRIES if self._pin else files.pin_tries - 1
        files.save()
        if not self._pin:
            raise Refused(0x63C0 | files.pin_tries)
        return b""

    def _general_authenticate(self, algorithm: int, key: int, data: bytes) -> bytes:
        template = dict(tlv.elements(tlv.only(0x7C, data)))
        if key == ADMIN:
            answer = self._administer(algorithm, template)
        else:
            answer = tlv.encode(0x82, self._sign(algorithm, key, template))
        return tlv.encode(0x7C, answer) if answer else b""

    def _administer(self, algorithm: int, template: dict[int, bytes]) -> bytes:
        """Mutual (80, then 80 and 81) or external (81, then 82) authentication."""
        if algorithm != self.algorithm.number:
            raise Refused(0x6A86)
        size, sent = self.algorithm.block_bytes, self._sent
        self._sent = None
        if template == {0x80: b""}:
            self._sent = os.urandom(size)
            return tlv.encode(0x80, encrypt(self.algorithm, self.management_key, self._sent))
        if template == {0x81: b""}:
            challenge = os.urandom(size)
            self._sent = encrypt(self.algorithm, self.management_key, challenge)
            return tlv.encode(0x81, challenge)
        shown = template.get(0x80) or template.get(0x82)
        if shown is None or len(template.get(0x81, bytes(size))) != size:
            raise Refused(0x6A80)
        if sent is None or not compare_digest(shown, sent):
            raise Refused(0x6982)
        self._admin = True
        if 0x81 not in template:
            return b""
        return tlv.encode(0x82, encrypt(self.algorithm, self.management_key, template[0x81]))

    def _sign(self, algorithm: int, slot: int, template: dict[int, bytes]) -> bytes:
        if slot not in SLOTS or slot not in self.files.keys or self.files.keys[slot][0] != algorithm:
            raise Refused(0x6A88)
        if slot != NEVER_PIN and not self._pin:
            raise Refused(0x6982)
        if set(template) != {0x81, 0x82} or template[0x82]:
            raise Refused(0x6A80)
        if slot == SIGNING_ALWAYS:
            self._pin = False
        key, digest = load_der_private_key(self.files.keys[slot][1], None), template[0x81]
        if isinstance(key, rsa.RSAPrivateKey):
            if len(digest) != 256:
                raise Refused(0x6A80)
            numbers = key.private_numbers()
            return pow(int.from_bytes(digest), numbers.d, numbers.public_numbers.n).to_bytes(256)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        if len(digest) != key.key_size // 8:
            raise Refused(0x6A80)
        return key.sign(digest, ec.ECDSA(Prehashed(SHA256() if key.key_size == 256 else SHA384())))

    def _generate(self, slot: int, data: bytes) -> bytes:
        self.writes += 1
        if not self._admin:
            raise Refused(0x6982)
        wanted = dict(tlv.elements(tlv.only(0xAC, data)))
        algorithm = wanted.get(0x80, b"")
        if slot not in SLOTS or len(algorithm) != 1:
            raise Refused(0x6A86)
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        match algorithm[0]:
            case 0x11 | 0x14 as kind:
                key = ec.generate_private_key(ec.SECP256R1() if kind == P256 else ec.SECP384R1())
                point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                public = tlv.encode(0x86, point)
            case 0x07 as kind:
                key = rsa.generate_private_key(65537, 2048)
                numbers = key.public_key().public_numbers()
                public = tlv.encode(0x81, numbers.n.to_bytes(256)) + tlv.encode(0x82, numbers.e.to_bytes(3))
            case _:
                raise Refused(0x6A80)
        self.files.keys[slot] = kind, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.files.save()
        return tlv.encode(0x7F49, public)


def parse(apdu: bytes) -> tuple[int, int, int, int, bytes, int]:
    """CLA, INS, P1, P2, data, and how many bytes of answer are wanted; cases 1 to 4, short and extended.

    Without Le it is 256, for yubico-piv-tool sends none and cards give their answer all the same.

    Raises:
        Refused: 6700: the lengths do not fit together.
    """
    if len(apdu) < 4:
        raise Refused(0x6700)
    cla, ins, p1, p2 = apdu[:4]
    body = apdu[4:]
    wide = len(body) > 2 and body[0] == 0
    data, wanted = b"", 256
    le_bytes = 2 if wide else 1
    if wide:
        body = body[1:]
    if len(body) > le_bytes:
        size = int.from_bytes(body[:le_bytes])
        data, body = body[le_bytes : le_bytes + size], body[le_bytes + size :]
        if not size or len(data) != size or len(body) not in (0, le_bytes):
            raise Refused(0x6700)
    if body:
        wanted = int.from_bytes(body) or 1 << 8 * le_bytes
    return cla, ins, p1, p2, data, wanted


def chuid(guid: bytes) -> bytes:
    """An unsigned CHUID with this GUID."""
    return (
        tlv.encode(0x30, FASC_N)
        + tlv.encode(0x34, guid)
        + tlv.encode(0x35, b"20991231")
        + tlv.encode(0x3E, b"")
        + tlv.encode(0xFE, b"")
    )
