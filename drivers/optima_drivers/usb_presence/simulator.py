"""The kernel's list of USB devices in a folder, as far as this driver reads it."""

from __future__ import annotations

import shutil
from pathlib import Path


class UsbBusSimulator:
    """Dongles that are plugged into a folder, which then looks like ``/sys/bus/usb/devices``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._number = 1  # the root hub has the first one
        self._add("usb1", "1d6b", "0002", serial="0000:00:14.0")
        (directory / "1-0:1.0").mkdir()  # its interface

    def plug(self, bus_path: str, vendor_id: str, product_id: str, serial: str = "") -> None:
        """Put a dongle into the socket `bus_path`."""
        if self.directory.is_dir():
            self._number += 1
            self._add(bus_path, vendor_id, product_id, serial)

    def pull(self, bus_path: str) -> None:
        """Take out what is there."""
        shutil.rmtree(self.directory / bus_path, ignore_errors=True)

    def unload(self) -> None:
        """The kernel's USB goes away altogether."""
        shutil.rmtree(self.directory)

    def _add(self, bus_path: str, vendor_id: str, product_id: str, serial: str) -> None:
        device = self.directory / bus_path
        device.mkdir(parents=True)
        attributes = {"serial": serial, "devnum": str(self._number), "idProduct": product_id, "idVendor": vendor_id}
        for name, value in attributes.items():
            if value:
                (device / name).write_text(f"{value}\n", encoding="utf-8")
