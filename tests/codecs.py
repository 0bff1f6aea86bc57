"""Every byte codec of the project with good traffic for it: `benchmarks/codecs.py` measures them, `tests/fuzz.py` damages what they read."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki.csr import read_request
from optima_bridge.enroll.pki.files import read_certificate, read_crl
from optima_bridge.errors import CertificateError, FrameError
from optima_bridge.link import memory_records
from optima_bridge.wire import evdev, hid, uevent
from optima_bridge.wire.onewire import Rom
from optima_drivers.contacts import dialects
from optima_drivers.ds2480b import codec as ds2480b
from optima_drivers.ds2490 import codec as ds2490
from optima_drivers.keylock.hid import HidKeylockDriver, HidKeylockSettings
from optima_drivers.keylock.keys import KEYS
from optima_drivers.keylock.profiles import TEXT, TYPED
from optima_drivers.keylock.sequences import SequenceDecoder
from optima_drivers.keylock.serial import LineDecoder
from optima_drivers.keylock.simulator import NCR_DESCRIPTOR, TypedKeylockSimulator
from optima_drivers.loopback import codec as loopback
from optima_drivers.osdp import codec as osdp
from optima_drivers.osdp.messages import decode_reply
from optima_drivers.osdp.secure import DEFAULT_KEY, SecureChannel, SessionKeys
from optima_drivers.pcsc import apdu, application, objects, tlv
from optima_drivers.pn532 import cards
from optima_drivers.pn532 import codec as pn532
from optima_drivers.rfid125 import codec as rfid125
from optima_drivers.smp import commands, framing, message

MAX_CUTS = 4


class Decoder(Protocol):
    """What all decoders of streams have; errors are among what `feed` returns."""

    def feed(self, chunk: bytes, /) -> Sequence[object]: ...


class Codec(msgspec.Struct, frozen=True):
    """One codec.

    Attributes:
        traffic: what it reads without an error, a frame each.
        read: bytes that are whole to what they mean.
        make: a decoder of a stream, in place of `read`.
        limit_bytes: what such a decoder may hold between two chunks.
        cut_anywhere: how its stream is cut makes no difference.
        errors: what may come out of bad bytes, and nothing else.
    """

    traffic: Sequence[bytes]
    read: Callable[[bytes], object] | None = None
    make: Callable[[], Decoder] | None = None
    limit_bytes: int = 0
    cut_anywhere: bool = True
    errors: tuple[type[Exception], ...] = (FrameError,)

    def try_out(self, data: bytes, cuts: int = 0) -> None:
        """Have it read bytes that may be bad, a stream cut into pieces as the number `cuts` says; an error is a bug."""
        if self.make:
            found = self._feed(_cut(data, cuts))
            if self.cut_anywhere:
                assert repr(found) == repr(self._feed([data])), "another result in other pieces"
        elif self.read:
            try:
                self.read(data)
            except self.errors as error:
                str(error)

    def _feed(self, pieces: Sequence[bytes]) -> list[object]:
        assert self.make
        decoder = self.make()
        found: list[object] = []
        for piece in pieces:
            found += decoder.feed(piece)
            held_bytes = sum(len(it) for it in vars(decoder).values() if isinstance(it, bytes | bytearray | tuple))
            assert held_bytes <= self.limit_bytes, f"it holds {held_bytes} bytes"
        errors = [result for result in found if isinstance(result, Exception)]
        assert all(isinstance(error, self.errors) for error in errors), errors
        return found


def _cut(data: bytes, cuts: int) -> list[bytes]:
    dice = random.Random(cuts)
    places = sorted(dice.randint(0, len(data)) for _ in range(MAX_CUTS))
    return [data[begin:end] for begin, end in pairwise([0, *places, len(data)])]


def _typed() -> Iterator[bytes]:
    packets: list[bytes] = []
    simulator = TypedKeylockSimulator(clock_ns=lambda: 1_000_000_000)
    simulator.attach(packets.append)
    simulator.turn(3)
    yield from packets


def _sequences() -> SequenceDecoder:
    positions = TYPED["posiflex"].positions
    return SequenceDecoder({tuple(KEYS[key] for key in it.keys.split()): it.code for it in positions}, 50_000_000)


def _lines() -> LineDecoder:
    return LineDecoder({position.text.encode(): position.code for position in TEXT["ultimate"].positions})


def _hid_lock() -> Decoder:
    driver = HidKeylockDriver(memory_records()[0], HidKeylockSettings(profile="ncr"))
    driver._reports = hid.parse(NCR_DESCRIPTOR)
    return _Reports(driver._positions)


class _Reports:
    """A function as a decoder: each chunk is a report."""

    def __init__(self, read: Callable[[bytes], Sequence[object]]) -> None:
        self.feed = read


def _described(descriptor: bytes) -> hid.InputReports:
    """What a descriptor says, and what it makes of a report: itself backwards, for want of another."""
    reports = hid.parse(descriptor)
    for application_ in {field.application for field in reports.fields}:
        try:
            reports.on(descriptor[::-1], application_)
        except FrameError:
            continue
    return reports


def _search(answer: bytes) -> object:
    found = ds2480b.decode_search(answer)
    return found and (found.next_path(), found.rom())


def _answer(frame: bytes) -> list[object]:
    """A message and what it says as an answer, of whatever command."""
    body = message.parse(frame).body
    return [message.read(body, kind) for kind in (commands.Done, commands.Parameters, commands.Downloaded)]


def _channel() -> SecureChannel:
    return SecureChannel(SessionKeys.derive(DEFAULT_KEY, bytes(8)), bytes(16))


def _opened(sealed: bytes) -> bytes:
    """The type of a security block and a body, as of a reader that has the key: the MAC is right."""
    channel = _channel()
    frame = osdp.Frame(5, is_reply=True, sequence=1, body=sealed[1:], security=sealed[:1], mac=bytes(4))
    return channel.open(msgspec.structs.replace(frame, mac=channel._mac_of(frame)[:4]))


def _certificate_files() -> tuple[bytes, bytes, bytes]:
    """A certificate, a request and a revocation list, in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "s1042")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName("s1042.example")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=90))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    request = x509.CertificateSigningRequestBuilder(name).add_extension(alternative, critical=False)
    revoked = x509.RevokedCertificateBuilder(7, begin).build()
    crl = x509.CertificateRevocationListBuilder(name, begin, begin + timedelta(days=7), [], [revoked])
    signed = (builder.sign(key, SHA256()) for builder in (certificate, request, crl))
    first, second, third = (it.public_bytes(Encoding.DER) for it in signed)
    return first, second, third


_CERTIFICATE, _REQUEST, _CRL = _certificate_files()
_ROMS = [bytes.fromhex("017856341200004e"), bytes.fromhex("0101efcdab00002c")]
_REPLIES = [
    bytes.fromhex(body)
    for body in (
        "40", "4106", "45ca44ab0102040302010a0b0c", "46010102090101", "480001", "49000100", "500001 1a00 12345680",
        "53000431323334", "76" + "00" * 32, "78" + "00" * 16, "7a010a00ffff8000",
    )
]  # fmt: skip
_FRAMES = [osdp.Frame(5, is_reply=True, sequence=place & 3, body=body) for place, body in enumerate(_REPLIES)]
_SEALED = osdp.Frame(5, is_reply=True, sequence=1, body=bytes(17), security=b"\x18", mac=b"\x01\x02\x03\x04", crc=False)
_OPENABLE = [
    (it.security or b"") + it.body
    for it in (_channel().seal(osdp.Frame(5, is_reply=True, sequence=1, body=body)) for body in _REPLIES)
]
_BODIES: list[dict[str, object]] = [
    {"off": 0, "data": bytes(256), "len": 2048},
    {"buf_size": 2475, "buf_count": 4},
    {"rc": 8},
    {"err": {"group": 8, "rc": 3}},
]
_MESSAGES = [
    message.encode(message.Message(message.Op.READ_REPLY, 8, 0, place, it)) for place, it in enumerate(_BODIES)
]
_CARDS = [
    bytes.fromhex(answer)
    for answer in ("00", "01 01 0004 08 04 67003b51", "02 01 0044 00 07 04a1b2c3d4e580 02 0344 20 04 08112233 06 7577810280")
]  # fmt: skip
_PLUGGED = {
    "ACTION": "add",
    "DEVPATH": "/devices/pci0000:00/0000:00:14.0/usb1/1-1",
    "SUBSYSTEM": "usb",
    "PRODUCT": "4fa/2490/200",
}
_STATUS = bytes.fromhex("00000020050408002000000000000000")
_KEYBOARD = bytes.fromhex(  # the boot keyboard of HID 1.11, appendix E.6
    "05010906a101050719e029e71500250175019508810295017508810195057501050819012905910295017503910195067508150025650507"
    "190029658100c0"
)
_CHUID = (
    tlv.encode(0x30, bytes(25)) + tlv.encode(0x34, bytes(range(16))) + tlv.encode(0x35, b"20301231") + b"\x3e\0\xfe\0"
)
_APPLICATION = tlv.encode(0x61, tlv.encode(0x4F, b"\0\0\x10\0\1\0") + tlv.encode(0x50, b"PIV card"))

CODECS = {
    "contacts Rincmd": Codec(
        [b"81110012:0000000A;", b"C1110013:00000001\r\n"],
        make=lambda: dialects.Rincmd(1),
        limit_bytes=dialects.MAX_LINE_BYTES + 4,
    ),
    "contacts Tcr": Codec([b"    12\r\n", b"?\r\n"], make=dialects.Tcr, limit_bytes=dialects.MAX_LINE_BYTES + 3),
    "ds2480b decode_reset": Codec([b"\xcd", b"\xef"], ds2480b.decode_reset),
    "ds2480b decode_search": Codec([bytes.fromhex("f00200802a2822200a080200000000a820")], _search),
    "ds2490 Status": Codec([_STATUS, _STATUS + b"\0\xa5"], ds2490.Status.from_packet),
    "ds2490 decode_roms": Codec([_ROMS[0], b"".join(_ROMS)], ds2490.decode_roms),
    "keylock HidKeylockDriver": Codec([b"\x05\x00", b"\x05\x04"], make=_hid_lock, cut_anywhere=False),
    "keylock LineDecoder": Codec([b"KS1\r", b"KS3\r\n"], make=_lines, limit_bytes=4),
    "keylock SequenceDecoder": Codec([*_typed()], make=_sequences, limit_bytes=2, cut_anywhere=False),
    "loopback Decoder": Codec(
        [
            loopback.encode(it)
            for it in (
                loopback.KeyIn("01B7BA1000000075"),
                loopback.Card("67003B51C6"),
                loopback.Controller("error", "12"),
                loopback.Identity("model", "serial", "1.0"),
                loopback.Memory(loopback.Verb.DATA, 0x100, bytes(64)),
            )
        ],
        make=loopback.Decoder,
        limit_bytes=loopback.MAX_TEXT_BYTES,
    ),
    "onewire Rom": Codec(_ROMS, Rom.from_wire),
    "osdp FrameDecoder": Codec(
        [frame.encode() for frame in (*_FRAMES, _SEALED)], make=osdp.FrameDecoder, limit_bytes=osdp.MAX_FRAME_BYTES
    ),
    "osdp SecureChannel": Codec(_OPENABLE, _opened),
    "osdp decode_reply": Codec(_REPLIES, decode_reply),
    "pcsc apdu": Codec([_CHUID + b"\x90\x00", b"\x6a\x82"], apdu.decode),
    "pcsc certificate": Codec(
        [
            objects.container(_CERTIFICATE),
            tlv.encode(0x70, gzip.compress(_CERTIFICATE, mtime=0)) + b"\x71\x01\x01\xfe\x00",
        ],
        objects.certificate,
    ),
    "pcsc guid": Codec([_CHUID], objects.guid),
    "pcsc label": Codec([_APPLICATION], application._label),
    "pcsc tlv": Codec([_CHUID, tlv.encode(0x7F49, _APPLICATION)], lambda data: [*tlv.elements(data)]),
    "pki read_certificate": Codec([_CERTIFICATE], read_certificate, errors=(CertificateError,)),
    "pki read_crl": Codec([_CRL], read_crl, errors=(CertificateError,)),
    "pki read_request": Codec([_REQUEST], read_request, errors=(CertificateError,)),
    "pn532 Firmware": Codec([bytes.fromhex("32010607")], cards.Firmware.from_answer),
    "pn532 FrameDecoder": Codec(
        [
            pn532.Signal.ACK.value,
            *(pn532.encode(pn532.Message(pn532.FROM_CHIP, 0x4B, answer)) for answer in (*_CARDS, bytes(262))),
        ],
        make=pn532.FrameDecoder,
        limit_bytes=pn532.MAX_BODY_BYTES + 8,
    ),
    "pn532 decode_cards": Codec(_CARDS, cards.decode_cards),
    "rfid125 FrameDecoder": Codec(
        [rfid125.encode("67003B51C6"), rfid125.encode("67003B51C6", cr_lf=True)],
        make=rfid125.FrameDecoder,
        limit_bytes=1 + rfid125.MAX_BODY_CHARS,
    ),
    "smp Decoder": Codec(
        [*map(framing.encode, _MESSAGES)],
        make=framing.Decoder,
        limit_bytes=framing.MAX_LINE_BYTES + framing.MAX_FRAME_BYTES,
    ),
    "smp parse": Codec(_MESSAGES, message.parse),
    "smp answer": Codec(_MESSAGES[2:], _answer),
    "wire evdev": Codec([*_typed()], evdev.decode),
    "wire hid": Codec([NCR_DESCRIPTOR, _KEYBOARD], _described),
    "wire uevent": Codec(
        [uevent.encode(_PLUGGED), f"add@{_PLUGGED['DEVPATH']}\0".encode() + uevent.encode(_PLUGGED)[40:]], uevent.decode
    ),
}


def named(names: str) -> dict[str, Codec]:
    """The codecs of these names, with commas between them; the first word of a name is all of its family."""
    wanted = names.split(",")
    return {name: codec for name, codec in CODECS.items() if name in wanted or name.split()[0] in wanted}
