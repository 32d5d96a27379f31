"""What a trained model is good for: pure functions of any Model that has the parts."""

from gengen.errors import BadInput


def require(model, capability: type, remedy: str):
    """BadInput unless a model declares a capability.

    Args:
        model: any model.
        capability: a class of `gengen.types`, such as HasLatents.
        remedy: what to do, for the sentence.

    >>> from gengen.types import HasFeatures
    >>> require(object(), HasFeatures, "take a model with a representation")
    Traceback (most recent call last):
        ...
    gengen.errors.BadInput: object has no features: take a model with a representation
    """
    if not isinstance(model, capability):
        parts = ", ".join(sorted(capability.__abstractmethods__))
        raise BadInput(f"{type(model).__name__} has no {parts}: {remedy}")


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
