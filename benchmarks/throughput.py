"""Environment steps per second with random actions: `bess` beside a plain Python loop of the same rules, `atc`, `mate`.

    python benchmarks/throughput.py [--days 4096] [--steps 240] [--repeats 7]
    python benchmarks/throughput.py --world atc [--airspaces 64 256 2048] [--aircraft 2 4 8] [--devices 2]
    python benchmarks/throughput.py --world mate [--presets 4v4-9 4v8-9 8v8-9] [--teams 1024 4096] [--pool 4096]

The second form measures `atc`: aircraft on a circle, jittered starts, no peer; then what the parts of a step take, and
the rate of a training. The third one measures `mate`: cameras that select random targets for five frames against greedy
ones, automatic resets to starts of a pool; frames are counted, and memory and compilation said. Cores are devices that
share the worlds. Actions and keys are drawn before the clock starts.
On a machine with a GPU all run there: `--devices 1 --name throughput_atc_gpu`.

Reading order: the check that the plain loop (`plain_plant.py`) gives the same money and observations, the measurements,
the record written to `benchmarks/results/`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import record
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from plain_plant import PlainBattery, plain_days, plain_hour, plain_observation

import envs_jax
from envs_jax.atc import scenarios
from envs_jax.bess.observations import Layout
from envs_jax.bess.params import HOURS, WearModel
from purerl.config import load_config
from purerl.learn import sharding
from purerl.run.runs import build

LAYOUTS: tuple[Layout, ...] = ("base20", "curve", "rel")
WEAR_MODELS: tuple[WearModel, ...] = ("nonlinear", "segment")
SAME_MONEY_EUR = 0.05
SAME_OBSERVATION = 1e-4
FRAMES_HELD = 5
"""Of a selection of targets."""
TRAININGS = [
    Path(__file__).parents[1] / "configs" / f"atc_{name}_ppo.yaml" for name in ("canonical_crossing", "generic")
]


class Measurement(NamedTuple):
    steps_per_s: float
    lowest: float
    highest: float
    compile_s: float
    memory_mb: float = float("nan")
    """Arguments, results and what lies between them of the compiled steps; actions and keys are arguments."""


def check_same_rules(env, wear: WearModel, days: int = 20) -> None:
    """Both worlds, same random commands: the day's profit and (layout base20) every observation agree."""
    params, step = env.default_params, jax.jit(env.step_env)
    low, high = np.asarray(params.ranges.low, float), np.asarray(params.ranges.high, float)
    rng, key = np.random.default_rng(0), jax.random.key(0)
    plain = plain_days(params.table)
    for index in rng.integers(0, len(plain), days):
        obs, state = env.assessment.reset_case(key, index, params)
        battery = PlainBattery(params.plant, params.plant.soc_init)
        profit = plain_profit = 0.0
        for hour in range(HOURS):
            if obs.shape == (20,):
                expected = plain_observation(plain[index], battery, hour, low, high)
                np.testing.assert_allclose(obs, expected, atol=SAME_OBSERVATION)
            share = np.float32(rng.uniform(-1, 1))
            day, command = plain[index], float(share) * params.plant.power_mw
            outcome = plain_hour(params.plant, wear, battery, hour, command, day.pv[hour], day.price[hour],
                                 day.reserve[hour])  # fmt: skip
            obs, state, _, _, _, info = step(key, state, jnp.asarray([share]), params)
            profit, plain_profit = profit + float(info["profit_eur"]), plain_profit + outcome.profit
        if abs(profit - plain_profit) > SAME_MONEY_EUR:
            raise AssertionError(f"day {index}: {profit} EUR in JAX, {plain_profit} EUR in the plain loop")


Part = Literal["step", "without_reset", "without_observation", "positions"]
"""What of a step is computed: all of it; no auto-reset; besides, rewards alone; only where aircraft are after it."""


def places(state) -> tuple[jax.Array, ...]:
    """Where everything is that moves, of the state of a world of aircraft or of cameras."""
    return (state.world.target_loc,) if hasattr(state, "world") else (state.dlat, state.dlon)


def measure_jax(env, worlds: int, steps: int, repeats: int, devices: int = 1, part: Part = "step") -> Measurement:
    """`steps` steps of `worlds` worlds with random actions, auto-reset, observations and rewards summed into the carry.

    Args:
        devices: that share the worlds.
        part: what nobody uses the compiler leaves out.
    """
    params, space = env.default_params, env.action_space(env.default_params)
    step = env.step if part == "step" else env.step_env
    mesh = Mesh(np.array(jax.devices()[:devices]), ("worlds",))
    by_world, by_time = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("worlds",), (None, "worlds")))

    @partial(jax.jit, out_shardings=by_world)
    def start(key):
        return jax.vmap(env.reset, (0, None))(jax.random.split(key, worlds), params)[1]

    @partial(jax.jit, out_shardings=by_time)
    def drawn(key):
        key_action, key_step = jax.random.split(key)
        actions = jax.vmap(jax.vmap(space.sample))(jax.random.split(key_action, (steps, worlds)))
        return actions, jax.random.key_data(jax.random.split(key_step, (steps, worlds)))

    def play(params, state, drawn):
        def body(carry, drawn):
            (state, total), (action, key) = carry, drawn
            obs, state, reward, *_ = jax.vmap(step, (0, 0, 0, None))(
                jax.random.wrap_key_data(key), state, action, params
            )
            used = places(state) if part == "positions" else (reward,)
            used = used if part in ("positions", "without_observation") else (obs, reward)
            seen = sum(jnp.sum(x.reshape(len(total), -1), axis=1) for x in used)
            return (state, total + seen), None

        state, total = jax.lax.scan(body, (state, jnp.zeros(drawn[0].shape[1])), drawn)[0]
        return total, state if part in ("step", "without_reset") else ()

    specs = PartitionSpec(), by_world.spec, by_time.spec
    shared = jax.shard_map(play, mesh=mesh, in_specs=specs, out_specs=by_world.spec, check_vma=False)
    state, given = start(jax.random.key(0)), drawn(jax.random.key(1))
    began = time.perf_counter()
    compiled = jax.jit(shared).lower(params, state, given).compile()
    compile_s = time.perf_counter() - began
    used = compiled.memory_analysis()
    memory_mb = (used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes) / 1e6
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        total, _ = jax.block_until_ready(compiled(params, state, given))
        seconds.append(time.perf_counter() - began)
    if not np.isfinite(np.asarray(total)).all():
        raise AssertionError("the environment returned a value that is not finite")
    return _measured(worlds * steps, seconds[1:], compile_s)._replace(memory_mb=round(memory_mb, 1))


def measure_plain(env, wear: WearModel, steps: int, repeats: int) -> Measurement:
    """The plain loop on random days with random actions and base20 observations."""
    params, rng = env.default_params, np.random.default_rng(0)
    low, high = np.asarray(params.ranges.low, float), np.asarray(params.ranges.high, float)
    days = plain_days(params.table)

    def play() -> float:
        total = 0.0
        for _ in range(steps // HOURS):
            day, battery = days[rng.integers(len(days))], PlainBattery(params.plant, params.plant.soc_init)
            for hour in range(HOURS):
                command = rng.uniform(-1, 1) * params.plant.power_mw
                total += plain_hour(params.plant, wear, battery, hour, command, day.pv[hour], day.price[hour],
                                    day.reserve[hour]).profit  # fmt: skip
                total += plain_observation(day, battery, min(hour + 1, HOURS - 1), low, high)[0]
        return total

    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        play()
        seconds.append(time.perf_counter() - began)
    return _measured(steps // HOURS * HOURS, seconds, 0.0)


def circle_env(aircraft: int, folder: Path):
    """Aircraft on a circle, each to the opposite point, all through the centre at once."""
    radius = max(12.5, 8.0 * aircraft / 6.28)
    legs = []
    for i in range(aircraft):
        bearing = 2 * np.pi * i / aircraft
        north, east = float(radius * np.cos(bearing)), float(radius * np.sin(bearing))
        legs.append((f"A{i}", (north, east), float(np.degrees(bearing) + 180) % 360, (-north, -east)))
    path = folder / f"circle_{aircraft}.json"
    scenarios.write(scenarios.from_legs(path.stem, scenarios.FIVE_AT, legs), path)
    return envs_jax.make("atc/head_on", scenario_file=str(path))


def measure_airspaces(
    airspaces: Sequence[int], aircraft: Sequence[int], named: Sequence[str], repeats: int, devices: int
) -> list[dict]:
    """Rates over numbers of airspaces and of aircraft in each, on circles; and of named scenarios."""
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        envs = {f"circle of {count}": circle_env(count, Path(folder)) for count in aircraft}
    envs |= {name: envs_jax.make(f"atc/{name}") for name in named}
    for name, env in envs.items():
        for worlds in airspaces:
            rate = measure_jax(env, worlds, max(20, 204_800 // worlds), repeats, devices)
            agents = rate.steps_per_s * env.num_agents
            case = {"world": "atc", "scenario": name, "airspaces": worlds, "aircraft": env.num_agents}
            rates.append({**case, **rate._asdict(), "agent_steps_per_s": agents})
            print(
                f"{worlds:6} airspaces, {name:20} {rate.steps_per_s:12,.0f} steps/s "
                f"({rate.lowest:,.0f} .. {rate.highest:,.0f})  compile {rate.compile_s:.1f} s",
                flush=True,
            )
    return rates


def measure_cameras(
    presets: Sequence[str], teams: Sequence[int], pool: int, repeats: int, devices: int
) -> list[dict[str, Any]]:
    """Frames over presets and numbers of worlds. A step is of as many frames as actions are held for: episodes end far
    beyond what is played, so that almost none is cut short."""
    rates = []
    for preset in presets:
        env = camera_env(preset, pool)
        for worlds in teams:
            rate = measure_jax(env, worlds, max(10, 40_960 // worlds), repeats, devices)
            frames = FRAMES_HELD * np.array([rate.steps_per_s, rate.lowest, rate.highest])
            case = {"world": "mate", "preset": preset, "worlds": worlds, "pool": pool}
            rates.append({**case, **rate._asdict(), "frames_per_s": frames[0]})
            print(
                f"{worlds:6} worlds of {preset:7} {frames[0]:12,.0f} frames/s ({frames[1]:,.0f} .. {frames[2]:,.0f})  "
                f"compile {rate.compile_s:.1f} s, {rate.memory_mb:.0f} MB",
                flush=True,
            )
    return rates


def camera_env(preset: str, pool: int):
    """Cameras that select targets, against greedy ones."""
    return envs_jax.make(f"mate/{preset}", frame_skip=FRAMES_HELD, reset_pool=pool)


def measure_parts(env, worlds: int, steps: int, repeats: int) -> dict[str, float]:
    """Nanoseconds of a step of one world on one core, with less and less of it computed."""
    rates = {part: measure_jax(env, worlds, steps, repeats, part=part) for part in get_args(Part)}
    ns = {part: round(1e9 / rate.steps_per_s, 1) for part, rate in rates.items()}
    print("ns a step, one core:", ", ".join(f"{part} {value}" for part, value in ns.items()), flush=True)
    return ns


def measure_training(path: Path, repeats: int) -> dict[str, float]:
    """Environment steps per second of a configuration's update calls, compiled once and ahead of the first."""
    run = build(load_config(path))
    algorithm = run.algorithm
    data = jax.tree.map(jnp.asarray, algorithm.load_data())
    state = jax.jit(algorithm.init)(jax.random.key(0), algorithm.hparams, data)
    began = time.perf_counter()
    update = jax.jit(algorithm.update, donate_argnums=0).lower(state, data).compile()  # cannot be traced anew
    compile_s = time.perf_counter() - began
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(update(state, data))
        seconds.append(time.perf_counter() - began)
    rate = _measured(algorithm.env_steps_per_update, seconds[1:], compile_s)
    print(f"{path.stem}: {rate.steps_per_s:,.0f} steps/s while learning, compile {compile_s:.1f} s", flush=True)
    return rate._asdict()


def _measured(steps: int, seconds: list[float], compile_s: float) -> Measurement:
    return Measurement(steps / statistics.median(seconds), steps / max(seconds), steps / min(seconds), compile_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=4096, help="plants stepped in parallel")
    parser.add_argument("--steps", type=int, default=240, help="steps per repetition")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions; the median is reported (at least 5)")
    parser.add_argument("--plain-steps", type=int, default=24_000, help="steps of the plain loop per repetition")
    parser.add_argument("--world", choices=("bess", "atc", "mate"), default="bess")
    parser.add_argument("--airspaces", type=int, nargs="+", default=[64, 256, 1024, 2048, 4096, 16_384])
    parser.add_argument("--aircraft", type=int, nargs="*", default=[2, 4, 8, 16], help="in each airspace")
    parser.add_argument("--scenarios", nargs="*", default=[], help="named ones, beside circles of aircraft")
    parser.add_argument("--presets", nargs="+", default=["4v4-9", "4v8-9", "8v8-9"], help="camera worlds")
    parser.add_argument("--teams", type=int, nargs="+", default=[1024, 4096], help="camera worlds stepped in parallel")
    parser.add_argument("--pool", type=int, default=4096, help="starts of camera worlds; 0: always new ones")
    parser.add_argument("--devices", type=int, default=2, help="cores (or GPUs) that share the worlds")
    parser.add_argument("--trainings", type=Path, nargs="*", default=TRAININGS, help="configurations of atc")
    parser.add_argument("--name", help="of the record")
    args = parser.parse_args()
    if args.repeats < 5:
        parser.error("--repeats must be at least 5")

    before, rates = record.machine(), []
    if args.world != "bess":
        sharding.provide_cpu_devices(args.devices)
    if args.world == "mate":
        rates = measure_cameras(args.presets, args.teams, args.pool, args.repeats, args.devices)
        values = {
            "repeats": args.repeats, "devices": args.devices, "frames_of_a_step": FRAMES_HELD, "rates": rates,
            "ns_per_step_on_one_core": measure_parts(camera_env(args.presets[0], args.pool), 1024, 40, args.repeats),
        }  # fmt: skip
        print(record.write(args.name or "throughput_mate", values, before))
        return
    if args.world == "atc":
        rates = measure_airspaces(args.airspaces, args.aircraft, args.scenarios, args.repeats, args.devices)
        with tempfile.TemporaryDirectory() as folder:
            parts = measure_parts(circle_env(4, Path(folder)), 2048, 100, args.repeats)
        values = {
            "repeats": args.repeats, "devices": args.devices, "rates": rates,
            "ns_per_step_on_one_core": parts,
            "training": {path.stem: measure_training(path, args.repeats) for path in args.trainings},
        }  # fmt: skip
        print(record.write(args.name or "throughput_atc", values, before))
        return
    for wear in WEAR_MODELS:
        common = {"degradation_model": wear, "action_mode": "signed"}
        base = envs_jax.make("bess", obs="base20", **common)
        check_same_rules(base, wear)
        plain = measure_plain(base, wear, args.plain_steps, args.repeats)
        rates.append({"world": "plain loop", "obs": "base20", "wear": wear, **plain._asdict()})
        for layout in LAYOUTS:
            env = base if layout == "base20" else envs_jax.make("bess", obs=layout, **common)
            fast = measure_jax(env, args.days, args.steps, args.repeats)
            ratio = fast.steps_per_s / plain.steps_per_s
            rates.append({"world": "jax", "obs": layout, "wear": wear, **fast._asdict(), "ratio_to_plain_loop": ratio})
            print(f"{wear:10} {layout:7} {fast.steps_per_s:12,.0f} steps/s  ({fast.lowest:,.0f} .. {fast.highest:,.0f})"
                  f"  {ratio:6.1f} x plain loop  compile {fast.compile_s:.1f} s")  # fmt: skip
    values = {"days": args.days, "steps": args.steps, "repeats": args.repeats, "rates": rates}
    print(record.write(args.name or "throughput", values, before))


if __name__ == "__main__":
    main()
