"""A terminal server on loopback: pyserial's own RFC 2217 server before a port whose lines and bytes a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Self

from serial import rfc2217

from optima_bridge.link import Line

NOTIFICATION = rfc2217.COM_PORT_OPTION + rfc2217.SERVER_NOTIFY_MODEMSTATE


class SimulatedPort:
    """What pyserial's server takes for a serial port."""

    def __init__(self) -> None:
        self.baudrate, self.bytesize, self.parity, self.stopbits = 9600, 8, "N", 1
        self.xonxoff = self.rtscts = False
        self.cts = self.dsr = self.cd = self.ri = False
        self.breaks: list[bool] = []
        self.on_outputs: Callable[[bool, bool], None] = lambda dtr, rts: None
        self._outputs = {"dtr": False, "rts": False}

    def __setattr__(self, name: str, value: object) -> None:
        if name in {"dtr", "rts"}:
            self._outputs[name] = bool(value)
            self.on_outputs(self._outputs["dtr"], self._outputs["rts"])
        elif name == "break_condition":
            self.breaks.append(bool(value))
        else:
            super().__setattr__(name, value)

    def reset_input_buffer(self) -> None:
        """The host drops what it has not read."""

    def reset_output_buffer(self) -> None:
        """The host drops what was not sent yet."""


class TerminalServer:
    """Serves one port to one client at a time while the ``async with`` block runs.

    Args:
        poll_s: how often it looks at its lines; None: it sees each change at once.

    Attributes:
        written: what the client has written.
        answer: what the device says to that.
        notifies: whether it tells of lines at all.
    """

    def __init__(self, poll_s: float | None = None) -> None:
        self.port = SimulatedPort()
        self.written = bytearray()
        self.answer: Callable[[bytes], bytes] = lambda data: b""
        self.notifies = True
        self._poll_s = poll_s
        self._manager: rfc2217.PortManager | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._poller = asyncio.create_task(self._poll()) if self._poll_s else None
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._poller:
            self._poller.cancel()
        self.hang_up()
        self._server.close()
        await asyncio.gather(*self._clients)

    @property
    def url(self) -> str:
        return f"rfc2217://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def set_lines(self, on: Iterable[Line]) -> None:
        """Move the lines of the port."""
        lines = {*on}
        self.port.cts, self.port.dsr = Line.CTS in lines, Line.DSR in lines
        self.port.cd, self.port.ri = Line.DCD in lines, Line.RI in lines
        if not self._poll_s:
            self._look()

    def send(self, data: bytes) -> None:
        """Let the device say something."""
        assert self._writer is not None
        assert self._manager is not None
        self._writer.write(b"".join(self._manager.escape(data)))

    def raw(self, data: bytes) -> None:
        """Send bytes of the protocol itself."""
        assert self._writer is not None
        self._writer.write(data)

    def hang_up(self) -> None:
        """Close the connection, as a server that is switched off does."""
        if self._writer is not None:
            self._writer.close()
            self._writer = self._manager = None

    def write(self, data: bytes) -> None:
        """The manager's way to the client."""
        if self._writer is not None and (self.notifies or data[2:4] != NOTIFICATION):
            self._writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self._writer = writer
        manager = self._manager = rfc2217.PortManager(self.port, self)  # type: ignore[arg-type]
        try:
            while data := await reader.read(4096):
                received = b"".join(manager.filter(data))
                if received:
                    self.written += received
                    if answer := self.answer(received):
                        self.send(answer)
        except ConnectionError:
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _poll(self) -> None:
        assert self._poll_s is not None
        while True:
            self._look()
            await asyncio.sleep(self._poll_s)

    def _look(self) -> None:
        if self._manager is not None:
            self._manager.check_modem_lines()
