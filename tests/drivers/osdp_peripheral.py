"""libosdp's peripheral device as a process of its own, on a serial port: ``osdp_peripheral.py PORT``.

The first line on stdin is its settings, each later one an order; what happens to it is one line of JSON each on stdout.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import threading
import tty
from typing import Any

libosdp: Any = importlib.import_module("osdp")
_lock = threading.Lock()


def tell(**what: object) -> None:
    with _lock:
        print(json.dumps(what), flush=True)


class Port(libosdp.Channel):  # type: ignore[misc]
    def __init__(self, path: str) -> None:
        super().__init__()
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)

    def read(self, max_bytes: int) -> bytes:
        try:
            return os.read(self.fd, max_bytes)
        except BlockingIOError:
            return b""

    def write(self, buf: bytes) -> int:
        return os.write(self.fd, buf)

    def flush(self) -> None:
        while self.read(4096):
            pass


class Files:
    def __init__(self) -> None:
        self.content = bytearray()

    def operations(self) -> dict[str, Any]:
        return {"open": self.open, "read": lambda size, offset: b"", "write": self.write, "close": self.close}

    def open(self, file_id: int, size: int) -> int:
        self.content = bytearray(size)
        return 0

    def write(self, data: bytes, offset: int) -> int:
        self.content[offset : offset + len(data)] = data
        return len(data)

    def close(self, file_id: int) -> int:
        tell(file=hashlib.sha256(self.content).hexdigest())
        return 0


def commanded(command: dict[str, Any]) -> tuple[int, None]:
    tell(command={key: value.hex() if isinstance(value, bytes) else value for key, value in command.items()})
    return 0, None


def main(path: str) -> None:
    settings = json.loads(sys.stdin.readline())
    port = Port(path)
    capability = libosdp.Capability
    device = libosdp.PeripheralDevice(
        libosdp.PDInfo(
            settings["address"],
            port,
            scbk=bytes.fromhex(settings["scbk"]) if settings["scbk"] else None,
            flags=[getattr(libosdp.LibFlag, flag) for flag in settings["flags"]],
        ),
        libosdp.PDCapabilities(
            [
                (capability.ContactStatusMonitoring, 1, 4),
                (capability.OutputControl, 1, 1),
                (capability.LEDControl, 1, 1),
                (capability.AudibleControl, 1, 1),
                (capability.Readers, 1, 1),
            ]
        ),
        log_level=libosdp.LogLevel.Critical,
        command_handler=commanded,
    )
    device.start()
    device.register_file_ops(Files().operations())
    tell(started=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "data" in order:
            order["data"] = bytes.fromhex(order["data"])
        if "report" in order:
            order["report"] = bytes.fromhex(order["report"])
        device.submit_event(order)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
