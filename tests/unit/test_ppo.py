"""PPO's loss against numbers computed row by row, its keys, and the rules of a traced algorithm."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onpolicy_cases import LEGAL, LINEAR, LSTM, layer, linear_case, log_softmax, walk_world
from pydantic import ValidationError
from replay_cases import trees_equal
from shared import with_data

from envs_jax.spaces import Box, Discrete
from purerl.algos import ppo
from purerl.learn import policy_gradient
from purerl.learn.actors import TANH
from purerl.learn.policy_gradient import Coefficients, adapted_kl_coef, clipped_surrogate
from purerl.nets.actor_critic import Memory
from purerl.nets.networks import ConvConfig
from purerl.nets.policies import env_action
from purerl.run import checkpoint

CONFIG = ppo.Config(actor=LINEAR, critic=LINEAR, num_envs=2, steps_per_update=8, minibatches=2, epochs=2)


@pytest.mark.parametrize("value_clip", [0.2, None])
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_loss_row_by_row(value_clip, kl_coef):
    config = CONFIG.model_copy(update={"value_clip": value_clip, "kl_coef": kl_coef})
    nets, params, batch = linear_case(config)
    c = Coefficients(lr=0.0, lr_factor=1.0, entropy=0.05, value=0.5, kl=kl_coef)
    objective = partial(clipped_surrogate, clip=0.2)
    total, watched = policy_gradient.loss(nets, config, objective, params, batch, Memory((), (), None), c)

    w, b = layer(params["actor"]["head"])
    wv, bv = layer(params["critic"]["head"])
    policy_losses, value_losses, entropies, kls, far = [], [], [], [], []
    for i in range(5):
        x = np.asarray(batch.obs[i], np.float64)
        log_p = log_softmax(np.where(LEGAL[i], x @ w + b, -1e9))
        log_q = log_softmax(np.where(LEGAL[i], np.asarray(batch.old_outputs.head[i], np.float64), -1e9))
        ratio = np.exp(log_p[batch.raw_action[i]] - log_q[batch.raw_action[i]])
        advantage = float(batch.advantage[i])
        policy_losses.append(-min(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage))
        value = (x @ wv + bv)[0]
        error = (value - float(batch.target[i])) ** 2
        if value_clip is not None:
            near = float(batch.old_value[i]) + np.clip(value - float(batch.old_value[i]), -value_clip, value_clip)
            error = max(error, (near - float(batch.target[i])) ** 2)
        value_losses.append(error / 2)
        p = np.exp(log_p)
        entropies.append(-sum(p[k] * log_p[k] for k in range(3) if p[k] > 0))
        kls.append(sum(np.exp(log_q[k]) * (log_q[k] - log_p[k]) for k in range(3) if LEGAL[i, k]))
        far.append(abs(ratio - 1) > 0.2)
    expected = np.mean(policy_losses) + 0.5 * np.mean(value_losses) - 0.05 * np.mean(entropies) + kl_coef * np.mean(kls)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(watched["policy_loss"]) == pytest.approx(np.mean(policy_losses), rel=1e-5)
    assert float(watched["value_loss"]) == pytest.approx(np.mean(value_losses), rel=1e-5)
    assert float(watched["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-5)
    assert float(watched["clip_fraction"]) == pytest.approx(np.mean(far))


def test_at_the_old_policy_the_gradient_is_the_policy_gradient():
    """Ratio one: the surrogate's gradient is that of mean(advantage * log pi)."""
    nets, params, batch = linear_case(CONFIG)
    outputs = nets.outputs(params["actor"], batch.obs)
    dist = nets.distribution(outputs, batch.legal)
    batch = batch._replace(old_outputs=outputs, old_log_prob=dist.raw_log_prob(batch.raw_action))
    c = Coefficients(lr=0.0, lr_factor=1.0, entropy=0.0, value=0.0, kl=0.0)
    objective = partial(clipped_surrogate, clip=0.2)

    def surrogate(actor):
        learner = {**params, "actor": actor}
        return policy_gradient.loss(nets, CONFIG, objective, learner, batch, Memory((), (), None), c)[0]

    def plain(actor):
        dist = nets.distribution(nets.outputs(actor, batch.obs), batch.legal)
        return -jnp.mean(batch.advantage * dist.raw_log_prob(batch.raw_action))

    ours, reference = jax.grad(surrogate)(params["actor"]), jax.grad(plain)(params["actor"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, reference)


@pytest.mark.parametrize(("kl", "factor"), [(0.001, 0.5), (0.01, 1.0), (0.02, 2.0)])
def test_the_kl_coefficient_follows_its_target(kl, factor):
    config = CONFIG.model_copy(update={"kl_coef": 0.2, "kl_target": 0.01})
    assert float(adapted_kl_coef(config, jnp.float32(0.2), jnp.float32(kl))) == pytest.approx(0.2 * factor)
    assert float(adapted_kl_coef(CONFIG, jnp.float32(0.2), jnp.float32(kl))) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minibatches": 5}, "must divide num_envs . steps_per_update = 16"),
        ({"minibatches": 4, "actor": {"lstm_hidden_size": 4}}, "must divide num_envs = 2"),
        ({"kl_target": 0.01}, "set kl_coef above 0"),
        ({"clip": 0.0}, "greater than 0"),
        ({"clipp": 0.1}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        ppo.Config(**{**CONFIG.model_dump(), **changes})


# Updates


def one_update(config, env, seed=0):
    algorithm = with_data(ppo.make(config, env))
    state = algorithm.init(jax.random.key(seed), algorithm.hparams)
    with jax.debug_key_reuse(True):
        return algorithm, state, *jax.jit(algorithm.update)(state)


PICTURE_GRU = LSTM.model_copy(update={"cell": "gru", "conv": ConvConfig(grid=(1, 2, 1), features=(3,), kernel=1)})
KINDS = {
    "normal": (CONFIG, None),
    "squashed": (
        CONFIG.model_copy(update={"policy": "squashed", "normalize_obs": True, "normalize_reward": True}),
        None,
    ),
    "discrete": (CONFIG.model_copy(update={"kl_coef": 0.1, "kl_target": 0.01}), Discrete(3)),
    "recurrent": (CONFIG.model_copy(update={"actor": LSTM, "critic": LSTM}), None),
    "recurrent actor alone, gru after a convolution": (CONFIG.model_copy(update={"actor": PICTURE_GRU}), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_changes_every_parameter_and_is_finite(kind):
    config, space = KINDS[kind]
    _, before, after, metrics = one_update(config, walk_world(space))
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    for old, new in zip(jax.tree.leaves(before.learner.params), jax.tree.leaves(after.learner.params), strict=True):
        assert (np.asarray(old) != np.asarray(new)).any()


def test_actions_are_in_units_of_the_half_range_and_stay_inside():
    raw = jnp.array([-5.0, -1.0, 0.0, 0.5, 1.0, 5.0])
    np.testing.assert_allclose(env_action(Box(-2.0, 6.0, (6,)), raw), [-2, -2, 2, 4, 6, 6])


def test_beyond_the_target_kl_nothing_changes_any_more():
    config = CONFIG.model_copy(update={"target_kl": 1e-9, "lr": 0.05, "epochs": 5, "minibatches": 1})
    _, _, after, metrics = one_update(config, walk_world())
    once = config.model_copy(update={"epochs": 1, "target_kl": None})
    assert float(metrics["steps_taken"]) == pytest.approx(0.2)
    _, _, single, _ = one_update(once, walk_world())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.learner.params, single.learner.params)


def test_statistics_are_those_of_what_was_seen():
    config = CONFIG.model_copy(update={"normalize_obs": True})
    _, _, after, _ = one_update(config, walk_world())
    assert float(after.learner.obs_stats.count) == config.env_steps()
    assert (np.asarray(after.learner.obs_stats.variance) > 0).all()


def test_the_memory_of_a_roll_out_gives_the_log_probabilities_of_acting():
    """Re-reading the sequences with their resets gives the outputs that the policy acted with: the first ratio is one.

    One epoch of one minibatch, so the watched KL and clip fraction are those at the old parameters.
    """
    config = KINDS["recurrent"][0].model_copy(update={"epochs": 1, "minibatches": 1, "steps_per_update": 13})
    algorithm, _, state, _ = one_update(config, walk_world())
    _, metrics = jax.jit(algorithm.update)(state)  # the second roll-out starts in the middle of an episode
    assert float(metrics["approx_kl"]) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics["clip_fraction"]) == 0.0


# One program for chunks, seeds and single runs

SIDE_BY_SIDE = CONFIG.model_copy(update={"actor": TANH, "critic": TANH})
PROGRAMS = {"side by side": SIDE_BY_SIDE, "recurrent": KINDS["recurrent"][0]}
SHORT_AND_LONG = ["side by side", pytest.param("recurrent", marks=pytest.mark.slow)]


def several(update, count):
    return lambda state: jax.lax.scan(lambda s, _: (update(s)[0], None), state, length=count)[0]


@pytest.mark.parametrize("kind", SHORT_AND_LONG)
def test_two_chunks_are_one_run_and_traced_once(kind, tmp_path):
    """Bit for bit, with donated states, also where the second chunk starts from a file."""
    chex.clear_trace_counter()  # it counts functions of one name together
    algorithm = with_data(ppo.make(PROGRAMS[kind], walk_world()))
    init = jax.jit(algorithm.init)
    chunk = jax.jit(several(chex.assert_max_traces(algorithm.update, n=1), 2), donate_argnums=0)
    whole = jax.jit(several(algorithm.update, 4))(init(jax.random.key(5), algorithm.hparams))
    half = chunk(init(jax.random.key(5), algorithm.hparams))
    writer = checkpoint.Writer(tmp_path)
    writer.save(1, {"state": half}, {})
    writer.wait()
    tree, _ = checkpoint.restore(tmp_path, {"state": jax.eval_shape(lambda: half)})
    restored = tree["state"]
    assert trees_equal(chunk(half), whole)
    assert trees_equal(chunk(restored), whole)


@pytest.mark.parametrize("kind", SHORT_AND_LONG)
def test_a_seed_under_vmap_is_a_single_run(kind, same_keys):
    algorithm = with_data(ppo.make(PROGRAMS[kind], walk_world()))

    def train(seed):
        return several(algorithm.update, 2)(algorithm.init(jax.random.key(seed), algorithm.hparams)).learner.params

    many, single = jax.jit(jax.vmap(train))(jnp.array([5, 6])), jax.jit(train)(6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), many, single)
