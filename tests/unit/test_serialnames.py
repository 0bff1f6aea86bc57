"""Names of serial ports, in folders laid out as udev and sysfs lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from optima_bridge.cli.devices import describe, row
from optima_bridge.config import load
from optima_bridge.config.advice import advise
from optima_bridge.link.serialnames import PortNames, port_names

CH340 = {"idVendor": "1a86", "idProduct": "7523", "product": "USB Serial"}
FTDI = {"idVendor": "0403", "idProduct": "6001", "manufacturer": "FTDI", "product": "FT232R USB UART"}


class Pc:
    """Adapters that are plugged into a PC whose root is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_id, self.by_path = (root / "dev/serial" / name for name in ("by-id", "by-path"))
        self.by_id.mkdir(parents=True)
        self.by_path.mkdir()

    def plug(self, node: str, socket: str, by_id: str, *, port: str = "0", interface: str = "00", **said: str) -> None:
        """An adapter comes; of two that say the same, udev gives the name to the later one."""
        device = self.root / f"sys/devices/usb1/{socket}"
        at = device / f"{socket}:1.{int(interface)}" / (node if node.startswith("ttyUSB") else "")
        at.mkdir(parents=True, exist_ok=True)
        for name, text in said.items():
            (device / name).write_text(f"{text}\n")
        (device / f"{socket}:1.{int(interface)}" / "bInterfaceNumber").write_text(f"{interface}\n")
        if node.startswith("ttyUSB"):
            (at / "port_number").write_text(f"{port}\n")
        tty = self.root / f"sys/class/tty/{node}"
        tty.mkdir(parents=True)
        (tty / "device").symlink_to(at)
        (self.root / f"dev/{node}").touch()
        for link in (self.by_id / by_id, self.by_path / f"pci-usb-0:{socket}:1.{int(interface)}-port{port}"):
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../{node}")


@pytest.fixture
def pc(tmp_path: Path) -> Pc:
    return Pc(tmp_path)


def test_an_adapter_of_its_own_kind_is_named_after_itself(pc: Pc) -> None:
    pc.plug("ttyUSB0", "1-1", "usb-FTDI_A1-if00-port0", **FTDI, serial="A1")
    pc.plug("ttyUSB1", "1-2", "usb-FTDI_A2-if00-port0", **FTDI, serial="A2")
    pc.plug("ttyACM0", "1-3", "usb-Arduino-if00", idVendor="2341", idProduct="0043")
    names = port_names(pc.root)
    assert names["ttyUSB0"] == PortNames(
        str(pc.by_id / "usb-FTDI_A1-if00-port0"), str(pc.by_path / "pci-usb-0:1-1:1.0-port0")
    )
    assert {node: Path(known.lasting).name for node, known in names.items()} == {
        "ttyUSB0": "usb-FTDI_A1-if00-port0",
        "ttyUSB1": "usb-FTDI_A2-if00-port0",
        "ttyACM0": "usb-Arduino-if00",
    }


@pytest.mark.parametrize("said", [CH340, {**FTDI, "serial": "0001"}], ids=["no serial number", "a copied one"])
def test_adapters_that_say_the_same_are_named_after_their_sockets(pc: Pc, said: dict[str, str]) -> None:
    pc.plug("ttyUSB0", "1-1", "usb-same", **said)
    pc.plug("ttyUSB1", "1-2", "usb-same", **said)
    names = port_names(pc.root)
    assert [known.shared for known in names.values()] == [True, True]
    assert {known.by_id for known in names.values()} == {str(pc.by_id / "usb-same")}
    assert [Path(known.lasting).name for known in names.values()] == [
        "pci-usb-0:1-1:1.0-port0",
        "pci-usb-0:1-2:1.0-port0",
    ]


def test_the_ports_of_one_adapter_are_different_names(pc: Pc) -> None:
    for node, port in ("ttyUSB0", "0"), ("ttyUSB1", "1"):
        pc.plug(node, "1-1", f"usb-x-if00-port{port}", port=port, **CH340)
    pc.plug("ttyUSB2", "1-1", "usb-x-if01-port0", interface="01", **CH340)
    assert [known.shared for known in port_names(pc.root).values()] == [False] * 3


def test_ports_that_are_not_on_usb_and_pcs_without_udev_have_no_names(pc: Pc, tmp_path: Path) -> None:
    (pc.root / "sys/devices/serial8250").mkdir(parents=True)
    tty = pc.root / "sys/class/tty/ttyS0"
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(pc.root / "sys/devices/serial8250")
    assert port_names(pc.root) == {}
    assert port_names(tmp_path / "nowhere") == {}
    pc.plug("ttyUSB0", "1-1", "usb-x", **CH340)
    for directory in (pc.by_id, pc.by_path):
        for link in directory.iterdir():
            link.unlink()
        directory.rmdir()
    assert port_names(pc.root) == {"ttyUSB0": PortNames()}
    assert PortNames().lasting == ""


def test_a_port_is_listed_under_the_name_that_lasts() -> None:
    node = Path("/dev/ttyUSB0")
    assert describe(node, "n/a", None) == {
        "path": "/dev/ttyUSB0", "description": "", "by_id": "", "by_path": "", "shared": False,
    }  # fmt: skip
    assert describe(node, "USB Serial", PortNames("/by-id", "/by-path"))["path"] == "/by-id"
    shared = describe(node, "USB Serial", PortNames("/by-id", "/by-path", shared=True))
    assert shared == {
        "path": "/by-path", "description": "USB Serial", "by_id": "/by-id", "by_path": "/by-path", "shared": True,
    }  # fmt: skip
    assert row(shared) == ("/by-path", "USB Serial", "another adapter has the same by-id name")


def test_a_configured_name_that_two_adapters_share_is_a_warning(pc: Pc) -> None:
    assert warnings(pc, "usb-same") == []
    pc.plug("ttyUSB0", "1-1", "usb-same", **CH340)
    assert warnings(pc, "usb-same") == []
    pc.plug("ttyUSB1", "1-2", "usb-same", **CH340)
    [warning] = warnings(pc, "usb-same")
    places = " or ".join(str(pc.by_path / f"pci-usb-0:1-{socket}:1.0-port0") for socket in (1, 2))
    assert warning == f"2 adapters that are plugged in have this name; use the one of the socket: {places}"
    assert warnings(pc, "usb-other") == []


def warnings(pc: Pc, by_id: str) -> list[str]:
    file = pc.root / "config.toml"
    file.write_text(
        f'[store]\nsite = "s1"\n[devices.front]\ndriver = "rdm6300"\nport = "/dev/serial/by-id/{by_id}"\n'
        '[devices.back]\ndriver = "rdm6300"\nport = "/dev/serial/by-path/pci-usb-0:1-1:1.0-port0"\n'
    )
    loaded = load(file, {})
    return [problem.what for problem in advise(loaded.config, loaded._merged, pc.root)]
