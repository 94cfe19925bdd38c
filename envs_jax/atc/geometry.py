"""Distances, closest points of approach, and each pair of aircraft once.

Arrays are [..., N, B]: aircraft on the last axis but one, the batch last.

Pairs are kept by the distance of their indices: entry [s - 1, i] is the pair of aircraft i and (i + s) mod N, for s
from 1 to N // 2. Slices of the doubled array give all partners at once, without gathers; for even N the last row holds
every pair twice, which `once` says.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc.kinematics import DEG
from envs_jax.atc.params import EARTH_NM, FAR_NM, NOBODY_NM

NM_PER_DEG = EARTH_NM * DEG


def others(x, count: int | None = None) -> list[jax.Array]:
    """`x` [..., N, B] of aircraft (i + s) mod N for s = 1 .. count (all N - 1), each [..., N, B]."""
    n = x.shape[-2]
    doubled = jnp.concatenate([x, x], axis=-2)
    return [doubled[..., s : s + n, :] for s in range(1, (n - 1 if count is None else count) + 1)]


def partners(x) -> list[jax.Array]:
    """`x` of the partners in all pairs: `others` up to N // 2."""
    return others(x, x.shape[-2] // 2)


def once(n: int) -> np.ndarray:
    """[N // 2, N, 1] bool: entries that name every pair exactly once."""
    marks = np.ones((n // 2, n, 1), bool)
    if n % 2 == 0:
        marks[-1, n // 2 :] = False
    return marks


def both(flag) -> jax.Array:
    """Pairs of which both are `flag` [N, B]: [N // 2, N, B]."""
    return jnp.stack([flag & other for other in partners(flag)])


def least_of_each(pairs) -> jax.Array:
    """Smallest pair value of each aircraft: [N // 2, N, B] to [N, B]."""
    n = pairs.shape[-2]
    as_partner = (jnp.concatenate([pairs[s - 1, n - s :], pairs[s - 1, : n - s]]) for s in range(1, n // 2 + 1))
    return jnp.min(jnp.stack([*pairs, *as_partner]), axis=0)


def least_of_all(pairs) -> jax.Array:
    """Smallest pair value: [N // 2, N, B] to [B]."""
    return jnp.min(pairs, axis=(0, 1))


def total(pairs) -> jax.Array:
    """Sum over pairs, each once: [N // 2, N, B] to [B]. Written out: CPUs are slow at reductions over first axes."""
    shifts, n = pairs.shape[:2]
    marks = once(n)
    return sum(pairs[s, i] for s in range(shifts) for i in range(n) if marks[s, i, 0])


def count_of_each(pairs) -> jax.Array:
    """Number of true pairs of each aircraft: bool [N // 2, N, B] to float [N, B]."""
    n = pairs.shape[-2]
    single = (pairs & once(n)).astype(jnp.result_type(float))
    return sum(single[s - 1] + jnp.roll(single[s - 1], s, axis=0) for s in range(1, n // 2 + 1))


def matrix(pairs, diagonal: float = FAR_NM) -> jax.Array:
    """Pair values as a symmetric [N, N, B]."""
    n = pairs.shape[-2]
    own, shift = np.divmod(np.arange(n * n), n)
    shift = (shift - own) % n
    swap = shift > n // 2
    row, column = np.where(swap, n - shift, shift) - 1, np.where(swap, (own + shift) % n, own)
    values = pairs[np.maximum(row, 0), column].reshape(n, n, -1)
    return jnp.where(np.eye(n, dtype=bool)[:, :, None], diagonal, values)


def flat(dlat_1, dlon_1, dlat_2, dlon_2, cos_at):
    """`(north, east)` in NM from 1 to 2; `cos_at(dlat)` is the cosine of the latitude."""
    north = NM_PER_DEG * (dlat_2 - dlat_1)
    east = NM_PER_DEG * (dlon_2 - dlon_1) * cos_at(0.5 * (dlat_1 + dlat_2))
    return north, east


def great_circle_nm(dlat_1, dlon_1, dlat_2, dlon_2, lat_deg):
    """Distance by haversines, NM; offsets from the centre at latitude `lat_deg`."""
    half_lat, half_lon = (jnp.sin(0.5 * DEG * (b - a)) for a, b in ((dlat_1, dlat_2), (dlon_1, dlon_2)))
    cosines = jnp.cos(DEG * (lat_deg + dlat_1)) * jnp.cos(DEG * (lat_deg + dlat_2))
    a = half_lat**2 + cosines * half_lon**2
    return 2 * EARTH_NM * jnp.arctan2(jnp.sqrt(a), jnp.sqrt(1 - a))


def great_circle_course(dlat_1, dlon_1, dlat_2, dlon_2, lat_deg):
    """`(north, east)` along the great circle from 1 to 2 as it starts, of no particular length."""
    lat_1, lat_2 = (DEG * (lat_deg + dlat) for dlat in (dlat_1, dlat_2))
    half = jnp.sin(0.5 * DEG * (dlon_2 - dlon_1))
    north = jnp.sin(DEG * (dlat_2 - dlat_1)) + 2 * jnp.sin(lat_1) * jnp.cos(lat_2) * half**2
    return north, jnp.sin(DEG * (dlon_2 - dlon_1)) * jnp.cos(lat_2)


def closest_approach(north, east, rate_north, rate_east, horizon_s=None):
    """`(tcpa, dcpa)` of relative position in NM and relative velocity in NM/s.

    tcpa is not clipped and 0 at equal velocities; dcpa is that of the future, so a pair that separates has its present
    distance, and up to `horizon_s` where one is given. Finite everywhere.
    """
    speed2 = rate_north**2 + rate_east**2
    still = speed2 < 1e-12
    tcpa = jnp.where(still, 0.0, -(north * rate_north + east * rate_east) / jnp.where(still, 1.0, speed2))
    ahead = jnp.maximum(tcpa, 0.0)
    ahead = ahead if horizon_s is None else jnp.minimum(ahead, horizon_s)
    dcpa = jnp.sqrt((north + rate_north * ahead) ** 2 + (east + rate_east * ahead) ** 2)
    return tcpa, dcpa


def loss_window(north, east, rate_north, rate_east, radius_nm):
    """`(in, out, predicted)`: seconds until the pair is closer than `radius_nm`, and until it is no longer.

    Where no loss is predicted at any time both are 0 and `predicted` is False.
    """
    speed2 = rate_north**2 + rate_east**2
    still = speed2 < 1e-12
    speed2 = jnp.where(still, 1.0, speed2)
    tcpa = -(north * rate_north + east * rate_east) / speed2
    miss2 = (north + rate_north * tcpa) ** 2 + (east + rate_east * tcpa) ** 2
    inside = (miss2 < radius_nm**2) & ~still
    half = jnp.sqrt(jnp.where(inside, radius_nm**2 - miss2, 0.0) / speed2)
    return jnp.where(inside, tcpa - half, 0.0), jnp.where(inside, tcpa + half, 0.0), inside


def alone_or(least, limit: float = FAR_NM):
    """Separation with `NOBODY_NM` where there is nobody."""
    return jnp.where(least < limit, least, NOBODY_NM)
