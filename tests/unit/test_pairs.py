"""Actor and critic side by side give what they give apart, and their parameters survive the way there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.spaces import Box, Discrete, Product
from purerl.nets import pairs
from purerl.nets.actor_critic import ActorCritic, Memory
from purerl.nets.networks import ConvConfig, NetworkConfig

MLP = NetworkConfig(hidden_sizes=(8, 6), activation="tanh")
MIXED = Product((Discrete(3, (1,)), Box(-1.0, 1.0, (1, 2))))
NO_MEMORY = Memory((), (), None)


def nets_of(actor=MLP, critic=MLP, same_input=True, space=MIXED):
    return ActorCritic(actor, critic, space, obs_dim=5, critic_dim=5, same_input=same_input)


@pytest.mark.parametrize("space", [MIXED, Discrete(4, (1,)), Box(-1.0, 1.0, (1, 1))], ids=["mixed", "choices", "range"])
def test_side_by_side_equals_one_after_the_other(space, same_keys):
    nets, apart = nets_of(space=space), nets_of(space=space, same_input=False)
    params = jax.tree.map(lambda x: x + 0.1, nets.init(jax.random.key(0)))
    obs = jax.random.normal(jax.random.key(1), (7, 5))

    def total(nets):
        def of(params):
            outputs, values = nets.outputs_and_values(nets.packed(params), obs, obs, NO_MEMORY)
            terms = jax.tree.leaves((outputs, values))
            return sum(jnp.sum(jnp.sin(k + x)) for k, x in enumerate(terms)), (outputs, values)

        return jax.jit(jax.value_and_grad(of, has_aux=True))(params)

    assert nets.side_by_side and not apart.side_by_side
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), total(nets), total(apart))


def test_parameters_survive_packing():
    nets = nets_of()
    params = nets.init(jax.random.key(0))
    restored = nets.unpacked(nets.packed(params), params)
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, restored, params)


@pytest.mark.parametrize(
    "other",
    [
        {"hidden_sizes": (8, 5)},
        {"activation": "relu"},
        {"lstm_hidden_size": 4},
    ],
)
def test_networks_of_other_shapes_stay_apart(other):
    assert pairs.can_pair(MLP, MLP)
    assert not pairs.can_pair(MLP, MLP.model_copy(update=other))


def test_memory_pictures_and_linear_policies_stay_apart():
    for update in ({"lstm_hidden_size": 4}, {"conv": ConvConfig(grid=(3, 3, 1))}, {"hidden_sizes": ()}):
        config = MLP.model_copy(update=update)
        assert not pairs.can_pair(config, config)
