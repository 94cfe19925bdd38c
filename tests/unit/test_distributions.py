"""Distributions against numerical integration, numbers worked out by hand, and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from purerl.nets.distributions import MASKED, Categorical, Joint, Normal, SquashedNormal, masked

CASES = [(0.0, 0.0), (1.3, -1.0), (-2.0, 0.5), (4.0, -2.0)]
"""Mean and log standard deviation."""


def density(dist, action: float) -> float:
    raw = jnp.arctanh(jnp.asarray([action], jnp.float64))
    return float(jnp.exp(dist.raw_log_prob(raw)))


@pytest.mark.parametrize(("mean", "log_std"), CASES)
def test_squashed_density_integrates_to_one(x64, mean, log_std):
    dist = SquashedNormal(jnp.array([mean]), jnp.array([log_std]))
    centre = [float(np.tanh(mean + d * np.exp(log_std))) for d in (-1, 0, 1)]
    total, _ = integrate.quad(lambda a: density(dist, a), -1, 1, points=centre, limit=300)
    assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), CASES[:3])
def test_squashed_entropy_is_the_integral(x64, mean, log_std):
    dist = SquashedNormal(jnp.array([mean]), jnp.array([log_std]))
    std = np.exp(log_std)

    def integrand(u):
        return stats.norm.pdf(u, mean, std) * -float(dist.raw_log_prob(jnp.array([u])))

    expected, _ = integrate.quad(integrand, mean - 10 * std, mean + 10 * std, limit=300)
    assert float(dist.entropy()) == pytest.approx(expected, abs=2e-3)


def test_squashed_raw_log_prob_is_finite_far_in_saturation():
    dist = SquashedNormal(jnp.zeros(1), jnp.zeros(1))
    raw = jnp.array([[-40.0], [-15.0], [0.0], [15.0], [40.0]])
    value, gradient = dist.raw_log_prob(raw), jax.grad(lambda u: dist.raw_log_prob(u).sum())(raw)
    assert bool(jnp.isfinite(value).all() & jnp.isfinite(gradient).all())
    # -u^2/2 - log(2 pi)/2 - 2 (log 2 - u) for large u
    assert float(value[3]) == pytest.approx(-112.5 - 0.9189385 - 2 * (np.log(2) - 15), rel=1e-5)


def test_normal_by_scipy():
    mean, log_std, x = np.array([0.3, -1.0]), np.array([0.2, -0.7]), np.array([1.0, 0.5])
    dist = Normal(jnp.asarray(mean), jnp.asarray(log_std))
    reference = stats.norm(mean, np.exp(log_std))
    assert float(dist.log_prob(jnp.asarray(x))) == pytest.approx(reference.logpdf(x).sum(), abs=1e-5)
    assert float(dist.entropy()) == pytest.approx(reference.entropy().sum(), abs=1e-5)


@pytest.mark.parametrize("kind", [Normal, SquashedNormal])
def test_kl_of_normals_is_the_mean_log_ratio_of_samples(kind):
    p, q = kind(jnp.array([0.2]), jnp.array([-0.3])), kind(jnp.array([-0.4]), jnp.array([0.1]))
    u = p.sample_from(jax.random.normal(jax.random.key(0), (200_000, 1)))
    log_ratio = p.raw_log_prob(u) - q.raw_log_prob(u)
    assert float(p.kl_divergence(q)) == pytest.approx(float(jnp.mean(log_ratio)), abs=5e-3)
    assert float(p.kl_divergence(p)) == pytest.approx(0.0, abs=1e-6)


def test_categorical_by_hand():
    """Probabilities 1/2, 1/4, 1/4."""
    dist = Categorical(jnp.log(jnp.array([2.0, 1.0, 1.0])))
    np.testing.assert_allclose(dist.log_prob(jnp.array(1)), np.log(0.25), rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(), 1.5 * np.log(2), rtol=1e-6)
    uniform = Categorical(jnp.zeros(3))
    np.testing.assert_allclose(dist.kl_divergence(uniform), np.log(3) - 1.5 * np.log(2), rtol=1e-5)
    assert int(dist.mode()) == 0


def test_illegal_actions_are_never_taken_and_give_no_gradient():
    legal = jnp.array([True, False, True])

    def loss(logits):
        dist = Categorical(masked(logits, legal))
        return dist.entropy() + dist.log_prob(jnp.array(2))

    logits = jnp.array([0.5, 50.0, -0.5])
    dist = Categorical(masked(logits, legal))
    assert float(jnp.exp(dist.log_prob(jnp.array(1)))) == 0.0
    drawn = dist.sample(seed=jax.random.key(1), sample_shape=2000)
    assert set(np.unique(drawn)) == {0, 2}
    alone = Categorical(logits[jnp.array([0, 2])])
    np.testing.assert_allclose(dist.entropy(), alone.entropy(), rtol=1e-5)
    gradient = jax.grad(loss)(logits)
    assert bool(jnp.isfinite(gradient).all())
    assert float(gradient[1]) == 0.0
    assert np.isfinite(MASKED)


KINDS = {
    "choice": Categorical(jnp.array([0.1, 1.0, -1.0])),
    "normal": Normal(jnp.array([1.0]), jnp.array([-1.0])),
    "squashed": SquashedNormal(jnp.array([1.0]), jnp.array([-1.0])),
}
KINDS["joint"] = Joint((KINDS["choice"], KINDS["squashed"]))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_probabilities_they_are_told(kind):
    """The mean of -log p over samples is the entropy."""
    dist = KINDS[kind]
    action = dist.sample(seed=jax.random.key(2), sample_shape=50_000)
    estimate = -jnp.mean(dist.log_prob(action))
    assert float(estimate) == pytest.approx(float(dist.entropy()), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_samples_stand_for_their_actions(kind):
    """The log-probability of a raw sample is that of its action; noise of zero gives the mode."""
    dist = KINDS[kind]
    noise = {"choice": jnp.array([0.0, 2.0, 0.0]), "normal": jnp.array([0.5]), "squashed": jnp.array([0.5])}
    noise["joint"] = (noise["choice"], noise["squashed"])
    raw = dist.sample_from(noise[kind])
    np.testing.assert_allclose(dist.raw_log_prob(raw), dist.log_prob(dist.action(raw)), rtol=1e-5)
    silent = dist.action(dist.sample_from(jax.tree.map(jnp.zeros_like, noise[kind])))
    jax.tree.map(np.testing.assert_array_equal, silent, dist.mode())


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_carried_through_a_scan(kind):
    """Asking for shapes on the way does not change what JAX takes for the type of a distribution."""

    def body(dist, _):
        return dist, (dist.batch_shape, dist.event_shape, dist.entropy())[2]

    batch = jax.tree.map(lambda x: x[None], KINDS[kind])
    (_, entropy), own = jax.eval_shape(lambda d: jax.lax.scan(body, d, length=2), batch), batch.batch_shape
    assert (own, entropy.shape) == ((1,), (2, 1))


def test_logits_that_are_no_numbers_choose_the_first():
    """A diverged policy stays inside the action space until the host notices: distrax would choose -1."""
    assert Categorical(jnp.full((2, 3), jnp.nan)).sample(seed=jax.random.key(0)).tolist() == [0, 0]


@pytest.mark.parametrize("kind", [Normal, SquashedNormal])
def test_components_that_are_not_in_use_count_in_nothing(kind, same_keys):
    """A padded action has the numbers, and the gradients, of the short one."""
    rng = np.random.default_rng(3)
    mean, log_std, other = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(3))
    used = jnp.asarray([True, False, True])
    noise = jax.random.normal(jax.random.key(0), (5, 3))
    padded, short = kind(mean, log_std, used), kind(mean[:, ::2], log_std[:, ::2])
    raw = padded.sample_from(noise)
    np.testing.assert_array_equal(raw[:, 1], 0.0)
    np.testing.assert_array_equal(raw[:, ::2], short.sample_from(noise[:, ::2]))
    np.testing.assert_allclose(padded.raw_log_prob(raw), short.raw_log_prob(raw[:, ::2]), rtol=1e-6)
    np.testing.assert_allclose(padded.entropy(), short.entropy(), rtol=1e-6, atol=1e-6)
    expected = kind(other[:, ::2], log_std[:, ::2]).kl_divergence(short)
    np.testing.assert_allclose(kind(other, log_std, used).kl_divergence(padded), expected, rtol=1e-5)
    sampled = padded.action(padded.sample_from(jax.random.normal(jax.random.key(1), (5, 3))))
    np.testing.assert_array_equal(sampled[:, 1], 0.0)

    def watched(mean, log_std):
        dist = kind(mean, log_std, used)
        return jnp.sum(dist.raw_log_prob(raw) + dist.entropy())

    for gradient in jax.grad(watched, (0, 1))(mean, log_std):
        assert (gradient[:, 1] == 0).all() and (gradient[:, ::2] != 0).any()
