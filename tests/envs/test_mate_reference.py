"""Camera worlds against recordings of the reference, frame by frame: state, masks, rewards, observations."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mate_recordings import FILES, SNAPSHOTS, load, noise, world

from envs_jax.mate import occlusion, transforms
from envs_jax.mate.geometry import bearing_deg, offsets, wrap_deg
from envs_jax.mate.recorded import from_arrays, table_from
from envs_jax.mate.soft_coverage import soft_scores
from envs_jax.mate.state import Outline, State
from envs_jax.mate.transition import metrics_of, transition

pytestmark = [pytest.mark.reference, pytest.mark.skipif(not FILES, reason="no reference rollouts")]
MASKS = "c2t", "c2c", "t2c", "t2t", "t2o"
ALONG = State(layout=None, **dict.fromkeys(State._fields[1:], 0))
"""Axes of states of one recording: they share the layout."""
CONTINUOUS = "orientation_deg", "viewing_angle_deg", "target_loc"


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def rollout(request) -> dict[str, np.ndarray]:
    return load(request.param)


@lru_cache
def programs(rules):
    """Compiled: one frame from every snapshot, all frames from the first one, and the observations of states."""
    frame = lambda state, x, params: transition(state, *x, params, rules)  # noqa: E731

    @jax.jit
    def each(states, inputs, params):
        return jax.vmap(partial(frame, params=params), in_axes=(ALONG, 0), out_axes=(ALONG, 0))(states, inputs)

    @jax.jit
    def all_from(state, inputs, params):
        def body(state, x):
            state, out = frame(state, x, params)
            return state, (state._replace(layout=None), out)

        return jax.lax.scan(body, state, inputs)[1]

    @jax.jit
    def seen(states, params):
        full = transforms.Options(relative=True, rescale=True)
        kinds = {"raw": transforms.Options(), "rel": transforms.Options(relative=True), "rescaled": full}

        def one(state):
            return {
                "cameras": {name: transforms.camera_observation(state, params, o) for name, o in kinds.items()},
                "targets": {name: transforms.target_observation(state, params, o) for name, o in kinds.items()},
                "state": {"raw": transforms.state_vector(state, params),
                          "rescaled": transforms.state_vector(state, params, rescale=True)},
                "metrics": metrics_of(state, params),
            }  # fmt: skip

        return jax.vmap(one, in_axes=(ALONG,))(states)

    return each, all_from, seen


def inputs_of(rollout):
    real = lambda x: jnp.asarray(x, float)  # noqa: E731
    random = noise(rollout)
    return real(rollout["cam_action"]), real(rollout["tgt_action"]), random._replace(goal_u=real(random.goal_u))


def assert_follows(rollout, state, out, tolerance):
    """States and frames (K, ...) are the recorded ones."""
    for field, name in SNAPSHOTS.items():
        got, expected = np.asarray(getattr(state, field)), rollout[name][1:]
        if field in CONTINUOUS:
            np.testing.assert_allclose(got, expected, atol=tolerance, rtol=0, err_msg=field)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=field)
    for mask in MASKS:
        np.testing.assert_array_equal(getattr(state.sight, mask), rollout[f"mask_{mask}"][1:], err_msg=mask)
    np.testing.assert_array_equal(out.reward, rollout["reward_target"])
    np.testing.assert_array_equal(-np.asarray(out.reward), rollout["reward_camera"])
    np.testing.assert_array_equal(np.asarray(out.terminated) | np.asarray(out.truncated), rollout["done"])
    for name in ("coverage_rate", "real_coverage_rate", "mean_transport_rate"):
        np.testing.assert_allclose(getattr(out.metrics, name), rollout[name][1:], atol=1e-12, rtol=0, err_msg=name)


def test_each_frame_from_its_recorded_state(rollout, x64):
    rules, params = world(rollout)
    each, _, _ = programs(rules)
    before = from_arrays(rollout, slice(0, -1), params, rules, with_table=True)
    assert_follows(rollout, *each(before, inputs_of(rollout), params), tolerance=1e-9)


def test_all_frames_from_the_first_state(rollout, x64):
    rules, params = world(rollout)
    _, all_from, _ = programs(rules)
    first = from_arrays(rollout, 0, params, rules, with_table=True)
    assert_follows(rollout, *all_from(first, inputs_of(rollout), params), tolerance=1e-8)


def test_single_precision_stays_close(rollout):
    rules, params = world(rollout)
    _, all_from, _ = programs(rules)
    first = from_arrays(rollout, 0, params, rules, with_table=True)
    state, out = all_from(first, inputs_of(rollout), params)
    assert np.abs(np.asarray(state.target_loc) - rollout["tgt_loc"][1:]).max(initial=0) < 0.05
    turned = wrap_deg(np.asarray(state.orientation_deg) - rollout["cam_orientation"][1:])
    assert np.abs(turned).max(initial=0) < 0.05
    differ = [(np.asarray(getattr(state.sight, mask)) != rollout[f"mask_{mask}"][1:]).mean() for mask in MASKS
              if rollout[f"mask_{mask}"].size]  # fmt: skip
    assert max(differ) < 0.005
    assert (np.asarray(out.reward) != rollout["reward_target"]).mean() < 0.005


def test_observations_states_and_their_forms(rollout, x64):
    rules, params = world(rollout)
    _, _, seen = programs(rules)
    views = jax.tree.map(np.asarray, seen(from_arrays(rollout, slice(None), params, rules), params))
    at = rollout.get("wrap_idx")
    expected = {
        "cam_obs": views["cameras"]["raw"],
        "tgt_obs": views["targets"]["raw"],
        "state": views["state"]["raw"],
        "cam_obs_rel": views["cameras"]["rel"][at],
        "cam_obs_rel_rescaled": views["cameras"]["rescaled"][at],
        "tgt_obs_rel_rescaled": views["targets"]["rescaled"][at],
        "state_rescaled": views["state"]["rescaled"][at],
        "coverage_rate": views["metrics"].coverage_rate,
        "real_coverage_rate": views["metrics"].real_coverage_rate,
        "mean_transport_rate": views["metrics"].mean_transport_rate,
    }
    for name, got in expected.items():
        if name in rollout:
            wanted = rollout[name].reshape(got.shape) if rollout[name].size == 0 else rollout[name]
            # Rounding of coordinates of a thousand, in units of their last place.
            np.testing.assert_allclose(got, wanted, atol=1e-12, rtol=2e-15, err_msg=name)


def test_occlusion_tables_and_the_analytic_form(rollout, x64):
    rules, params = world(rollout)
    if not rules.num_cameras or not rules.num_obstacles:
        pytest.skip("nothing hides anything from anyone")
    cameras, obstacles, radius = (jnp.asarray(rollout[name], float) for name in ("cam_loc", "obs_loc", "obs_radius"))
    own = jax.jit(partial(occlusion.table_of, max_fan=rules.fan))(
        cameras, obstacles, radius, params.camera_max_sight_range, params.transmittance
    )
    recorded = table_from(rollout["occ_phi"], rollout["occ_rho"], rollout["occ_n"])
    x, y = offsets(cameras, obstacles)
    half = np.degrees(np.arcsin(radius / np.hypot(x, y)))
    edges = np.concatenate([bearing_deg(x, y) - half, bearing_deg(x, y) + half], axis=1)
    for c in range(rules.num_cameras):
        # Where one of the two has a knot, both have the same range.
        for knots, of, other in ((recorded, rollout["occ_n"][c], own), (own, None, recorded)):
            angle, free = np.asarray(knots.angle_deg[c])[:of], np.asarray(knots.free_range[c])[:of]
            far = np.abs(wrap_deg(angle[:, None] - edges[c])).min(axis=1) > 0.011
            read = np.interp(angle, other.angle_deg[c], other.free_range[c])
            np.testing.assert_allclose(read[far], free[far], atol=1e-8, rtol=0, err_msg=f"camera {c}")
        assert far.sum() > 300

    @jax.jit
    def both(points):
        x, y = offsets(cameras, points)
        table = occlusion.hidden(x, y, cameras, obstacles, radius, recorded)
        return occlusion.hidden(x, y, cameras, obstacles, radius, None), table, jnp.hypot(x, y)

    rng = np.random.default_rng(0)
    points = rng.uniform(-1000, 1000, (20_000, 2))
    outside = np.all(np.linalg.norm(points[:, None] - rollout["obs_loc"], axis=2) > rollout["obs_radius"], axis=1)
    analytic, table, distance = map(np.asarray, both(points[outside]))
    near = distance <= float(params.camera_max_sight_range)
    assert table[near].mean() > 0.05
    assert (analytic == table)[near].mean() >= 0.999


def test_soft_coverage_within_a_recorded_outline(rollout, x64):
    rules, params = world(rollout)
    if not rules.num_cameras or "soft_score" not in rollout:
        pytest.skip("no scores")
    states = from_arrays(rollout, slice(None, None, 30), params, rules._replace(outlines=True))
    own = states.layout.outline
    last = np.minimum(np.arange(rollout["occ_outer_phi"].shape[1]), rollout["occ_outer_n"][:, None] - 1)
    far = [jnp.asarray(np.take_along_axis(rollout[f"occ_outer_{name}"], last, axis=1)) for name in ("phi", "rho")]
    near = table_from(rollout["occ_phi"], rollout["occ_rho"], rollout["occ_n"])
    program = jax.jit(jax.vmap(soft_scores, in_axes=(ALONG, None)))
    of = lambda outline: program(states._replace(layout=states.layout._replace(outline=outline)), params)  # noqa: E731
    expected = rollout["soft_score"][::30]
    np.testing.assert_allclose(of(Outline(near, *far)), expected, atol=1e-9, rtol=0)
    assert np.abs(of(own) - expected).mean() < 0.02
