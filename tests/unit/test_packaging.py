"""What is installed is whole: the wheel, its entry points, the locks, the units."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from optima_bridge import registry
from optima_bridge.driver import ENTRY_POINT_GROUP

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted(REPOSITORY.glob("requirements*.lock"))
UNITS = sorted((REPOSITORY / "systemd/system").iterdir())
BUILD_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project's wheel, built without network as `make wheel` builds it."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    program = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(program, cwd=REPOSITORY, check=True, capture_output=True, timeout=BUILD_TIMEOUT_S)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_every_file_of_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    sources = {
        str(path.relative_to(root))
        for root, package in ((REPOSITORY, "optima_bridge"), (REPOSITORY / "drivers", "optima_drivers"))
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name and ".data/" not in name}
    assert inside == sources


@pytest.mark.parametrize(
    ("source", "installed"),
    [
        ("systemd/system", "lib/systemd/system"),
        ("systemd/sysusers.d", "lib/sysusers.d"),
        ("systemd/tmpfiles.d", "lib/tmpfiles.d"),
        ("config", "share/optima-bridge"),
    ],
)
def test_the_wheel_brings_units_and_configuration_to_their_places(
    source: str, installed: str, wheel: zipfile.ZipFile
) -> None:
    files = sorted((REPOSITORY / source).iterdir())
    assert files
    for file in files:
        [name] = [name for name in wheel.namelist() if name.endswith(f".data/data/{installed}/{file.name}")]
        assert wheel.read(name) == file.read_bytes()


def test_the_wheel_announces_the_program_and_the_drivers(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    announced = ConfigParser(delimiters=("=",))
    announced.read_string(wheel.read(name).decode())
    assert dict(announced["console_scripts"]) == PROJECT["project"]["scripts"]
    assert dict(announced[ENTRY_POINT_GROUP]) == PROJECT["project"]["entry-points"][ENTRY_POINT_GROUP]


def test_the_program_resolves() -> None:
    [point] = entry_points(group="console_scripts", name="bridge")
    assert callable(point.load())


@pytest.mark.parametrize("name", sorted(PROJECT["project"]["entry-points"][ENTRY_POINT_GROUP]))
def test_a_driver_resolves_under_its_own_name(name: str) -> None:
    assert registry.load(name).info.name == name


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address_and_gives_every_requirement_a_hash(lock: Path) -> None:
    text = lock.read_text(encoding="ascii")
    assert not re.search(r"://|index-url|find-links|trusted-host|^-", text, re.MULTILINE)
    requirements = re.findall(r"^[a-z0-9][^=\s]*==[^\\\n]+\\\n(    --hash=sha256:[0-9a-f]{64})", text, re.MULTILINE)
    assert len(requirements) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 0


def _pins(lock: str) -> dict[str, str]:
    text = (REPOSITORY / lock).read_text(encoding="ascii")
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[\w+\])?==([^\s;]+)", text, re.MULTILINE))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}


def test_the_locks_hold_what_the_project_asks_for_and_agree_with_each_other() -> None:
    runtime, development = _pins("requirements.lock"), _pins("requirements-dev.lock")
    assert _names(PROJECT["project"]["dependencies"]) <= runtime.keys()
    assert _names(PROJECT["dependency-groups"]["dev"]) <= development.keys()
    assert _names(PROJECT["project"]["optional-dependencies"]["broker"]) <= development.keys() - runtime.keys()
    assert runtime.items() <= development.items()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_every_line_of_a_unit_is_in_a_paragraph_that_begins_with_its_reason(unit: Path) -> None:
    trivial = {"Description", "WantedBy", "Also", "ListenStream", "ExecStart", "User", "Group"}
    explained = False
    for line in unit.read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            explained = True
        elif not line or line.startswith("["):
            explained = False
        else:
            assert explained or line.partition("=")[0] in trivial, line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="ascii")
        (tmp_path / unit.name).write_text(text.replace("/opt/optima-bridge/bin/bridge", sys.executable))
    files = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "optima-bridge" in line]
    assert (done.returncode, ours) == (0, [])
