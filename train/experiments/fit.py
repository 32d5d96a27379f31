"""What a record says of a run that `train.fit` trained, beside its description."""

from typing import NoReturn

from gengen.errors import BadInput

from ..data.dataset import Spec


def fit(
    data: Spec,
    *,
    order: tuple[str, ...] | None = None,
    ema_decay: float | None = 0.999,
    batch_size: int = 64,
    steps: int = 1_000,
) -> NoReturn:
    """No record holds a model of one's own: BadInput says how such a run is opened."""
    raise BadInput(
        "the run was trained by fit, in Python: open it there, with the same model, by "
        "train.open_run(workdir, model=model) (gengen_train where it is installed)"
    )
