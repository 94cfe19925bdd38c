"""What pilots are told where surveillance errs: reported positions and speeds, and neighbours that go unheard.

Pure functions of random words with the batch last: words [W, B], aircraft [N, B].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.atc.geometry import NM_PER_DEG
from envs_jax.atc.kinematics import DEG, cos_latitude
from envs_jax.atc.params import KNOT_MS, AtcParams
from envs_jax.words import uniform_01


class Reports(NamedTuple):
    """What is said of every aircraft; all pilots are told the same, each of its own aircraft, too."""

    dlat: jax.Array
    """[N, B] deg from the centre."""
    dlon: jax.Array
    tas: jax.Array
    """m/s"""
    heard: jax.Array
    """bool [N - 1, N, B]: pilot i hears of aircraft (i + s) mod N, s = 1 .. N - 1."""


def words(n: int) -> int:
    """Random words of one step of `n` aircraft."""
    return 4 * n + n * (n - 1)


def reports(words, dlat, dlon, tas, params: AtcParams) -> Reports:
    """The truth [N, B] with normal errors, and who hears of whom.

    Args:
        words: uint32 [words(N), B].
        params: with `sensing`.
    """
    sensing, n = params.sensing, dlat.shape[0]
    assert sensing is not None
    (north, east), (faster, _) = _normals(words[: 2 * n]), _normals(words[2 * n : 4 * n])
    per_nm, cos, sin = 1 / NM_PER_DEG, jnp.cos(DEG * params.lat), jnp.sin(DEG * params.lat)
    lost = uniform_01(words[4 * n :]).reshape(n - 1, n, -1)
    return Reports(
        dlat=dlat + per_nm * sensing.position_nm * north,
        dlon=dlon + per_nm * sensing.position_nm * east / cos_latitude(cos, sin, dlat),
        tas=tas + KNOT_MS * sensing.speed_kt * faster,
        heard=lost >= sensing.dropout,
    )


def _normals(words):
    """Two arrays [N, B] of standard normal numbers of words [2 N, B] (Box and Muller 1958)."""
    first, second = jnp.split(uniform_01(words), 2)
    radius, angle = jnp.sqrt(-2 * jnp.log1p(-first)), 2 * jnp.pi * second
    return radius * jnp.cos(angle), radius * jnp.sin(angle)
