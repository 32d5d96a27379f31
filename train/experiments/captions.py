"""The options of models that can be conditioned on captions."""

from gengen.errors import BadInput

from ..cli.bounds import Depth, Width
from ..cli.groups import group
from .training import TrainingOptions


@group()
class TextEncoderOptions:
    """The encoder of captions."""

    text_width: Width = 64
    """Features of a word, a multiple of its heads."""
    text_blocks: Depth = 2
    """Layers of the encoder of captions, which is trained with the model."""
    text_heads: Width = 4
    """Its attention heads."""

    def text(self, data):
        """The type of the data set's captions, with its encoder's sizes."""
        if self.text_width % self.text_heads or self.text_width % 2:
            raise BadInput(
                f"--text-width {self.text_width} with --text-heads {self.text_heads}: "
                "take an even multiple of the heads"
            )
        names = ("width", "blocks", "heads")
        return data.text(**{name: getattr(self, f"text_{name}") for name in names})


@group()
class CaptionOptions(TextEncoderOptions, TrainingOptions):
    """How captions are read, where a model is conditioned on them."""

    captions: bool = True
    """Where the data set has captions, condition on these, and not on its classes."""
    text_frozen: bool = False
    """Leave the encoder of captions as it is at first: that of a clip, by
    --init-from."""

    def captioned(self, data) -> bool:
        """Whether captions are the condition; BadInput to freeze what is not there."""
        captioned = bool(self.conditional and self.captions and data.words)
        if self.text_frozen and not captioned:
            raise BadInput(
                "--text-frozen: this model is conditioned on no captions; leave it out,"
                " or take a data set with captions, such as scenes"
            )
        return captioned

    def condition(self, data):
        """The captions where there are any, else the classes, else nothing."""
        if self.captioned(data):
            return self.text(data)
        return data.condition(self.conditional)

    def transformation(self, rate):
        """The optimiser of one player, which leaves a frozen encoder alone."""
        import optax

        inner = super().transformation(rate)
        if not self.text_frozen:
            return inner
        kinds = {"learn": inner, "stay": optax.set_to_zero()}
        return optax.multi_transform(kinds, encoder_of_captions)


def encoder_of_captions(params):
    """ "stay" at the parameters of `gengen.nets.conditioning.Context`, else "learn"."""
    import jax

    def kind(path, leaf):
        names = {getattr(key, "key", None) for key in path}
        return "stay" if "Context_0" in names else "learn"

    return jax.tree_util.tree_map_with_path(kind, params)
