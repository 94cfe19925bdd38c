"""Networks of agents against plain loops: memory at two speeds, attention to entities, several choices at once, and how
sure a network is of what it selects."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing_cases import sigmoid
from pydantic import ValidationError
from replay_cases import random_like

from envs_jax.base import Entities, EntityKind, Selection
from purerl.nets.distributions import MASKED
from purerl.nets.networks import Network, NetworkConfig, initial_carry
from purerl.nets.selections import margins, selection_entropy
from purerl.nets.utilities import AgentConfig, Utilities, best_available, chosen, greedy

RNG = np.random.default_rng(0)


def numbers(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def gru_by_hand(params, h, x):
    x_r, x_z, x_n = np.split(x @ params["w_x"] + params["b"], 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ params["w_h"], 3, axis=-1)
    candidate = np.tanh(x_n + sigmoid(x_r + h_r) * (h_n + params["b_h"]))
    return candidate + sigmoid(x_z + h_z) * (h - candidate)


# Memory at two speeds

TIMES, ROWS, INPUTS, HIDDEN, PERIOD = 9, 2, 3, 4, 3


@pytest.fixture(scope="module")
def remembered():
    """Two layers of it: parameters, inputs, where episodes start, and outputs along the sequence and step by step."""
    config = NetworkConfig(
        cell="fast_slow", slow_period=PERIOD, lstm_hidden_size=HIDDEN, lstm_num_layers=2, hidden_sizes=()
    )
    network = Network(config, INPUTS, 1)
    params = random_like(jax.eval_shape(network.init, jax.random.key(0)))["core"]
    xs = RNG.normal(size=(TIMES, ROWS, INPUTS)).astype(np.float32)
    reset = np.zeros((TIMES, ROWS), bool)
    reset[4, 1] = True

    @jax.jit
    def ask(params, xs, reset):
        def body(carry, inputs):
            x, reset = inputs
            carry = jax.tree.map(lambda c: jnp.where(reset[:, None], 0.0, c), carry)
            return network.core.apply(params, carry, x, method="step")

        empty = initial_carry(config, (ROWS,))
        with_carry = network.core.apply(params, xs, empty, reset)
        return network.core.apply(params, xs, None, reset), with_carry, jax.lax.scan(body, empty, (xs, reset))[1]

    return numbers(params["params"]), xs, reset, *ask(params, xs, reset)


def test_the_slow_memory_follows_every_few_steps(remembered):
    params, xs, reset, along, with_carry, stepped = remembered
    np.testing.assert_allclose(stepped, along, atol=1e-6)
    np.testing.assert_allclose(with_carry, along, atol=1e-6)
    layers = [params["fast_slow_0"], params["fast_slow_1"]]
    for row in range(ROWS):
        fast, slow, since = np.zeros((2, HIDDEN)), np.zeros((2, HIDDEN // 2)), 0
        for t in range(TIMES):
            if reset[t, row]:
                fast, slow, since = 0 * fast, 0 * slow, 0
            x = xs[t, row]
            for number, layer in enumerate(layers):
                fast[number] = gru_by_hand(layer["fast"], fast[number], x)
                if since % PERIOD == 0:
                    slow[number] = gru_by_hand(layer["slow"], slow[number], fast[number])
                x = np.concatenate([fast[number], slow[number]])
            since += 1
            np.testing.assert_allclose(along[t, row], x, atol=1e-5)


def test_a_held_memory_does_not_move(remembered):
    slow = np.asarray(remembered[3])[:, 0, HIDDEN:]
    moves = np.abs(np.diff(slow, axis=0)).max(axis=-1) > 1e-6
    np.testing.assert_array_equal(moves, [(t + 1) % PERIOD == 0 for t in range(TIMES - 1)])


# Attention to entities

ENTITIES = Entities(own=3, kinds={"near": EntityKind(2, 4), "none": EntityKind(0, 9), "far": EntityKind(3, 3)})
OBS, WIDTH, HEADS, AGENTS = 3 + 8 + 9, 6, 2, 2
ATTENTION = AgentConfig(
    type="attention_rnn", hidden_dims=(5, WIDTH), rnn_hidden_dim=4, num_attention_heads=HEADS, activation="tanh"
)
CASES = {
    "one choice": (3, None, None),
    "a choice for each": (2, 3, Selection("factored", 3, "far")),
    "several choices": (3, 2, None),
}
"""Name -> n, m, what is selected."""


def observations(lead: tuple[int, ...]) -> np.ndarray:
    """Random, with flags; nothing of one kind is seen in the first row."""
    obs = RNG.normal(size=(*lead, OBS)).astype(np.float32)
    for flag in (6, 10, 13, 16, 19):
        obs[..., flag] = RNG.random(lead) < 0.5
    obs[..., 0, [13, 16, 19]] = 0.0
    return obs


class Asked:
    """What agents with random parameters make of observations, and of the same with what is hidden changed."""

    def __init__(self, name: str):
        n, parts, selection = CASES[name]
        self.utilities = utilities = Utilities(ATTENTION, OBS, AGENTS, n, parts, ENTITIES, selection)
        self.params = random_like(jax.eval_shape(utilities.init, jax.random.key(0)))
        self.obs = observations((4, AGENTS))
        hidden = self.obs.copy()
        for start, stop in ((3, 7), (7, 11), (11, 14), (14, 17), (17, 20)):
            unseen = hidden[..., stop - 1] == 0
            hidden[..., start : stop - 1][unseen] = 7.0
        self.previous = RNG.integers(0, n + 1, size=(4, AGENTS) if parts is None else (4, AGENTS, parts))
        self.carry = RNG.normal(size=(4, AGENTS, 4)).astype(np.float32)

        @jax.jit
        def ask(params, obs, hidden):
            def of(obs):
                x = utilities.inputs(obs, self.previous)
                return utilities.step(params, (self.carry,), x), utilities.attention(params, x)

            x = utilities.inputs(obs, self.previous)
            along = utilities.along(params, (self.carry.reshape(-1, 4),), x.reshape(1, -1, x.shape[-1]), None)
            return of(obs), of(hidden), along

        self.seen, self.changed, self.along = jax.device_get(ask(self.params, self.obs, hidden))


@pytest.fixture(scope="module", params=CASES)
def asked(request):
    return Asked(request.param)


def by_hand(asked: Asked, n: int, agent: int):
    """`(memory, outputs, shares)` of one agent."""
    utilities, params = asked.utilities, numbers(asked.params)
    obs = asked.obs[n, agent].astype(np.float64)
    bits = np.eye(utilities.choices + 1)[asked.previous[n, agent]][..., 1:]
    bits = bits if utilities.parts is None else bits[..., 1:]
    each = "each" in params
    own = [obs[:3], np.eye(AGENTS)[agent]] if each else [obs[:3], np.eye(AGENTS)[agent], bits.reshape(-1)]
    near, far = obs[3:11].reshape(2, 4), obs[11:].reshape(3, 3)
    seen = [True, *(near[:, -1] == 1), *(far[:, -1] == 1)]
    far = np.concatenate([far, bits], axis=1) if each else far
    tokens = []
    for kind, entity in [("own", np.concatenate(own)), *(("near", x) for x in near), *(("far", x) for x in far)]:
        for layer in params["tokens"][kind]:
            entity = np.tanh(entity @ layer["kernel"] + layer["bias"])
        tokens.append(entity)
    size = WIDTH // HEADS
    learned, weights = [], []
    for head in range(HEADS):
        columns = slice(head * size, (head + 1) * size)
        query = (tokens[0] @ params["query"])[columns]
        logits = np.array([query @ (token @ params["key"])[columns] for token in tokens]) / np.sqrt(size)
        share = np.where(seen, np.exp(logits), 0.0)
        share /= share.sum()
        weights.append(share)
        learned.append(sum(w * (token @ params["value"])[columns] for w, token in zip(share, tokens, strict=True)))
    summary = tokens[0] + np.concatenate(learned) @ params["out"]
    summary = (summary - summary.mean()) / np.sqrt(summary.var() + 1e-6)
    memory = gru_by_hand(params["memory"]["core"]["params"]["gru_0"], asked.carry[n, agent], summary)
    head = params["memory"]["head"]["params"]["_Linear_0"]
    out = memory @ head["kernel"] + head["bias"]
    for token in tokens[-3:] if each else ():
        layers = params["each"]
        hidden = np.tanh(memory @ layers["memory"]["kernel"] + layers["memory"]["bias"] + token @ layers["token"])
        out = np.concatenate([out, hidden @ layers["out"]["kernel"] + layers["out"]["bias"]])
    share = np.mean(weights, axis=0)
    return memory, out, {"own": share[0], "near": share[1:3].sum(), "far": share[3:].sum()}


def test_attention_is_that_of_a_plain_loop(asked):
    (carry, utility), shares = asked.seen
    for n, agent in itertools.product(range(4), range(AGENTS)):
        memory, out, expected = by_hand(asked, n, agent)
        np.testing.assert_allclose(carry[0][n, agent], memory, atol=1e-5)
        np.testing.assert_allclose(utility[n, agent], asked.utilities.of_outputs(out.astype(np.float32)), atol=1e-5)
        assert {name: share[n, agent] for name, share in shares.items()} == pytest.approx(expected, abs=1e-5)
    assert shares["far"][0, 0] >= 0 and (shares["near"] > 0).any()


def test_sequences_give_the_numbers_of_steps(asked):
    (_, utility), _ = asked.seen
    np.testing.assert_allclose(asked.along.reshape(utility.shape), utility, atol=1e-5)


def test_what_is_hidden_changes_nothing_but_its_own_choice(asked):
    """An entity that is not seen is in no attention; the choice about it is masked by the world."""
    (carry, utility), (changed_carry, changed_utility) = asked.seen[0], asked.changed[0]
    np.testing.assert_allclose(changed_carry[0], carry[0], atol=1e-6)
    same = np.abs(changed_utility - utility) < 1e-6
    if asked.utilities.network.each is None:
        assert same.all()
        return
    margin = (utility[..., 1] - utility[..., 0], changed_utility[..., 1] - changed_utility[..., 0])
    seen = asked.obs[..., [13, 16, 19]] == 1
    np.testing.assert_array_equal(np.abs(margin[0] - margin[1]) < 1e-6, seen)


def test_widths_that_heads_cannot_share_are_refused():
    with pytest.raises(ValidationError, match="shares the last width among num_attention_heads 4"):
        AgentConfig(type="attention_rnn", hidden_dims=(6,))


# Several choices at once


@pytest.mark.parametrize("dueling", [False, True])
def test_closed_forms_are_those_of_all_actions(dueling):
    """Constant and sum over three choices among two: chosen, best and greedy beside a list of all eight actions."""
    utilities = Utilities(AgentConfig(type="mlp", dueling=dueling), 1, 1, 2, 3)
    out = RNG.normal(size=(20, 1 + 3 * (2 if dueling else 1)))
    legal = np.stack([np.ones((20, 3), bool), RNG.random((20, 3)) < 0.6], axis=-1)
    utility = np.asarray(utilities.of_outputs(out.astype(np.float32)))
    actions = np.array(list(itertools.product((0, 1), repeat=3)))
    for k in range(20):
        each = out[k, 1:].reshape(3, -1)
        each = each - each.mean(axis=1, keepdims=True) if dueling else np.stack([0 * each[:, 0], each[:, 0]], axis=1)
        of_all = np.array([out[k, 0] + sum(each[j, a] for j, a in enumerate(action)) for action in actions])
        allowed = np.array([all(legal[k, j, a] for j, a in enumerate(action)) for action in actions])
        taken = utilities.of_action(chosen(np.broadcast_to(utility[k], (8, 3, 2)), actions))
        np.testing.assert_allclose(taken, of_all, atol=1e-5)
        assert float(utilities.of_action(best_available(utility[k], legal[k]))) == pytest.approx(
            of_all[allowed].max(), abs=1e-5
        )
        best = actions[np.where(allowed, of_all, -np.inf).argmax()]
        np.testing.assert_array_equal(greedy(utility[k], legal[k]), best)


def test_several_choices_are_described_by_bits():
    utilities = Utilities(AgentConfig(), 1, 1, 2, 3)
    np.testing.assert_array_equal(utilities.features(np.array([[1, 0, 1]])), [[1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(utilities.features(np.array([[-1, -1, -1]])), [[0.0, 0.0, 0.0]])
    three = Utilities(AgentConfig(), 1, 1, 3, 2)
    np.testing.assert_array_equal(three.features(np.array([[2, 1]])), [[0.0, 1.0, 1.0, 0.0]])


# Selections

SELECTED_BY = {
    "subset": np.array(list(itertools.product((False, True), repeat=3))),
    "single": np.concatenate([np.eye(3, dtype=bool), np.zeros((1, 3), bool)]),
}
"""Which entities every action selects: the first entity is the highest bit of a subset's number."""


@pytest.mark.parametrize("encoding", ["subset", "single", "factored"])
def test_margins_and_entropy_are_those_of_lists(encoding):
    selection = Selection(encoding, 3)
    if encoding == "factored":
        utility, legal = RNG.normal(size=(5, 3, 2)), np.ones((5, 3, 2), bool)
        legal[0, 1, 1] = legal[1, :, 1] = False
        margin, free = utility[..., 1] - utility[..., 0], legal.all(axis=-1)
    else:
        rows = SELECTED_BY[encoding]
        n = len(rows)
        utility, legal = RNG.normal(size=(5, n)), RNG.random((5, n)) < 0.7
        legal[:, 0] = True
        legal[0] = ~rows[:, 1]
        values = np.where(legal, utility, -np.inf)[:, :, None]
        with_it, without = (np.where(where, values, -np.inf).max(axis=1) for where in (rows, ~rows))
        free = np.isfinite(with_it) & np.isfinite(without)
        margin = np.where(free, with_it - np.where(free, without, 0.0), 0.0)
    found = margins(selection, utility.astype(np.float32), legal)
    np.testing.assert_array_equal(found.free, free)
    assert not free[0, 1] and free.any()
    np.testing.assert_allclose(np.where(free, found.margin, 0), np.where(free, margin, 0), atol=1e-6)
    entropy, largest = selection_entropy(found, 0.7)
    p = sigmoid(margin / 0.7)
    each = np.where(free, -p * np.log(p) - (1 - p) * np.log(1 - p), 0.0)
    np.testing.assert_allclose(entropy, each.sum(axis=-1), atol=1e-5)
    np.testing.assert_allclose(largest, np.log(2.0) * free.sum(axis=-1), rtol=1e-6)


def test_entropy_has_a_finite_slope_where_nothing_can_be_chosen():
    utility = np.array([[0.3, MASKED], [50.0, -50.0]], np.float32)
    legal = np.array([[True, False], [True, True]])
    slope = jax.grad(lambda u: selection_entropy(margins(Selection("factored", 2), u, legal), 1.0)[0])(utility)
    assert np.isfinite(slope).all() and not slope[0].any()
