"""Methods of the literature as compositions of values, in one call each.

    presets.flow(net, space, condition)                   flow matching
    presets.edm(net, space, data_std=0.7, steps=32)       EDM, with other values

A keyword goes to the value that has the field: `condition_dropout=0.2` to the training,
`steps=10` or `solver=Heun()` to the sampler, `scale=2.0` to its guidance, `likelihood`
to the model.
"""

import dataclasses

from gengen.conditions import Condition, Nothing
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.likelihood import VariationalBound
from gengen.diffusion.paths import DDPMSchedule, Karras, Linear, VarianceExploding
from gengen.diffusion.process import EDM, Noise, Process, Velocity
from gengen.diffusion.sampler import Sampler
from gengen.diffusion.solvers import (
    Ancestral,
    EDMSampler,
    EulerMaruyama,
    PredictorCorrector,
)
from gengen.diffusion.times import LogitNormal, LogNormal, Steps
from gengen.diffusion.training import Training
from gengen.diffusion.weights import ErrorIn
from gengen.errors import BadInput
from gengen.models.diffusion import Diffusion
from gengen.spaces import Space


def changed(model: Diffusion, **changes) -> Diffusion:
    """The model with other values, each put where the field is: by name.

    Raises BadInput for a name that no value of the model has.

    >>> from gengen.nets.dit import DiT
    >>> from gengen.spaces import Images
    >>> model = flow(DiT(), Images((8, 8, 1), 17))
    >>> changed(model, steps=10, scale=2.0).sampler.steps
    10
    """
    training = {f.name for f in dataclasses.fields(Training)}
    sampler = {f.name for k in (Sampler, Guidance) for f in dataclasses.fields(k)}
    own = {f.name for f in dataclasses.fields(Diffusion)}
    if unknown := sorted(changes.keys() - training - sampler - own):
        raise BadInput(
            f"{unknown[0]}={changes[unknown[0]]!r}: neither the model ("
            f"{', '.join(sorted(own))}), nor its training ("
            f"{', '.join(sorted(training))}),"
            f" nor its sampler ({', '.join(sorted(sampler))}) has it"
        )

    def those(names):
        return {name: changes[name] for name in names & changes.keys()}

    model = dataclasses.replace(model, **those(own))
    return dataclasses.replace(
        model,
        training=dataclasses.replace(model.training, **those(training)),
        sampler=model.sampler.replace(**those(sampler)),
    )


def flow(net, space: Space, condition: Condition = Nothing(), **changes) -> Diffusion:
    """Flow matching: velocity on the linear path, logit-normal times, Euler's steps.

    Lipman et al. 2023, arXiv:2210.02747; times: Esser et al. 2024, arXiv:2403.03206.

    >>> from gengen.nets.dit import DiT
    >>> from gengen.spaces import Images
    >>> flow(DiT(), Images((8, 8, 1), 17), steps=10).nfe()
    10
    """
    process, training = Process(Linear(), Velocity()), Training(LogitNormal())
    return changed(Diffusion(net, process, space, condition, training), **changes)


def ddpm(net, space: Space, condition: Condition = Nothing(), **changes) -> Diffusion:
    """DDPM: noise on the table of 1,000 steps, ancestral sampling through all of them.

    Ho, Jain and Abbeel 2020, arXiv:2006.11239.

    >>> from gengen.nets.dit import DiT
    >>> from gengen.spaces import Images
    >>> ddpm(DiT(), Images((8, 8, 1), 17)).nfe()
    1000
    """
    values = Training(Steps()), Sampler(Ancestral(), steps=1000)
    values += (VariationalBound(1000, draws=64),)
    process = Process(DDPMSchedule(), Noise())
    return changed(Diffusion(net, process, space, condition, *values), **changes)


def edm(
    net,
    space: Space,
    condition: Condition = Nothing(),
    data_std: float = 0.5,
    **changes,
) -> Diffusion:
    """EDM: Karras' path and preconditioning, log-normal noise, Heun's steps in σ.

    data_std is the standard deviation of x. Karras et al. 2022, arXiv:2206.00364.

    >>> from gengen.nets.dit import DiT
    >>> from gengen.spaces import Images
    >>> edm(DiT(), Images((8, 8, 1), 17), data_std=0.7).nfe()  # 2 a step, 1 at last
    37
    """
    values = Training(LogNormal()), Sampler(EDMSampler(), steps=18)
    process = Process(Karras(data_std), EDM(data_std))
    return changed(Diffusion(net, process, space, condition, *values), **changes)


def score_sde(
    net, space: Space, condition: Condition = Nothing(), **changes
) -> Diffusion:
    """Score SDE: noise on the variance-exploding path, predictor and corrector.

    Song et al. 2021, arXiv:2011.13456.

    >>> from gengen.nets.dit import DiT
    >>> from gengen.spaces import Images
    >>> score_sde(DiT(), Images((8, 8, 1), 17), steps=10).nfe()
    21
    """
    sampler = Sampler(PredictorCorrector(EulerMaruyama()), steps=500)
    values = Training(weight=ErrorIn(Noise())), sampler
    process = Process(VarianceExploding(), Noise())
    return changed(Diffusion(net, process, space, condition, *values), **changes)
