import pytest
from helpers import register_fakes, write_config

from purerl import train


@pytest.fixture(autouse=True, scope="module")
def fake_names():
    with pytest.MonkeyPatch.context() as patch:
        register_fakes(patch.setitem)
        yield


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
