"""Devices: one mesh, and the compiled step on it.

The global view: losses are written as if there were one device, and jit splits the
batch over the mesh's `data` axis.
"""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec

from gengen.types import BadInput


def data_mesh(batch_size: int) -> jax.sharding.Mesh:
    """All devices along one `data` axis; BadInput unless they divide the batch."""
    num = jax.device_count()
    if batch_size % num:
        raise BadInput(
            f"--batch-size {batch_size} cannot be split over {num} devices: "
            f"choose a multiple of {num}"
        )
    return jax.make_mesh((num,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def replicated(mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh) -> NamedSharding:
    """A feed [k, B, ...], its batches split over the `data` axis."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def jit_steps(many: Callable, mesh) -> Callable:
    """`many(train_state, data, feed, num)` compiled; the train state is donated."""
    same = replicated(mesh)
    return jax.jit(
        many,
        in_shardings=(same, same, batch_split(mesh), None),
        out_shardings=same,
        donate_argnums=0,
    )


def convolves(jaxpr) -> bool:
    """Whether the traced program holds a convolution, at any depth."""
    return "conv_general_dilated[" in str(jaxpr)
