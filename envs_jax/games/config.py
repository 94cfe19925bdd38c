"""The keys of `env` for `matrix` and `two_state`: strict, documented, checked before anything is built."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

MOST_ENTRIES = 1_000_000
"""Of a payoff table: the bound looks at every one."""

STANDARD = ((8.0, -12.0, -12.0), (-12.0, 0.0, 0.0), (-12.0, 0.0, 0.0))
"""The game whose optimum no monotonic value has as its maximum (Son et al. 2019; Wang et al. 2021, table 2)."""


class MatrixConfig(BaseModel):
    """A game of one step: every agent chooses, and all are paid the entry of the table at their joint choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    payoff: tuple[Any, ...] = Field(
        STANDARD, description="nested lists, one level for each agent: payoff[a][b] where the first chooses a, then b"
    )

    @field_validator("payoff")
    @classmethod
    def _is_a_table(cls, payoff: tuple[Any, ...]) -> tuple[Any, ...]:
        table_of(payoff)
        return payoff


class TwoStateConfig(BaseModel):
    """Two agents that are paid for staying together; once both leave, nothing is paid any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizon: int = Field(10, ge=1, le=10_000, description="steps after which an episode is cut off")


def table_of(payoff: Any) -> np.ndarray:
    """Payoffs as float32 [n_1, ..., n_A].

    Raises:
        ValueError: a list that is empty or unlike its neighbours, an entry that is no finite number, or too many.
    """
    shape = _shape_of(payoff, "payoff")
    if np.prod(shape, dtype=np.float64) > MOST_ENTRIES:
        raise ValueError(f"payoff has {' x '.join(map(str, shape))} entries: at most {MOST_ENTRIES:,}")
    return np.asarray(payoff, np.float32)


def _shape_of(part: Any, place: str) -> tuple[int, ...]:
    if not isinstance(part, list | tuple):
        if isinstance(part, bool) or not isinstance(part, int | float) or not np.isfinite(part):
            raise ValueError(f"{place} is {part!r}: write a finite number")
        return ()
    if not part:
        raise ValueError(f"{place} is an empty list: every agent needs a choice")
    shapes = [_shape_of(inner, f"{place}[{index}]") for index, inner in enumerate(part)]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"{place}[{index}] has {_words(shape)} and {place}[0] has {_words(shapes[0])}: the lists of one level "
                "must be alike"
            )
    return (len(part), *shapes[0])


def _words(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} entries" if shape else "a number"
