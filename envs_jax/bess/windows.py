"""Price windows of one day that rules, observations and the peak-window action share.

Every function takes the 24 prices of one day, has static shapes (jit and vmap over days) and breaks ties by the
earliest hour. Reading order: the two peaks, the windows around them, the cheap hours before and between them.
"""

import jax
import jax.numpy as jnp

from envs_jax.bess.params import HOURS

NOON = 12
"""First hour of the second half day: windows and depth of discharge restart here."""


def peak_hours(price_eur_per_mwh: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hours k1 in 0..11 and k2 in 12..23 of the dearest price of either half of the day [24] (section 4)."""
    return jnp.argmax(price_eur_per_mwh[:NOON]), NOON + jnp.argmax(price_eur_per_mwh[NOON:])


def peak_window(price_eur_per_mwh: jax.Array, half_width: int = 1) -> jax.Array:
    """Hours [24] (bool) within `half_width` of the peak of their own half day: W of section 4.

    `half_width` 0 gives the two single hours of Cardo-Miota et al., Applied Energy 388 (2025) 125561.
    """
    hour = jnp.arange(HOURS)
    k1, k2 = peak_hours(price_eur_per_mwh)
    return jnp.abs(hour - jnp.where(hour < NOON, k1, k2)) <= half_width


def price_rank(price_eur_per_mwh: jax.Array, candidate: jax.Array) -> jax.Array:
    """How many candidate hours [24] (bool) come before each hour when sorted by price, then by hour."""
    price, hour = price_eur_per_mwh, jnp.arange(HOURS)
    # Comparing all pairs keeps the tie rule explicit and needs no sort, which is slow on accelerators under vmap.
    earlier = (price[None, :] < price[:, None]) | ((price[None, :] == price[:, None]) & (hour[None, :] < hour[:, None]))
    return jnp.sum(earlier & candidate[None, :], axis=1)


def cheapest(price_eur_per_mwh: jax.Array, candidate: jax.Array, count: int) -> jax.Array:
    """The `count` cheapest hours [24] (bool) of the candidates; all of them where there are fewer."""
    return candidate & (price_rank(price_eur_per_mwh, candidate) < count)


def cheap_hours(price_eur_per_mwh: jax.Array, count: int = 3) -> jax.Array:
    """Hours [24] (bool) to charge in: the `count` cheapest before k1 and the `count` cheapest between k1 and k2.

    Observation 20 of section 8 (`is_cheap`). Neither peak hour is a candidate; a peak at hour 0 leaves no first group.
    """
    hour = jnp.arange(HOURS)
    k1, k2 = peak_hours(price_eur_per_mwh)
    before = cheapest(price_eur_per_mwh, hour < k1, count)
    between = cheapest(price_eur_per_mwh, (hour > k1) & (hour < k2), count)
    return before | between
