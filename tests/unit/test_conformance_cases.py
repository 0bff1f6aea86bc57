"""No driver is offered that the conformance suite has not seen: every entry point has a case."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from optima_bridge import registry, testing

TESTS = Path(__file__).parents[1]
CONTRACTS = frozenset(name for name in testing.__all__ if name.endswith("Contract"))


def driven(path: Path) -> set[str]:
    """Names of the driver classes for which a test module has a case and the tests; read, not imported."""
    return {
        keyword.value.id
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(kind, ast.ClassDef) and kind.name.startswith("Test")
        if any(isinstance(base, ast.Name) and base.id in CONTRACTS for base in kind.bases)
        for call in ast.walk(kind)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "ConformanceCase"
        for keyword in call.keywords
        if keyword.arg == "driver" and isinstance(keyword.value, ast.Name)
    }


PROVED = {name for path in TESTS.glob("**/test_*.py") for name in driven(path)}


@pytest.mark.parametrize("name", registry.installed())
def test_an_installed_driver_goes_through_the_conformance_suite(name: str) -> None:
    point = registry.installed()[name]
    if point.dist is None or point.dist.name != "optima-bridge":
        pytest.skip("another package's driver is proved by its own tests")
    kind = registry.load(name).__name__
    assert kind in PROVED, f"{point.value}: no class in tests/ inherits a contract with ConformanceCase(driver={kind})"


def test_a_class_counts_only_with_the_contract_and_a_case(tmp_path: Path) -> None:
    module = tmp_path / "test_x.py"
    module.write_text(
        "class TestA(DriverContract):\n    case = ConformanceCase(driver=A, simulator=S)\n"
        "class TestB:\n    case = ConformanceCase(driver=B)\n"
        "class Broken(DriverContract):\n    case = ConformanceCase(driver=C)\n"
    )
    assert driven(module) == {"A"}
