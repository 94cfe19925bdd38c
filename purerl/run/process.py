"""What a process does for a run: the device it computes on and the signals that stop it."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

from purerl.config import RunConfig
from purerl.errors import ConfigError
from purerl.learn import sharding


def select_device(config: RunConfig) -> None:
    """Apply `device`, `num_devices`, `cpu_threads` and `deterministic`; has to come before anything is computed.

    Raises:
        ConfigError: `device: gpu` on a machine where JAX finds none.
    """
    if config.deterministic and config.device != "cpu":
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    sharding.provide_cpu_devices(config.num_devices, config.cpu_threads)
    if config.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if config.device == "gpu":
        try:
            jax.devices("gpu")
        except RuntimeError as error:
            raise ConfigError("device: gpu: JAX finds no GPU here; use device: auto or cpu") from error
        jax.config.update("jax_default_device", jax.devices("gpu")[0])
    _warn_of_devices(config)


def _warn_of_devices(config: RunConfig) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.num_devices > cores and jax.default_backend() == "cpu":
        print(f"warning: num_devices {config.num_devices}: there are only {cores} cores to share", file=sys.stderr)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM only ask to stop; a second SIGINT interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this epoch; what is left to do can be resumed", file=sys.stderr)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are not ours
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
