"""The simulated 125 kHz reader in virtual time: what it sends, and when."""

from __future__ import annotations

import pytest

from optima_bridge.errors import FrameError
from optima_drivers.rfid125.codec import CardFrame, FrameDecoder, encode
from optima_drivers.rfid125.simulator import BYTE_S, Layout, Rfid125Simulator, heard_too_fast
from tests.virtual_time import run, virtual_loop

A, B = "67003B51C6", "0C000621A5"
FRAME_A, FRAME_B = encode(A), encode(B)


class Wire:
    """A reader whose bytes are kept, with their times in ms."""

    def __init__(self, layout: Layout = "rdm6300", loss: float = 0.0) -> None:
        self.reader = Rfid125Simulator(layout, loss=loss)
        self.reader.attach(self._take)
        self.heard: list[tuple[float, bytes]] = []

    def _take(self, data: bytes) -> None:
        self.heard.append((round(virtual_loop().time() * 1000, 1), data))

    @property
    def stream(self) -> bytes:
        return b"".join(data for _, data in self.heard)


async def _pass(duration_ms: float) -> None:
    loop = virtual_loop()
    moment = loop.create_future()
    loop.call_later(duration_ms / 1000, moment.set_result, None)
    await moment


def test_an_rdm6300_repeats_its_frame_while_the_card_is_held() -> None:
    async def main() -> Wire:
        wire = Wire()
        wire.reader.insert(A)
        await _pass(200)
        wire.reader.remove()
        await _pass(1000)
        return wire

    assert run(main()).heard == [(65, FRAME_A), (130, FRAME_A), (195, FRAME_A)]


def test_an_id12la_sends_one_frame_for_each_time_a_card_is_shown() -> None:
    async def main() -> Wire:
        wire = Wire("id12la")
        for card in (A, B):
            wire.reader.insert(card)
            await _pass(500)
        return wire

    assert run(main()).heard == [(65, encode(A, cr_lf=True)), (565, encode(B, cr_lf=True))]


@pytest.mark.parametrize("sent_bytes", range(14))
def test_a_card_taken_away_cuts_the_frame_on_the_wire(sent_bytes: int) -> None:
    async def main() -> Wire:
        wire = Wire()
        wire.reader.insert(A)
        await _pass(65 + 65 - (14 - sent_bytes - 0.5) * BYTE_S * 1000)
        wire.reader.remove()
        wire.reader.remove()
        await _pass(1000)
        return wire

    assert run(main()).stream == FRAME_A + FRAME_A[:sent_bytes]


def test_a_swap_leaves_no_gap() -> None:
    async def main() -> Wire:
        wire = Wire()
        wire.reader.insert(A)
        await _pass(100)
        wire.reader.swap(B)
        await _pass(100)
        return wire

    assert run(main()).heard == [(65, FRAME_A), (130, FRAME_B), (195, FRAME_B)]


def test_faults_damage_one_frame_each_in_the_order_they_were_asked_for() -> None:
    async def main() -> Wire:
        wire = Wire()
        wire.reader.spoil("flip", "drop-etx")
        wire.reader.insert(A)
        await _pass(200)
        return wire

    flipped, without_etx, good = (data for _, data in run(main()).heard)
    assert sum(one != other for one, other in zip(flipped, FRAME_A, strict=True)) == 1
    assert isinstance(FrameDecoder().feed(flipped)[0], FrameError)
    assert (without_etx, good) == (FRAME_A[:-1], FRAME_A)


def test_lost_frames_leave_their_place_empty() -> None:
    async def main() -> Wire:
        wire = Wire(loss=0.5)
        wire.reader.insert(A)
        await _pass(65 * 1000)
        return wire

    times_ms = [at_ms for at_ms, _ in run(main()).heard]
    assert 400 < len(times_ms) < 600
    assert all(abs(at_ms / 65 - round(at_ms / 65)) < 0.01 for at_ms in times_ms)


def test_noise_and_a_wrong_speed_make_no_card() -> None:
    async def main() -> Wire:
        wire = Wire()
        wire.reader.noise(64)
        wire.reader.garbage(A)
        return wire

    stream = run(main()).stream
    assert len(stream) > 64
    assert not [found for found in FrameDecoder().feed(stream) if isinstance(found, CardFrame)]


def test_a_port_at_the_right_speed_hears_what_was_sent() -> None:
    assert heard_too_fast(FRAME_A, ratio=1) == FRAME_A


def test_what_the_host_writes_is_ignored() -> None:
    assert Rfid125Simulator().receive(b"\x02anything\x03") == b""
