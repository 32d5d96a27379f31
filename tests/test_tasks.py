"""Tasks against answers that are known: tables of small worlds, and closed forms."""

import itertools
import zlib
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import fit_ppca
from scipy import special, stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_sample_images
from sklearn.neighbors import NearestNeighbors

from gengen.conditions import Labels, Nothing
from gengen.errors import BadInput
from gengen.images import to_levels, to_unit
from gengen.models.vae import VAE
from gengen.nets.mlp import MLPDecoder, MLPEncoder
from gengen.observations.gaussian import Gaussian
from gengen.scan import sample_keys
from gengen.spaces import Images
from gengen.tasks.bayes import (
    conditional_from,
    generative_classifier,
    rejection_threshold,
)
from gengen.tasks.code import code_length, kt_code_length, median_edge_detector
from gengen.tasks.latents import interpolate, linear, spherical, traverse
from gengen.tasks.outliers import (
    ComplexityCorrected,
    FeatureDistance,
    LikelihoodRegret,
    Mahalanobis,
    NegativeLogLikelihood,
    ReconstructionError,
    paired_noise,
)
from gengen.types import Discriminative, HasFeatures, HasLatents, Reconstructs, static

KEY = jax.random.key(0)

# One program each compiles faster than its many operations.
bits = jax.jit(code_length, static_argnums=1)
straight = jax.jit(linear, static_argnums=2)
circle = jax.jit(spherical, static_argnums=2)


def run(function, *arguments, **static):
    """`function` as one program, keywords its constants."""
    return jax.jit(partial(function, **static))(*arguments)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def close(actual, desired, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def fits(counts, probabilities):
    """The counts pass a chi-squared test at the level 1e-3."""
    expected = np.asarray(probabilities, np.float64) * np.sum(counts)
    return stats.chisquare(counts, expected).pvalue > 1e-3


def every_image(shape, levels):
    pixels = list(itertools.product(range(levels), repeat=int(np.prod(shape))))
    return np.array(pixels, np.uint8).reshape(-1, *shape)


# ---------------------------------------------------------------- Bayes' rule

IMAGES = every_image((2, 2, 1), 2)  # sixteen, in binary order
BATCH = {"image": IMAGES, "label": np.zeros(16, np.int32)}
TABLE = np.random.default_rng(0).dirichlet(np.ones(16), size=3)  # p(x|y)
PRIOR = np.array([0.5, 0.3, 0.2])
EVIDENCE = PRIOR @ TABLE
POSTERIOR = (PRIOR[:, None] * TABLE / EVIDENCE).T  # [16, 3]
WORLD = {"log_p": jnp.log(TABLE)}


def number(image):
    return image.reshape(-1, 4).astype(jnp.int32) @ jnp.array([8, 4, 2, 1])


@static
class World:
    """p(x|y) by a table; its likelihood may be off by noise that labels share."""

    condition: Any = Labels(3)
    noise: float = 0.0
    space: ClassVar[Images] = Images((2, 2, 1), 2)
    density: ClassVar[str] = "exact"

    def log_likelihood(self, params, state, batch, key):
        label = self.condition.read(batch).get("label", 0)
        error = self.noise * jax.random.normal(key, batch["image"].shape[:1])
        return params["log_p"][label, number(batch["image"])] + error

    def sample(self, params, state, key, num, *, start_index=0, **given):
        keys = sample_keys(key, num, start_index)
        label = self.condition.given(given, num, keys).get("label", 0)
        rows = params["log_p"][label]
        rows = jnp.broadcast_to(rows, (num, 16))
        return to_unit(
            jnp.asarray(IMAGES)[jax.vmap(jax.random.categorical)(keys, rows)], 2
        )


@static
class Judge(Discriminative):
    """p(y|x) by a table [16, K]; sees images of levels, nothing else."""

    labels: ClassVar[Labels] = Labels(3)
    density: ClassVar[str] = "none"

    def log_prob_labels(self, params, state, batch, key):
        assert batch.keys() == {"image"} and batch["image"].dtype == jnp.uint8
        return params["log_p"][number(batch["image"])]


CLASSIFIER = generative_classifier(World(), tuple(np.log(PRIOR)))


def counted(model, params, state, **options):
    """How often each of the sixteen images is sampled."""
    x = run(model.sample, params, state, KEY, num=2000, **options)
    return np.bincount(number(to_levels(x, 2)), minlength=16)


def test_posterior_and_evidence_are_bayes_rule_of_the_table():
    ask = (WORLD, {}, BATCH, KEY)
    close(np.exp(run(CLASSIFIER.log_joint, *ask)), PRIOR * TABLE.T)
    close(np.exp(run(CLASSIFIER.log_prob_labels, *ask)), POSTERIOR)
    evidence = np.exp(run(CLASSIFIER.log_likelihood, *ask))
    close(evidence, EVIDENCE)
    close(np.sum(evidence), 1)


def test_a_prior_left_out_is_uniform():
    found = run(generative_classifier(World()).log_prob_labels, WORLD, {}, BATCH, KEY)
    close(np.exp(found), (TABLE / TABLE.sum(0)).T)


def test_labels_are_compared_under_common_noise():
    noisy = replace(CLASSIFIER, model=World(noise=3.0))
    found = run(noisy.log_prob_labels, WORLD, {}, BATCH, KEY)
    close(np.exp(found), POSTERIOR, atol=1e-5)
    assert not np.allclose(
        run(noisy.log_likelihood, WORLD, {}, BATCH, KEY), np.log(EVIDENCE)
    )


def test_classify_labels_the_reasonable_and_rejects_the_rest():
    best = np.argmax(POSTERIOR, axis=1)
    np.testing.assert_array_equal(run(CLASSIFIER.classify, WORLD, {}, BATCH, KEY), best)
    threshold = rejection_threshold(np.log(EVIDENCE), 0.25)
    found = run(CLASSIFIER.classify, WORLD, {}, BATCH, KEY, threshold)
    rejected = np.argsort(EVIDENCE)[:4]  # a quarter of sixteen
    np.testing.assert_array_equal(np.sort(np.where(found == -1)[0]), np.sort(rejected))
    np.testing.assert_array_equal(found[found >= 0], best[found >= 0])


def test_classifier_samples_the_mixture_over_its_prior():
    certain = replace(CLASSIFIER, log_prior=(0.0, -np.inf, -np.inf))
    assert fits(counted(certain, WORLD, {}), TABLE[0])
    assert fits(counted(CLASSIFIER, WORLD, {}), EVIDENCE)


NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(300)


def resampled(p, w, candidates):
    """M p w E[1/(w + w_2 + … + w_M)] = M p w ∫ e^(-tw) (E e^(-tw))^(M-1) dt, [16]."""
    scale = 1 / (candidates * p @ w)  # [-1, 1] to [0, ∞)
    t, weights = scale * (1 + NODES) / (1 - NODES), 2 * scale / (1 - NODES) ** 2
    decay = np.exp(-np.outer(t, w))  # [T, 16]
    others = (decay @ p) ** (candidates - 1)
    return candidates * p * w * ((NODE_WEIGHTS * weights * others) @ decay)


PARTS = {
    "generative": {"log_p": jnp.log(EVIDENCE)[None]},
    "discriminative": {"log_p": jnp.log(POSTERIOR)},
}
STATE = {"generative": {}, "discriminative": {}}


def test_the_exact_law_of_resampling_is_that_of_its_enumeration():
    pairs, w = np.zeros(16), POSTERIOR[:, 1]
    for i, j in itertools.product(range(16), repeat=2):
        share = EVIDENCE[i] * EVIDENCE[j] / (w[i] + w[j])
        pairs[i] += share * w[i]
        pairs[j] += share * w[j]
    close(resampled(EVIDENCE, POSTERIOR[:, 1], 2), pairs, 1e-9, 1e-9)
    close(resampled(EVIDENCE, POSTERIOR[:, 1], 1), EVIDENCE, 1e-9, 1e-9)


def test_resampling_tends_to_bayes_rule_as_one_over_the_candidates():
    sizes = 4 ** np.arange(6)
    error = [
        np.abs(resampled(EVIDENCE, POSTERIOR[:, 1], m) - TABLE[1]).sum() for m in sizes
    ]
    assert np.all(np.diff(error) < 0)
    assert error[-2] / error[-1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("candidates", "label"), [(1, 1), (3, None), (64, 1)], ids=str)
def test_reweighted_samples_have_the_exact_law(candidates, label):
    model = conditional_from(Judge(), World(Nothing()), candidates)
    counts = counted(model, PARTS, STATE, label=label)
    asked = range(3) if label is None else [label]  # labels are uniform if not given
    laws = [resampled(EVIDENCE, POSTERIOR[:, y], candidates) for y in asked]
    assert fits(counts, np.mean(laws, axis=0) / np.mean(laws, axis=0).sum())
    if label is not None:  # Bayes' rule, within the noise, if there is a choice
        assert fits(counts, TABLE[label]) == (candidates > 1)


def test_from_the_conditionals_to_both_parts_and_back():
    # p(x|y) gives p(y|x) and p(x); together they give p(x|y) again.
    parts = {"generative": WORLD, "discriminative": WORLD}
    model = conditional_from(CLASSIFIER, CLASSIFIER, candidates=32)
    label = np.arange(3000) % 3
    x = run(model.sample, parts, STATE, KEY, num=3000, label=label)
    found = number(to_levels(x, 2))
    for y in range(3):
        assert fits(np.bincount(found[label == y], minlength=16), TABLE[y])


def test_a_reweighted_sample_depends_on_its_number_and_label_only():
    model = conditional_from(Judge(), World(Nothing()), 4)
    label = np.arange(6) % 3
    sample = partial(run, model.sample, PARTS, STATE, KEY)
    many = sample(num=6, label=label)
    close(many[4:], sample(num=2, start_index=4, label=label[4:]))


def test_effective_sample_size_counts_the_candidates_that_matter():
    model = conditional_from(Judge(), World(Nothing()), 32)

    def size(p_label):
        parts = {**PARTS, "discriminative": {"log_p": jnp.log(p_label)}}
        ask = model.effective_sample_size, parts, STATE, KEY
        return run(*ask, num=200, label=0)

    close(size(np.full((16, 3), 1 / 3)), np.full(200, 32), 1e-4)
    close(size(np.tile([0.0, 0.5, 0.5], (16, 1))), np.zeros(200))
    indicator = np.arange(16) < 8  # whether the first pixel is dark
    found = size(np.stack([indicator, ~indicator, 0 * indicator], axis=1).astype(float))
    share = EVIDENCE[:8].sum()  # the size is a binomial count
    error = np.sqrt(share * (1 - share) / (200 * 32))
    close(found, np.round(found), 1e-4)
    assert np.mean(found) / 32 == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: generative_classifier(Judge()), "Judge has no density"),
        (lambda: generative_classifier(World(Nothing())), "not conditioned on labels"),
        (lambda: generative_classifier(World(), (0.0,)), "1 entries.* 3 classes"),
        (lambda: generative_classifier(World(), (0.0,) * 3), "sums to 3"),
        (lambda: rejection_threshold(np.zeros(2), 5), "rate=5"),
        (lambda: conditional_from(World(), World()), "no log_prob_labels"),
        (lambda: conditional_from(Judge(), World(), 0), "candidates=0"),
        (
            lambda: conditional_from(Judge(), World(0), 2).sample(
                PARTS, STATE, KEY, 2, label=3
            ),
            "label=3 is out of range",
        ),
    ],
)
def test_what_bayes_rule_cannot_use_is_refused(ask, reason):
    with pytest.raises(BadInput, match=reason):
        ask()


# ---------------------------------------------------------------- outliers: likelihood


def test_negative_log_likelihood_is_the_table_in_bits_per_pixel():
    close(
        NegativeLogLikelihood(CLASSIFIER)(WORLD, {}, BATCH, KEY), -np.log2(EVIDENCE) / 4
    )


@static
class Pixels:
    """Independent pixels of one table [17]: about N(8, 2²)."""

    space: ClassVar[Images] = Images((16, 16, 1), 17)
    density: ClassVar[str] = "exact"

    def log_likelihood(self, params, state, batch, key):
        return jnp.sum(params["log_p"][batch["image"].astype(int)], axis=(1, 2, 3))


def test_likelihood_prefers_the_mode_and_complexity_sees_through_it():
    # Nalisnick et al. 2019: what is never drawn may be likelier than all that is.
    log_p = stats.norm(8, 2).logpdf(np.arange(17))
    log_p -= special.logsumexp(log_p)
    data = np.random.default_rng(0).choice(17, (500, 16, 16, 1), p=np.exp(log_p))
    grey = np.full((1, 16, 16, 1), 8)
    batch = {"image": np.concatenate([data, grey]).astype(np.uint8)}
    ask = ({"log_p": jnp.asarray(log_p)}, {}, batch, KEY)
    *typical, constant = np.asarray(run(NegativeLogLikelihood(Pixels()), *ask))
    entropy = -np.exp(log_p) @ log_p / np.log(2)
    close(np.mean(typical), entropy, 0.01)
    close(constant, -log_p.max() / np.log(2), 1e-5)
    assert constant < min(typical) - 0.4
    *typical, constant = np.asarray(run(ComplexityCorrected(Pixels()), *ask))
    assert constant > max(typical) + 2


# ---------------------------------------------------------------- the universal code


def naive_predictor(x):
    """LOCO-I as its paper states it, pixel by pixel of [H, W]."""
    found = np.zeros_like(x)
    for i, j in np.ndindex(x.shape):
        w = x[i, j - 1] if j else 0
        n = x[i - 1, j] if i else 0
        nw = x[i - 1, j - 1] if i and j else 0
        if nw >= max(w, n):
            found[i, j] = min(w, n)
        elif nw <= min(w, n):
            found[i, j] = max(w, n)
        else:
            found[i, j] = w + n - nw
    return found


def test_predictor_is_that_of_jpeg_ls():
    x = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 2))
    found = median_edge_detector(jnp.asarray(x))
    for b, c in itertools.product(range(3), range(2)):
        np.testing.assert_array_equal(found[b, ..., c], naive_predictor(x[b, ..., c]))


def test_kt_code_is_the_product_of_its_predictions():
    symbols, counts, log2_p = [2, 0, 2, 2, 1, 2], np.zeros(4), 0.0
    for n, symbol in enumerate(symbols):
        log2_p += np.log2((counts[symbol] + 0.5) / (n + 2))
        counts[symbol] += 1
    close(kt_code_length(jnp.asarray(counts)), -log2_p, 1e-5)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((3, 3, 1), 2), ((2, 2, 1), 4), ((1, 2, 2), 5), ((1, 2, 1), 17)],
)
def test_the_lengths_are_those_of_a_complete_code(shape, levels):
    # Kraft's sum is 1: no bits are given away, and none are missing.
    length = np.asarray(bits(every_image(shape, levels), levels), np.float64)
    close(np.sum(2**-length), 1, 1e-5)


def test_simple_images_are_short_and_noise_is_not():
    noise = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    ramp = np.broadcast_to(np.arange(28, dtype=np.uint8)[:, None], noise.shape)
    per_pixel = [bits(x, 256) / 784 for x in (noise, np.full_like(noise, 77), ramp)]
    assert np.all((per_pixel[0] > 7.9) & (per_pixel[0] < 8.1))
    assert np.all(per_pixel[1] < 0.1) and np.all(per_pixel[2] < 0.3)


def test_the_code_agrees_with_deflate_on_photographs():
    rng, crops = np.random.default_rng(0), []
    for photograph in load_sample_images().images:
        for _ in range(20):
            i, j = rng.integers(0, np.array(photograph.shape[:2]) - 64)
            crops.append(photograph[i : i + 64 : 2, j : j + 64 : 2])
    crops = np.stack(crops)

    def deflated(x):
        up, left = np.diff(x, axis=0, prepend=0), np.diff(x, axis=1, prepend=0)
        planes = [x, up, left, x - predicted(x)]
        return 8 * min(len(zlib.compress(p.tobytes(), 9)) for p in planes)

    def predicted(x):
        return np.asarray(median_edge_detector(jnp.asarray(x[None], int))[0], np.uint8)

    theirs = np.array([deflated(x) for x in crops])
    ours = np.asarray(bits(crops, 256))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97
    assert np.mean(ours) < np.mean(theirs)


# ---------------------------------------------------------------- autoencoders


@static
class Halves(Reconstructs):
    """An "autoencoder" that gives back half of x."""

    space: ClassVar[Images] = Images((2, 2, 1), 2)

    def reconstruct(self, params, state, batch, key):
        return to_unit(batch["image"], 2) / 2


def test_reconstruction_error_is_the_mean_square():
    close(ReconstructionError(Halves())({}, {}, BATCH, KEY), np.full(16, 0.25))


@static
class Exact(Images):
    """Without dequantisation, so that encoder and likelihood see the same numbers."""

    def dequantize(self, key, data):
        return self.to_model(data)


SHAPE, LATENT, LEVELS = (1, 4, 1), 2, 257
CLOUD = np.random.default_rng(0).normal(size=(2, 40, 4))
CLOUD = np.clip(128 + 20 * CLOUD[0] @ CLOUD[1, :4], 0, 255).astype(np.uint8)
SPACE = Exact(SHAPE, LEVELS)
LINEAR = VAE(MLPEncoder(LATENT, ()), MLPDecoder(SHAPE, ()), Gaussian(), SPACE, LATENT)


def ppca_params(shift, widen):
    """The linear VAE of pPCA; its encoder off by `shift` in mean, `widen` in logvar."""
    ppca = fit_ppca(CLOUD / 128 - 1, LATENT)
    projection, variance = ppca.posterior()
    encoder = {
        "kernel": np.concatenate([projection.T, np.zeros((4, LATENT))], axis=1),
        "bias": np.concatenate(
            [shift - projection @ ppca.mean, np.log(variance) + widen]
        ),
    }
    own = {
        "encoder": {"Dense_0": encoder},
        "decoder": {"Dense_0": {"kernel": ppca.weight.T, "bias": ppca.mean}},
        "likelihood": {"log_scale": np.log(ppca.variance) / 2},
    }
    return jax.tree.map(jnp.asarray, {"vae": own}), variance


@pytest.mark.parametrize(("shift", "widen"), [(0.0, 0.0), (0.4, 0.7), (-0.2, -1.0)])
def test_regret_is_the_gap_between_encoder_and_true_posterior(float64, shift, widen):
    params, variance = ppca_params(shift, widen)
    # KL(N(m + shift, v e^widen) ‖ N(m, v)), the same for every x.
    gap = 0.5 * np.sum(shift**2 / variance + np.exp(widen) - 1 - widen)
    score = LikelihoodRegret(LINEAR, steps=300, learning_rate=0.02, pairs=2)
    batch = {"image": CLOUD.reshape(-1, *SHAPE)}
    regret = run(score, params, {}, batch, KEY)
    close(regret, np.full(40, gap), 1e-4, 1e-9)


def test_regret_without_steps_is_zero():
    params, _ = ppca_params(0.4, 0.7)
    batch = {"image": CLOUD.reshape(-1, *SHAPE)}
    score = LikelihoodRegret(LINEAR, steps=0)
    close(run(score, params, {}, batch, KEY), np.zeros(40))


def test_paired_noise_has_the_moments_of_a_normal():
    noise = paired_noise(KEY, 5, (3, 2))
    close(np.mean(noise, axis=0), np.zeros((3, 2)))
    close(np.mean(noise**2, axis=0), np.ones((3, 2)))


# ---------------------------------------------------------------- features


@static
class Flat(HasFeatures):
    """Features are the pixels' levels themselves."""

    def features(self, params, state, batch, key):
        return batch["image"].reshape(len(batch["image"]), -1).astype(float)


RNG = np.random.default_rng(0)
KNOWN = RNG.integers(0, 256, (60, 5)).astype(np.float32)
ASKED = RNG.integers(0, 256, (7, 1, 5, 1)).astype(np.uint8)
CLASS = 7 * (np.arange(60) % 3)  # 0, 7, 14: some numbers have no example


@pytest.mark.parametrize("k", [1, 4, 60])
def test_feature_distance_is_that_of_sklearn(k):
    score = FeatureDistance(Flat(), k)
    state = {"reference": score.fit(KNOWN)}
    unit = KNOWN / np.linalg.norm(KNOWN, axis=1, keepdims=True)
    asked = ASKED.reshape(7, 5) / np.linalg.norm(ASKED.reshape(7, 5), axis=1)[:, None]
    distance, _ = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors(asked)
    close(run(score, {}, state, {"image": ASKED}, KEY), distance[:, -1], 1e-4)


def test_a_training_image_is_at_distance_zero_and_a_black_one_at_one():
    score = FeatureDistance(Flat(), 1)
    state = {"reference": score.fit(KNOWN)}
    image = np.concatenate([KNOWN[:1], np.zeros((1, 5))]).astype(np.uint8)
    close(score({}, state, {"image": image.reshape(2, 1, 5, 1)}, KEY), [0, 1])


@pytest.mark.parametrize("labels", [None, CLASS], ids=["one class", "three"])
def test_mahalanobis_is_that_of_sklearn(labels):
    score = Mahalanobis(Flat())
    state = {"reference": score.fit(KNOWN, labels)}
    own = np.zeros(60) if labels is None else labels
    means = np.stack([KNOWN[own == c].mean(0) for c in np.unique(own)])
    rest = KNOWN - means[np.searchsorted(np.unique(own), own)]
    tied = EmpiricalCovariance(assume_centered=True).fit(rest)
    gaps = ASKED.reshape(7, 1, 5) - means
    each = np.stack([tied.mahalanobis(gap) for gap in gaps])
    # `mahalanobis` takes the location 0 off, since the fit assumes it.
    close(run(score, {}, state, {"image": ASKED}, KEY), each.min(axis=1), 1e-4)


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: NegativeLogLikelihood(Judge()), "Judge has no density"),
        (lambda: ComplexityCorrected(Judge()), "Judge has no density"),
        (lambda: ReconstructionError(World()), "World has no reconstruct"),
        (
            lambda: LikelihoodRegret(World()),
            "World has no latents, log_prob_given, posterior",
        ),
        (lambda: FeatureDistance(World()), "World has no features"),
        (lambda: Mahalanobis(World()), "World has no features"),
        (lambda: FeatureDistance(Flat(), 0), "k=0"),
        (
            lambda: FeatureDistance(Flat(), 9)(
                {}, {"reference": FeatureDistance.fit(KNOWN[:8])}, {"image": ASKED}, KEY
            ),
            "k=9 of 8",
        ),
        (lambda: Mahalanobis(Flat())({}, {}, {"image": ASKED}, KEY), "reference"),
    ],
)
def test_scores_of_unfit_models_are_refused(ask, reason):
    with pytest.raises(BadInput, match=reason):
        ask()


def test_equal_scores_are_one_static_argument():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def ask(score, params, batch):
        traces.append(score)
        return score(params, {}, batch, KEY)

    for _ in range(2):
        ask(NegativeLogLikelihood(generative_classifier(World())), WORLD, BATCH)
    assert len(traces) == 1


# ---------------------------------------------------------------- walks in latent space


@static
class Decoder(HasLatents):
    """x = W z, plus the label; latents of any shape, W [pixels, coordinates]."""

    latent_shape: tuple[int, ...]

    def from_latent(self, params, state, z, *, label=0):
        pixels = z.reshape(len(z), -1) @ params["w"].T
        pixels = pixels + jnp.reshape(label, (-1, 1))
        return pixels.reshape(-1, 1, 3, 1)


ENDS = np.random.default_rng(0).normal(size=(2, 5, 2, 3)).astype(np.float32)
WEIGHTS = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(3, 6)))}
paths = pytest.mark.parametrize("path", [straight, circle], ids=["linear", "spherical"])


@paths
def test_paths_begin_and_end_at_their_ends(path):
    z = path(*ENDS, 4)
    assert z.shape == (5, 4, 2, 3)
    np.testing.assert_array_equal(z[:, 0], ENDS[0])
    np.testing.assert_array_equal(z[:, -1], ENDS[1])


def test_spherical_keeps_the_norm_and_an_even_pace():
    start, end = (e.reshape(5, 6) for e in ENDS)
    start, end = (
        2 * e / np.linalg.norm(e, axis=1, keepdims=True) for e in (start, end)
    )
    z = np.asarray(circle(start, end, 7))
    close(np.linalg.norm(z, axis=-1), np.full((5, 7), 2), 1e-5)
    angle = np.arccos(np.sum(start * end, axis=1) / 4)
    pace = np.arccos(np.sum(z[:, 1:] * z[:, :-1], axis=-1) / 4)
    close(pace, np.tile(angle[:, None] / 6, 6), 1e-4)


def test_the_variance_along_paths_of_independent_normals():
    start, end = np.random.default_rng(0).normal(size=(2, 400, 100))
    t = np.linspace(0, 1, 5)
    error = 4 * np.sqrt(2 / start.size)
    found = np.var(straight(start, end, 5), axis=(0, 2))
    close(found, (1 - t) ** 2 + t**2, atol=error)
    close(np.var(circle(start, end, 5), axis=(0, 2)), np.ones(5), atol=error)


@pytest.mark.parametrize("factor", [1.0, 2.0, 1 + 1e-6, 0.0, -1.0])
def test_where_the_great_circle_is_degenerate_the_line_has_its_gradient(factor):
    start = ENDS[0]
    close(circle(start, factor * start, 5), straight(start, factor * start, 5))

    def slope(path):
        return run(jax.grad(lambda e: jnp.sum(path(start, e, 5) ** 2)), factor * start)

    assert np.all(np.isfinite(slope(spherical)))
    if factor == 1.0:
        close(slope(spherical), slope(linear), 1e-5)


def test_spherical_is_exact_at_angles_however_small():
    angle = 10.0 ** np.linspace(-6, -1, 60)[:, None, None]
    t = np.linspace(0, 1, 5)[:, None]
    arc = np.concatenate([np.cos(t * angle), np.sin(t * angle)], axis=-1)
    start, end = np.float32(arc[:, 0]), np.float32(arc[:, -1])
    close(circle(start, end, 5), arc, rtol=0, atol=3e-7)


@paths
def test_a_linear_decoder_shows_the_path_itself(path):
    model = Decoder((2, 3))
    images = interpolate(model, WEIGHTS, {}, *ENDS, num=4, path=path)
    z = np.asarray(path(*ENDS, 4)).reshape(5, 4, 6)
    close(images, (z @ WEIGHTS["w"].T).reshape(5, 4, 1, 3, 1), 1e-5)


def test_conditions_belong_to_pairs():
    model, label = Decoder((2, 3)), np.arange(5)
    plain = interpolate(model, WEIGHTS, {}, *ENDS)
    assert plain.shape == (5, 9, 1, 3, 1)
    labelled = interpolate(model, WEIGHTS, {}, *ENDS, label=label)
    close(
        labelled - plain,
        np.broadcast_to(label.reshape(5, 1, 1, 1, 1), plain.shape),
        atol=1e-5,
    )
    close(
        interpolate(model, WEIGHTS, {}, *ENDS, label=3) - plain,
        3 + 0 * plain,
        atol=1e-5,
    )


def test_a_traverse_moves_one_coordinate_at_a_time():
    model, z, values = Decoder((2, 3)), ENDS[0, 0], [-1.0, 0.0, 2.0]
    images = traverse(model, WEIGHTS, {}, z, [4, 0], values, label=1)
    assert images.shape == (2, 3, 1, 3, 1)
    for i, dim in enumerate([4, 0]):
        for j, value in enumerate(values):
            moved = z.ravel().copy()
            moved[dim] = value
            close(images[i, j].ravel(), WEIGHTS["w"] @ moved + 1, 1e-5)


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: linear(*ENDS, 1), "num=1"),
        (lambda: spherical(*ENDS, 1), "num=1"),
        (lambda: interpolate(World(), {}, {}, *ENDS), "World has no from_latent"),
        (lambda: traverse(World(), {}, {}, ENDS[0, 0], [0], [0.0]), "World has no"),
        (lambda: interpolate(Decoder((6,)), WEIGHTS, {}, *ENDS), r"\(2, 3\).*\(6,\)"),
        (
            lambda: traverse(Decoder((2, 3)), WEIGHTS, {}, ENDS[0, 0], [6], [0.0]),
            r"dims \[6\]",
        ),
    ],
)
def test_walks_without_latents_are_refused(ask, reason):
    with pytest.raises(BadInput, match=reason):
        ask()
