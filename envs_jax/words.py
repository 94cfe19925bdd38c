"""Random 32-bit words by a hash, where calls of the generator of keys would cost more than what is done with them."""

import jax.numpy as jnp


def expanded(seed, count: int, first: int = 0):
    """Words `first`, `first + 1`, ... [count, B] of an endless row, from two words [2, B].

    Their numbers from 1 on times the golden ratio, mixed as in MurmurHash3.

    Random numbers of a start are drawn at every step of every world of a batch, used or not: as many calls of the
    generator of keys took a third of the step's time in air traffic.
    """
    number = (jnp.arange(first + 1, first + count + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9))[:, None]
    return _mixed(_mixed(number + seed[0]) ^ seed[1])


def _mixed(word):
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def uniform_01(words):
    """32-bit words as floats in [0, 1)."""
    return (words >> 8).astype(jnp.result_type(float)) * 2**-24
