"""IMPALA and APPO: losses against plain loops, lag zero against PPO, what the queue delivers, rules of tracing."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onpolicy_cases import LEGAL, LINEAR, LSTM, layer, linear_case, log_softmax, walk_world
from pydantic import ValidationError
from replay_cases import Run, copied, trees_equal
from shared import with_data

from envs_jax.spaces import Discrete
from purerl.algos import impala, ppo
from purerl.config import load_config
from purerl.learn import policy_gradient
from purerl.learn.actors import Actors
from purerl.learn.minibatches import memory_of
from purerl.learn.policy_gradient import Coefficients
from purerl.nets.actor_critic import Memory
from purerl.nets.networks import NetworkConfig
from purerl.run import checkpoint

SMALL = {"actor": LINEAR, "critic": LINEAR, "num_envs": 4, "steps_per_update": 8, "gamma": 0.9, "vtrace_lambda": 0.8}
LAGGING = impala.Config(**SMALL, actor_lag=2, lr=0.05, kl_coef=0.1)
TARGETED = impala.Config(
    **SMALL, name="appo", actor_lag=1, epochs=1, minibatches=1, target_update_every=2, target_tau=0.5, lr=0.05,
    kl_coef=0.1,
)  # fmt: skip


def restricted_walk():
    """Three moves, of which the last is illegal on the left; walks end at a goal or after five steps."""

    def action_mask(state, params):
        return jnp.array([True, True, False]) | (state[0][0] >= 0)

    return walk_world(Discrete(3), goal=0.15, action_mask=action_mask)


@pytest.fixture(scope="module")
def lagging():
    return Run(impala, LAGGING, updates=5, env=restricted_walk())


@pytest.fixture(scope="module")
def targeted():
    return Run(impala, TARGETED, updates=4, env=restricted_walk())


# Losses


def test_the_policy_gradient_row_by_row():
    """The gradient of the bias is the mean of -min(ratio, limit) * advantage * (one-hot - probabilities)."""
    nets, params, batch = linear_case(LAGGING)
    c = Coefficients(lr=0.0, lr_factor=1.0, entropy=0.0, value=0.0, kl=0.0)
    objective = partial(impala.weighted_policy_gradient, clip_rho=0.7)

    def policy_loss(actor):
        learner = {**params, "actor": actor}
        return policy_gradient.loss(nets, LAGGING, objective, learner, batch, Memory((), (), None), c)[0]

    value, gradient = jax.jit(jax.value_and_grad(policy_loss))(params["actor"])
    w, b = layer(params["actor"]["head"])
    losses, slopes, limited = [], [], []
    for i in range(5):
        log_p = log_softmax(np.where(LEGAL[i], np.asarray(batch.obs[i], np.float64) @ w + b, -1e9))
        ratio = np.exp(log_p[batch.raw_action[i]] - float(batch.old_log_prob[i]))
        limited.append(ratio > 0.7)
        weight = min(ratio, 0.7) * float(batch.advantage[i])
        losses.append(-weight * log_p[batch.raw_action[i]])
        slopes.append(-weight * (np.eye(3)[batch.raw_action[i]] - np.exp(log_p)))
    assert any(limited) and not all(limited)
    assert float(value) == pytest.approx(np.mean(losses), rel=1e-5)
    (bias,) = (x for x in jax.tree.leaves(gradient["head"]) if x.ndim == 1)
    np.testing.assert_allclose(bias, np.mean(slopes, axis=0), atol=1e-6)


def plain_log_probs(head, obs, legal):
    """[T, B, n] of a policy without hidden layers."""
    w, b = layer(head)
    return log_softmax(np.where(legal, np.asarray(obs, np.float64) @ w + b, -1e9))


def plain_vtrace(r, terminated, truncated, v, v_after, ratio, gamma, lam, limits):
    """Targets by the sum of the paper's equation 1, and the weights of the policy gradient, for one row [T]."""
    rho, c, pg = (np.minimum(ratio, limit) for limit in limits)
    steps, end = len(r), terminated | truncated
    delta = rho * (r + gamma * (1 - terminated) * v_after - v)
    target = v.copy()
    for s in range(steps):
        factor = 1.0
        for t in range(s, steps):
            target[s] += factor * delta[t]
            factor *= gamma * lam * c[t]
            if end[t]:
                break
    advantage = np.zeros(steps)
    for s in range(steps):
        after = v_after[s]
        if s + 1 < steps and not end[s]:  # lambda between the value and the target of the next step
            after = (1 - lam) * v_after[s] + lam * target[s + 1]
        advantage[s] = pg[s] * (r[s] + gamma * (1 - terminated[s]) * after - v[s])
    return target, advantage


@pytest.mark.parametrize("name", ["impala", "appo"])
def test_an_update_with_lag_in_a_plain_loop(name, lagging, targeted):
    """What the update reports of its loss, from the roll-out that waits in the queue and the parameters before it."""
    run = lagging if name == "impala" else targeted
    state, metrics = run.history[3], run.metrics[3]
    steps = jax.tree.map(lambda x: np.asarray(x)[:, :, 0] if x.ndim > 2 else np.asarray(x), state.queue[0].steps)
    obs, legal, action = steps.obs, steps.facts.legal, steps.extra[0]
    chosen = lambda log_p: np.take_along_axis(log_p, action[..., None], -1)[..., 0]  # noqa: E731
    behaviour_all = log_softmax(np.where(legal, np.asarray(steps.extra[1].head, np.float64), -1e9))
    log_mu = chosen(behaviour_all)
    log_all = plain_log_probs(state.learner.params["actor"]["head"], obs, legal)
    log_pi = chosen(log_all)
    reference_all = log_all if name == "impala" else plain_log_probs(state.target["head"], obs, legal)
    log_reference = chosen(reference_all)
    ratio = np.exp(log_reference - log_mu)
    assert np.abs(ratio - 1).max() > 0.02 and steps.terminated.any() and steps.truncated.any()
    wv, bv = layer(state.learner.params["critic"]["head"])
    v, v_after = (np.asarray(o, np.float64) @ wv[:, 0] + bv for o in (obs, steps.final_obs))
    policy_losses, value_losses, entropies, kls = [], [], [], []
    for row in range(4):
        target, advantage = plain_vtrace(
            steps.reward[:, row], steps.terminated[:, row], steps.truncated[:, row], v[:, row], v_after[:, row],
            ratio[:, row], 0.9, 0.8, (1.0, 1.0, 1.0),
        )  # fmt: skip
        for t in range(8):
            log_p = log_all[t, row]
            log_q = (behaviour_all if name == "impala" else reference_all)[t, row]
            if name == "impala":
                policy_losses.append(-advantage[t] * log_pi[t, row])
            else:
                share = min(np.exp(log_mu[t, row] - log_reference[t, row]), 2.0)  # IMPACT
                now = share * np.exp(log_pi[t, row] - log_mu[t, row])
                policy_losses.append(-min(now * advantage[t], np.clip(now, 0.8, 1.2) * advantage[t]))
            value_losses.append((v[t, row] - target[t]) ** 2 / 2)
            entropies.append(-sum(np.exp(log_p[k]) * log_p[k] for k in range(3) if legal[t, row, k]))
            kls.append(sum(np.exp(log_q[k]) * (log_q[k] - log_p[k]) for k in range(3) if legal[t, row, k]))
    assert float(metrics["policy_loss"]) == pytest.approx(np.mean(policy_losses), rel=1e-4)
    assert float(metrics["value_loss"]) == pytest.approx(np.mean(value_losses), rel=1e-4)
    assert float(metrics["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-4)
    assert float(metrics["vtrace_rho"]) == pytest.approx(np.minimum(ratio, 1).mean(), rel=1e-4)
    assert float(metrics["behaviour_kl"]) == pytest.approx(np.mean(ratio - 1 - np.log(ratio)), rel=1e-2)
    assert float(metrics["kl"]) == pytest.approx(np.mean(kls), rel=1e-2)


def test_the_anchor_of_the_ratio_by_hand():
    """pi / anchor is min(mu / target, 2) pi / mu: a target of a sixth of mu counts as a half."""
    mu, target = jnp.array([0.6, 0.6, 0.2]), jnp.array([0.4, 0.1, 0.9])
    anchor = jnp.exp(impala.anchor_log_prob(jnp.log(target), jnp.log(mu)))
    np.testing.assert_allclose(anchor, [0.4, 0.3, 0.9], rtol=1e-6)


# Lag zero

SHARED = {"num_envs": 4, "steps_per_update": 8, "gamma": 0.9, "lr": 0.01, "value_clip": None}
ON_POLICY = {
    "appo": {
        "epochs": 2, "minibatches": 2, "normalize_advantage": True, "normalize_obs": True, "normalize_reward": True,
        "kl_coef": 0.1, "kl_target": 0.01, "actor": LSTM, "critic": LSTM,
    },
    "impala": {"epochs": 1, "minibatches": 1, "normalize_advantage": False},
}  # fmt: skip


@pytest.mark.parametrize("name", ON_POLICY)
def test_without_lag_the_result_is_that_of_ppo(name, same_keys):
    """`appo` with a fresh target is PPO; `impala`, with one gradient step per roll-out, is the policy gradient."""
    changes = {**SHARED, **ON_POLICY[name]}
    env, lam = (restricted_walk(), 1.0) if name == "impala" else (walk_world(goal=0.15), 0.7)

    ours = with_data(impala.make(impala.Config(name=name, actor_lag=0, vtrace_lambda=lam, **changes), env))
    theirs = with_data(ppo.make(ppo.Config(gae_lambda=lam, **changes), env))
    state = jax.jit(ours.init)(jax.random.key(1), ours.hparams)
    expected = ppo.State(state.learner, state.worlds, state.key, state.updates, theirs.hparams)
    update, on_policy = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(3):
        state, metrics = update(state)
        expected, _ = on_policy(expected)
        assert float(metrics["vtrace_rho"]) == pytest.approx(1.0, rel=1e-5)
        assert float(metrics["behaviour_kl"]) == pytest.approx(0.0, abs=1e-6)
    assert trees_equal(state.key, expected.key)
    chex.assert_trees_all_close(state.learner, expected.learner, rtol=2e-4, atol=2e-5)


def test_without_lag_nothing_waits():
    algorithm = with_data(impala.make(LAGGING.model_copy(update={"actor_lag": 0}), walk_world()))
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams)
    assert state.queue == () and state.target is None and algorithm.warmup_env_steps == 0


# The queue


def acting_outputs(config, actor, steps):
    """Head outputs of the policy with these parameters for recorded observations."""
    nets = Actors(config, restricted_walk(), None).nets
    return nets.outputs(actor, steps.obs).head


def test_the_queue_moves_by_one(lagging):
    assert len(lagging.history[0].queue) == 2 and lagging.algorithm.warmup_env_steps == 2 * 32
    for before, after in zip(lagging.history, lagging.history[1:], strict=False):
        assert trees_equal(before.queue[1], after.queue[0])
        assert not trees_equal(before.queue[1], after.queue[1])


def test_a_roll_out_waits_for_as_many_updates_as_the_lag(lagging):
    """Update u records with the parameters before it, and update u + 2 finds this first in the queue."""
    for u in range(3):
        found = lagging.history[u + 2].queue[0].steps
        recorded = acting_outputs(LAGGING, lagging.history[u].learner.params["actor"], found)
        np.testing.assert_allclose(found.extra[1].head, recorded, atol=1e-6)
        newest = acting_outputs(LAGGING, lagging.history[u + 2].learner.params["actor"], found)
        assert np.abs(newest - recorded).max() > 0.01


def test_what_is_corrected_is_the_age_of_the_parameters(lagging):
    """The ratio is exp(log pi - log mu) with the parameters now and those of two updates ago; at first both are one."""
    assert float(lagging.metrics[0]["behaviour_kl"]) == pytest.approx(0.0, abs=1e-6)
    for u in (1, 2, 3, 4):  # update 1 learns from the second roll-out of `init`
        steps = lagging.history[u].queue[0].steps
        legal, action = np.asarray(steps.facts.legal), np.asarray(steps.extra[0])
        then, now = (
            plain_log_probs(lagging.history[i].learner.params["actor"]["head"], steps.obs, legal)
            for i in (max(u - 2, 0), u)
        )
        difference = np.take_along_axis(now - then, action[..., None], -1)
        expected = np.mean(np.exp(difference) - 1 - difference)
        assert expected > 1e-5
        assert float(lagging.metrics[u]["behaviour_kl"]) == pytest.approx(expected, rel=2e-2)


def test_a_memory_waits_with_its_roll_out():
    """Read again from there, the second roll-out gives the outputs it was recorded with, in the middle of episodes."""
    config = LAGGING.model_copy(update={"actor": LSTM, "critic": LSTM, "steps_per_update": 12})
    algorithm, actors = with_data(impala.make(config, walk_world())), Actors(config, walk_world(), None)

    @jax.jit
    def read_again(key):
        state = algorithm.init(key, algorithm.hparams)
        steps, start, _ = actors.seen(algorithm.policy(state), state.queue[1])
        memory = memory_of(steps, start, state.learner.critic_carry, recurrent=True)
        outputs = actors.nets.outputs(state.learner.params["actor"], steps.obs, memory.actor, memory.reset)
        return start, outputs.head, steps.outputs.head

    start, again, recorded = read_again(jax.random.key(0))
    assert np.abs(jax.tree.leaves(start)[0]).max() > 0
    np.testing.assert_allclose(again, recorded, atol=1e-6)


# The target network


def test_the_target_moves_half_way_every_second_update(targeted):
    history = targeted.history
    assert trees_equal(history[0].target, history[0].learner.params["actor"])
    assert trees_equal(history[1].target, history[0].target)
    half = jax.tree.map(lambda a, b: (a + b) / 2, history[0].target, history[2].learner.params["actor"])
    chex.assert_trees_all_close(history[2].target, half, rtol=1e-6)
    assert trees_equal(history[3].target, history[2].target)


# Keys and the rules of a traced algorithm


@pytest.mark.parametrize("name", ["impala", "appo"])
def test_every_traced_number_changes_the_update(name, lagging, targeted):
    run = lagging if name == "impala" else targeted
    state = run.history[3]
    before, _ = run.update(copied(state))
    numbers = vars(state.hparams)
    unused = {"impala": {"clip", "target_tau", "kl_coef"}, "appo": {"kl_coef"}}[name]  # kl_coef starts in `init`
    for number in numbers.keys() - unused:
        value = jnp.float32(1e-6) if number == "clip" else 0.5 * numbers[number]
        changed = replace(state, hparams=replace(state.hparams, **{number: value}))
        after, _ = run.update(copied(changed))
        same = (after.learner, after.target)
        assert not trees_equal((before.learner, before.target), same), number


def test_one_scan_equals_single_updates_bit_for_bit(lagging):
    whole, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: lagging.algorithm.update(s), s, length=3))(
        lagging.history[0]
    )
    assert trees_equal(whole, lagging.history[3])


def test_resumed_equals_uninterrupted_bit_for_bit(lagging, tmp_path):
    writer = checkpoint.Writer(tmp_path)
    writer.save(1, {"state": lagging.history[3]}, {})
    writer.wait()
    tree, _ = checkpoint.restore(tmp_path, {"state": jax.eval_shape(lambda: lagging.history[3])})
    restored = tree["state"]
    after, _ = lagging.update(restored)
    assert trees_equal(after, lagging.history[4])


def test_seeds_under_vmap_equal_single_runs(lagging, same_keys):
    starts = [lagging.init(seed) for seed in range(2)]
    stacked = jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states))(*starts)
    together, _ = jax.jit(jax.vmap(lagging.algorithm.update))(stacked)
    assert not trees_equal(starts[0].learner.params, starts[1].learner.params)
    for i, start in enumerate(starts):
        alone, _ = lagging.update(start)
        mine = jax.tree.map(lambda x, i=i: x[i], jax.device_get((together.learner, together.queue)))
        chex.assert_trees_all_close(mine, jax.device_get((alone.learner, alone.queue)), atol=1e-5)


def test_no_array_is_twice_in_a_state(targeted):
    state = targeted.init(6)
    leaves = jax.tree.leaves((state, targeted.algorithm.hparams))
    buffers = [getattr(leaf, "_base_array", leaf).unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(buffers)) == len(buffers)


def test_the_name_chooses_defaults_and_keys_override_them(tmp_path):
    assert impala.Config().surrogate == "policy_gradient"
    appo = impala.Config(name="appo")
    assert (appo.surrogate, appo.epochs, appo.minibatches, appo.lr) == ("clipped", 2, 4, 3e-4)
    assert impala.Config(name="appo", epochs=7).epochs == 7
    path = tmp_path / "run.yaml"
    path.write_text("env: {name: 'gymnax:CartPole-v1'}\nalgo: {name: appo, minibatches: 2}\n")
    config = load_config(path)
    assert config.algo["surrogate"] == "clipped" and config.algo["minibatches"] == 2
    assert config.algorithm_config() == impala.Config(name="appo", minibatches=2)
    path.write_text(config.to_yaml())
    assert load_config(path) == config


PERCEPTRON = {"hidden_sizes": (256, 256), "activation": "tanh"}
RELU = {"hidden_sizes": (128, 128), "activation": "relu"}


@pytest.mark.parametrize(
    "asked",
    [
        # 160 x 50 and 80 x 50 steps: the batches of 8192 and 4096 in whole fragments of 50
        {"lr": 6e-4, "actor": PERCEPTRON, "critic": PERCEPTRON, "num_envs": 160, "steps_per_update": 50,
         "minibatches": 16, "vtrace_clip_rho": 1.0, "vtrace_clip_pg_rho": 1.0, "entropy_coef": 0.01, "value_coef": 0.5,
         "gamma": 0.995, "max_grad_norm": 5.0, "optimizer": "rmsprop", "optimizer_eps": 0.1, "actor_lag": 3},
        {"name": "appo", "lr": 3e-4, "actor": RELU, "critic": RELU, "num_envs": 40, "steps_per_update": 100,
         "entropy_coef": 0.001, "gamma": 0.995, "max_grad_norm": 5.0, "clip": 0.1, "kl_coef": 1.0, "kl_target": 0.01},
    ],
)  # fmt: skip
def test_what_users_ask_for_can_be_said(asked):
    config = impala.Config(**asked)
    algorithm = with_data(impala.make(config, walk_world()))
    assert algorithm.env_steps_per_update == asked["num_envs"] * asked["steps_per_update"]
    assert config.actor == NetworkConfig(**asked["actor"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actor_lag": -1}, "greater than or equal to 0"),
        ({"surrogate": "ppo"}, "'policy_gradient' or 'clipped'"),
        ({"minibatches": 3}, "must divide num_envs . steps_per_update = 32"),
        ({"lag": 1}, "Extra inputs"),
        ({"name": "apo"}, "'impala' or 'appo'"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        impala.Config(**{**LAGGING.model_dump(), **changes})
