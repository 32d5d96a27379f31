"""Flow maps: samples in one network call, learned from scratch or from a flow."""

from typing import Annotated, Literal

from ..cli.bounds import AtLeast, AtMost, Calls, Default, Share, Weight
from ..cli.groups import group
from .diffusion import DroppedLabelOptions
from .experiment import takes
from .nets import DiTOptions


@group(steps=4_000)
class MeanFlowOptions(DroppedLabelOptions, DiTOptions):
    """What the average velocity is taught, and at which times."""

    identity: Literal["meanflow", "improved", "shortcut"] = "improved"
    """What makes u the average: its derivative in time along the data's velocity
    (meanflow) or along the network's own (improved), or two halves (shortcut)."""
    equal_times: Share = 0.5
    """Share of rows whose two times are equal, which learn the velocity."""
    finest: Annotated[int, AtLeast(2), AtMost(2**20)] = 128
    """Shortest intervals in the whole time, a power of two (shortcut)."""
    power: Weight = 1.0
    """A row's loss L is weighed by 1/(L + 0.001)^power; 0 for no weight."""
    learned_guidance: Weight = 1.5
    """Guidance that the map learns, so that a guided sample costs no second call; 1 is
    none, and so is it without labels."""
    sampling_steps: Annotated[Calls, Default()] = 1
    """Default jumps of a sample."""


@takes(MeanFlowOptions)
def meanflow(data, o: MeanFlowOptions):
    """MeanFlow, improved MeanFlow and shortcut models: one step from noise to data.

    Geng et al. 2025, arXiv:2505.13447 and arXiv:2512.02012; Frans et al. 2024,
    arXiv:2410.12557. The loss does not say how good samples are: look at them, or let
    --evaluate-every measure them. The defaults are for digits: with --steps 8000 the
    Fréchet distance of one step is 0.029, after 997 s on one busy CPU core (that of
    `dit` in fifty 0.011). For Fashion-MNIST: --dataset fashion_mnist --width 256
    --blocks 8 --heads 8 --learning-rate 5e-4 --batch-size 256 --ema-decay 0.9995
    --steps 100000 (on an accelerator).
    """
    from gengen.conditions import both
    from gengen.diffusion import flow_maps as maps
    from gengen.diffusion.paths import Linear
    from gengen.diffusion.process import Process, Velocity
    from gengen.models.flow_map import FlowMap, Jumps

    objective = {
        "meanflow": maps.meanflow_loss,
        "improved": maps.improved_meanflow_loss,
        "shortcut": maps.shortcut_loss,
    }[o.identity]
    if o.identity == "shortcut":
        pairs = maps.DyadicTimes(o.finest, o.equal_times)
    else:
        pairs = maps.SortedTimes(equal=o.equal_times)
    condition = o.condition(data)
    guided = condition.droppable and o.label_dropout > 0
    model = FlowMap(
        o.network(both(condition, maps.SECOND_TIME)),
        Process(Linear(), Velocity()),
        data.space(),
        condition,
        objective=objective,
        pairs=pairs,
        power=o.power,
        condition_dropout=o.label_dropout,
        scale=o.learned_guidance if guided else 1.0,
        sampler=Jumps(o.sampling_steps),
    )
    return o.experiment(model, "denoiser")
