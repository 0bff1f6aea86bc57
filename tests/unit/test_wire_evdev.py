"""Records of input devices: golden bytes, whole packets only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_bridge.wire.evdev import (
    EV_KEY,
    EV_MSC,
    EV_SYN,
    MSC_SCAN,
    PRESSED,
    RECORD_BYTES,
    SYN_DROPPED,
    InputEvent,
    decode,
    encode,
    packet_bytes,
)

K_SCAN = InputEvent(1000 * 10**9, EV_MSC, MSC_SCAN, 0x7000E)
K_PRESSED = InputEvent(1000 * 10**9, EV_KEY, 37, PRESSED)
END = InputEvent(1000 * 10**9, EV_SYN, 0, 0)


@pytest.mark.skipif(RECORD_BYTES != 24, reason="a 32-bit PC has records of 16 bytes")
def test_the_scan_code_of_k_has_the_bytes_that_the_protocol_document_gives() -> None:
    golden = bytes.fromhex("e8 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 04 00 04 00 0e 00 07 00")
    assert encode(K_SCAN) == golden
    assert decode(golden) == [K_SCAN]


@given(
    st.lists(
        st.builds(
            InputEvent,
            st.integers(0, 2**31 - 1).map(lambda us: us * 1000),
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF),
            st.integers(-(2**31), 2**31 - 1),
        )
    )
)
def test_what_is_encoded_is_decoded(events: list[InputEvent]) -> None:
    assert decode(encode(*events)) == events


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_a_frame_error(data: bytes) -> None:
    try:
        assert len(decode(data)) * RECORD_BYTES == len(data)
    except FrameError as error:
        assert error.kind == "length"  # noqa: PT017 - one of two outcomes
        assert len(data) % RECORD_BYTES


def test_a_packet_ends_with_its_report_and_nothing_else() -> None:
    packet = encode(K_SCAN, K_PRESSED, InputEvent(0, EV_SYN, SYN_DROPPED, 0), END)
    assert [packet_bytes(packet[:size]) for size in range(len(packet))] == [0] * len(packet)
    assert packet_bytes(packet) == packet_bytes(packet + packet) == len(packet)
