"""What tests of all folders share."""

from purerl.types import Algorithm


def with_data(algorithm: Algorithm) -> Algorithm:
    """`init(key, hparams)` and `update(state)` that read the data of the configured run."""
    data = algorithm.load_data()
    return algorithm._replace(
        init=lambda key, hparams: algorithm.init(key, hparams, data), update=lambda state: algorithm.update(state, data)
    )
