"""Every codec reads its good traffic; those whose own tests do not try any bytes at all are tried here. `tests/fuzz.py` does more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs import CODECS, named

UNTRIED = named(
    "ds2490,keylock HidKeylockDriver,keylock LineDecoder,onewire,pcsc label,pki read_request,pn532 Firmware"
)


@pytest.mark.parametrize("name", CODECS)
def test_good_traffic_is_read_without_an_error(name: str) -> None:
    codec = CODECS[name]
    read = codec.make().feed if codec.make else codec.read
    assert read
    for frame in codec.traffic:
        found = read(frame)
        assert not (isinstance(found, list) and any(isinstance(result, Exception) for result in found))


@pytest.mark.parametrize("name", UNTRIED)
@given(data=st.data())
def test_only_declared_errors_come_out_of_any_bytes(name: str, data: st.DataObject) -> None:
    codec = UNTRIED[name]
    piece = st.binary(max_size=20) | st.sampled_from([*codec.traffic])
    stream = b"".join(data.draw(st.lists(piece, max_size=5)))
    codec.try_out(stream[data.draw(st.integers(0, len(stream))) :], cuts=data.draw(st.integers(0, 255)))
