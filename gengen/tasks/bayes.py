"""Bayes' rule: what each of p(y|x), p(x) and p(x|y) is good for, and how to get one
from the others.

x is an image, y its label. The three models differ in what competes for the unit mass:

    p(y|x)   discriminative            Σ_y = 1: the labels of one image compete
    p(x)     generative                Σ_x = 1: all images compete
    p(x|y)   conditional generative    Σ_x = 1 for every label: images compete, K times

A discriminative model cannot say that an image is unreasonable: its labels always sum
to one. A density can, because reasonable images have used up the mass. A conditional
density can do both, and Bayes' rule is the whole construction:

    p(y|x) = p(x|y) p(y) / p(x),          p(x) = Σ_y p(x|y) p(y)

(`generative_classifier`): label every image, and reject those of a small p(x), as in
Bishop 1994, "Novelty detection and neural network validation". The other way round,

    p(x|y) = p(y|x) p(x) / p(y)  ∝  p(y|x) p(x)

turns an unconditional generative model into a conditional one, with the discriminative
model as the weight of its samples (`conditional_from`): draw M candidates from p(x),
pick one with probability w_m/Σw, w_m = p(y|x_m). This is sampling importance
resampling. A pick has the density p(x) w(x) E[M/(w(x) + w_2 + … + w_M)], where the
w_m are those of M-1 other candidates: p(x) for M = 1 and, as the mean weight tends to
its expectation p(y), p(x|y) for M → ∞. It asks of M that some candidates have label y:
the effective sample size (Σw)²/Σw² counts them.

Where log p(x|y) is a lower bound (ELBO), so is log p(x), for the sum grows with every
term; the posterior is then neither above nor below the truth, only as good as the
bound is equally tight for all labels. The estimate's noise (posterior samples, times,
dequantisation) is the same for all labels, so that it cancels in their comparison:
with a diffusion model this is the diffusion classifier.

Ng and Jordan 2001, "On discriminative vs. generative classifiers"; Li et al. 2023,
arXiv:2303.16203; Rubin 1988, "Using the SIR algorithm to
simulate posterior distributions"; Smith and Gelfand 1992, "Bayesian statistics without
tears"; effective sample size: Kong, Liu and Wong 1994.
"""

import math
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp

from gengen.conditions import Condition, Labels, Nothing, labels_of
from gengen.errors import BadInput
from gengen.scan import sample_keys
from gengen.spaces import Space
from gengen.tasks import require, require_density
from gengen.types import Array, Discriminative, static


@static
class GenerativeClassifier(Discriminative):
    """p(y|x) and p(x) of a model of p(x|y), with log p(y): see `generative_classifier`.

    It is a discriminative model by `log_prob_labels`, and an unconditional generative
    one by `log_likelihood` and `sample`, of the same params and state as `model`.
    """

    model: Any
    log_prior: tuple[float, ...]
    condition: ClassVar[Condition] = Nothing()

    @property
    def space(self) -> Space:
        """The type of x."""
        return self.model.space

    @property
    def labels(self) -> Labels:
        """The type of y."""
        return labels_of(self.model.condition)

    @property
    def density(self) -> str:
        """A sum of lower bounds is a lower bound."""
        return self.model.density

    @property
    def likelihood_kind(self) -> str:
        return self.model.likelihood_kind

    def log_joint(self, params, state, batch, key) -> Array:
        """log p(x|y) + log p(y), [B, K] nats; the labels share their noise."""
        num = jax.tree.leaves(dict(batch))[0].shape[0]

        def given(label):
            asked = {**batch, self.labels.key: jnp.full(num, label)}
            return self.model.log_likelihood(params, state, asked, key)

        log_p = jax.lax.map(given, jnp.arange(len(self.log_prior)))  # [K, B]
        chex.assert_shape(log_p, (len(self.log_prior), num))
        return log_p.T + jnp.asarray(self.log_prior)

    def log_prob_labels(self, params, state, batch, key) -> Array:
        """log p(y|x), [B, K] nats; the batch's own labels are not looked at."""
        return jax.nn.log_softmax(self.log_joint(params, state, batch, key))

    def log_likelihood(self, params, state, batch, key) -> Array:
        """log p(x) = log Σ_y p(x|y) p(y), [B] nats; a bound where log p(x|y) is one."""
        return jax.nn.logsumexp(self.log_joint(params, state, batch, key), axis=-1)

    def classify(self, params, state, batch, key, threshold=-math.inf) -> Array:
        """The likeliest label, int32 [B]; -1 where log p(x) < threshold (nats)."""
        log_joint = self.log_joint(params, state, batch, key)
        label = jnp.argmax(log_joint, axis=-1).astype(jnp.int32)
        known = jax.nn.logsumexp(log_joint, axis=-1) >= threshold
        return jnp.where(known, label, -1)

    def sample(self, params, state, key, num, *, start_index=0, **sampler) -> Array:
        """x ~ p(x): y ~ p(y), then x ~ p(x|y), [num, ...] in data space."""
        key_label, key_x = jax.random.split(key)
        log_prior = jnp.asarray(self.log_prior)
        keys = sample_keys(key_label, num, start_index)
        label = jax.vmap(lambda key: jax.random.categorical(key, log_prior))(keys)
        given = {self.labels.key: label, **sampler}
        return self.model.sample(
            params, state, key_x, num, start_index=start_index, **given
        )


def generative_classifier(
    model, log_prior: tuple[float, ...] | None = None
) -> GenerativeClassifier:
    """p(y|x) ∝ p(x|y) p(y) of a class-conditional model with a likelihood.

    log_prior: log p(y) of each of the model's classes in nats, -inf of one that never
    occurs; uniform if None: give the frequencies of the data where they differ. Raises
    BadInput for a model without a density, an unconditional one, and a prior of
    another length or that does not sum to one.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(density="exact", condition=Labels(4))
    >>> [round(value, 3) for value in generative_classifier(model).log_prior]
    [-1.386, -1.386, -1.386, -1.386]
    """
    require_density(model)
    labels = labels_of(model.condition)
    if labels is None:
        raise BadInput(
            f"{type(model).__name__} is not conditioned on labels, it has p(x) and no "
            "p(x|y): train one with labels"
        )
    classes = labels.num
    if log_prior is None:
        log_prior = (-math.log(classes),) * classes
    if len(log_prior) != classes:
        raise BadInput(
            f"log_prior has {len(log_prior)} entries: the model has {classes} classes"
        )
    total = sum(math.exp(value) for value in log_prior)
    if abs(total - 1.0) > 1e-5:
        raise BadInput(
            f"log_prior sums to {total:.6g} as probabilities: normalise it to 1"
        )
    return GenerativeClassifier(model, tuple(map(float, log_prior)))


def rejection_threshold(log_likelihood: Array, rate: float) -> Array:
    """The `rate`-quantile of log p(x) [N] of known data: `classify` rejects that share.

    Take data that the model was not trained on. Raises BadInput unless 0 <= rate <= 1.

    >>> float(rejection_threshold(jnp.array([-4.0, -3.0, -2.0, -1.0, 0.0]), 0.25))
    -3.0
    """
    if not 0 <= rate <= 1:
        raise BadInput(f"rate={rate}: a share of the data lies between 0 and 1")
    return jnp.quantile(log_likelihood, rate)


@static
class Reweighted:
    """Samples of p(x|y) ∝ p(y|x) p(x): see `conditional_from`.

    params and state are {"discriminative": …, "generative": …}.
    """

    discriminative: Any
    generative: Any
    candidates: int
    density: ClassVar[str] = "none"

    @property
    def space(self) -> Space:
        """The type of x."""
        return self.generative.space

    @property
    def condition(self) -> Labels:
        """The label that a sample has."""
        return self.discriminative.labels

    def sample(
        self, params, state, key, num, *, start_index=0, label=None, **sampler
    ) -> Array:
        """[num, ...] in data space; label: int or [num], uniform if None.

        sampler: other keywords of the generative model's `sample`, such as a VAE's
        sample_pixels=True, without which its samples are means. Where p(y|x) = 0 for
        every candidate there is nothing to choose by: the effective sample size is 0.
        """
        return self.resample(
            params, state, key, num, start_index=start_index, label=label, **sampler
        )[0]

    def effective_sample_size(
        self, params, state, key, num, *, start_index=0, label=None, **sampler
    ) -> Array:
        """(Σw)²/Σw² of each sample's candidates, [num] in 0 … candidates.

        Near 1, a sample is whatever single candidate came closest to its label: take
        more candidates.
        """
        return self.resample(
            params, state, key, num, start_index=start_index, label=label, **sampler
        )[1]

    def resample(
        self, params, state, key, num, *, start_index=0, label=None, **sampler
    ) -> tuple[Array, Array]:
        """(`sample`, `effective_sample_size`), computed once."""
        key_x, key_weigh, key_label, key_choose = jax.random.split(key, 4)
        p, q = self.generative, self.discriminative

        def weigh(i):
            """The candidates of sample i [M, ...], and log p(y|x) of each [M, K]."""
            x = p.sample(
                params["generative"],
                state["generative"],
                key_x,
                self.candidates,
                start_index=i * self.candidates,
                **sampler,
            )
            batch = {self.space.key: self.space.to_data(x)}
            key = jax.random.fold_in(key_weigh, i)
            own = params["discriminative"], state["discriminative"]
            return x, q.log_prob_labels(*own, batch, key)

        def choose(i_label):
            i, label = i_label
            x, log_p = weigh(i)
            log_w = log_p[:, label]
            pick = jax.random.categorical(jax.random.fold_in(key_choose, i), log_w)
            total = jax.nn.logsumexp(log_w)
            size = jnp.exp(2.0 * total - jax.nn.logsumexp(2.0 * log_w))
            return x[pick], jnp.where(total > -jnp.inf, size, 0.0)

        numbers = start_index + jnp.arange(num)
        keys, labels = sample_keys(key_label, num, start_index), self.condition
        c = labels.given({labels.key: label}, num, keys)
        return jax.lax.map(choose, (numbers, c[labels.key]))


def conditional_from(discriminative, generative, candidates: int = 64) -> Reweighted:
    """p(x|y) ∝ p(y|x) p(x) from p(y|x) and p(x), by resampling M = candidates.

    A sample costs M samples of the generative model and M labels. Raises BadInput for
    a discriminative model without `log_prob_labels` and fewer than one candidate.

    >>> from types import SimpleNamespace
    >>> density = SimpleNamespace(density="exact", condition=Labels(4))
    >>> both_ways = conditional_from(generative_classifier(density), density, 8)
    >>> both_ways.candidates, both_ways.condition
    (8, Labels(num=4, key='label'))
    """
    require(
        discriminative,
        Discriminative,
        "take a classifier, or a generative_classifier of a conditional density",
    )
    if candidates < 1:
        raise BadInput(f"candidates={candidates}: a sample is chosen among at least 1")
    return Reweighted(discriminative, generative, candidates)
