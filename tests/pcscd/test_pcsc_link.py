"""The card link over a real pcscd: what happens at the reader, in sessions, and when something is taken away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from optima_bridge.errors import (
    BridgeError,
    DeviceError,
    LinkBusy,
    LinkError,
    LinkLost,
    LinkNotFound,
    LinkTimeout,
    TokenAbsent,
)
from optima_bridge.link import SerialFormat, open_link
from optima_bridge.link import pcsc as pcsc_module
from optima_bridge.link.card import CardState
from optima_bridge.link.pcsc import PcscLink
from optima_drivers.pcsc.virtual_card import ATR, VirtualPivCard
from tests.pcscd.daemon import FAMILY, READERS, Pcscd
from tests.support import until

SELECT = bytes.fromhex("00A4040005A00000030800")
LIMIT_S = 20.0
OTHER_PROGRAM = """
import sys
from smartcard import scard
code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
mode = scard.SCARD_SHARE_EXCLUSIVE if sys.argv[2] == "exclusive" else scard.SCARD_SHARE_SHARED
code, card, protocol = scard.SCardConnect(context, sys.argv[1], mode, scard.SCARD_PROTOCOL_T1)
assert code == 0, scard.SCardGetErrorMessage(code)
if sys.argv[2] == "transaction":
    assert scard.SCardBeginTransaction(card) == 0
print("has it", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def opened(reader: str) -> AsyncIterator[PcscLink]:
    link = await open_link(f"pcsc:{reader}", SerialFormat())
    assert isinstance(link, PcscLink)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield link
    finally:
        link.close()


@asynccontextmanager
async def other_program(how: str, pcscd: Pcscd) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of somebody else that has the card until it is told to end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROGRAM, pcscd.reader, how,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=pcscd.environment,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"has it\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def threads() -> list[threading.Thread]:
    """Those of links."""
    return [thread for thread in threading.enumerate() if "pcsc:" in thread.name]


async def card_comes(link: PcscLink) -> CardState:
    while not (state := await link.wait(CardState(None))).atr:
        await link.wait(state)
    return state


async def test_a_card_that_comes_and_goes_is_noticed(pcscd: Pcscd) -> None:
    async with opened(pcscd.reader) as link:
        empty = await link.wait()
        assert empty.atr is None
        inserted = pcscd.insert(VirtualPivCard())
        there = await link.wait(empty)
        assert (there.atr, there.changes) == (ATR, empty.changes + 1)
        inserted.remove()
        gone = await link.wait(there)
        assert (gone.atr, gone.changes) == (None, empty.changes + 2)


async def test_a_session_transmits_and_leaves_the_card_reset(pcscd: Pcscd) -> None:
    card = VirtualPivCard()
    pcscd.insert(card)
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with link.session() as session:
            assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"
            assert (await session.transmit(bytes.fromhex("00FD000000"))) == bytes.fromhex("0403059000")
        async with link.session(reset=False) as session:
            assert await session.transmit(bytes.fromhex("00FD000000")) == bytes.fromhex("6985")
            await session.transmit(SELECT)
        async with link.session() as session:
            assert (await session.transmit(bytes.fromhex("00FD000000"))) == bytes.fromhex("0403059000")


async def test_a_card_of_t0_gets_no_le_behind_its_data(pcscd: Pcscd) -> None:
    card = VirtualPivCard(atr=bytes.fromhex("3B021450"))
    card.apdus = []
    pcscd.insert(card)
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with link.session() as session:
            await session.transmit(SELECT)
            await session.transmit(bytes.fromhex("00FD000000"))
    assert [apdu.hex() for apdu, _ in card.apdus] == [SELECT[:-1].hex(), "00fd000000"]


async def test_an_empty_reader_has_no_session(pcscd: Pcscd) -> None:
    async with opened(pcscd.reader) as link:
        with pytest.raises(TokenAbsent, match="no card is in it"):
            async with link.session():
                raise AssertionError


async def test_a_card_taken_out_halfway_is_absent_also_when_another_one_is_in(pcscd: Pcscd) -> None:
    inserted = pcscd.insert(VirtualPivCard())
    async with opened(pcscd.reader) as link:
        there = await card_comes(link)
        async with link.session() as session:
            await session.transmit(SELECT)
            inserted.remove()
            gone = await link.wait(there)
            pcscd.insert(VirtualPivCard(guid=bytes([7]) * 16))
            assert (await link.wait(gone)).atr == ATR
            with pytest.raises(TokenAbsent, match="taken out"):
                await session.transmit(SELECT)
        async with link.session() as session:
            assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"


async def test_a_card_that_dies_in_a_command_is_absent(pcscd: Pcscd) -> None:
    card = VirtualPivCard()
    pcscd.insert(card)
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        card.cut_at(2, "torn")
        async with link.session() as session:
            await session.transmit(SELECT)
            with pytest.raises(TokenAbsent, match="in the middle of a command"):
                await session.transmit(SELECT)


@pytest.mark.parametrize("how", ["exclusive", "transaction"])
async def test_a_busy_reader_is_said_to_be_busy_with_whom(
    how: str, pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcsc_module, "BUSY_TIMEOUT_S", 0.3)
    pcscd.insert(VirtualPivCard())
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with other_program(how, pcscd) as other:
            with pytest.raises(LinkBusy) as caught:
                async with link.session():
                    raise AssertionError
            users = caught.value.data["users"]
            assert isinstance(users, list)
            assert {"pid": other.pid, "program": "python"} in [{**it, "program": it["program"][:6]} for it in users]
            assert str(other.pid) in caught.value.what
            assert other.stdin is not None
            other.stdin.close()
            await other.wait()
        monkeypatch.undo()
        async with link.session() as session:  # what waited behind the other one's transaction is gone too
            assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"


async def test_tries_while_another_program_keeps_the_card_leave_one_thread_behind_and_no_more(
    pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcsc_module, "BUSY_TIMEOUT_S", 0.1)
    await until(lambda: not threads())
    pcscd.insert(VirtualPivCard())
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with other_program("transaction", pcscd):
            with pytest.raises(LinkBusy):
                async with link.session():
                    raise AssertionError
            link.close()
            await until(lambda: len(threads()) == 1)
            for _ in range(3):
                with pytest.raises(LinkBusy):
                    await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
            await until(lambda: len(threads()) == 1)
        await until(lambda: not threads())
    async with opened(pcscd.reader) as link, link.session() as session:
        assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"


async def test_a_program_that_only_shares_the_card_is_in_nobodys_way(pcscd: Pcscd) -> None:
    pcscd.insert(VirtualPivCard())
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with other_program("shared", pcscd), link.session() as session:
            assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"


async def test_a_session_of_our_own_is_waited_for_within_bounds(pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch) -> None:
    pcscd.insert(VirtualPivCard())
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        async with link.session():
            monkeypatch.setattr(pcsc_module, "BUSY_TIMEOUT_S", 0.05)
            with pytest.raises(LinkBusy, match="by this very program"):
                async with link.session():
                    raise AssertionError


class Silent(VirtualPivCard):
    """A card that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def exchange(self, apdu: bytes) -> bytes:
        self.may_answer.wait(LIMIT_S)
        return super().exchange(apdu)


async def test_a_card_that_does_not_answer_is_not_waited_for_without_end(
    pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcsc_module, "ANSWER_TIMEOUT_S", 0.1)
    card = Silent()
    pcscd.insert(card)
    async with opened(pcscd.reader) as link:
        await card_comes(link)
        with pytest.raises(LinkTimeout, match="no answer"):
            async with link.session() as session:
                await session.transmit(SELECT)
        card.may_answer.set()
        monkeypatch.undo()
        async with link.session() as session:
            assert (await session.transmit(SELECT))[-2:] == b"\x90\x00"


async def test_a_cancelled_command_leaves_a_card_that_can_be_used(pcscd: Pcscd) -> None:
    card = Silent()
    pcscd.insert(card)
    async with opened(pcscd.reader) as link:
        await card_comes(link)

        async def use() -> None:
            async with link.session() as session:
                await session.transmit(SELECT)

        for pause_s in (0, 0.01, 0.1):  # in the connection, or in the command
            using = asyncio.create_task(use())
            await asyncio.sleep(pause_s)
            using.cancel()
            await asyncio.wait({using})
            assert using.cancelled()
        card.may_answer.set()
        await use()


async def test_a_card_whose_answer_to_reset_makes_no_sense_says_so(pcscd: Pcscd) -> None:
    pcscd.insert(VirtualPivCard(atr=b"\x00"))
    async with opened(pcscd.reader) as link:
        assert (await card_comes(link)).atr == b"\x00"
        with pytest.raises(DeviceError) as caught:
            async with link.session():
                raise AssertionError
        assert "wrong way round" in caught.value.cause


async def test_a_restarted_daemon_ends_the_link_and_the_next_one_works(pcscd: Pcscd) -> None:
    async with opened(pcscd.reader) as link:
        state = await link.wait()
        waiting = asyncio.create_task(link.wait(state))
        await asyncio.sleep(0)
        pcscd.stop()
        with pytest.raises(LinkLost) as caught:
            await waiting
        assert caught.value.cause == "pcscd was stopped or restarted"
        with pytest.raises(LinkLost):
            async with link.session():
                raise AssertionError
        with pytest.raises(LinkNotFound) as refused:
            await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
        assert "sudo systemctl start pcscd.socket" in refused.value.next_step
        pcscd.start()
    async with opened(pcscd.reader) as link:
        assert (await link.wait()).atr is None


@pytest.mark.parametrize("part", ["Optima Key Reader 00 01", "Reader 00 01", "01"])
async def test_a_part_of_the_name_that_fits_one_reader_is_enough(part: str, pcscd: Pcscd) -> None:
    async with opened(part) as link:
        assert (link.name, link.reader) == (f"pcsc:{part}", f"{FAMILY} 00 01")


async def test_a_name_that_fits_several_readers_names_them(pcscd: Pcscd) -> None:
    with pytest.raises(LinkNotFound) as caught:
        await open_link("pcsc:Optima", SerialFormat())
    assert caught.value.what == f'\'Optima\' fits several readers: "{READERS[0]}", "{READERS[1]}"'


async def test_a_reader_that_is_not_there_is_told_with_those_that_are(pcscd: Pcscd) -> None:
    with pytest.raises(LinkNotFound, match="no reader 'ACR122'; connected are: \"Optima Key Reader 00 00\", "):
        await open_link("pcsc:ACR122", SerialFormat())


async def test_closing_ends_a_wait_and_both_threads(pcscd: Pcscd) -> None:
    await until(lambda: not threads())
    link = await PcscLink.open(f"pcsc:{pcscd.reader}")
    waiting = asyncio.create_task(link.wait(await link.wait()))
    await asyncio.sleep(0.05)
    assert len(threads()) == 2
    link.close()
    link.close()
    with pytest.raises(LinkLost, match="was closed"):
        await waiting
    await until(lambda: not threads())


async def test_a_daemon_that_hangs_does_not_hang_us(pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcsc_module, "OPEN_TIMEOUT_S", 0.1)
    os.kill(pcscd.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LinkTimeout, match="does not answer"):
            await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    finally:
        os.kill(pcscd.pid, signal.SIGCONT)


async def test_a_missing_pyscard_names_the_extra(pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartcard.scard", None)
    with pytest.raises(LinkError) as caught:
        await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    assert isinstance(caught.value, BridgeError)
    assert "optima-bridge[pcsc]" in caught.value.next_step
    assert "libpcsclite-dev" in caught.value.next_step
