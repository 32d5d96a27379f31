"""Editing by partial noising: an image is noised to a time and drawn again from there.

    z = a(t₀) x + b(t₀) ε,  then the sampler from t₀ to the data

What is coarser than the noise at t₀ stays, the rest is drawn again. Meng et al. 2022,
arXiv:2108.01073 (SDEdit), algorithm 1.
"""

import dataclasses

from gengen.scan import fold_in, normal, sample_keys
from gengen.types import Array


def edit(
    model,
    params,
    state,
    key,
    x: Array,
    strength: float = 0.5,
    *,
    start_index=0,
    sampler=None,
    **given,
) -> Array:
    """x [B, *shape] noised to a time and drawn again from there.

    >>> import jax
    >>> from gengen.nets.dit import DiT
    >>> from gengen.presets import flow
    >>> from gengen.spaces import Images
    >>> model = flow(DiT(2, 8, 1, 1), Images((4, 4, 1), 17), steps=2)
    >>> params, state = model.init(jax.random.key(0))
    >>> x = model.space.zeros(3)
    >>> edit(model, params, state, jax.random.key(1), x, 0.5).shape
    (3, 4, 4, 1)

    Args:
        model: a `Diffusion`.
        params: its parameters.
        state: its state.
        key: draws the noise; row i is a function of (key, start_index + i).
        x: as the model's space has it: images in [-1, 1].
        strength: the fraction of the schedule that is drawn again, in (0, 1]; 1 is a
            sample that knows nothing of x.
        start_index: the number of the first row.
        sampler: in the place of the model's own.
        **given: what x is to become: the condition by name; drawn if it is missing.
    """
    model.check_array(x, "x")
    sampler = dataclasses.replace(sampler or model.sampler, strength=strength)
    keys = sample_keys(key, len(x), start_index)
    plan = sampler.plan(model.process)
    # The sampler multiplies its latent by b(t₀): so z = a x + b ε is b (a x/b + ε).
    a = model.process.path.a(plan.times[0])
    z = normal(keys, model.latent_shape) + a / plan.first_b * x
    c = model.sampling_c(sampler, given, len(x), keys)
    ask = plan.first_b * z, fold_in(keys, 1), c, sampler
    return model.carry(params, state, *ask)
