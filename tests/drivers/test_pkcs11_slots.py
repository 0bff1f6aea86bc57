"""How certificate objects on a token are two slots and one credential; no token is needed."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki import possession
from optima_bridge.link.pkcs11 import Entry
from optima_drivers.pkcs11.slots import Credential, label
from tests.enroll.pki_world import DAY, NOW, World, credential, p256


def certificate(role: str, generation: int, value: bytes = b"") -> Entry:
    return Entry(label(role, generation), value or f"{role} {generation}".encode())


def mark(generation: int, value: bytes) -> Entry:
    return Entry(label("confirmed", generation), hashlib.sha256(value).digest())


def held(found: Credential) -> list[str | None]:
    return [it.entry.label if it else None for it in found.slots]


def test_an_empty_token_has_two_empty_slots() -> None:
    found = Credential([], [])
    assert (held(found), found.active, found.leftovers()) == ([None, None], None, [])
    assert [found.next_generation(slot) for slot in (0, 1)] == [2, 1]


def test_the_highest_supervisor_is_active_and_its_generation_says_its_slot() -> None:
    found = Credential([certificate("supervisor", 4), certificate("supervisor", 5), certificate("staged", 6)], [])
    assert held(found) == ["optima:supervisor:4", "optima:supervisor:5"]
    assert found.active is found.slots[1]
    assert [it.entry.label for it in found.leftovers()] == ["optima:staged:6"]
    assert [found.next_generation(slot) for slot in (0, 1)] == [8, 7]


def test_what_is_staged_counts_where_nothing_else_is_in_its_slot() -> None:
    found = Credential([certificate("supervisor", 5), certificate("staged", 6), certificate("staged", 8)], [])
    assert held(found) == ["optima:staged:8", "optima:supervisor:5"]
    assert [it.entry.label for it in found.leftovers()] == ["optima:staged:6"]


def test_only_labels_of_ours_count() -> None:
    others = [
        "optima:cashier:7",
        "optima:supervisor:07",
        "optima:supervisor:",
        "supervisor:7",
        "optima:supervisor:7 ",
        "",
    ]
    found = Credential([Entry(it, b"theirs") for it in others], [Entry("optima:confirmed:x", b"theirs")])
    assert (held(found), found.leftovers(), found.marks) == ([None, None], [], [])


def test_an_object_without_bytes_is_no_certificate() -> None:
    found = Credential([certificate("supervisor", 4), Entry(label("supervisor", 5), b"")], [])
    assert held(found) == ["optima:supervisor:4", None]
    assert [it.entry.label for it in found.leftovers()] == ["optima:supervisor:5"]
    assert [it.entry.label for it in found.in_slot(1)] == ["optima:supervisor:5"]
    assert found.next_generation(0) == 6


def test_a_mark_confirms_its_very_certificate_in_its_generation() -> None:
    first, second = certificate("supervisor", 4), certificate("supervisor", 5)
    found = Credential([first, second], [mark(5, second.value), mark(4, second.value), mark(3, first.value)])
    assert [found.confirmed(it) for it in found.slots if it] == [False, True]
    assert [it.generation for it in found.leftovers()] == [4, 3]


def test_of_two_in_one_generation_the_one_that_is_valid_from_later_on_counts(tmp_path: Path) -> None:
    world = World(tmp_path / "ca")
    key = possession.unproven(p256().public_key())
    older, newer = (
        world.authority.issue(key, credential(), NOW + days * DAY + timedelta(minutes=1)).public_bytes(Encoding.DER)
        for days in (0, 1)
    )
    for order in ((older, newer), (newer, older)):
        found = Credential([certificate("supervisor", 4, value) for value in order], [])
        assert found.active is not None
        assert found.active.entry.value == newer
        assert [it.entry.value for it in found.leftovers()] == [older]
