"""`bridge drivers new`: what it makes is a whole package, green as it is, and found by its entry point."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from optima_bridge.cli import new_driver
from optima_bridge.cli.drivers import drivers
from optima_bridge.cli.options import Settings
from optima_bridge.config import ConfigPaths
from optima_bridge.driver import ENTRY_POINT_GROUP
from optima_bridge.errors import UsageError

REPOSITORY = Path(__file__).parents[2]
DEVICES = REPOSITORY / "docs/reference/devices"
HEADINGS = ["Models", "Wiring", "Protocol", "Ids", "Needs from the system", "Settings", "Events"]
LAST_HEADINGS = ["Limits", "Tested with", "Since"]
PAGES = [
    *DEVICES.glob("*.md"),
    *REPOSITORY.glob("examples/*/DEVICE.md"),
    REPOSITORY / "drivers/optima_drivers/_template/DEVICE.md",
]
RUN_TIMEOUT_S = 120


def install(folder: Path) -> None:
    """Give the package what an installer would: with its folder on PYTHONPATH its entry point is found."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    facts = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".format(**project)
    (info / "METADATA").write_text(facts, encoding="ascii")
    [[name, value]] = project["entry-points"][ENTRY_POINT_GROUP].items()
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {value}\n", encoding="ascii")


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated package, findable."""
    folder = new_driver.make("door-seal2", tmp_path_factory.mktemp("new"))
    install(folder)
    return folder


def test_its_tests_pass_as_generated_and_none_is_left_out_but_that_of_a_second_token(made: Path) -> None:
    last_line = run(made, "pytest", "-q", "-p", "no:cacheprovider").splitlines()[-1]
    assert re.match(r"\d+ passed, 1 skipped in ", last_line), last_line


@pytest.mark.parametrize("name", ["my-template", "template-2", "optima-driver-template"])
def test_its_name_may_have_the_models_name_in_it(name: str, tmp_path: Path) -> None:
    folder = new_driver.make(name, tmp_path)
    install(folder)
    assert " passed in " in run(folder, "pytest", "-q", "-p", "no:cacheprovider", "tests/test_codec.py")
    shown = json.loads(run(folder, "optima_bridge.cli", "drivers", "show", name, "--json"))
    assert shown["name"] == name


def test_the_program_lists_it_beside_the_shipped_ones(made: Path) -> None:
    listed = run(made, "optima_bridge.cli", "drivers", "list")
    assert re.search(r"^door-seal2 +experimental +seal-switch +seal switch that sends O and C$", listed, re.MULTILINE)
    assert re.search(r"^loopback ", listed, re.MULTILINE)
    shown = json.loads(run(made, "optima_bridge.cli", "drivers", "show", "door-seal2", "--json"))
    assert shown["settings"].keys() == {"normally_open"}


def test_nothing_of_the_model_it_was_copied_from_is_left(made: Path) -> None:
    files = [path for path in made.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) >= 10
    assert [path for path in files if "template" in path.read_text(encoding="utf-8").lower()] == []


def test_only_the_contract_is_imported(made: Path) -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in made.glob("optima_driver_door_seal2/*.py"))
    modules = {*re.findall(r"^from (optima_\w+\.?\w*)", source, re.MULTILINE)}
    assert modules == {
        *("optima_bridge.driver", "optima_bridge.errors", "optima_bridge.link", "optima_bridge.model"),
        *("optima_driver_door_seal2.codec", "optima_driver_door_seal2.driver", "optima_driver_door_seal2.simulator"),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.parent.name + "/" + path.name)
def test_a_device_page_has_the_fixed_headings(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in headings if name in HEADINGS + LAST_HEADINGS] == HEADINGS + LAST_HEADINGS
    assert headings[-len(LAST_HEADINGS) :] == LAST_HEADINGS


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    folder = new_driver.make("mine", tmp_path)
    (folder / "README.md").write_text("my work")
    with pytest.raises(UsageError, match="cannot be made: File exists"):
        new_driver.make("mine", tmp_path)
    assert (folder / "README.md").read_text() == "my work"


@pytest.mark.parametrize("name", ["", "2n", "Mine", "my_own", "my--own", "mine-", "../x", "a" * 33, "ä"])
def test_a_name_that_no_topic_and_no_package_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a driver's name"):
        new_driver.make(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_driver_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(drivers, ["new", "loopback", "--directory", str(tmp_path)], obj=Settings())
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "readme",
    [*REPOSITORY.glob("examples/*/README.md"), REPOSITORY / "drivers/optima_drivers/_template/README.md"],
    ids=lambda path: path.parent.name,
)
def test_its_readme_names_the_file_that_the_daemon_reads(readme: Path) -> None:
    assert set(re.findall(r"/etc/[\w./-]+", readme.read_text(encoding="utf-8"))) == {str(ConfigPaths().main)}


def test_it_ends_with_what_to_type_next(tmp_path: Path) -> None:
    done = CliRunner().invoke(drivers, ["new", "mine", "--directory", str(tmp_path)], obj=Settings())
    steps = [
        f"cd {tmp_path}/optima-driver-mine",
        "python -m pip install -e . pytest",
        "python -m pytest",
        "bridge drivers show mine",
    ]
    assert [line.strip() for line in done.output.splitlines()[1:]] == steps
    done = CliRunner().invoke(drivers, ["new", "yours", "--directory", str(tmp_path)], obj=Settings(json=True))
    assert json.loads(done.output)["folder"] == f"{tmp_path}/optima-driver-yours"


@pytest.mark.parametrize(
    "example", sorted((REPOSITORY / "examples").glob("optima-driver-*")), ids=lambda path: path.name
)
def test_an_example_passes_its_own_tests_and_knows_the_contract_only(example: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(example, tmp_path / example.name)
    install(folder)
    last_line = run(folder, "pytest", "-q", "-p", "no:cacheprovider").splitlines()[-1]
    assert re.match(r"\d+ passed in ", last_line), last_line
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("optima_driver_*/*.py"))
    known = {*re.findall(r"^from optima_bridge\.(\w+)", source, re.MULTILINE)}
    assert known <= {"driver", "link", "model", "presence", "errors", "wire", "store", "secrets", "reports"}
