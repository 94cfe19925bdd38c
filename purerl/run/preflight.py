"""What is found out about a run before anything is written, so that what can be refused is refused at its start."""

from functools import partial

from purerl.errors import ConfigError
from purerl.run import stopping
from purerl.run.runs import Run, require_split, require_training_split, user_input
from purerl.run.steps import cases_to_write


def require_sound(trained: Run) -> None:
    """Raise ConfigError, or an error of the environment, for settings that this world or this length cannot have."""
    _require_splits(trained)
    stopping.require_known(trained.config.evaluation, trained.env)
    _require_cases(trained)
    _require_time_to_learn(trained)


def _require_splits(trained: Run) -> None:
    """There is something to train on, to choose by and to be scored on."""
    rules = trained.config.evaluation
    require_training_split(trained.env)
    require_split(trained.env, "evaluation.split", rules.split)
    require_split(trained.env, "evaluation.final_split", rules.final_split)


def _require_cases(trained: Run) -> None:
    """The episodes that will be written step by step are there."""
    rules, env = trained.config.evaluation, trained.env
    if rules.quick_dates is not None and env.report is None:
        raise ConfigError(f"evaluation.quick_dates: {env.name} has no named episodes; leave it out")
    splits = [rules.split] if rules.quick_every_epochs is not None or rules.quick_dates is not None else []
    if env.report is not None and env.report.whole:
        splits.append(rules.final_split)
    for split in dict.fromkeys(splits):
        user_input("evaluation.quick_dates", partial(cases_to_write, env, split, rules.quick_dates))


def _require_time_to_learn(trained: Run) -> None:
    algorithm = trained.algorithm
    training = algorithm.num_updates * algorithm.env_steps_per_update
    if training and algorithm.warmup_env_steps > training:
        raise ConfigError(
            f"algo: the warm-up takes {algorithm.warmup_env_steps:,} environment steps and the training after it only "
            f"{training:,}; shorten the one or lengthen the other"
        )
