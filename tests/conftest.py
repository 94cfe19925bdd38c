"""Fixtures that several test files share, and how tests compile."""

import atexit
import gc
import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jax
import jaxlib.version
import pytest

from envs_jax.bess.data import MarketDays, load_market
from envs_jax.bess.params import limits_of

# Compiling is most of what tests do, and code that runs for milliseconds gains nothing from being good. These make it
# three to four times cheaper: no optimisation by LLVM, the older and plainer emitters, and one part of a module instead
# of one for every thread, since the workers fill the processors anyway. None of them trades precision. They are read
# when the first computation starts, which no import does; processes that tests start inherit them.
CHEAP = ["backend_optimization_level=0", "cpu_parallel_codegen_split_count=1"]
if jaxlib.version.__version_info__ <= (0, 10, 2):  # later ones may not have the flag, and end a process that sets it
    CHEAP.append("cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*(f"--xla_{flag}" for flag in CHEAP), os.environ.get("XLA_FLAGS", "")])

# Threads that can be devices; a program uses one of them unless it asks for more.
jax.config.update("jax_num_cpu_devices", 4)
jax.devices()  # from here on the number stays, also when a test runs a command that asks for fewer

# GPUs multiply matrices with ten bits of mantissa unless told otherwise, and tests compare with exact loops.
jax.config.update("jax_default_matmul_precision", "highest")

# A random key that is used twice is an error in every test, except where `same_keys` compares two ways to one result.
jax.config.update("jax_debug_key_reuse", True)


# Files, processes and commands of one run of the suite compile each program once between them: what one has compiled
# the others read from a folder, which the process that started them removes. As environment variables these settings
# also reach the processes that tests start.
KEPT = {"persistent_cache_min_compile_time_secs": 0, "persistent_cache_min_entry_size_bytes": 0}
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="purerl-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, value in {"compilation_cache_dir": folder, **KEPT}.items():
        os.environ[f"JAX_{name.upper()}"] = str(value)
        jax.config.update(f"jax_{name}", value)


def pytest_addoption(parser):
    parser.addoption("--times", action="store_true", help="print the time of every file and the slowest twenty tests")


def pytest_configure(config):
    if config.getoption("times"):
        config.pluginmanager.register(importlib.import_module("times"))


def pytest_collection_finish():
    """What has been imported stays: the collector, which tracing calls often, need not look at it every time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


MOST_PROGRAMS = 400
"""Kept in a process before all are freed: those of the whole suite would fill gigabytes, and freeing takes a second."""
compiled = Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.update([event]))


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    yield
    if compiled["/jax/core/compile/backend_compile_duration"] > MOST_PROGRAMS:
        compiled.clear()
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def same_keys():
    """The test draws the same numbers twice on purpose."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def market() -> MarketDays:
    """The packaged Dutch days of 2021 and 2022."""
    return load_market(None, limits_of("default"))


@pytest.fixture(scope="session")
def plain_plant():
    """The module `benchmarks/plain_plant.py`, an independent reference of the physics."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)  # where the scripts find what they share
    try:
        return importlib.import_module("plain_plant")
    finally:
        sys.path.remove(folder)
