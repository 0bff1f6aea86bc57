"""Rfc2217Link against pyserial's own server on loopback, and the lines of ports that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from optima_bridge.errors import LinkError, LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link import Line, Sample, SerialFormat, open_link
from optima_bridge.link.rfc2217 import MAX_BUFFER_BYTES, Rfc2217Link, notified
from tests.terminal_server import TerminalServer

LIMIT_S = 20.0
NONE = dict.fromkeys(Line, 0)


@asynccontextmanager
async def opened(server: TerminalServer, baud: int = 9600, stop_bits: int = 1) -> AsyncIterator[Rfc2217Link]:
    link = await open_link(server.url, SerialFormat(baud, stop_bits))
    assert isinstance(link, Rfc2217Link)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield link
    finally:
        link.close()


async def sampled(link: Rfc2217Link, condition: Callable[[Sample], bool]) -> Sample:
    """The first sample that fits."""
    while not condition(sample := await link.read_lines()):  # noqa: ASYNC110 - they come on pyserial's thread
        await asyncio.sleep(0.001)
    return sample


async def test_the_port_is_opened_as_the_driver_declares() -> None:
    async with TerminalServer() as server, opened(server, 19200, 2) as link:
        assert (server.port.baudrate, server.port.stopbits) == (19200, 2)
        assert link.name == server.url
        assert server.port._outputs == {"dtr": True, "rts": True}


async def test_bytes_travel_both_ways_unchanged() -> None:
    every_byte = bytes(range(256))
    async with TerminalServer() as server, opened(server) as link:
        server.answer = lambda data: data
        await link.write(every_byte)
        received = b""
        while len(received) < len(every_byte):
            received += await link.read(LIMIT_S)
        assert received == bytes(server.written) == every_byte


async def test_a_read_times_out_and_late_bytes_can_be_dropped() -> None:
    async with TerminalServer() as server, opened(server) as link:
        with pytest.raises(LinkTimeout, match=r"nothing came within 0\.01 s"):
            await link.read(0.01)
        server.send(b"late")
        came = b""
        while len(came) < len(b"late"):
            came += await link.read()
        assert came == b"late"
        server.send(b"later")
        dropped = 0
        while dropped < len(b"later"):
            dropped += link.discard_input()
            await asyncio.sleep(0.001)


async def test_nobody_who_reads_costs_no_memory_without_end() -> None:
    async with TerminalServer() as server, opened(server) as link:
        server.send(bytes(MAX_BUFFER_BYTES + 1000))
        while len(link._buffer) < MAX_BUFFER_BYTES:
            await link.read_lines()
            await asyncio.sleep(0.001)
        server.send(b"x" * 1000)
        server.set_lines({Line.CTS})
        await sampled(link, lambda sample: Line.CTS in sample.on)
        assert len(link._buffer) == MAX_BUFFER_BYTES


async def test_a_server_that_floods_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optima_bridge.link.rfc2217.FLOOD_BYTES", 10_000)
    async with TerminalServer() as server, opened(server) as link:
        server.send(bytes(20_000))
        while link._port.in_waiting <= 10_000:  # noqa: ASYNC110 - they come on pyserial's thread
            await asyncio.sleep(0.001)
        with pytest.raises(LinkLost, match="faster than any serial port"):
            await link.read_lines()


async def test_each_line_is_seen_and_each_of_its_edges_counted() -> None:
    async with TerminalServer() as server, opened(server) as link:
        edges = dict(NONE)
        assert await link.read_lines() == Sample(frozenset(), edges)
        for line in Line:
            server.set_lines({line})
            server.set_lines(())
            server.set_lines({line})
            edges[line] += 3
            assert (await sampled(link, lambda sample: sample.edges == edges)).on == {line}
            server.set_lines(())
            edges[line] += 1


async def test_lines_that_are_on_when_the_port_is_opened_are_known_at_once() -> None:
    async with TerminalServer() as server:
        server.set_lines({Line.DSR, Line.DCD})
        async with opened(server) as link:
            assert (await link.read_lines()).on == {Line.DSR, Line.DCD}


def test_notifications_of_the_specification_are_understood() -> None:
    """RFC 2217, section 3, NOTIFY-MODEMSTATE; the trailing edge alone is told of RI."""
    sample = None
    for state, on, edges in [
        (0x11, {Line.CTS}, NONE),
        (0x01, set(), {**NONE, Line.CTS: 1}),
        (0x22, {Line.DSR}, {**NONE, Line.CTS: 1, Line.DSR: 1}),
        (0xA8, {Line.DSR, Line.DCD}, {**NONE, Line.CTS: 1, Line.DSR: 1, Line.DCD: 1}),
        (0xE0, {Line.DSR, Line.DCD, Line.RI}, {Line.CTS: 1, Line.DSR: 1, Line.DCD: 1, Line.RI: 1}),
        (0xA4, {Line.DSR, Line.DCD}, {Line.CTS: 1, Line.DSR: 1, Line.DCD: 1, Line.RI: 2}),
        (0xA2, {Line.DSR, Line.DCD}, {Line.CTS: 1, Line.DSR: 3, Line.DCD: 1, Line.RI: 2}),  # there and back
    ]:
        sample = notified(sample, state)
        assert sample == Sample(frozenset(on), edges)


async def test_a_state_of_ff_is_doubled_on_the_wire_and_understood() -> None:
    async with TerminalServer() as server, opened(server) as link:
        server.raw(bytes.fromhex("FFFA2C6BFFFFFFF0"))
        assert await sampled(link, lambda sample: bool(sample.on)) == Sample(frozenset(Line), dict.fromkeys(Line, 1))


async def test_the_outputs_are_switched_and_confirmed() -> None:
    async with TerminalServer() as server, opened(server) as link:
        seen: list[tuple[bool, bool]] = []
        server.port.on_outputs = lambda dtr, rts: seen.append((dtr, rts))
        await link.set_outputs(dtr=True, rts=False)
        await link.set_outputs(dtr=False, rts=True)
        assert seen == [(True, False), (False, False), (False, True)]
        await link.send_break()
        assert server.port.breaks == [True, False]


async def test_a_server_that_says_nothing_of_its_lines_still_passes_bytes() -> None:
    async with TerminalServer() as server:
        server.notifies = False
        async with opened(server) as link:
            with pytest.raises(LinkError, match="says nothing of the modem lines"):
                await link.read_lines()
            server.send(b"x")
            assert await link.read() == b"x"


async def test_a_server_that_hangs_up_is_a_lost_link() -> None:
    async with TerminalServer() as server, opened(server) as link:
        read = asyncio.create_task(link.read())
        await asyncio.sleep(0.02)
        server.hang_up()
        with pytest.raises(LinkLost, match="went away"):
            await read
        for use in (link.read, link.read_lines, link.send_break):
            with pytest.raises(LinkLost):
                await use()
        with pytest.raises(LinkLost):
            await link.write(b"?")
        with pytest.raises(LinkLost):
            link.discard_input()


async def test_a_read_of_a_lost_port_lets_others_run_and_can_be_cancelled() -> None:
    async with TerminalServer() as server, opened(server) as link:
        link.close()
        read = asyncio.create_task(link.read())
        await asyncio.sleep(0)
        assert not read.done()
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read


async def test_a_server_that_hangs_up_is_noticed_by_an_order_too() -> None:
    async def write_on(link: Rfc2217Link) -> None:
        while True:
            await link._ask(lambda: link._port.write(b"x" * 4096))

    async with TerminalServer() as server, opened(server) as link:
        server.hang_up()
        with pytest.raises(LinkLost):
            await write_on(link)


async def test_a_server_that_confirms_nothing_is_a_timeout() -> None:
    async with TerminalServer() as server, opened(server) as link:
        link._port._network_timeout = 0.1  # type: ignore[attr-defined]
        server._manager = None
        server.write = lambda data: None  # type: ignore[method-assign]
        with pytest.raises(LinkTimeout, match="did not confirm"):
            await link.set_outputs(dtr=True, rts=False)


async def test_closing_twice_ends_it_once_and_leaves_no_thread() -> None:
    before = {*threading.enumerate()}
    async with TerminalServer() as server:
        async with opened(server) as link:
            pass
        link.close()
        with pytest.raises(LinkLost, match="was closed"):
            await link.read_lines()
        link._owner.shutdown(wait=False)
        async with asyncio.timeout(LIMIT_S):
            while {*threading.enumerate()} - before:  # noqa: ASYNC110 - threads of pyserial
                await asyncio.sleep(0.01)


async def test_giving_up_while_it_opens_leaves_no_thread() -> None:
    before = {*threading.enumerate()}
    async with TerminalServer() as server:
        opening = asyncio.create_task(open_link(server.url, SerialFormat()))
        await asyncio.sleep(0.02)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(LIMIT_S):
            while {*threading.enumerate()} - before:  # noqa: ASYNC110 - threads of pyserial
                await asyncio.sleep(0.01)


async def test_an_address_where_nobody_listens_is_not_found() -> None:
    async with TerminalServer() as server:
        url = server.url
    with pytest.raises(LinkNotFound, match="cannot be reached"):
        await open_link(url, SerialFormat())
    for wrong in ("rfc2217://host", "rfc2217://host:1?logging=debug", "rfc2217:host:1"):
        with pytest.raises(LinkNotFound, match="is not a port"):
            await open_link(wrong, SerialFormat())


async def test_somebody_who_speaks_something_else_is_named() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(LinkError, match="cannot be opened") as caught:
            await open_link(f"rfc2217://127.0.0.1:{server.sockets[0].getsockname()[1]}", SerialFormat())
    assert type(caught.value) is LinkError
    assert "RFC 2217" in caught.value.cause


async def test_a_pty_has_no_modem_lines_and_says_so() -> None:
    master, slave = os.openpty()
    link = await open_link(os.ttyname(slave), SerialFormat())
    try:
        with pytest.raises(LinkError, match="has no modem lines"):
            await link.read_lines()  # type: ignore[attr-defined]
        with pytest.raises(LinkError, match="has no modem lines"):
            await link.set_outputs(dtr=True, rts=True)  # type: ignore[attr-defined]
        os.close(master)
        os.close(slave)
        with pytest.raises(LinkLost):
            await link.read()  # type: ignore[attr-defined]
        with pytest.raises(LinkLost):
            await link.read_lines()  # type: ignore[attr-defined]
        with pytest.raises(LinkLost):
            await link.set_outputs(dtr=True, rts=True)  # type: ignore[attr-defined]
    finally:
        link.close()
