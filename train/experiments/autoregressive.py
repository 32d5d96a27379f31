"""What the autoregressive experiments on images share."""

from ..cli.bounds import Depth, Share, Width
from ..cli.groups import group
from .nets import LayerOptions
from .training import TrainingOptions


@group()
class AutoregressiveOptions(LayerOptions, TrainingOptions):
    """The network of an autoregressive model, and its condition."""

    width: Width = 48
    """Features of a pixel."""
    blocks: Depth = 3
    """Layers, or residual blocks (of each resolution, where there are several)."""
    dropout: Share = 0.2
    """Dropout in training."""
    conditional: bool = False
    """Generate a given class (or caption, by attention), where the data set has any."""

    def autoregressive(self, data, net, head, permutation=None):
        """The Experiment of a network and its head over images."""
        from gengen.models.autoregressive import Autoregressive
        from gengen.spaces import Images

        space = Images(data.shape, data.levels)
        condition = self.condition(data)
        model = Autoregressive(net, head, space, condition, permutation)
        return self.experiment(model, "autoregressive")

    def condition(self, data):
        """The class, if it is asked for; a data set without labels then refuses."""
        from gengen.conditions import Nothing

        return data.labels() if self.conditional else Nothing()
