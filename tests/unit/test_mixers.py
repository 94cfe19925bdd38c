"""Mixers: what is best for each agent is best for all, on random parameters; values, weights and gradients by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing_cases import dense_by_hand, qplex_by_hand
from replay_cases import random_like

from purerl.nets import mixer_parts, mixers
from purerl.nets.mixer_parts import MixerConfig, Sizes
from purerl.nets.mixers import make_mixer
from purerl.nets.utilities import best_available, chosen, greedy

AGENTS, CHOICES, STATE, DRAWS = 3, 4, 6, 20
SIZES = Sizes(AGENTS, CHOICES, STATE)
SMALL = {
    "mixing_embed_dim": 4, "hypernet_embed": 5, "num_kernel": 3, "adv_hypernet_layers": 2, "adv_hypernet_embed": 5,
    "attention_heads": 2, "state_encoder_hidden": 5, "state_encoder_out": 4,
}  # fmt: skip
CASES = {
    "vdn": ("vdn", {}),
    "qmix": ("qmix", {}),
    "qplex": ("qplex", {}),
    "qplex_unweighted": ("qplex", {"weighted_head": False}),
    "qplex_from_zero": ("qplex", {"is_minus_one": False}),
    "qplex_encoded": ("qplex", {"use_state_encoder": True, "adv_hypernet_layers": 1}),
    "qplex_atten": ("qplex_atten", {}),
    "qplex_atten_heads": ("qplex_atten", {"attention_weighted": True, "unit_features": 1}),
    "adaptive": ("adaptive", {}),
    "qfix": ("qfix", {}),
    "qfix_each": ("qfix", {"fix_each": True}),
    "qfix_mono": ("qfix", {"fixee": "qmix"}),
}
STEEP = ("vdn", "qmix", "qplex", "qfix")
"""Those of which gradients are looked at."""
SIMPLER = {"qplex": 0, "qplex_atten": 0, "adaptive": 0, "qfix": "vdn", "qfix_each": "vdn", "qfix_mono": "qmix"}
"""Those with importance, and what QFIX refines."""
ALL_ACTIONS = np.array(list(itertools.product(range(CHOICES), repeat=AGENTS)))


def config_of(name: str, **changes) -> MixerConfig:
    return MixerConfig(**(SMALL | CASES[name][1] | changes))


def mixer_of(name: str, **changes) -> mixers.Mixer:
    return make_mixer(CASES[name][0], config_of(name, **changes), SIZES)


RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(DRAWS, STATE)).astype(np.float32)
TABLES = (3.0 * RNG.normal(size=(DRAWS, AGENTS, CHOICES))).astype(np.float32)
"""Utilities."""
CHOSEN = TABLES[np.arange(DRAWS)[:, None, None], np.arange(AGENTS), ALL_ACTIONS]
"""Of every joint action [K, 64, N]."""


def of_all_actions(mixer, params, state, utility):
    """Joint of every joint action, [64, ...]."""
    actions = jnp.asarray(ALL_ACTIONS)
    lead = len(ALL_ACTIONS)
    table = jnp.broadcast_to(utility, (lead, *utility.shape))
    return mixer.value(
        params, chosen(table, actions), best_available(table, None), jnp.broadcast_to(state, (lead, STATE)),
        jax.nn.one_hot(actions, CHOICES),
    )  # fmt: skip


def slopes_of(mixer, params, state, utility):
    """Slopes of the joint values along all utilities [64, N, A]."""
    return jax.jacrev(lambda table: of_all_actions(mixer, params, state, table).value)(utility)


@pytest.fixture(scope="module")
def played():
    """Of every mixer: parameters, joint values of all actions, slopes, values with an importance of one; [K, ...]."""
    shapes = {name: jax.eval_shape(mixer_of(name).init, jax.random.key(0)) for name in CASES}
    many = jax.tree.map(lambda s: jax.ShapeDtypeStruct((DRAWS, *s.shape), s.dtype), shapes)
    params = jax.device_get(random_like(many))

    @jax.jit
    def ask(params):
        def of(name, value):
            return jax.vmap(lambda p, state, table: value(p, state, table))(params[name], STATES, TABLES)

        found = {}
        for name in CASES:
            mixer, fixed = mixer_of(name), mixer_of(name, fixed_importance=True)
            found[name] = (
                of(name, lambda *args, m=mixer: of_all_actions(m, *args)),
                of(name, lambda *args, m=mixer: slopes_of(m, *args)) if name in STEEP else None,
                of(name, lambda *args, m=fixed: of_all_actions(m, *args).value) if name in SIMPLER else None,
            )
        through = mixer_of("qplex", stop_gradient_adv=False)
        return found, of("qplex", lambda *args: slopes_of(through, *args))

    found, through = jax.device_get(ask(params))
    return {name: (params[name], *found[name]) for name in CASES}, through


@pytest.fixture(params=CASES)
def joint(request, played):
    return played[0][request.param][1]


def test_the_best_joint_action_is_everybodys_own_best(joint):
    np.testing.assert_array_equal(ALL_ACTIONS[joint.value.argmax(axis=1)], TABLES.argmax(axis=-1))


def test_advantages_are_negative_and_zero_at_the_best(joint):
    at_best = np.array([np.flatnonzero((own == ALL_ACTIONS).all(axis=1))[0] for own in TABLES.argmax(axis=-1)])
    advantage = joint.value - joint.value[np.arange(DRAWS), at_best][:, None]
    others = np.ones(advantage.shape, bool)
    others[np.arange(DRAWS), at_best] = False
    assert (advantage[others] < 0).all()


def test_values_do_depend_on_the_action_taken(joint):
    """A mixer of the largest utilities alone would give one number."""
    assert (joint.value.std(axis=1) > 1e-4).all()


def drawn(tree, k: int):
    return jax.tree.map(lambda x: np.asarray(x[k], np.float64), tree)


@pytest.mark.parametrize(("name", "from_zero"), [("qplex", False), ("qplex_from_zero", True)])
def test_qplex_is_maxima_and_weighted_advantages(played, name, from_zero):
    params, joint, *_ = played[0][name]
    for k, number in itertools.product(range(4), (0, 17, 40, 63)):
        value, importance = qplex_by_hand(
            drawn(params, k), STATES[k], CHOSEN[k, number], TABLES[k].max(axis=1),
            np.eye(CHOICES)[ALL_ACTIONS[number]], from_zero,
        )  # fmt: skip
        np.testing.assert_allclose(joint.value[k, number], value, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(joint.importance[k, number], importance, rtol=1e-5)


# Gradients


def slopes_of_the_chosen(slopes):
    """[K, 64, N]: along the utility of every agent's action."""
    return np.take_along_axis(slopes, np.broadcast_to(ALL_ACTIONS[None, ..., None], (*slopes.shape[:-1], 1)), -1)[
        ..., 0
    ]


def require_slopes(slopes, weight):
    """Along every agent's chosen utility its weight [K, N], along all others nothing."""
    along = slopes_of_the_chosen(slopes)
    np.testing.assert_allclose(along, np.broadcast_to(weight[:, None], along.shape), rtol=1e-5)
    np.testing.assert_allclose(np.abs(slopes).sum(axis=-1), np.abs(along), rtol=1e-5)


def qplex_weights(played):
    params = played[0]["qplex"][0]["transformation"]["weight"]
    return np.stack([np.abs(dense_by_hand(drawn(params, k), STATES[k])) for k in range(DRAWS)])


def test_monotonic_mixers_rise_with_every_utility(played):
    for name in ("vdn", "qmix"):
        slopes = slopes_of_the_chosen(played[0][name][2])
        assert (slopes >= 0).all() and (slopes > 0).mean() > 0.9  # far below zero ELU is flat


def test_utilities_learn_through_their_weights_alone(played):
    """Also at the best action, where the chosen utility is the largest: maxima are detached."""
    require_slopes(played[0]["qplex"][2], qplex_weights(played))
    require_slopes(played[0]["qfix"][2], np.ones((DRAWS, AGENTS)))


def test_a_gradient_through_advantages_is_noticed(played):
    with pytest.raises(AssertionError):
        require_slopes(played[1], qplex_weights(played))


# The simpler mixer inside


@pytest.mark.parametrize("name", ["qplex", "qplex_atten", "adaptive"])
def test_importance_of_one_is_vdn_on_transformed_utilities(played, name):
    params, _, _, simple = played[0][name]
    attention = name == "qplex_atten"
    make = mixer_parts.attention_transformation if attention else mixer_parts.general_transformation
    _, transform = make(config_of(name), SIZES)
    weight, bias, _ = transform(drawn_once(params["transformation"]), STATES[0])
    np.testing.assert_allclose(simple[0], (weight * CHOSEN[0] + bias).sum(axis=1), rtol=1e-5, atol=1e-5)


def drawn_once(tree):
    return jax.tree.map(lambda x: x[0], tree)


@pytest.mark.parametrize(("name", "fixee"), [("qfix", "vdn"), ("qfix_each", "vdn"), ("qfix_mono", "qmix")])
def test_qfix_without_importance_is_what_it_fixes(played, name, fixee):
    params, _, _, simple = played[0][name]
    one = drawn_once(params)
    plain = of_all_actions(make_mixer(fixee, config_of(name), SIZES), one["fixee"], STATES[0], TABLES[0]).value
    np.testing.assert_allclose(simple[0], plain + dense_by_hand(one["bias"], STATES[0]), rtol=1e-5, atol=1e-5)


def test_qfix_scales_the_distance_from_the_best(played):
    params, joint, *_ = played[0]["qfix"]
    bias = np.stack([dense_by_hand(drawn(params["bias"], k), STATES[k]) for k in range(DRAWS)])
    top = TABLES.max(axis=-1).sum(axis=-1, keepdims=True)
    by_hand = top + bias + joint.importance[..., 0] * (CHOSEN.sum(axis=-1) - top)
    np.testing.assert_allclose(joint.value, by_hand, rtol=1e-4, atol=1e-4)
    assert (joint.importance > 0).all()


def test_the_adaptive_mixer_lies_between_both(played):
    params, joint, _, simple = played[0]["adaptive"]
    assert ((joint.alpha > 0) & (joint.alpha < 1)).all()
    np.testing.assert_allclose(joint.alpha, joint.alpha[:, :1].repeat(len(ALL_ACTIONS), axis=1))  # of the state alone
    whole = of_all_actions(mixer_of("qplex"), drawn_once(params), STATES[0], TABLES[0]).value
    share = joint.alpha[0]
    np.testing.assert_allclose(joint.value[0], share * whole + (1 - share) * simple[0], rtol=1e-5, atol=1e-5)


# Starts and masks


def test_a_state_of_zeros_still_gives_slopes():
    """Weights are magnitudes, and the slope of a magnitude at zero is zero: without biases nothing would be learned."""
    layers = mixer_parts.init_layers(jax.random.key(0), 2, 8, 3)
    assert [jax.tree.map(jnp.shape, layer) for layer in layers] == [
        {"kernel": (2, 8), "bias": (8,)}, {"kernel": (8, 3), "bias": (3,)}
    ]  # fmt: skip
    assert np.abs(mixer_parts.dense(layers, np.zeros(2, np.float32))).min() > 0
    assert all(
        np.abs(x).max() <= 1 / np.sqrt(n) for layer, n in zip(layers, (2, 8), strict=True) for x in layer.values()
    )


def test_masked_choices_are_not_taken_and_in_no_maximum():
    utility = np.array([[3.0, 1.0, 2.0], [0.0, -5.0, -1.0]], np.float32)
    legal = np.array([[False, True, True], [False, True, False]])
    np.testing.assert_array_equal(greedy(utility, legal), [2, 1])
    np.testing.assert_array_equal(best_available(utility, legal), [2.0, -5.0])
    np.testing.assert_array_equal(best_available(utility, None), [3.0, 0.0])
    np.testing.assert_array_equal(chosen(utility, np.array([1, 2])), [1.0, -1.0])


def test_states_without_parts_for_the_agents_are_refused():
    with pytest.raises(ValueError, match="a state of 7 numbers has no 3 equal parts; set mixing_network"):
        make_mixer("qplex_atten", MixerConfig(), Sizes(3, 4, 7))
    with pytest.raises(ValueError, match="unit_features 3: a state of 7 numbers has no 3 times as many"):
        make_mixer("qplex_atten", MixerConfig(unit_features=3), Sizes(3, 4, 7))
    with pytest.raises(ValueError, match="set use_state_encoder to false"):
        make_mixer("qplex_atten", MixerConfig(use_state_encoder=True), SIZES)
