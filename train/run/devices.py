"""Devices: one mesh, what lies where on it, and the compiled step.

The global view: losses are written as if there were one device. jit splits each batch
over the mesh's `data` axis, and large parameters, with everything of their shape
(averages, moments of the optimiser), over its `model` axis by a table of rules. The
mesh is of all processes; each brings its own rows of a batch.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gengen.errors import BadInput

from . import processes

AXES = ("data", "model")

# The first pattern that is found in a leaf's path says which of its dimensions the
# `model` axis cuts, None for none; a dimension that it does not divide stays whole.
RULES = (
    (r"kernel$", -1),  # output features of dense layers and convolutions
    (r"embedding$", -1),
    (r"", None),
)


def make_mesh(axes: str | None = None) -> jax.sharding.Mesh:
    """The mesh of "data=4,model=2": all devices; None is all along `data`."""
    num = jax.device_count()
    sizes = {"data": num, "model": 1}
    if axes is not None:
        pairs = [part.partition("=") for part in axes.split(",")]
        known = all(name in AXES and size.isdecimal() for name, _, size in pairs)
        sizes = {"data": 1, "model": 1}
        sizes |= {name: int(size) for name, _, size in pairs if size.isdecimal()}
        if not known or math.prod(sizes.values()) != num:
            raise BadInput(
                f"--mesh {axes}: write data=N,model=M with N · M = {num}, the devices "
                "there are"
            )
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes[name] for name in AXES), AXES, axis_types=types)


def check_batch(mesh, batch_size: int) -> None:
    """BadInput unless the `data` axis divides the batch."""
    num = mesh.shape["data"]
    if batch_size % num:
        raise BadInput(
            f"--batch-size {batch_size} cannot be split over {num} devices: "
            f"choose a multiple of {num}"
        )


def replicated(mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def infer_sharding(mesh, shapes, rules=RULES):
    """The sharding of every leaf of a tree of shapes, by the first rule it meets."""
    num = mesh.shape["model"]

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        dim = next(dim for pattern, dim in rules if re.search(pattern, name))
        if dim is None or leaf.ndim == 0 or leaf.shape[dim] % num:
            return replicated(mesh)
        spec = [None] * leaf.ndim
        spec[dim] = "model"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(place, shapes)


def batch_split(mesh) -> NamedSharding:
    """A feed [k, B, ...], its batches split over the `data` axis."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


class Global:
    """The global view: one program over the mesh, arrays as if on one device."""

    axis_name = None

    def __init__(self, mesh):
        self.mesh = mesh

    def to_program(self, train_state):
        """The train state as the program takes it."""
        return train_state

    def from_program(self, train_state):
        """The train state as everybody else sees it."""
        return train_state

    def to_host(self, train_state):
        """`view`, without the optimisers, for what one process does alone.

        Every process has to ask for it, for it may be in parts.
        """
        if not processes.is_multiprocess():
            return train_state
        whole = jax.device_put(train_state.replace(opt_state={}), replicated(self.mesh))
        return jax.tree.map(lambda x: x.addressable_data(0), whole)

    def rows(self, batch_size: int) -> np.ndarray:
        """The places in a batch that this process's devices take, ascending."""
        shape = (1, batch_size)
        taken = batch_split(self.mesh).addressable_devices_indices_map(shape)
        places = np.arange(batch_size)
        return np.unique([places[rows] for _, rows in taken.values()])

    def data(self, data):
        """The resident data set, on every device."""
        return self._placed(data, replicated(self.mesh))

    def frozen(self, variables):
        """Arrays that the losses only read, on every device."""
        return self._placed(variables, replicated(self.mesh))

    def items(self, items):
        """A feed [k, B, ...] of this process's rows, split over the devices."""
        return self._placed(items, batch_split(self.mesh))

    def number(self, num: int):
        """How many of a feed's steps to take, on every device."""
        return self._placed(np.int32(num), replicated(self.mesh))

    def _placed(self, arrays, sharding):
        place = functools.partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(place, arrays)

    def mapped(self, many: Callable, train_state) -> Callable:
        """`many(train_state, data, feed, num, frozen)`, compiled.

        The train state is donated.
        """
        placed, same = (
            jax.tree.map(lambda x: x.sharding, train_state),
            replicated(self.mesh),
        )
        return jax.jit(
            many,
            in_shardings=(placed, same, batch_split(self.mesh), None, same),
            out_shardings=(placed, same),
            donate_argnums=0,
        )

    def metrics(self, metrics):
        """Scalars."""
        return metrics


class PerDevice(Global):
    """The device's view, by pmap: each has the whole state, its own part of the batch
    and its own noise; gradients, metrics and floating state are averaged over all.
    """

    axis_name = "data"

    def __init__(self, mesh):
        self.mesh = mesh
        types = (jax.sharding.AxisType.Auto,)
        line = jax.make_mesh((mesh.size,), (self.axis_name,), axis_types=types)
        self._one_each = NamedSharding(line, PartitionSpec(self.axis_name))

    def to_program(self, train_state):
        num = self.mesh.size
        copies = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (num, *x.shape)), train_state
        )
        return jax.device_put(copies, self._one_each)

    def from_program(self, train_state):
        return jax.tree.map(lambda x: x[0], train_state)

    def data(self, data):
        return self.to_program(data)

    def frozen(self, variables):
        return self.to_program(variables)

    def items(self, items):
        """[k, B, ...] -> [devices, k, B/devices, ...]."""

        def split(x):
            parts = x.reshape(len(x), self.mesh.size, -1, *x.shape[2:])
            return parts.swapaxes(0, 1)

        return jax.device_put(jax.tree.map(split, items), self._one_each)

    def mapped(self, many: Callable, train_state) -> Callable:
        axes = (0, 0, 0, None, 0)
        return jax.pmap(many, self.axis_name, in_axes=axes, donate_argnums=0)

    def metrics(self, metrics):
        return jax.tree.map(lambda x: x[0], metrics)


VIEWS = {"jit": Global, "pmap": PerDevice}


def make_view(name: str, mesh) -> Global:
    """The view of "jit" or "pmap" on a mesh; BadInput if it cannot be."""
    if name == "pmap" and mesh.shape["model"] > 1:
        raise BadInput(
            "--parallel pmap keeps all parameters on every device: leave model=M out "
            "of --mesh, or take --parallel jit"
        )
    return VIEWS[name](mesh)


def with_axis_name(value, axis_name: str | None):
    """A model whose batch statistics are those of all devices of a mapped axis.

    Every module in it that has an `axis_name` gets this one.
    """
    if axis_name is None or not dataclasses.is_dataclass(value):
        return value
    changes = {}
    for field in dataclasses.fields(value):
        old = getattr(value, field.name, None)
        if field.name == "axis_name":
            changes[field.name] = axis_name
        elif (
            field.name != "parent"
            and (new := with_axis_name(old, axis_name)) is not old
        ):
            changes[field.name] = new
    return dataclasses.replace(value, **changes) if changes else value


def convolves(jaxpr) -> bool:
    """Whether the traced program holds a convolution, at any depth."""
    return "conv_general_dilated[" in str(jaxpr)
