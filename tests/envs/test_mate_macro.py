"""Target selection: encodings, masks, the executor and held frames; against recordings of the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mate_recordings import each_recording, load, noise, world

import envs_jax
from envs_jax import selections
from envs_jax.base import FRAMES
from envs_jax.mate import macro
from envs_jax.mate.recorded import from_arrays
from envs_jax.mate.transition import transition

ENCODINGS = "subset", "single", "factored"


# Encodings


def test_target_0_is_the_highest_bit():
    np.testing.assert_array_equal(
        selections.to_subset("subset", np.arange(8), 3),
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]],
    )
    np.testing.assert_array_equal(selections.to_subset("single", np.arange(3), 2), [[1, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_actions_and_subsets_are_one_to_one(encoding):
    every = {"subset": np.arange(16), "single": np.arange(5), "factored": np.array(list(np.ndindex(2, 2, 2, 2)))}
    actions = every[encoding]
    subsets = selections.to_subset(encoding, actions, 4)
    assert subsets.dtype == bool and len({tuple(row) for row in subsets.tolist()}) == len(actions)
    np.testing.assert_array_equal(selections.from_subset(encoding, subsets), actions)
    assert selections.from_subset(encoding, subsets).dtype == jnp.int32


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_valid_actions_select_visible_targets_alone(encoding):
    visible = np.array(list(np.ndindex(2, 2, 2)), bool)
    valid = np.asarray(macro.valid_actions(encoding, visible))
    if encoding == "factored":
        np.testing.assert_array_equal(valid[..., 1], visible)
        assert valid[..., 0].all()
        return
    subsets = np.asarray(selections.to_subset(encoding, np.arange(valid.shape[1]), 3))
    np.testing.assert_array_equal(valid, ~(subsets[None] & ~visible[:, None]).any(axis=-1))
    if encoding == "subset":
        np.testing.assert_array_equal(valid.sum(axis=1), 2 ** visible.sum(axis=1))


def test_many_targets_are_chosen_one_by_one():
    assert [macro.encoding_of(n, True) for n in (4, 8, 9)] == ["subset", "subset", "factored"]
    assert macro.encoding_of(9, False) == "single"
    assert [macro.encoding_of(n, True, head) for n, head in ((8, "factored"), (9, "subset"))] == ["factored", "subset"]
    spaces = [macro.action_space(encoding, 9) for encoding in ENCODINGS]
    assert [(space.n, space.shape) for space in spaces] == [(512, ()), (10, ()), (2, (9,))]


def test_counts_of_a_selection():
    subset = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    visible = np.array([[1, 0, 1], [1, 1, 1], [1, 1, 1]], bool)
    counted = macro.counts(subset, visible)
    assert [x.tolist() for x in counted] == [[2, 0, 2], [1, 0, 2], [1, 0, 0], [0.5, 0, 0]]


# Held frames


def counting(done_at: int, truncates: bool = False):
    """A world that counts its frames and ends at one."""

    def frame(state, random):
        state = state + 1
        done = state == done_at
        ends = {"terminated": done & (not truncates), "truncated": done & truncates}
        info = {"number": state, "total": state, "average": state.astype(float), "random": random}
        return macro.Frame(state, state.astype(float), **ends, info=info)

    reductions = {"total": "sum", "average": "mean", "random": "sum"}
    return jax.jit(lambda state, random: macro.hold(frame, state, random, reductions))


@pytest.mark.parametrize(("done_at", "truncates", "frames"), [(99, False, 4), (12, False, 2), (12, True, 2)])
def test_a_macro_step_stops_at_the_end_of_the_episode(done_at, truncates, frames):
    random = np.array([1.0, 10.0, 100.0, 1000.0])
    held = counting(done_at, truncates)(jnp.asarray(10), random)
    numbers = np.arange(11, 11 + frames)
    assert held.state == numbers[-1] and held.reward == numbers.sum()
    assert (bool(held.terminated), bool(held.truncated)) == (done_at == 12 and not truncates, truncates)
    assert held.info[FRAMES] == frames and held.info[FRAMES].dtype == jnp.int32
    assert held.info["number"] == numbers[-1] and held.info["total"] == numbers.sum()
    assert held.info["average"] == numbers.mean() and held.info["random"] == random[:frames].sum()


# Against recordings

REDUCTIONS = {
    "raw_reward": "sum", "normalized_raw_reward": "sum", "auxiliary_reward_coverage_rate": "sum",
    "coverage_rate": "mean", "real_coverage_rate": "mean", **dict.fromkeys(macro.Counts._fields, "mean"),
}  # fmt: skip


@each_recording("macro_action", "macro_bits")
def test_masks_and_encodings_are_the_recorded_ones(path):
    rollout = load(path)
    multi = rollout["macro_action_mask"].shape[-1] == 2 ** rollout["macro_bits"].shape[-1]
    encoding = "subset" if multi else "single"
    subsets = selections.to_subset(encoding, rollout["macro_action"], rollout["macro_bits"].shape[-1])
    np.testing.assert_array_equal(subsets, rollout["macro_bits"])
    decisions = np.arange(len(subsets)) * int(rollout["frame_skip"])
    np.testing.assert_array_equal(
        macro.valid_actions(encoding, rollout["mask_c2t"][decisions].astype(bool)), rollout["macro_action_mask"]
    )


@each_recording("macro_action", "macro_bits")
def test_held_selections_repeat_a_recording(path, x64):
    """Closed loop over the whole file: actions of the executor, rewards and figures of the macro steps."""
    rollout = load(path)
    rules, params = world(rollout)
    skip = int(rollout["frame_skip"])
    random, target_action = noise(rollout), rollout["tgt_action"]

    @jax.jit
    def replayed(state, subsets, inputs):
        def macro_step(state, now):
            subset, inputs = now

            def frame(state, x):
                action = macro.executor(subset, state, params)
                state, out = transition(state, action, x[0], x[1], params, rules)
                raw = -out.reward.astype(float)
                coverage = jnp.broadcast_to(out.metrics.coverage_rate, (rules.num_cameras,))
                info = {
                    **out.metrics._asdict(), **macro.counts(subset, state.sight.c2t)._asdict(), "raw_reward": raw,
                    "normalized_raw_reward": raw / params.max_team_reward, "auxiliary_reward_coverage_rate": coverage,
                }  # fmt: skip
                return macro.Frame(state, coverage, out.terminated, out.truncated, info)

            held = macro.hold(frame, state, inputs, REDUCTIONS)

            def acted(state, x):
                action = macro.executor(subset, state, params)
                return transition(state, action, x[0], x[1], params, rules)[0], action

            return held.state, (held._replace(state=held.state.target_loc), jax.lax.scan(acted, state, inputs)[1])

        return jax.lax.scan(macro_step, state, (subsets, inputs))[1]

    split = lambda x: jnp.asarray(x).reshape(-1, skip, *x.shape[1:])  # noqa: E731
    inputs = jax.tree.map(split, (target_action, random._replace(goal_u=random.goal_u.astype(float))))
    state = from_arrays(rollout, 0, params, rules, with_table=True)
    held, actions = replayed(state, rollout["macro_bits"].astype(bool), inputs)
    np.testing.assert_allclose(actions.reshape(rollout["cam_action"].shape), rollout["cam_action"], atol=1e-9)
    np.testing.assert_allclose(held.state, rollout["tgt_loc"][skip::skip], atol=1e-8)
    np.testing.assert_allclose(held.reward, rollout["macro_reward"], atol=1e-12)
    assert (held.info[FRAMES] == skip).all()
    for name in (key.removeprefix("macro_info_") for key in rollout if key.startswith("macro_info_")):
        ours = np.asarray(held.info[name])
        ours = ours if ours.ndim == 2 else ours[:, None]
        recorded = rollout[f"macro_info_{name}"]
        np.testing.assert_allclose(np.broadcast_to(ours, recorded.shape), recorded, atol=1e-12, err_msg=name)


def test_masks_can_be_left_out():
    """Learners may then ask for targets that nobody sees yet; the executor ignores them until they are seen."""
    masked, free = (envs_jax.make("mate/1v1-0", mask_invalid=mask) for mask in (True, False))
    assert callable(masked.action_mask) and free.action_mask is None
