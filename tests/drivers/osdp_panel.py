"""A control panel that others wrote, as a process of its own: ``osdp_panel.py libosdp|osdp PORT``, the key on stdin.

Two packages call themselves ``osdp``: which of them is imported depends on whose Python runs this. Prints what it hears,
one line of JSON each.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import tty
from typing import Any

osdp: Any = importlib.import_module("osdp")


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def libosdp_panel(path: str, key: bytes | None) -> None:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(fd)

    class Port(osdp.Channel):  # type: ignore[misc]
        def read(self, max_bytes: int) -> bytes:
            try:
                return os.read(fd, max_bytes)
            except BlockingIOError:
                return b""

        def write(self, buf: bytes) -> int:
            return os.write(fd, buf)

        def flush(self) -> None:
            while self.read(4096):
                pass

    def heard(_: int, event: dict[str, Any]) -> int:
        if event["event"] == osdp.Event.CardRead:
            tell(card=bytes(event["data"]).hex(), bits=event["length"])
        return 0

    port = Port()
    flags = [osdp.LibFlag.EnforceSecure] if key else []
    panel = osdp.ControlPanel([osdp.PDInfo(0, port, scbk=key, flags=flags)], osdp.LogLevel.Critical, heard)
    panel.start()
    while not panel.is_online(0) or (key and not panel.is_sc_active(0)):
        time.sleep(0.01)
    tell(online=True)
    sys.stdin.read()
    os._exit(0)


def osdp_panel(path: str, master_key: bytes | None) -> None:
    class Panel(osdp.ControlPanel):  # type: ignore[misc]
        def on_raw_card_data_reply_received(self, address: int, raw_card_data: Any) -> None:
            tell(card=bytes(raw_card_data.data).hex(), bits=raw_card_data.bit_count)

    panel = Panel(master_key=master_key)
    bus = panel.start_connection(osdp.SerialPortOsdpConnection(port=path, baud_rate=9600))
    panel.add_device(connection_id=bus, address=0, use_crc=True, use_secure_channel=master_key is not None)
    while not panel.is_online(bus, 0):
        time.sleep(0.01)
    tell(online=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _, kind, port_path = sys.argv
    text = sys.stdin.readline().strip()
    {"libosdp": libosdp_panel, "osdp": osdp_panel}[kind](port_path, bytes.fromhex(text) or None)
