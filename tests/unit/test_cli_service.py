"""``bridge service udev``: what it prints, where it writes, and that the rules are rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from optima_bridge import registry, udev
from optima_bridge.cli.options import Settings
from optima_bridge.cli.service import service
from optima_bridge.driver import Driver
from optima_bridge.errors import AccessDenied, DriverError, NotFound, UsageError
from optima_drivers.ds2480b import Ds2480bDriver
from optima_drivers.ds2490 import Ds2490Driver

INFOS = [Ds2480bDriver.info, Ds2490Driver.info]
DECLARED = {ids for info in INFOS for ids in info.usb_ids}
UDEVADM = shutil.which("udevadm", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
FIRST_WITH_VERIFY = 254  # of systemd
MATCH_OR_ASSIGNMENT = re.compile(
    r'(ACTION|SUBSYSTEM|ATTRS\{id(Vendor|Product)\}|ENV\{[A-Z_.]+\})(==|!=)"[^"]*"'
    r'|(ENV\{[A-Z_.]+\}|GROUP|MODE|GOTO|LABEL)="[^"]*"'
)


def udev_rules(*arguments: str, settings: Settings | None = None) -> Result:
    return CliRunner().invoke(service, ["udev", *arguments], obj=settings or Settings(), catch_exceptions=False)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_declared_id_is_in_one_rule_with_the_names_of_its_drivers() -> None:
    another = msgspec.structs.replace(Ds2490Driver.info, name="another")
    text = udev.rules([*INFOS, another])
    ids = re.findall(r'^ATTRS\{idVendor\}=="([0-9a-f]{4})", ATTRS\{idProduct\}=="([0-9a-f]{4})", ', text, re.MULTILINE)
    assert {(int(vendor, 16), int(product, 16)) for vendor, product in ids} == DECLARED
    assert len(ids) == len(DECLARED)
    assert '# another, ds2490\nATTRS{idVendor}=="04fa", ATTRS{idProduct}=="2490", ' in text


def test_the_same_drivers_make_the_same_file_in_whatever_order_they_come() -> None:
    assert udev.rules(INFOS) == udev.rules(INFOS[::-1]) == udev.rules(INFOS * 2)


def test_each_line_is_a_rule_and_what_is_jumped_to_is_there() -> None:
    text = udev.rules(INFOS)
    assert text.isascii()
    for line in lines(text):
        assert all(MATCH_OR_ASSIGNMENT.fullmatch(part) for part in line.split(", ")), line
    assert set(re.findall(r'GOTO="(\w+)"', text)) == set(re.findall(r'^LABEL="(\w+)"', text, re.MULTILINE))


def test_only_what_matched_an_id_is_given_away() -> None:
    text = lines(udev.rules(INFOS))
    guard = text.index('ENV{.OPTIMA_BRIDGE}!="1", GOTO="optima_bridge_end"')
    assert [line for line in text[:guard] if re.search(r"GROUP=|MODE=|ID_MM", line)] == []
    assert text[guard + 1 : guard + 3] == [
        'GROUP="optima-bridge", MODE="0660"',
        'ENV{ID_MM_DEVICE_IGNORE}="1", ENV{ID_MM_PORT_IGNORE}="1"',
    ]


def test_udev_itself_finds_no_fault(tmp_path: Path) -> None:
    if UDEVADM is None:
        pytest.skip("udevadm is not installed")
    version = subprocess.run([UDEVADM, "--version"], capture_output=True, text=True).stdout.strip()
    if not version.isdigit() or int(version) < FIRST_WITH_VERIFY:
        pytest.skip(f"udevadm {version} has no verify")
    file = tmp_path / udev.FILE_NAME
    file.write_text(udev.rules(INFOS))
    done = subprocess.run([UDEVADM, "verify", "--resolve-names=never", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_name_all_installed_drivers_are_in() -> None:
    assert udev_rules().output == udev.rules(registry.load(name).info for name in registry.installed())


def test_drivers_that_are_named_are_the_only_ones() -> None:
    assert udev_rules("ds2490").output == udev.rules([Ds2490Driver.info])
    with pytest.raises(NotFound, match="no driver 'ds2940' is installed"):
        udev_rules("ds2490", "ds2940")


def test_a_file_without_a_rule_is_not_made(tmp_path: Path) -> None:
    for arguments in (
        ["keylock-hid"],
        ["keylock-hid", "loopback"],
        ["keylock-hid", "--install", "--directory", str(tmp_path)],
    ):
        with pytest.raises(UsageError, match="declared by keylock-hid") as refused:
            udev_rules(*arguments)
        assert "lsusb" in refused.value.next_step
    assert list(tmp_path.iterdir()) == []
    together = udev_rules("keylock-hid", "ds2490")
    assert together.stdout == udev.rules([Ds2490Driver.info])
    assert together.stderr == "without a rule: keylock-hid, as no USB ids are declared\n"


def test_what_a_new_file_has_no_more_is_told(tmp_path: Path) -> None:
    there = "--install", "--directory", str(tmp_path)
    udev_rules("ds2480b", "ds2490", *there)
    assert "no longer" not in udev_rules("ds2480b", "ds2490", *there).stderr
    dropped = udev_rules("ds2480b", *there)
    assert dropped.stderr.startswith("no longer in the file: 04fa:2490 (ds2490)\nnow have udev")
    assert "no longer" not in udev_rules("ds2490", "ds2480b", *there).stderr
    udev_rules("ds2490", *there)
    assert udev_rules("ds2480b", *there, settings=Settings(quiet=True)).stderr == ""
    document = json.loads(udev_rules("ds2490", *there, settings=Settings(json=True)).output)
    assert document["dropped"] == [
        f"{vendor:04x}:{product:04x} (ds2480b)" for vendor, product in sorted(Ds2480bDriver.info.usb_ids)
    ]


def test_a_driver_that_cannot_be_loaded_is_left_out_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, points: object) -> type[Driver]:
        if name == "ds2490":
            raise DriverError("its package is broken")
        return whole(name)

    whole = registry.load
    monkeypatch.setattr(registry, "load", load)
    printed = udev_rules()
    assert printed.stderr == "left out: its package is broken\n"
    assert "04fa" not in printed.stdout
    assert "10c4" in printed.stdout
    with pytest.raises(DriverError, match="its package is broken"):
        udev_rules("ds2490")


def test_installing_writes_the_file_and_says_what_is_next(tmp_path: Path) -> None:
    file = tmp_path / udev.FILE_NAME
    file.write_text("an older one")
    done = udev_rules("--install", "--directory", str(tmp_path))
    assert done.stdout == f"{file}\n"
    assert done.stderr.endswith("udevadm control --reload && udevadm trigger\n")
    assert file.read_text() == udev_rules().output
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == [udev.FILE_NAME]


def test_programs_get_a_document(tmp_path: Path) -> None:
    printed = json.loads(udev_rules(settings=Settings(json=True)).output)
    assert printed == {"schema": "optima.udev/1", "path": None, "rules": udev_rules().output, "dropped": []}
    written = json.loads(udev_rules("--install", "--directory", str(tmp_path), settings=Settings(json=True)).output)
    assert written == printed | {"path": str(tmp_path / udev.FILE_NAME)}


def test_where_it_cannot_write_it_says_how(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist") as missing:
        udev_rules("--install", "--directory", str(tmp_path / "none"))
    assert missing.value.next_step == "apt install udev"
    with pytest.raises(AccessDenied) as denied:
        udev_rules("--install", "--directory", "/sys/kernel")  # not even root makes files there
    assert denied.value.next_step == "sudo bridge service udev --install"
