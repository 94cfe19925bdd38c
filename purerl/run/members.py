"""The runs that one file stands for, one after another: stages, and the environments of a suite."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from purerl.config import RunConfig, stages_named_in
from purerl.errors import ConfigError
from purerl.run import metadata, preflight, session, stages
from purerl.run.process import stop_signals
from purerl.run.stored_config import CONFIG


def run_all(
    members: Mapping[str, RunConfig], run_dir: Path | Callable[[], Path], resume: bool, conclude: session.Conclude
) -> int:
    """Train each in a folder of its own and return the exit code; one that does not end well is the last.

    Args:
        run_dir: or a function that makes a new directory.

    Raises:
        ConfigError: as `session.run`; a mistake in a later member is told before the first is trained.
    """
    new = [name for name in members if not (isinstance(run_dir, Path) and _begun(run_dir / name))]
    prepared = _prepared(members, new)
    directory = run_dir if isinstance(run_dir, Path) else run_dir()
    with stop_signals() as stop:  # around all: one that comes between two members starts no other
        for name, config in members.items():
            place = directory / name
            code = session.run(config, place, resume and _begun(place), conclude, stop, prepared.pop(name, None))
            if code != session.EXIT_OK or not metadata.is_complete(place):
                return code
            if stop() and name != list(members)[-1]:
                print(f"interrupted after {name}; continue with --resume")
                return session.EXIT_OK
    return session.EXIT_OK


def begun_in(directory: Path) -> list[str]:
    """Members that have a run in a directory which is itself none."""
    if _begun(directory):
        return []
    return sorted(path.parent.name for path in directory.glob(f"*/{CONFIG}"))


def _begun(directory: Path) -> bool:
    return (directory / CONFIG).exists()


def _prepared(members: Mapping[str, RunConfig], names: Iterable[str]) -> dict[str, preflight.Prepared]:
    """Members as far as they can be prepared before the first is trained; those that cannot be are refused.

    A world in which the policy of an earlier stage acts can be built only when there is that policy.
    """
    prepared: dict[str, preflight.Prepared] = {}
    for name in names:
        config = members[name]
        if stages_named_in(*config.env.values()):
            continue
        try:
            prepared[name] = preflight.prepare(config)
            algorithm, state = prepared[name].trained.algorithm, prepared[name].state
            earlier = stages_named_in(config.starts_from)
            if not earlier:
                stages.learned_before(config, algorithm, state, None)
            elif earlier[0] in prepared:
                stages.require_fitting(config, algorithm, state, prepared[earlier[0]].state)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
    return prepared
