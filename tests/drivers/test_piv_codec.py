"""BER-TLV, APDUs, PIV objects and the public key from signatures: bytes both ways, and every way they can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import random
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong
from optima_drivers.pcsc import objects, p256, tlv
from optima_drivers.pcsc.apdu import Answer, Command, decode
from optima_drivers.pcsc.driver import GET_UID, is_contactless
from optima_drivers.pcsc.virtual_card import chuid

CERTIFICATE = random.Random(1).randbytes(300)
CHUID = bytes.fromhex(
    "3019d4e739da739ced39ce739d836858210842108421c84210c3eb"
    "3410000102030405060708090a0b0c0d0e0f350832303939313233313e00fe00"
)  # fmt: skip
"""As yubico-piv-tool 2.2.0 writes it, but for the GUID."""


# -- BER-TLV


@pytest.mark.parametrize(
    ("size", "head"),
    [(0, "5300"), (1, "5301"), (127, "537f"), (128, "538180"), (255, "5381ff"), (256, "53820100"), (65535, "5382ffff")],
)
def test_a_length_has_its_shortest_form(size: int, head: str) -> None:
    encoded = tlv.encode(0x53, bytes(size))
    assert encoded == bytes.fromhex(head) + bytes(size)
    assert tlv.only(0x53, encoded) == bytes(size)


def test_a_tag_may_have_two_bytes() -> None:
    assert tlv.encode(0x7F49, b"\x86\x00") == bytes.fromhex("7f49028600")
    assert list(tlv.elements(bytes.fromhex("5f2f0240007f49028600"))) == [(0x5F2F, b"\x40\x00"), (0x7F49, b"\x86\x00")]


@pytest.mark.parametrize(
    "wrong", ["53", "7f", "5380", "538401", "5301", "5381", "538201", "53820001", "7f49", "530053"]
)
def test_what_does_not_fill_its_length_is_refused(wrong: str) -> None:
    with pytest.raises(FrameError) as caught:
        list(tlv.elements(bytes.fromhex(wrong)))
    assert caught.value.kind == "length"


@pytest.mark.parametrize("wrong", ["", "5400", "53005300"])
def test_one_element_is_asked_for_by_its_tag(wrong: str) -> None:
    with pytest.raises(FrameError) as caught:
        tlv.only(0x53, bytes.fromhex(wrong))
    assert caught.value.kind == "tag"


@given(st.binary(max_size=40))
def test_only_frame_errors_come_out_of_any_bytes(data: bytes) -> None:
    for decoder in (lambda it: list(tlv.elements(it)), objects.certificate, objects.guid, decode):
        with suppress(FrameError):
            decoder(data)


# -- APDUs


def test_a_long_command_goes_in_pieces() -> None:
    pieces = list(Command(0xDB, 0x3F, 0xFF, bytes(range(256)) * 2, answers=False).pieces())
    assert [piece[:5].hex() for piece in pieces] == ["10db3fffff", "10db3fffff", "00db3fff02"]
    assert b"".join(piece[5:] for piece in pieces) == bytes(range(256)) * 2


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (Command(0xFD, 0, 0), "00fd000000"),
        (Command(0x20, 0, 0x80, answers=False), "00200080"),
        (Command(0xA4, 4, 0, b"\xa0"), "00a4040001a000"),
        (Command(0xDB, 0x3F, 0xFF, bytes(255), answers=False), "00db3fffff" + "00" * 255),
        (GET_UID, "ffca000000"),
    ],
)
def test_a_short_command_is_one_piece(command: Command, sent: str) -> None:
    assert [piece.hex() for piece in command.pieces()] == [sent]


def test_an_answer_has_a_status_word() -> None:
    assert decode(b"\x01\x90\x00") == Answer(b"\x01", 0x9000)
    with pytest.raises(FrameError):
        decode(b"\x90")


@pytest.mark.parametrize(
    ("atr", "contactless"),
    [
        ("3B88800100000073C8400000900062", True),
        ("3B8180018080", True),
        ("3BFD1300008131FE158073C021", False),
        ("3B80", False),
    ],
)
def test_only_an_atr_that_a_reader_made_is_contactless(atr: str, contactless: bool) -> None:
    assert is_contactless(bytes.fromhex(atr)) is contactless


# -- objects


def plain(certificate: bytes, info: int = 0, rest: bytes = b"\xfe\x00") -> bytes:
    """A container of another program."""
    return tlv.encode(0x70, certificate) + bytes([0x71, 1, info]) + rest


def test_a_container_is_what_the_standard_says_with_a_digest_in_it() -> None:
    written = objects.container(CERTIFICATE)
    digest = hashlib.sha256(CERTIFICATE).hexdigest()
    assert written.hex() == "7082012c" + CERTIFICATE.hex() + "710100" + "7224" + b"ob1 ".hex() + digest + "fe00"
    assert objects.certificate(written) == CERTIFICATE


@pytest.mark.parametrize("rest", [b"", b"\xfe\x00", b"\x72\x03abc\xfe\x00", b"\x72\x20" + bytes(32)])
def test_containers_of_other_programs_are_read(rest: bytes) -> None:
    assert objects.certificate(plain(CERTIFICATE, rest=rest)) == CERTIFICATE


def test_a_compressed_certificate_is_unpacked() -> None:
    assert objects.certificate(plain(gzip.compress(CERTIFICATE), info=1)) == CERTIFICATE


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (CERTIFICATE, "gzip"),
        (gzip.compress(CERTIFICATE)[:-1], "gzip"),
        (gzip.compress(CERTIFICATE) + b"\x00", "gzip"),
        (gzip.compress(bytes(1 << 20)), "overrun"),
    ],
    ids=["not compressed", "cut", "too long", "a bomb"],
)
def test_a_compressed_certificate_that_is_none_is_refused(content: bytes, kind: str) -> None:
    with pytest.raises(FrameError) as caught:
        objects.certificate(plain(content, info=1))
    assert caught.value.kind == kind
    assert isinstance(caught.value, FrameTooLong) is (kind == "overrun")


@pytest.mark.parametrize(
    "wrong",
    [b"", b"\xfe\x00", plain(b""), plain(CERTIFICATE)[2:], plain(CERTIFICATE, rest=b"\x73\x00"), b"\x70\x01a\x71\x00"],
)
def test_what_is_no_container_is_refused(wrong: bytes) -> None:
    with pytest.raises(FrameError):
        objects.certificate(wrong)


def test_a_container_of_ours_that_was_cut_off_anywhere_is_refused_unless_the_certificate_is_whole() -> None:
    old, new = objects.container(CERTIFICATE), objects.container(CERTIFICATE[::-1])
    taken = set()
    for at in range(1, len(new)):
        for torn in (new[:at], new[:at] + old[at:], new[:at] + bytes(len(new) - at)):
            with suppress(FrameError):
                taken.add((at, objects.certificate(torn)))
    whole = new.index(b"\x72\x24ob1 ")  # as other programs end it; or only the empty last element is absent
    assert {at for at, certificate in taken if certificate == CERTIFICATE[::-1]} == {whole, len(new) - 2, len(new) - 1}
    assert {at for at, certificate in taken if certificate == CERTIFICATE} == {1, 2, 3, 4}  # nothing new is in it yet


def test_every_flipped_bit_of_a_container_of_ours_is_noticed() -> None:
    whole = objects.container(CERTIFICATE[:20])
    missed = []
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with suppress(FrameError):
            missed.append((bit // 8, objects.certificate(bytes(damaged))))
    # In our four letters it becomes another program's, without a digest; the certificate is whole all the same.
    assert {place for place, _ in missed} == set(range(whole.index(b"ob1 "), whole.index(b"ob1 ") + 4))
    assert {certificate for _, certificate in missed} == {CERTIFICATE[:20]}


def test_the_digest_is_an_error_of_its_own() -> None:
    with pytest.raises(ChecksumError):
        objects.certificate(objects.container(CERTIFICATE).replace(CERTIFICATE, CERTIFICATE[::-1]))


def test_a_card_is_told_by_its_guid() -> None:
    assert chuid(bytes(range(16))) == CHUID
    assert objects.guid(CHUID) == "000102030405060708090A0B0C0D0E0F"
    assert objects.guid(chuid(bytes(16))) == ""
    for wrong in (CHUID[:27], chuid(bytes(15)), b""):
        with pytest.raises(FrameError):
            objects.guid(wrong)


# -- the public key from two signatures


def signed(key: ec.EllipticCurvePrivateKey, text: bytes) -> p256.Signed:
    digest = hashlib.sha256(text).digest()
    return digest, key.sign(digest, ec.ECDSA(Prehashed(SHA256())))


def test_two_signatures_tell_the_public_key() -> None:
    for number in range(6):  # both signs of y come up
        key = ec.derive_private_key(number + 1, ec.SECP256R1())
        assert p256.public_key(signed(key, b"one"), signed(key, b"two")) == key.public_key()


def test_signatures_of_two_keys_tell_none() -> None:
    one, other = (ec.derive_private_key(number, ec.SECP256R1()) for number in (5, 6))
    assert p256.public_key(signed(one, b"one"), signed(other, b"two")) is None


@pytest.mark.parametrize(
    "signature",
    [b"", b"\x30\x00", encode_dss_signature(0, 1), encode_dss_signature(1, p256.N), encode_dss_signature(1, 1)],
    ids=["nothing", "empty", "r = 0", "s = n", "r on no point"],
)
def test_what_is_no_signature_tells_none(signature: bytes) -> None:
    digest = hashlib.sha256(b"one").digest()
    assert p256.public_key((digest, signature), (digest, signature)) is None


def test_a_signature_that_only_infinity_could_have_made_tells_none() -> None:
    key = ec.derive_private_key(1, ec.SECP256R1())  # R = G: then s = z gives Q = 0
    x = key.public_key().public_numbers().x
    digest = hashlib.sha256(b"one").digest()
    signature = encode_dss_signature(x % p256.N, int.from_bytes(digest) % p256.N)
    assert p256.public_key((digest, signature), signed(key, b"two")) is None
