"""What a trained model is good for: pure functions of any Model that has the parts."""

from gengen.errors import BadInput


def require(model, part: str, remedy: str):
    """Raises BadInput, a sentence, for a model without the method `part`."""
    if not hasattr(model, part):
        raise BadInput(f"{type(model).__name__} has no {part}: {remedy}")


def require_density(model):
    """Raises BadInput for a model with samples only."""
    if model.density == "none":
        raise BadInput(
            f"{type(model).__name__} has no density: take a model with a likelihood, "
            "such as a VAE"
        )
