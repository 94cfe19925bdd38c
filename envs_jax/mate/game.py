"""A step of the learners: what they and their opponents do while an action is held, what it pays, what they see.

Reading order: `Game` and `GameParams`, then `Functions`: `reset`, `step` and what both are made of. Everything between
random numbers and results has the batch last (see `envs_jax.batch_last`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.batch_last import batch_last
from envs_jax.mate import macro, rewards
from envs_jax.mate.opponents import Opponent
from envs_jax.mate.params import Params
from envs_jax.mate.players import Watching
from envs_jax.mate.reset import Pool, from_pool, start
from envs_jax.mate.state import Noise, State, without_layout
from envs_jax.mate.teams import Setup, legal, members, motions, observation_size, observed, subset
from envs_jax.mate.transforms import state_vector
from envs_jax.mate.transition import Frame, transition
from envs_jax.words import expanded, uniform_01


class Game(NamedTuple):
    """State of the environment."""

    world: State
    opponent: Any
    """Memory of the scripted team; () where both learn."""
    players: tuple[Any, ...] = ()
    """Memories of the scripted players that act in place of the learners, in a world of yardsticks."""


class GameParams(NamedTuple):
    """Parameters of the environment, a pytree."""

    world: Params
    reward_weights: Mapping[str, jax.Array]
    """By term."""
    opponent: Any = ()
    """Policy of a guest, or the number of the one that acts of several scripted teams."""
    pool: Pool | None = None
    """Starts to choose from; None: always new ones."""


SUMS = "raw_reward", "normalized_raw_reward", "delivered", "team_selected", "team_selected_valid"
MEANS = (
    "coverage_rate", "real_coverage_rate", "num_tracked", "is_colliding", "num_selected_targets",
    "num_valid_selected_targets", "num_invalid_selected_targets", "invalid_target_selection_rate",
    "invalid_selection_rate",
)  # fmt: skip
REDUCTIONS: dict[str, macro.Reduction] = {**dict.fromkeys(SUMS, "sum"), **dict.fromkeys(MEANS, "mean")}
"""What becomes of the entries of `info` over the frames of a step; of the others the last value is kept."""


class Functions:
    """The pure functions of one environment, bound to static choices.

    Args:
        players: of the learners' team: they act in its place, in every frame, and an action's first number says which
            of them. Such a world is for yardsticks.
    """

    def __init__(self, setup: Setup, opponent: Opponent | None, players: Sequence[Opponent] = ()):
        self.setup, self.opponent, self.players = setup, opponent, tuple(players)
        self.num_agents = sum(members(team, setup.rules) for team in setup.learners)
        self.observation_size = max(observation_size(team, setup) for team in setup.learners)
        """Where both teams learn, shorter observations end with zeros."""
        self._begin = batch_last(self._begin_batch)
        self._advance = batch_last(self._advance_batch)
        self._state_vector = batch_last(
            lambda world, params: state_vector(world, params, setup.rescale, setup.state_scale)
        )
        self._legal = batch_last(lambda world: legal(world, setup))

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
        return self._legal(game.world)

    # With the batch last

    def _begin_batch(self, world: State, seed, params: GameParams):
        world, seed = _of_batch(world, seed)
        memory: Any = ()
        draws, drawn = self.scripted_draws(expanded(seed, self.num_scripted_words))
        if self.opponent is not None:
            memory, _ = _of_batch(self.opponent.start(draws, world, params.world, params.opponent), seed)
        players = tuple(
            _of_batch(player.start(own, world, params.world, ()), seed)[0]
            for player, own in zip(self.players, drawn, strict=True)
        )
        return self.observe(world, params.world), Game(world, memory, players)

    def _advance_batch(self, game: Game, action, seed, params: GameParams):
        game, action, seed = _of_batch(game, action, seed)
        layout = game.world.layout

        def frame(game: Game, number) -> macro.Frame:
            world = game.world._replace(layout=layout)
            noise, draws = self.random(seed, number, params.world)
            game, turn, move = self.moves(game._replace(world=world), action, draws, params)
            world, brought = transition(world, turn, move, noise, params.world, self.setup.rules)
            return macro.Frame(
                state=game._replace(world=without_layout(world)),
                reward=self.reward(world, brought, params),
                terminated=brought.terminated,
                truncated=brought.truncated & ~brought.terminated,
                info=self.info(world, brought, action, game.players, params.world),
            )

        frames = jnp.arange(self.setup.frame_skip, dtype=jnp.uint32)
        bare = game._replace(world=without_layout(game.world))
        end = macro.hold(frame, bare, frames, REDUCTIONS)
        game, info = end.state._replace(world=end.state.world._replace(layout=layout)), end.info
        if self.setup.control == "macro":
            info = {**info, "selected": self.selected(action, game.players)}
        return self.observe(game.world, params.world), game, end.reward, end.terminated, end.truncated, info

    @property
    def num_scripted_words(self) -> int:
        """Random words of a frame that scripted teams take."""
        return sum(team.num_words for team in (self.opponent, *self.players) if team is not None)

    def scripted_draws(self, words) -> tuple[Any, list[Any]]:
        """Random numbers of a frame of the opponent, () without one, and of the players, from their words."""
        draws, first = [], 0
        for team in (self.opponent, *self.players):
            count = 0 if team is None else team.num_words
            draws.append(() if team is None else team.draw(words[first : first + count]))
            first += count
        return draws[0], draws[1:]

    def random(self, seed, frame, params: Params) -> tuple[Noise, Any]:
        """Of the world and of scripted teams in one frame, from two words (2, B) of the step and the frame's number."""
        rules = self.setup.rules
        pairs = rules.num_cameras * rules.num_targets
        own = pairs + rules.num_targets
        seed = jnp.stack([seed[0], seed[1] + frame * jnp.uint32(0x9E3779B1)])
        words = expanded(seed, own + self.num_scripted_words)
        u = uniform_01(words[:own])
        transmit = u[:pairs].reshape(rules.num_cameras, rules.num_targets, *u.shape[1:]) < params.transmittance
        return Noise(transmit, u[pairs:]), self.scripted_draws(words[own:])

    def moves(self, game: Game, action, draws, params: GameParams):
        """The game with the next memories, and what cameras (C, 2, B) and targets (T, 2, B) do in a frame."""
        setup, world, moves, first = self.setup, game.world, {}, 0
        for_opponent, for_players = draws
        for team in setup.learners if not self.players else ():
            own = action[first : first + members(team, setup.rules)]
            moves[team] = motions(team, setup.control, own, world, params.world, setup)
            first += len(own)
        if self.players:
            acted = [
                player.act(memory, world, own, params.world, ())
                for player, memory, own in zip(self.players, game.players, for_players, strict=True)
            ]
            memories, each = zip(*acted, strict=True)
            moves[setup.learners[0]] = of_number(action, each)
            game = game._replace(players=memories)
        if self.opponent is not None:
            memory, other = self.opponent.act(game.opponent, world, for_opponent, params.world, params.opponent)
            moves["targets" if setup.learner == "cameras" else "cameras"] = other
            game = game._replace(opponent=memory)
        return game, moves["cameras"], moves["targets"]

    def selected(self, action, players):
        """Targets (C, T, B) that macro actions select, or the player that acts if it is one that selects targets."""
        chosen = subset(action, self.setup)
        if not self.players:
            return chosen
        none = jnp.zeros_like(chosen)
        return of_number(action, [memory.subset if isinstance(memory, Watching) else none for memory in players])

    def observe(self, world: State, params: Params):
        """(A, d, B)"""
        views = [observed(team, world, params, self.setup) for team in self.setup.learners]
        missing = [self.observation_size - view.shape[1] for view in views]
        return jnp.concatenate([jnp.pad(v, ((0, 0), (0, m), (0, 0))) for v, m in zip(views, missing, strict=True)])

    def reward(self, world: State, brought: Frame, params: GameParams):
        """Of the learners in one frame, (A, B)."""
        setup, weights = self.setup, params.reward_weights
        terms_of = rewards.target_terms if setup.learner == "targets" else rewards.camera_terms
        terms = terms_of(weights, world, brought, params.world)
        own = rewards.reduced(terms, weights, members(setup.learners[0], setup.rules), setup.reward_reduction)
        if setup.learner != "both":
            return own
        # What cameras gain, targets lose.
        lost = jnp.broadcast_to(-jnp.mean(own, axis=0), (setup.rules.num_targets, *own.shape[1:]))
        return jnp.concatenate([own, lost])

    def info(self, world: State, brought: Frame, action, players, params: Params) -> dict[str, jax.Array]:
        """Of one frame; returns are the cameras'."""
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
            counted = macro.counts(self.selected(action, players), world.sight.c2t)
            entries |= counted._asdict()
            entries |= {
                "team_selected": jnp.sum(counted.num_selected_targets, axis=0),
                "team_selected_valid": jnp.sum(counted.num_valid_selected_targets, axis=0),
                "invalid_selection_rate": jnp.mean(counted.invalid_target_selection_rate, axis=0),
            }
        return entries


def of_number(action, each: Sequence[jax.Array]):
    """Of arrays (..., B) the one with the number that is the first of an action (N, ..., B)."""
    number = action.reshape(-1, action.shape[-1])[0]
    chosen = each[0]
    for index, other in enumerate(each[1:], start=1):
        chosen = jnp.where(number == index, other, chosen)
    return chosen


def _of_batch(*trees):
    """With one batch for all: what is the same in all worlds gets the size of the others."""
    size = max(leaf.shape[-1] for leaf in jax.tree.leaves(trees))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[:-1], size)), trees)
