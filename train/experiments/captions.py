"""The options of models that can be conditioned on captions."""

from gengen.errors import BadInput

from ..cli.bounds import Depth, Width
from ..cli.groups import group


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
class CaptionOptions(TextEncoderOptions):
    """How captions are read, where a model is conditioned on them."""

    captions: bool = True
    """Where the data set has captions, condition on these, and not on its classes."""

    def condition(self, data):
        """The captions where there are any, else the classes, else nothing."""
        if self.conditional and self.captions and data.words:
            return self.text(data)
        return data.condition(self.conditional)
