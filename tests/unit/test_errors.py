"""The errors as programs see them: one code each, a cause and a next step always, JSON throughout."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from optima_bridge import errors
from optima_bridge.errors import (
    BridgeError,
    ChecksumError,
    FrameError,
    FrameTooLong,
    Interrupted,
    LinkBusy,
    LinkError,
    LinkTimeout,
)


def family(parent: type[BridgeError]) -> list[type[BridgeError]]:
    return [parent, *(error for child in parent.__subclasses__() for error in family(child))]


ALL = sorted(
    {error for error in family(BridgeError) if error.__module__ == errors.__name__}, key=lambda it: it.__name__
)


def test_a_code_means_one_error() -> None:
    assert [code for code, uses in Counter(error.code for error in ALL).items() if uses > 1] == []
    assert [error.code for error in ALL if not re.fullmatch(r"E-[A-Z]+(-[A-Z]+)*", error.code)] == []


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_says_what_why_and_what_next(error: type[BridgeError]) -> None:
    document = error("the port is gone").document()
    assert json.loads(json.dumps(document)) == document
    assert document["what"] == str(error("the port is gone")) == "the port is gone"
    assert document["code"] == error.code
    assert document["cause"]
    assert document["next"]
    assert isinstance(document["rc"], int)
    assert 0 < document["rc"] < 126 or error is Interrupted  # the shell's own begin there; 128 + SIGINT is one of them
    assert error.__doc__


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_modules_tree_shows_every_error(error: type[BridgeError]) -> None:
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


def test_what_is_known_at_the_place_replaces_the_defaults() -> None:
    error = LinkBusy("held", cause="minicom runs", next_step="leave it", holder={"pid": 4, "program": "minicom"})
    assert error.document() == {
        "code": "E-PORT-BUSY",
        "what": "held",
        "cause": "minicom runs",
        "next": "leave it",
        "rc": 6,
        "data": {"holder": {"pid": 4, "program": "minicom"}},
    }


def test_a_link_timeout_is_a_timeout_too() -> None:
    with pytest.raises(TimeoutError) as caught:
        raise LinkTimeout("nothing came")
    assert isinstance(caught.value, LinkError)
    assert caught.value.retryable


def test_frame_errors_are_counted_by_kind() -> None:
    assert [
        ChecksumError("x").kind,
        FrameTooLong("x").kind,
        FrameError("x", kind="length").kind,
        FrameError("x").kind,
    ] == [
        "checksum",
        "overrun",
        "length",
        "frame",
    ]
    assert FrameError("x", kind="length").data == {"kind": "length"}
