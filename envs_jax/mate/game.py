"""A step of the learners: what they and their opponents do while an action is held, what it pays, what they see.

Reading order: `Game` and `GameParams`, `Setup` (static choices), then `Functions`: `reset`, `step` and what both are
made of. Everything between random numbers and results has the batch last (see `envs_jax.batch_last`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.batch_last import batch_last
from envs_jax.mate import actions, macro, rewards, transforms
from envs_jax.mate.config import Control, Learner
from envs_jax.mate.opponents import Opponent
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.reset import Pool, from_pool, start
from envs_jax.mate.state import Noise, State, without_layout
from envs_jax.mate.transforms import Options
from envs_jax.mate.transition import Frame, transition
from envs_jax.spaces import Box, Discrete
from envs_jax.words import expanded, uniform_01


class Game(NamedTuple):
    """State of the environment."""

    world: State
    opponent: Any
    """Memory of the scripted team; () where both learn."""


class GameParams(NamedTuple):
    """Parameters of the environment, a pytree."""

    world: Params
    reward_weights: Mapping[str, jax.Array]
    """By term."""
    opponent: Any = ()
    """Policy of a guest."""
    pool: Pool | None = None
    """Starts to choose from; None: always new ones."""


class Setup(NamedTuple):
    """Static choices."""

    rules: Rules
    learner: Learner
    control: Control
    frame_skip: int
    levels: int
    encoding: macro.Encoding
    reward_reduction: rewards.Reduction
    cameras: Options
    targets: Options
    rescale: bool
    state_scale: bool


SUMS = "raw_reward", "normalized_raw_reward", "delivered"
MEANS = (
    "coverage_rate", "real_coverage_rate", "num_tracked", "is_colliding", "num_selected_targets",
    "num_valid_selected_targets", "num_invalid_selected_targets", "invalid_target_selection_rate",
)  # fmt: skip
REDUCTIONS: dict[str, macro.Reduction] = {**dict.fromkeys(SUMS, "sum"), **dict.fromkeys(MEANS, "mean")}
"""What becomes of the entries of `info` over the frames of a step; of the others the last value is kept."""


class Functions:
    """The pure functions of one environment, bound to static choices."""

    def __init__(self, setup: Setup, opponent: Opponent | None):
        self.setup, self.opponent = setup, opponent
        rules = setup.rules
        self.num_agents = {
            "cameras": rules.num_cameras,
            "targets": rules.num_targets,
            "both": rules.num_cameras + rules.num_targets,
        }[setup.learner]
        self._begin = batch_last(self._begin_batch)
        self._advance = batch_last(self._advance_batch)
        self._state_vector = batch_last(self._state_vector_batch)
        self._mask = batch_last(lambda world: self.legal(world))

    # Spaces

    def observation_size(self) -> int:
        rules, setup = self.setup.rules, self.setup
        cameras = rules.camera_observation_size - setup.cameras.drop_index
        targets = rules.target_observation_size - setup.targets.drop_index
        return {"cameras": cameras, "targets": targets, "both": max(cameras, targets)}[setup.learner]

    def action_space(self, params: GameParams) -> Box | Discrete:
        setup = self.setup
        if setup.control == "macro":
            each = macro.action_space(setup.encoding, setup.rules.num_targets)
            return Discrete(each.n, (self.num_agents, *each.shape))
        if setup.control == "flat":
            return Discrete(setup.levels**2, (self.num_agents,))
        limit = self.limits(params)
        return Box(-limit, limit, (self.num_agents, 2))

    def limits(self, params: GameParams) -> np.ndarray:
        """Largest components of continuous actions, (A, 2)."""
        world, rules = params.world, self.setup.rules
        camera = [float(world.camera_rotation_step_deg), float(world.camera_zooming_step_deg)]
        target = [float(world.target_step_size)] * 2
        rows = {"cameras": [camera] * rules.num_cameras, "targets": [target] * rules.num_targets}
        teams = ("cameras", "targets") if self.setup.learner == "both" else (self.setup.learner,)
        return np.array([row for team in teams for row in rows[team]], np.float32)

    # The contract

    def reset(self, key, params: GameParams):
        key_world, key_opponent = jax.random.split(key)
        rules, seed = self.setup.rules, jax.random.bits(key_opponent, (2,), jnp.uint32)
        world = start(key_world, params.world, rules) if params.pool is None else from_pool(key_world, params.pool)
        return self._begin(world, seed, params._replace(pool=None))

    def step(self, key, game: Game, action, params: GameParams):
        return self._advance(game, action, jax.random.bits(key, (2,), jnp.uint32), params._replace(pool=None))

    def global_state(self, game: Game, params: GameParams):
        return self._state_vector(game.world, params.world)

    def action_mask(self, game: Game, params: GameParams):
        return self._mask(game.world)

    # With the batch last

    def _begin_batch(self, world: State, seed, params: GameParams):
        world = _of_batch(world, seed)
        memory = ()
        if self.opponent is not None:
            draws = self.opponent.draw(expanded(seed, self.opponent.num_words))
            memory = self.opponent.start(draws, world, params.world, params.opponent)
        return self.observe(world, params.world), Game(world, memory)

    def _state_vector_batch(self, world: State, params: Params):
        return transforms.state_vector(world, params, self.setup.rescale, self.setup.state_scale)

    def _advance_batch(self, game: Game, action, seed, params: GameParams):
        game = _of_batch(game, seed)
        layout, steered = game.world.layout, self._steering(action)

        def frame(game: Game, number) -> macro.Frame:
            world = game.world._replace(layout=layout)
            noise, draws = self.random(seed, number, params.world)
            memory, other = self._opponent_moves(game.opponent, world, draws, params)
            turn, move = self._both(steered(world, params.world), other)
            world, brought = transition(world, turn, move, noise, params.world, self.setup.rules)
            return macro.Frame(
                state=Game(without_layout(world), memory),
                reward=self.reward(world, brought, params),
                terminated=brought.terminated,
                truncated=brought.truncated & ~brought.terminated,
                info=self.info(world, brought, action, params.world),
            )

        frames = jnp.arange(self.setup.frame_skip, dtype=jnp.uint32)
        bare = Game(without_layout(game.world), game.opponent)
        end = macro.hold(frame, bare, frames, REDUCTIONS)
        game = end.state._replace(world=end.state.world._replace(layout=layout))
        obs = self.observe(game.world, params.world)
        return obs, game, end.reward, end.terminated, end.truncated, end.info

    def random(self, seed, frame, params: Params) -> tuple[Noise, Any]:
        """Of the world and of the opponent in one frame, from two words (2, B) of the step and the frame's number."""
        rules, opponent = self.setup.rules, self.opponent
        pairs = rules.num_cameras * rules.num_targets
        own = pairs + rules.num_targets
        seed = jnp.stack([seed[0], seed[1] + frame * jnp.uint32(0x9E3779B1)])
        words = expanded(seed, own + (0 if opponent is None else opponent.num_words))
        u = uniform_01(words[:own])
        transmit = u[:pairs].reshape(rules.num_cameras, rules.num_targets, -1) < params.transmittance
        return Noise(transmit, u[pairs:]), () if opponent is None else opponent.draw(words[own:])

    def _opponent_moves(self, memory, world: State, draws, params: GameParams):
        if self.opponent is None:
            return (), None
        return self.opponent.act(memory, world, draws, params.world, params.opponent)

    def _both(self, own, other):
        """(cameras' actions, targets' actions)"""
        if self.setup.learner == "both":
            return own[: self.setup.rules.num_cameras], own[self.setup.rules.num_cameras :]
        return (own, other) if self.setup.learner == "cameras" else (other, own)

    def _steering(self, action):
        """`(world, params)`: what the learners' actions mean in a frame, (A, 2, B)."""
        setup = self.setup
        if setup.control == "continuous":
            return lambda world, params: action
        if setup.control == "macro":
            subset = self.subset(action)
            return lambda world, params: macro.executor(subset, world, params)
        return lambda world, params: flat_motion(action, setup, world, params)

    def subset(self, action):
        """Targets (C, T, B) of macro actions (C, ..., B)."""
        return jnp.moveaxis(
            macro.to_subset(self.setup.encoding, jnp.moveaxis(action, -1, 1), self.setup.rules.num_targets), 1, -1
        )

    def observe(self, world: State, params: Params):
        """(A, d, B)"""
        setup = self.setup
        views = []
        if setup.learner != "targets":
            views.append(transforms.camera_observation(world, params, setup.cameras))
        if setup.learner != "cameras":
            views.append(transforms.target_observation(world, params, setup.targets))
        longest = max(view.shape[1] for view in views)
        return jnp.concatenate([jnp.pad(v, ((0, 0), (0, longest - v.shape[1]), (0, 0))) for v in views])

    def legal(self, world: State):
        """Which macro actions select visible targets alone, (C, n, B)."""
        visible = transforms.targets_seen(world, self.setup.cameras)
        legal = macro.valid_actions(self.setup.encoding, jnp.moveaxis(visible, -1, 1))
        return jnp.moveaxis(legal, 1, -1)

    def reward(self, world: State, brought: Frame, params: GameParams):
        """Of the learners in one frame, (A, B)."""
        rules, weights = self.setup.rules, params.reward_weights
        camera_terms = lambda: rewards.camera_terms(weights, world, brought, params.world)  # noqa: E731
        target_terms = lambda: rewards.target_terms(weights, world, brought, params.world)  # noqa: E731
        reduced = lambda terms, count: rewards.reduced(terms, weights, count, self.setup.reward_reduction)  # noqa: E731
        match self.setup.learner:
            case "cameras":
                return reduced(camera_terms(), rules.num_cameras)
            case "targets":
                return reduced(target_terms(), rules.num_targets)
            case "both":
                of_cameras = reduced(camera_terms(), rules.num_cameras)
                # A game of two teams has no sum: what cameras gain, targets lose.
                lost = -jnp.mean(of_cameras, axis=0, keepdims=True)
                return jnp.concatenate([of_cameras, jnp.repeat(lost, rules.num_targets, axis=0)])

    def info(self, world: State, brought: Frame, action, params: Params) -> dict[str, jax.Array]:
        """Of one frame."""
        raw = -brought.reward.astype(params.max_team_reward.dtype)
        entries = {
            "raw_reward": raw,
            "normalized_raw_reward": raw / params.max_team_reward,
            **brought.metrics._asdict(),
            "num_tracked": jnp.sum(world.sight.c2t, axis=1, dtype=jnp.int32).astype(raw.dtype),
            "is_colliding": world.colliding.astype(raw.dtype),
            "delivered": world.delivered_now.astype(raw.dtype),
        }
        if self.setup.control == "macro":
            entries |= macro.counts(self.subset(action), world.sight.c2t)._asdict()
        return entries


def _of_batch(tree, seed):
    """Leaves that are the same in all worlds get the batch of the seeds (2, B)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[:-1], seed.shape[-1])), tree)


def flat_motion(index, setup: Setup, world: State, params: Params):
    """What indices of the grid (A, B) mean, (A, 2, B)."""
    count = setup.rules.num_cameras
    match setup.learner:
        case "cameras":
            return actions.camera_action(index, setup.levels, params)
        case "targets":
            return actions.target_action(index, setup.levels, world.layout.step_size)
        case "both":
            turn = actions.camera_action(index[:count], setup.levels, params)
            return jnp.concatenate([turn, actions.target_action(index[count:], setup.levels, world.layout.step_size)])
