"""What a trained model is good for: pure functions of any Model that has the parts."""

from gengen.errors import BadInput


def require(model, part: str, remedy: str):
    """Raises BadInput, a sentence, for a model without the method `part`.

    Args:
        model: any model.
        part: the name of the method.
        remedy: what the caller can do instead.

    >>> require("a text", "upper", "take a model that has it")
    """
    if not hasattr(model, part):
        raise BadInput(f"{type(model).__name__} has no {part}: {remedy}")


def require_density(model):
    """Raises BadInput for a model with samples only.

    Args:
        model: any model; `density` says what it has.

    >>> from types import SimpleNamespace
    >>> require_density(SimpleNamespace(density="exact"))
    """
    if model.density == "none":
        raise BadInput(
            f"{type(model).__name__} has no density: take a model with a likelihood, "
            "such as a VAE"
        )
