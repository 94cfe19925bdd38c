"""The imports of the packages keep their rules: see `benchmarks/structure.py`, which draws them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 400


@pytest.fixture(scope="module")
def structure():
    spec = importlib.util.spec_from_file_location("structure", ROOT / "benchmarks" / "structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def modules(structure):
    return structure.read_modules()


def test_imports_run_one_way(structure, modules):
    assert len(modules) > 80
    assert structure.circles(modules) == []
    assert structure.upward(modules) == []


def test_circles_and_ways_up_are_found(structure):
    made = {
        name: structure.Module(name, 1, frozenset(imports))
        for name, imports in {"purerl.nets.a": {"purerl.learn.b"}, "purerl.learn.b": {"purerl.nets.a"}}.items()
    }
    assert structure.circles(made) == [["purerl.learn.b", "purerl.nets.a"]]
    assert structure.upward(made) == [("purerl.nets.a", "purerl.learn.b")]


def test_no_file_is_long_without_a_reason(modules):
    long = {name for name, module in modules.items() if module.lines > MOST_LINES}
    assert long == set(), "split them by purpose, or say the reason in the first lines and here"
