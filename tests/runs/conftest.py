import jax
import pytest
from helpers import keep_compiled_programs, register_fakes, write_config
from jax.experimental.compilation_cache import compilation_cache

from purerl import train


@pytest.fixture(autouse=True, scope="module")
def fake_names():
    with pytest.MonkeyPatch.context() as patch:
        register_fakes(patch.setitem)
        yield


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True, scope="module")
def compile_once(compiled_programs):
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    compilation_cache.reset_cache()
    keep_compiled_programs(compiled_programs)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def config_file(tmp_path):
    return write_config(tmp_path)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """Directory of an uninterrupted run of the base configuration."""
    directory = tmp_path_factory.mktemp("reference")
    run_dir = directory / "run"
    assert train.main(["--config", str(write_config(directory)), "--run-dir", str(run_dir)]) == 0
    return run_dir
