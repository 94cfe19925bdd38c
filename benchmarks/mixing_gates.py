"""What mixers can represent, on games whose answers are known: one step, and two states.

    python benchmarks/mixing_gates.py matrix
    python benchmarks/mixing_gates.py two_state

`matrix`: mixers on three payoff tables, uniform exploration, eight seeds of each in one program: the payoff of greedy
actions, and the learned value of every joint action beside the table. `two_state`: fitted values of the best action at
home after refreshes of the target network on all eight pairs of state and joint action; true is 1 / (1 - gamma).
"""

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record

import envs_jax
from envs_jax.adapters import with_agent_axis
from purerl.algos import qplex
from purerl.learn.buffers import Sequences
from purerl.learn.joint_values import ValueNets, joint_value, targets, td_loss
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.teams import networks
from purerl.nets.mixer_parts import MixerConfig
from purerl.nets.utilities import AgentConfig
from purerl.run.program import scan_updates

PAYOFFS = {
    "G1": [[10.4, 0.0, 10.0], [0.0, 10.0, 10.0], [10.0, 10.0, 10.0]],
    "G2": [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]],
    "G3": [[8.0, -12.0, -12.0], [-12.0, 6.0, 0.0], [-12.0, 0.0, 6.0]],
}
GRADIENT_STEPS = {"G1": 20_000, "G2": 12_000, "G3": 20_000}
LIMITS = {
    ("vdn", "G1"): [[5.78, 5.64, 8.98], [5.64, 5.51, 8.84], [8.98, 8.84, 12.18]],
    ("vdn", "G2"): [[-6.22, -4.89, -4.89], [-4.89, -3.56, -3.56], [-4.89, -3.56, -3.56]],
    ("vdn", "G3"): [[-7.56, -4.22, -4.22], [-4.22, -0.89, -0.89], [-4.22, -0.89, -0.89]],
    ("qmix", "G1"): [[5.78, 5.64, 8.98], [5.64, 5.51, 8.84], [8.98, 8.84, 12.18]],
    ("qmix", "G2"): [[-8.0, -8.0, -8.0], [-8.0, 0.0, 0.0], [-8.0, 0.0, 0.0]],
    ("qmix", "G3"): [[-8.0, -8.0, -8.0], [-8.0, 3.0, 3.0], [-8.0, 3.0, 3.0]],
}
"""Least-squares limits under uniform data: exact for VDN, of a monotonic and supermodular value for QMIX."""
SEEDS = 8
AGENT = AgentConfig(type="mlp", hidden_dims=(64, 64))


def matrix_config(name: str, gradient_steps: int, **changes: Any) -> qplex.Config:
    """The setting of the gates: a fresh uniform batch of 32 joint actions for every gradient step."""
    keys: dict[str, Any] = {
        "name": name, "total_env_steps": 32 * gradient_steps, "num_envs": 32, "steps_per_update": 1,
        "chunk_length": 1, "burn_in": 0, "updates_per_step": 1 / 32, "warmup_steps": 32, "buffer_size": 5000,
        "batch_size": 32, "epsilon_start": 1.0, "epsilon_end": 1.0, "q_network": AGENT,
    }  # fmt: skip
    return qplex.Config(**(keys | changes))


def value_table(nets: ValueNets, params, shape: tuple[int, ...]) -> jax.Array:
    """Joint values of every joint action of a one-step game, and the greedy one's number."""
    agents = len(shape)
    actions = jnp.asarray(np.indices(shape).reshape(agents, -1).T)
    lead = 1, len(actions)
    memory = nets.utilities.empty_memory((1, agents))
    x = nets.utilities.inputs(jnp.zeros((1, agents, 2)), memory.previous)
    _, utility = nets.team.step(nets.utilities.step, params.agents, memory.network, x)
    utility = jnp.broadcast_to(utility[None], (*lead, *utility.shape[1:]))
    values = joint_value(nets, params.mixer, utility, actions[None], None, None, jnp.zeros((*lead, 2))).value
    best = jnp.argmax(utility[0, 0], axis=-1)
    return jnp.mean(values, axis=-1).reshape(shape), jnp.ravel_multi_index(tuple(best), shape, mode="clip")


def learned_tables(name: str, payoff: list, gradient_steps: int, seeds: int = SEEDS, **changes: Any):
    """`(tables [seeds, ...], payoffs of greedy actions [seeds])`, all seeds in one program."""
    env = with_agent_axis(envs_jax.make("matrix", payoff=payoff))
    config = matrix_config(name, gradient_steps, **changes)
    algorithm = qplex.make(config, env)
    table = np.asarray(payoff)
    nets = networks(config, config.mixer, env, env.default_params, max(table.shape))

    @jax.jit
    def train(keys):
        def one(key):
            data = algorithm.load_data()
            state = algorithm.init(key, algorithm.hparams, data)
            state, _ = scan_updates(algorithm.update, state, data, algorithm.num_updates)
            return value_table(nets, state.learner.params, table.shape)

        return jax.vmap(one)(keys)

    values, best = jax.device_get(train(jax.random.split(jax.random.key(0), seeds)))
    return np.asarray(values), table.reshape(-1)[np.asarray(best)]


def run_matrix(seeds: int) -> dict[str, Any]:
    rows = []
    for game, payoff in PAYOFFS.items():
        for name in ("iql", "vdn", "qmix", "qplex", "qfix"):
            start = time.monotonic()
            tables, greedy = learned_tables(name, payoff, GRADIENT_STEPS[game], seeds)
            errors = ((tables - np.asarray(payoff)) ** 2).mean(axis=(1, 2))
            row: dict[str, Any] = {
                "game": game, "name": name, "gradient_steps": GRADIENT_STEPS[game], "greedy_payoff": greedy.tolist(),
                "optimal": int((greedy == np.max(payoff)).sum()), "mean_squared_error": errors.round(3).tolist(),
                "closest_table": tables[errors.argmin()].round(2).tolist(),
                "wall_clock_s": round(time.monotonic() - start, 1),
            }  # fmt: skip
            if (name, game) in LIMITS:
                far = np.abs(tables - np.asarray(LIMITS[name, game])).max(axis=(1, 2))
                row["furthest_from_limit"] = far.round(2).tolist()
            rows.append(row)
            print(game, name, "optimal", row["optimal"], "of", seeds, "error", row["mean_squared_error"],
                  "from limit", row.get("furthest_from_limit"), row["wall_clock_s"], "s", flush=True)  # fmt: skip
    return {"seeds": seeds, "games": PAYOFFS, "rows": rows}


# Two states

GAMMA, STEPS_PER_REFRESH, REFRESHES = 0.9, 150, 120


def all_pairs() -> Sequences:
    """Every state and joint action of the two-state game once, as chunks of one step [1, 8, 2, ...]."""
    at_home, first, second = (x.reshape(-1) for x in np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"))
    stays = at_home * ~((first == 1) & (second == 1))

    def seen(home):
        return np.stack([1 - home, home], axis=-1).astype(np.float32)

    def per_agent(x):
        return np.stack([x, x], axis=1)[None]

    none = np.zeros((1, 8), bool)
    paid = (at_home * ((first == 0) & (second == 0))).astype(np.float32)
    return Sequences(
        obs=jnp.asarray(per_agent(seen(at_home))),
        action=jnp.asarray(np.stack([first, second], axis=1)[None].astype(np.int32)),
        reward=jnp.asarray(per_agent(paid)),
        terminated=jnp.zeros((1, 8, 2), bool),
        truncated=jnp.asarray(none),
        reset=jnp.asarray(none),
        weight=jnp.ones((1, 8)),
        final_obs=jnp.asarray(per_agent(seen(stays))),
        global_state=jnp.asarray(np.tile(seen(at_home), 2)[None]),
        final_global_state=jnp.asarray(np.tile(seen(stays), 2)[None]),
        team_reward=jnp.asarray(paid[None]),
    )


def fitted_values(name: str, seeds: int, refreshes: int = REFRESHES, steps: int = STEPS_PER_REFRESH) -> np.ndarray:
    """Values of both staying at home [refreshes, seeds], after every refresh of the target network."""
    env = with_agent_axis(envs_jax.make("two_state"))
    config = qplex.Config(
        name=name, chunk_length=1, burn_in=0, gamma=GAMMA, optimizer="adam", optimizer_eps=1e-8,
        q_network=AGENT.model_copy(update={"previous_action": False}),
        mixing_network=MixerConfig(num_kernel=4, adv_hypernet_layers=1),
    )  # fmt: skip
    nets, h = networks(config, config.mixer, env, env.default_params, 2), qplex.hparams_of(config)
    optimizer = make_optimizer("adam", config.max_grad_norm)

    @jax.jit
    def fit(keys):
        batch = all_pairs()
        batch = batch.replace(carry=jax.tree.map(lambda x: x[None], nets.utilities.empty_memory((8, 2))))

        def one(key):
            params = nets.init(key)

            def refresh(carry, _):
                params, opt = carry
                y = targets(config.target_config(), nets, params, params, batch, 0, h)

                def step(carry, _):
                    params, opt = carry
                    loss = partial(td_loss, nets, batch=batch, y=y, burn_in=0)
                    _, _, params, opt = loss_step(optimizer, loss, params, opt, 1e-3)
                    return (params, opt), None

                carry, _ = jax.lax.scan(step, (params, opt), None, length=steps)
                return carry, home_value(carry[0])

            _, values = jax.lax.scan(refresh, (params, optimizer.init(params)), None, length=refreshes)
            return values

        def home_value(params):
            _, watched = td_loss(nets, params, jax.tree.map(lambda x: x[:, 4:5], batch), jnp.zeros((1, 1, 1)), 0)
            return watched["q_tot_mean"]

        return jax.vmap(one, out_axes=1)(keys)

    return np.asarray(fit(jax.random.split(jax.random.key(0), seeds)))


def run_two_state(seeds: int) -> dict[str, Any]:
    rows = []
    for name in ("vdn", "qmix", "qplex", "qfix"):
        start = time.monotonic()
        values = fitted_values(name, seeds)
        shown = {f"after_{n}": values[n - 1].astype(float).round(3).tolist() for n in (20, 60, 120)}
        rows.append({"name": name, **shown, "wall_clock_s": round(time.monotonic() - start, 1)})
        print(rows[-1], flush=True)
    return {
        "gamma": GAMMA,
        "true": 1 / (1 - GAMMA),
        "steps_per_refresh": STEPS_PER_REFRESH,
        "seeds": seeds,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("matrix", "two_state"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    before = record.machine()
    values = {"matrix": run_matrix, "two_state": run_two_state}[args.what](args.seeds)
    print(record.write(f"mixing_{args.what}", values, before))


if __name__ == "__main__":
    main()
