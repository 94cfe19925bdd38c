"""An exported policy takes masks and gives mixed actions as the policy in Python does."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from shared import with_data

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Product
from purerl import export
from purerl.algos import ppo
from purerl.nets.networks import NetworkConfig
from purerl.run import runs

SPACES = {"choices": Discrete(3), "mixed": Product((Discrete(3), Box(-1.0, 1.0, (2,))))}
MEMORY = NetworkConfig(cell="gru", lstm_hidden_size=4, hidden_sizes=(4,))


def masked_world(kind: str) -> Environment:
    """One step; the first choice is illegal where the observation is negative."""
    legal = lambda obs: jnp.stack([obs[0] > 0, jnp.array(True), jnp.array(True)])  # noqa: E731

    def reset_env(key, params):
        obs = jax.random.normal(key, (2,))
        return obs, obs

    def step_env(key, obs, action, params):
        return obs, obs, jnp.zeros(()), jnp.array(True), jnp.array(False), {}

    return Environment(
        name="masked",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-9.0, 9.0, (2,)),
        action_space=lambda params: SPACES[kind],
        action_mask=lambda obs, params: legal(obs) if kind == "choices" else (legal(obs), None),
    )


@pytest.mark.parametrize("kind", SPACES)
def test_masks_memory_and_mixed_actions_survive_the_export(kind, monkeypatch):
    env = with_agent_axis(masked_world(kind))
    algorithm = with_data(ppo.make(ppo.Config(actor=MEMORY, critic=MEMORY), env))
    policy = algorithm.policy(algorithm.init(jax.random.key(0), algorithm.hparams))
    policy = policy._replace(actor=jax.tree.map(lambda x: 3 * x + 0.1, policy.actor))
    settings = SimpleNamespace(env={"name": "masked"}, algo={"name": "ppo"}, seed=0)
    run = SimpleNamespace(config=settings, env=env, algorithm=algorithm)
    monkeypatch.setattr(runs, "open_run", lambda run_dir, **_: run)
    monkeypatch.setattr(runs, "read_policy", lambda *_: (policy, {"epoch": 1}))
    monkeypatch.setattr(runs, "pick_seed", lambda *_: (policy, 0))

    loaded = export.load_policy("run")
    exported = export.export_policy(loaded)
    assert [mask["shape"] for mask in exported.metadata["masks"]] == [[None, 3]]
    program = jax_export.deserialize(bytearray(exported.artefact))
    obs = jax.random.normal(jax.random.key(1), (40, 2))
    legal = jnp.stack([obs[:, 0] > 0, obs[:, 0] > 9, jnp.ones(40, bool)], axis=-1)
    mask = legal if kind == "choices" else (legal, None)
    memory = loaded.initial_carry(40)
    carry = jax.tree.leaves(memory)
    for _ in range(2):
        wanted, memory = loaded.act(obs, memory, mask)
        *actions, last = program.call(obs, *carry, legal)
        carry = [last]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actions, jax.tree.leaves(wanted))
        choice = np.asarray(actions[0])
        assert np.asarray(legal)[np.arange(40), choice].all()
        assert len(np.unique(choice)) == 2
    np.testing.assert_allclose(carry[0], jax.tree.leaves(memory)[0], atol=1e-6)
