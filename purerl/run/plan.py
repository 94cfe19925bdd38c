"""How the updates of a run are parted into epochs, and how many environment steps they are."""

from typing import NamedTuple

from purerl.errors import ConfigError
from purerl.types import Algorithm
from purerl.validation import INT32_MAX


class Plan(NamedTuple):
    """Epochs of near-equal length: where they do not divide the updates, the last ones have one update more.

    So there are at most two lengths, each a compiled program of its own, and the longer one is needed late.
    """

    epochs: int
    updates: int

    @property
    def updates_per_epoch(self) -> int:
        """Of the first epochs, all but the longer ones."""
        return self.updates // self.epochs

    @property
    def longer_epochs(self) -> int:
        """How many epochs at the end have one update more."""
        return self.updates % self.epochs

    def updates_after(self, epochs: int) -> int:
        """Updates done after so many epochs."""
        return epochs * self.updates_per_epoch + max(epochs - (self.epochs - self.longer_epochs), 0)

    def updates_of(self, epoch: int) -> int:
        """Updates of one epoch; the first is number 1."""
        return self.updates_after(epoch) - self.updates_after(epoch - 1)


def plan_of(num_updates: int, epochs: int) -> Plan:
    """All `num_updates` updates in as many epochs as wanted, as long as each has an update.

    Raises:
        ConfigError: a run without updates, or with more than the device counts.
    """
    if num_updates < 1:
        raise ConfigError("algo: the run is shorter than one update; raise its length")
    if num_updates > INT32_MAX:
        raise ConfigError(
            f"algo: {num_updates:,} updates, and the device counts to {INT32_MAX:,}; "
            "make updates longer or the run shorter"
        )
    return Plan(min(epochs, num_updates), num_updates)


def env_steps_after(algorithm: Algorithm, updates: int) -> int:
    """Environment steps of one seed, those of the warm-up included, after so many updates."""
    return algorithm.warmup_env_steps + updates * algorithm.env_steps_per_update
