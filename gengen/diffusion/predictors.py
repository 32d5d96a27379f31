"""What a network's function (z, t, c) -> r̂ is made into before a solver sees it.

Guidance needs predictors that know ever more of the condition; a likelihood and most
solvers need the means without the learned variances; a dry run needs only the shapes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.conditions import Condition, only, parts_of
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.likelihood import LikelihoodEstimator
from gengen.diffusion.process import Process
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solve import solve
from gengen.errors import BadInput
from gengen.spaces import Space


def means(predict: Callable) -> Callable:
    """r̂ without the learned variances behind it, if there are any.

    >>> predict = means(lambda z, t: jnp.concatenate([z, 0 * z], axis=-1))
    >>> predict(jnp.ones((2, 3)), 0.5).shape
    (2, 3)
    """
    return lambda z, t, *c: predict(z, t, *c)[..., : z.shape[-1]]


def nested(
    predict: Callable, guidance: Guidance, condition: Condition
) -> list[Callable]:
    """Functions (z, t, c) -> r̂ that know ever more of c, the last one all of it.

    Without scales it is the network alone; with one scale, the network without c (or
    with what it is led `against`) and with c; with a scale for each of several parts,
    the parts are added in their order.

    Args:
        predict: the network, (z, t, c) -> r̂.
        guidance: what the predictors are for.
        condition: of the network.

    >>> from gengen.conditions import Labels
    >>> knows = nested(lambda z, t, c: c["label"], Guidance(2.0), Labels(3))
    >>> [known(None, None, {"label": jnp.array([1])}).tolist() for known in knows]
    [[3], [1]]
    """
    if not guidance.scales:
        return [predict]
    if not isinstance(guidance.scale, tuple):

        def without(z, t, c):
            against = condition.null(c)
            for name, value in guidance.against:
                part = next(p for p in parts_of(condition) if p.key == name)
                against |= part.given({name: jnp.array(value)}, len(c[name]))
            return predict(z, t, against)

        return [without, predict]
    guided = [name for name, _ in guidance.scale]
    others = [name for name in condition.names if name not in guided]

    def knowing(num):
        kept = (*others, *guided[:num])
        return lambda z, t, c: predict(z, t, only(condition, c, kept))

    return [*map(knowing, range(len(guided))), predict]


def check_guidance(
    guidance: Guidance, process: Process, condition: Condition, dropout: float
) -> None:
    """BadInput for guidance that a model was not trained for.

    Args:
        guidance: what is asked for.
        process: of the model.
        condition: of the model.
        dropout: the share of rows whose condition was dropped in its training.

    >>> from gengen.diffusion import paths
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.conditions import Labels
    >>> process = Process(paths.Linear(), Velocity())
    >>> check_guidance(Guidance(2.0), process, Labels(10), dropout=0.1)
    """
    other = guidance.model
    if other is not None and other.process != process:
        raise BadInput(
            f"the guiding model is of {other.process}, this one of {process}: "
            "guidance needs two of one path and prediction"
        )
    if other is not None or not guidance.scales:
        return
    if lack := _lack(guidance, condition, dropout):
        raise BadInput(
            f"guidance scale {guidance.scale}: {lack}; leave it at 1, or train with "
            "a condition that is dropped"
        )


def _lack(guidance: Guidance, condition: Condition, dropout: float) -> str | None:
    """Why guidance without a guiding model cannot be, if it cannot."""
    if not condition.droppable:
        return "the model is unconditional"
    if dropout == 0:
        return "it was trained with condition_dropout=0, so it has no null"
    if unknown := {name for name, _ in guidance.against} - {*condition.names}:
        return f"the model is not conditioned on {', '.join(sorted(unknown))}"
    if not isinstance(guidance.scale, tuple):
        return None
    names = [name for name, _ in guidance.scale]
    null = {part.key: part.droppable for part in parts_of(condition)}
    if unknown := sorted(set(names) - set(null)):
        return f"the model is not conditioned on {', '.join(unknown)}"
    if fixed := [name for name in names if not null[name]]:
        return f"{fixed[0]} has no null"
    if len(set(names)) < len(names):
        return "each part has one scale"
    if getattr(condition, "together", False) and sum(null.values()) > 1:
        return "its parts were dropped together; make them both(together=False)"
    return None


def dry_run(
    process: Process,
    space: Space,
    sampler: Sampler,
    likelihood: LikelihoodEstimator,
    variances: bool,
) -> None:
    """Traces sampling and likelihood, so that what they refuse is refused: no result.

    Args:
        process: the path and what is predicted.
        space: the type of x.
        sampler: how noise is carried to data.
        likelihood: what is estimated.
        variances: whether the network learns variances.

    >>> from gengen.diffusion.likelihood import VariationalBound
    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> from gengen.spaces import Images
    >>> process, space = Process(Linear(), Velocity()), Images((2, 2, 1), 17)
    >>> dry_run(process, space, Sampler(steps=3), VariationalBound(), variances=False)
    """

    def predict(z, t, c):
        return jnp.concatenate([z] * (1 + variances), axis=-1)

    def sample(keys, z):
        times = sampler.plan(process).times
        return solve(sampler.solver, keys, predict, process, z, times, {})

    def estimate(keys, data):
        return likelihood(keys, means(predict), process, data, space, {})

    keys = jax.random.split(jax.random.key(0), 1)
    z = jax.ShapeDtypeStruct((1, *space.shape), jnp.float32)
    jax.eval_shape(sample, keys, z)
    jax.eval_shape(estimate, keys, jax.eval_shape(space.to_data, z))
