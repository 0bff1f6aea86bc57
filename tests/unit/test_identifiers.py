"""Event ids after RFC 9562, references of identifiers, and the secret behind them."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from optima_bridge.errors import ConfigError
from optima_bridge.identifiers import SECRET_BYTES, IdentifierPolicy, Uuid7, load_or_make_secret
from optima_bridge.model import Subject

KEY = "01B7BA1000000075"
RFC_EXAMPLE_MS = 0x017F22E279B0  # RFC 9562 appendix A.6


def test_an_event_id_is_a_version_7_uuid_of_its_time() -> None:
    text = Uuid7().new(RFC_EXAMPLE_MS * 1_000_000 + 999_999)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert text.startswith("017f22e2-79b0-7")


def test_event_ids_are_unique_and_sort_by_their_millisecond() -> None:
    new = Uuid7().new
    ids = [new((RFC_EXAMPLE_MS + number // 50) * 1_000_000) for number in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert [text[:13] for text in ids] == sorted(text[:13] for text in ids)
    assert {uuid.UUID(text).version for text in ids} == {7}
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}


def test_a_reference_is_the_same_for_the_same_key_and_secret_and_never_the_identifier() -> None:
    one, other = IdentifierPolicy(b"a" * 32), IdentifierPolicy(b"b" * 32)
    reference = one.fields(Subject.KEY, KEY)
    # HMAC-SHA-256, its first 16 bytes: printf 01B7BA1000000075 | openssl dgst -sha256 -hmac aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    assert reference == {"key_ref": "hmac:5f321a14911675c095d97e60c1a5a42d"}
    assert reference == one.fields(Subject.KEY, KEY)
    assert reference != other.fields(Subject.KEY, KEY)
    assert one.fields(Subject.CARD, "67003B51C6").keys() == {"card_ref"}


def test_raw_identifiers_have_another_name_so_that_nobody_takes_one_for_the_other() -> None:
    policy = IdentifierPolicy(None)
    assert policy.raw
    assert policy.fields(Subject.KEY, KEY) == {"key_id": KEY}


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = load_or_make_secret(path)
    assert len(secret) == SECRET_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make_secret(path) == secret
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_a_start_that_was_cut_off_while_it_made_the_secret_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"half")
    assert len(load_or_make_secret(tmp_path / "secret")) == SECRET_BYTES


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_secret_that_hides_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"has {len(content)} bytes") as caught:
        load_or_make_secret(path)
    assert f"rm {path}" in caught.value.next_step
    assert path.read_bytes() == content


def test_a_secret_that_cannot_be_read_or_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load_or_make_secret(tmp_path / "secret")
    with pytest.raises(ConfigError, match="no such file"):
        load_or_make_secret(tmp_path / "absent" / "secret")
    if os.geteuid() != 0:
        (tmp_path / "closed").touch(0o000)
        with pytest.raises(ConfigError, match="permission denied"):
            load_or_make_secret(tmp_path / "closed")
