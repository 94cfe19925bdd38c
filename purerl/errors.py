"""What users can put right. Every message is one line that names the place and the remedy. Imports nothing."""


class ConfigError(ValueError):
    """Something the user can put right; the message is one line that names the place and the remedy."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or belongs to another program; the message says which file."""


class DamagedError(CheckpointError):
    """The file is not what was written."""


def is_own(error: BaseException) -> bool:
    """Whether an error is of a kind made here, so that its message is meant for the user."""
    return type(error).__module__.partition(".")[0] in ("purerl", "envs_jax")


class UsageError(ValueError):
    """A command line that cannot be understood."""
