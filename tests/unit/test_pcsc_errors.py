"""What PC/SC answers, in our words; and which reader is meant."""

from __future__ import annotations

import os

import pytest

from optima_bridge.errors import (
    BridgeError,
    DeviceError,
    LinkBusy,
    LinkError,
    LinkLost,
    LinkNotFound,
    LinkPermission,
    TokenAbsent,
)
from optima_bridge.link import pcsc_errors
from optima_bridge.link.pcsc_errors import choose_reader, failure, find_users, name_users

READERS = ["ACS ACR122U 00 00", "Gemalto PC Twin Reader 00 00", "ACS ACR122U 01 00"]


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (0x8010000C, TokenAbsent, "R: no card is in it"),
        (0x80100069, TokenAbsent, "R: the card was taken out"),
        (0x80100016, TokenAbsent, "in the middle of a command"),
        (0x80100066, DeviceError, "gives no answer"),
        (0x80100009, LinkLost, "the reader R is gone"),
        (0x80100013, LinkLost, "daemon is gone"),
        (0x8010001D, LinkLost, "daemon is gone"),
        (0x8010006A, LinkPermission, "does not allow this user"),
        (0x8010000B, LinkBusy, "in use by another program"),
        (0x80100001, LinkError, r"PC/SC reports 80100001 internal error$"),
    ],
)
def test_a_code_is_one_of_our_errors(code: int, error: type[BridgeError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        raise failure(code, "R", "internal error")
    assert type(caught.value) is error


def test_a_readers_name_cannot_forge_a_line() -> None:
    assert failure(0x8010000C, "R\nok").what == r"R\nok: no card is in it"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("ACS ACR122U 00 00", "ACS ACR122U 00 00"),
        ("Gemalto", "Gemalto PC Twin Reader 00 00"),
        ("PC Twin", "Gemalto PC Twin Reader 00 00"),
        ("U 01", "ACS ACR122U 01 00"),
    ],
)
def test_a_name_or_a_part_of_it_means_one_reader(wanted: str, found: str) -> None:
    assert choose_reader(wanted, READERS) == found


@pytest.mark.parametrize(("wanted", "several"), [("ACS", 2), ("00", 3), ("", 3)])
def test_a_part_that_fits_several_means_none(wanted: str, several: int) -> None:
    with pytest.raises(LinkNotFound, match="fits several readers") as caught:
        choose_reader(wanted, READERS)
    named = caught.value.data["readers"]
    assert isinstance(named, list)
    assert len(named) == several


def test_without_any_reader_that_is_said() -> None:
    with pytest.raises(LinkNotFound, match="no reader is connected"):
        choose_reader("ACS", [])


def test_one_user_of_pcsc_is_the_holder_and_none_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcsc_errors, "find_users", lambda: [(812, "scdaemon")])
    assert name_users("R").data["holder"] == {"pid": 812, "program": "scdaemon"}
    monkeypatch.setattr(pcsc_errors, "find_users", lambda: [(812, "scdaemon"), (9, "firefox")])
    assert "holder" not in name_users("R").data
    assert "scdaemon (pid 812), firefox (pid 9)" in name_users("R").what
    monkeypatch.setattr(pcsc_errors, "find_users", list)
    error = name_users("R")
    assert (error.data, "only root can see" in error.cause) == ({}, True)


def test_we_do_not_name_ourselves() -> None:
    assert os.getpid() not in [pid for pid, _ in find_users()]
