"""Air traffic against recordings of the original simulator: kinematics, and the preset `origin` step by step."""

import dataclasses
import itertools
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import started
from atc_recordings import FILES, against_recordings, load, shifted, world

from envs_jax.atc import kinematics, scenarios
from envs_jax.atc.env import Functions
from envs_jax.atc.params import KNOT_MS, NM_M, Rules, Start
from envs_jax.atc.rewards import PARTS

pytestmark = against_recordings

OBSERVED = 2e-4

METRES_PER_DEG = np.radians(1) * 6_371_000


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def rollout(request) -> dict[str, np.ndarray]:
    return load(request.param)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def real(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


@lru_cache
def stepping(rules: Rules):
    """A compiled step, which all recordings of the same rules share: compiling it takes seconds."""
    return jax.jit(Functions(rules).step)


def recorded(rollout, t: int) -> dict[str, jax.Array]:
    """Kinematic leaves of the state after t steps."""
    lat, lon, hdg, _, tas, _, _ = rollout["state"][t].T
    at = lat - rollout["center"][0], lon - rollout["center"][1], hdg, tas
    return dict(zip(("dlat", "dlon", "hdg", "tas"), (jnp.asarray(x, float) for x in at), strict=True))


def beginning(rollout, rules, params):
    now = recorded(rollout, 0)
    cas = jnp.asarray(rollout["state"][0, :, 5], float)
    start = Start(now["dlat"], now["dlon"], now["hdg"], cas, params.start.goal_dlat, params.start.goal_dlon,
                  params.start.present)  # fmt: skip
    obs, state = started(rules)(start, params)
    return obs, dataclasses.replace(state, **now)


def metres(rollout, dlat, dlon, lat, lon):
    north = (np.asarray(dlat, float) + rollout["center"][0] - lat) * METRES_PER_DEG
    east = (np.asarray(dlon, float) + rollout["center"][1] - lon) * METRES_PER_DEG * np.cos(np.radians(lat))
    return np.hypot(north, east)


def assert_same_view(obs, expected, skip=(), where=""):
    """Observations [N, 6 + 4 K] agree; neighbours that are equally far may stand in any order."""
    for own, other in zip(np.asarray(obs), expected, strict=True):
        np.testing.assert_allclose(np.delete(own[:6], skip), np.delete(other[:6], skip), atol=OBSERVED, err_msg=where)
        slots, others = own[6:].reshape(4, -1), other[6:].reshape(4, -1)
        far = np.hypot(*others[:2])
        orders = [list(order) for order in itertools.permutations(range(len(far)))]
        same = [order for order in orders if np.allclose(far[order], far, atol=1e-4)]
        nearest = min(same, key=lambda order: np.abs(slots - others[:, order]).max())
        np.testing.assert_allclose(slots, others[:, nearest], atol=OBSERVED, err_msg=where)


@lru_cache
def flying(form: str, hold_track: bool):
    """Ten seconds under a command, compiled: the end, and positions [10, N] and headings of the seconds.

    The fast form's headings are those at the end.
    """

    @jax.jit
    def fly(flight, heading, cas_kt, able, lat, wind):
        cas = jnp.clip(cas_kt * KNOT_MS, able.cas_min_ms, able.cas_max_ms)
        tas = jnp.minimum(kinematics.tas_of_cas(cas), able.tas_max_ms)
        if form == "exact":
            end, _, path = kinematics.fly_exact(flight, heading, tas, able, lat, wind, hold_track)
            return end, path.dlat, path.dlon, path.hdg
        turn = kinematics.wrap_deg(heading - flight.hdg)

        def watch(seen, dlat, dlon):
            paths, second = seen
            return [path.at[second].set(x) for path, x in zip(paths, (dlat, dlon), strict=True)], second + 1

        paths = [jnp.zeros((10, *heading.shape))] * 2
        end, _, _, (paths, _) = kinematics.fly_fast(
            flight, turn, tas, able, lat, None, watch, (paths, jnp.zeros((), int))
        )
        return end, *paths, end.hdg

    return fly


@pytest.mark.parametrize("form", ["exact", "fast"])
def test_flight_follows_the_simulator(rollout, real, form):
    rules, params = world(rollout)
    if rules.windy and form == "fast":
        pytest.skip("no fast form holds a track against the wind, as the original does")
    wind = kinematics.Wind(params.wind_north_ms, params.wind_east_ms)
    fly = flying(form, rules.steering == "hold_track")
    flight = kinematics.Flight(**recorded(rollout, 0))
    worst_m = worst_deg = 0.0
    for command, seconds in zip(rollout["command"], rollout["substate"], strict=True):
        flight, dlat, dlon, hdg = fly(flight, *jnp.asarray(command.T, float), params.performance, params.lat, wind)
        worst_m = max(worst_m, metres(rollout, dlat, dlon, seconds[..., 0], seconds[..., 1]).max())
        turned = np.asarray(hdg, float) - (seconds[..., 2] if form == "exact" else seconds[-1, :, 2])
        worst_deg = max(worst_deg, np.abs(kinematics.wrap_deg(turned)).max())
    exact = form == "exact" and real is np.float64
    assert worst_m <= (1e-6 if exact else 2.0)
    assert worst_deg <= (1e-9 if exact else 1e-3)


def test_each_step_from_its_recorded_state(rollout, real):
    rules, params = world(rollout)
    obs, state = beginning(rollout, rules, params)
    assert_same_view(obs, rollout["obs"][0], skip=(4, 5))  # the recording's first rates belong to another episode
    assert list(rollout["reward_part_names"]) == list(PARTS)
    step = stepping(rules)
    tolerance = 1e-6 if real is np.float64 else 1e-3
    for t, action in enumerate(rollout["action"]):
        state = dataclasses.replace(state, **recorded(rollout, t))
        obs, state, reward, terminated, _, info = step(None, state, jnp.asarray(action, float), params)
        at = f"step {t}"
        assert_same_view(obs, rollout["obs"][t + 1], where=at)
        for part, values in zip(PARTS, rollout["reward_parts"][t].T, strict=True):
            np.testing.assert_allclose(info["reward_parts"][part], values, atol=tolerance, err_msg=f"{at} {part}")
        np.testing.assert_allclose(reward, rollout["reward"][t], atol=3 * tolerance, err_msg=at)
        np.testing.assert_allclose(info["team_phi"], rollout["phi"][t + 1], atol=tolerance, err_msg=at)
        np.testing.assert_allclose(info["min_sep"], rollout["min_sep"][t], atol=1e-3, err_msg=at)
        np.testing.assert_allclose(info["wp_dist"], rollout["wp_dist"][t], atol=1e-3, err_msg=at)
        for flag in ("conflict_flag", "collision_flag"):
            np.testing.assert_array_equal(info[flag], rollout[flag][t].astype(bool), err_msg=at)
        np.testing.assert_array_equal(info["waypoint_reached"], rollout["waypoint_reached"][t], err_msg=at)
        assert bool(terminated) == (t == len(rollout["action"]) - 1), at


def test_a_flight_of_its_own_ends_as_recorded(rollout, real):
    """From the first state on, with the recorded actions: the same arrivals in the same steps, the same path."""
    rules, params = world(rollout)
    _, state = beginning(rollout, rules, params)
    step = stepping(rules)
    for t, action in enumerate(rollout["action"]):
        _, state, _, terminated, _, info = step(None, state, jnp.asarray(action, float), params)
        np.testing.assert_array_equal(info["waypoint_reached"], rollout["waypoint_reached"][t], err_msg=f"step {t}")
    assert bool(terminated)
    away = metres(rollout, state.dlat, state.dlon, *rollout["state"][-1, :, :2].T)
    assert away.max() <= (1e-6 if real is np.float64 else 2.0)
    assert float(info["pair_min_sep"].min()) * NM_M > 0


def test_options_of_a_recording_shift_its_scenario():
    scenario = scenarios.named("head_on")
    first, second = scenario.agents
    assert shifted(scenario, {}) == scenario
    found = shifted(scenario, {
        "shift": {"speed_kt_delta": 5},
        "targeted_shift": {"A1": {"aircraft_type": "B744", "heading_deg_delta": -10, "waypoint_lon_delta": 0.1}},
        "env_shift": {"wind": {"mode": "uniform", "dir_deg": 360, "kt": 30}},
    })  # fmt: skip
    assert found.agents == (
        first._replace(type="B744", hdg_deg=350, waypoint_lon=first.waypoint_lon + 0.1), second._replace(spd_kt=255)
    )  # fmt: skip
    assert found.wind == (0, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rain": 1}, "options: 'rain' is not understood; shift, targeted_shift, env_shift are"),
        ({"shift": {"position_nm_delta": 1}}, "shift: 'position_nm_delta' is not understood"),
        ({"targeted_shift": {"A9": {}}}, "targeted_shift: 'A9' is not understood; A1, A2 are"),
        ({"targeted_shift": {"A1": {"mass": 2}}}, "targeted_shift.A1: 'mass' is not understood"),
        ({"env_shift": {"spd_bounds_scale": {"lo": 1}}}, "env_shift: 'spd_bounds_scale' is not understood; wind are"),
        ({"env_shift": {"wind": {"mode": "layered", "layers": []}}}, "env_shift.wind: 'layers' is not understood"),
        ({"env_shift": {"wind": {"mode": "gust", "dir_deg": 0, "kt": 9}}}, "mode 'gust' is not understood"),
    ],
)
def test_options_that_are_not_understood_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shifted(scenarios.named("head_on"), options)
