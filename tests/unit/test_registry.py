"""Discovery of drivers: names without imports, and errors that say what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from optima_bridge.cli.drivers import drivers
from optima_bridge.cli.options import Settings
from optima_bridge.driver import CONTRACT, ENTRY_POINT_GROUP, DriverInfo
from optima_bridge.errors import ContractMismatch, DriverError, DriverNotFound, DuplicateDriver
from optima_bridge.model import Maturity
from optima_bridge.registry import installed, load
from optima_drivers.loopback import LoopbackDriver


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=ENTRY_POINT_GROUP)


LOOPBACK = point("loopback", "optima_drivers.loopback:LoopbackDriver")
OTHER = point("another", "somewhere:Driver")


class FromTheFuture:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="future",
        summary="needs a newer daemon",
        contract=CONTRACT + 1,
        maturity=Maturity.EXPERIMENTAL,
        capabilities=frozenset(),
        schemes=frozenset(),
        integrity="none",
        spec="none",
    )


def test_the_shipped_drivers_are_installed_and_load_by_name() -> None:
    assert set(installed()) >= {"ds2480b", "id12la", "loopback", "rdm6300"}
    assert load("loopback") is LoopbackDriver


def test_names_are_sorted_and_need_no_import() -> None:
    assert list(installed([LOOPBACK, OTHER])) == ["another", "loopback"]  # `somewhere` does not exist
    listing = (
        "import sys; from optima_bridge.registry import installed; installed(); print('optima_drivers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True).stdout == "False\n"


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(DriverNotFound, match="no driver 'loopbak' is installed; there are: another, loopback"):
        load("loopbak", [LOOPBACK, OTHER])
    with pytest.raises(DriverNotFound, match="there are: none"):
        load("loopback", [])


def test_two_packages_with_one_name_are_both_named() -> None:
    with pytest.raises(DuplicateDriver, match=r"optima_drivers\.loopback:LoopbackDriver and theirs:Driver"):
        installed([LOOPBACK, point("loopback", "theirs:Driver")])


def test_one_driver_found_twice_on_the_path_is_one_driver() -> None:
    assert load("loopback", [LOOPBACK, LOOPBACK]) is LoopbackDriver


def test_another_contract_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optima_drivers.loopback.FromTheFuture", FromTheFuture, raising=False)
    with pytest.raises(ContractMismatch, match=f"contract {CONTRACT + 1}, this daemon has {CONTRACT}"):
        load("future", [point("future", "optima_drivers.loopback:FromTheFuture")])


@pytest.mark.parametrize("value", ["no_such_module:Driver", "optima_drivers.loopback:NoSuchDriver"])
def test_a_damaged_package_is_named(value: str) -> None:
    with pytest.raises(DriverError, match="cannot be imported") as caught:
        load("broken", [point("broken", value)])
    assert value in str(caught.value)


BROKEN = {
    "def (": "cannot be imported: SyntaxError: ",
    "1 / 0": "cannot be imported: ZeroDivisionError: division by zero",
    "raise ValueError('no good')": "cannot be imported: ValueError: no good",
    "raise SystemExit(0)": "cannot be imported: SystemExit: 0",
    "import not_there": "cannot be imported: ModuleNotFoundError: No module named 'not_there'",
    "class Driver:\n    pass": "cannot be imported: AttributeError: type object 'Driver' has no attribute 'info'",
    "class Driver:\n    info = 3": "is no driver: its info is 3, not a DriverInfo",
    "from optima_drivers.loopback import LoopbackDriver\nclass Driver:\n    info = LoopbackDriver.info": (
        "is no driver: its Settings are None, not a class of DriverSettings"
    ),
}


@pytest.mark.parametrize(("source", "why"), BROKEN.items())
def test_a_driver_that_fails_in_its_own_code_is_named_and_hides_no_other(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_doors.py").write_text(source)
    info = tmp_path / "optima_driver_doors-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: optima-driver-doors\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\ndoors = bad_doors:Driver\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_doors", raising=False)
    with pytest.raises(DriverError) as caught:
        load("doors")
    assert str(caught.value).startswith(f"driver 'doors' (optima-driver-doors 1.2) {why}")
    listed = CliRunner().invoke(drivers, ["list"], obj=Settings(json=True))
    found = {driver["name"]: driver for driver in json.loads(listed.stdout)["drivers"]}
    assert found["doors"]["maturity"] == "broken"
    assert why in found["doors"]["summary"]
    assert found["loopback"]["maturity"] != "broken"
