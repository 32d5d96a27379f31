"""Laws of `gengen.nets.inception`: the network that FID is defined in."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.nets.inception import (
    Activations,
    Conv,
    InceptionV3,
    Mixed,
    average_pool,
    from_torch,
    halving_pool,
    max_pool,
    pytorch,
    tensorflow_1,
)

KEY = jax.random.key(0, impl="rbg")
WORDS = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def numbers(seed, *shape):
    """Uniform in [-1, 1): a stream that NumPy promises never to change."""
    random = np.random.RandomState(seed).random_sample(shape)
    return (2 * random - 1).astype(np.float32)


def identity(image):
    return image


# ---------------------------------------------------------------- preprocessing


def at_source(image, y, x):
    """The bilinear value of an image [H, W] at (y, x), in float64."""
    (top, dy), (left, dx) = (divmod(c, 1) for c in (y, x))
    rows = [min(int(top) + i, image.shape[0] - 1) for i in (0, 1)]
    columns = [min(int(left) + i, image.shape[1] - 1) for i in (0, 1)]
    weights = np.outer([1 - dy, dy], [1 - dx, dx])
    return np.sum(weights * image[np.ix_(rows, columns)])


@pytest.mark.parametrize("height", [5, 299, 700])
@pytest.mark.parametrize(
    ("preprocess", "source", "scale"),
    [
        (tensorflow_1, lambda i, side: i * side / 299, lambda v: (v - 128) / 128),
        (
            pytorch,
            lambda i, side: max(0, (i + 0.5) * side / 299 - 0.5),
            lambda v: 2 * v / 255 - 1,
        ),
    ],
)
def test_resizing_is_bilinear_at_the_sources_of_its_convention(
    preprocess, source, scale, height
):
    image = np.random.RandomState(0).randint(0, 256, (2, height, 7, 3)).astype("u1")
    out = preprocess(image)
    assert out.shape == (2, 299, 299, 3)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(preprocess(image.astype("f4")), out, atol=1e-6)
    out = np.asarray(out)
    for i, j in [
        (0, 0),
        (298, 298),
        *np.random.RandomState(1).randint(0, 299, (60, 2)),
    ]:
        value = at_source(image[1, ..., 2], source(i, height), source(j, 7))
        # float32 rounds a source near 700 by 3e-5 of the step between two pixels.
        assert out[1, i, j, 2] == pytest.approx(scale(value), abs=1e-4)


def test_preprocessing_ends_near_minus_one_and_one():
    ends = np.full((2, 4, 4, 1), [[[[0]]], [[[255]]]], np.uint8)
    for preprocess, low, high in [(tensorflow_1, -1, 127 / 128), (pytorch, -1, 1)]:
        black, white = preprocess(ends)
        np.testing.assert_allclose(black, low, rtol=1e-6)
        np.testing.assert_allclose(white, high, rtol=1e-6)


# ---------------------------------------------------------------- pools and blocks


@pytest.mark.parametrize(
    ("pool", "reduce", "starts"),
    [
        (average_pool, np.mean, range(-1, 5)),
        (max_pool, np.max, range(-1, 5)),
        (halving_pool, np.max, range(0, 3, 2)),
    ],
)
def test_pools_see_the_image_and_no_padding(pool, reduce, starts):
    h = numbers(0, 1, 6, 6, 2) - 5  # padding with zeros would raise every border
    expected = [
        [reduce(h[:, max(i, 0) : i + 3, max(j, 0) : j + 3], (1, 2)) for j in starts]
        for i in starts
    ]
    expected = np.moveaxis(np.array(expected), 2, 0)
    np.testing.assert_allclose(pool(jnp.asarray(h)), expected, rtol=1e-5)


def test_a_block_concatenates_its_branches_each_a_chain_with_forks():
    fork = Conv(2, (1, 3)), Conv(3, (3, 1))
    net = Mixed((("a", (Conv(4), fork)), ("b", (max_pool, Conv(2)))))
    h = numbers(0, 1, 3, 4, 2)
    variables = jax.eval_shape(net.init, KEY, h)
    leaves, tree = jax.tree.flatten(variables)
    leaves = [numbers(i, *leaf.shape) + 1.5 for i, leaf in enumerate(leaves)]
    variables = jax.tree.unflatten(tree, leaves)

    def unit(name, h):
        """Convolution, BatchNorm by running averages and ReLU, in NumPy."""
        own = {kind: variables[kind][name] for kind in variables}
        kernel, bn = own["params"]["conv"]["kernel"], own["params"]["bn"]
        mean, var = (own["batch_stats"]["bn"][m] for m in ("mean", "var"))
        rows, columns = kernel.shape[:2]
        edge = [(0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)]
        padded, out = np.pad(h, edge), 0
        for i, j in np.ndindex(rows, columns):
            window = padded[:, i : i + h.shape[1], j : j + h.shape[2]]
            out = out + window @ kernel[i, j]
        normed = (out - mean) / np.sqrt(var + 1e-3) * bn["scale"] + bn["bias"]
        return np.maximum(normed, 0)

    stem = unit("a_1", h)
    pooled = unit("b", np.asarray(max_pool(h)))
    expected = np.concatenate([unit("a_2a", stem), unit("a_2b", stem), pooled], -1)
    found = jax.jit(net.apply)(variables, h)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# ---------------------------------------------------------------- the architecture

SHAPES = {
    "Conv2d_1a_3x3": (149, 149, 32),
    "Conv2d_2a_3x3": (147, 147, 32),
    "Conv2d_2b_3x3": (147, 147, 64),
    "Conv2d_3b_1x1": (73, 73, 80),
    "Conv2d_4a_3x3": (71, 71, 192),
    "Mixed_5b": (35, 35, 256),
    "Mixed_5c": (35, 35, 288),
    "Mixed_5d": (35, 35, 288),
    "Mixed_6a": (17, 17, 768),
    "Mixed_6b": (17, 17, 768),
    "Mixed_6c": (17, 17, 768),
    "Mixed_6d": (17, 17, 768),
    "Mixed_6e": (17, 17, 768),
    "Mixed_7a": (8, 8, 1280),
    "Mixed_7b": (8, 8, 2048),
    "Mixed_7c": (8, 8, 2048),
    "fc": (1008,),
}


@pytest.fixture(scope="module")
def expected():
    """Shapes of the variables."""
    return jax.eval_shape(InceptionV3().init, KEY, jnp.zeros((1, 8, 8, 3)))


def torch_entries(variables):
    """(path, name and shape in the state dict) of every leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        kind, *modules, last = path = [entry.key for entry in path]
        shape = tuple(leaf.shape)
        if last == "kernel":
            shape = shape[::-1] if len(shape) == 2 else (*shape[:1:-1], *shape[:2])
        yield path, ".".join([*modules, WORDS[kind, last]]), shape


def test_layers_have_the_published_shapes(expected):
    image = jnp.zeros((2, 32, 32, 1), jnp.uint8)
    (pool, logits), state = jax.eval_shape(
        lambda v: InceptionV3().apply(v, image, capture_intermediates=True), expected
    )
    layers = state["intermediates"]
    del layers["__call__"]
    found = {name: layer["__call__"][0].shape for name, layer in layers.items()}
    assert found == {name: (2, *shape) for name, shape in SHAPES.items()}
    assert pool.shape == (2, 2048)
    assert pool.dtype == logits.dtype == jnp.float32


def test_names_and_shapes_are_those_of_the_state_dict(expected):
    """Both numbers from pytorch-fid 0.3.0's `fid_inception_v3` with torch 2.15."""
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(expected["params"])]
    assert sum(sizes) == 23_850_960
    lines = sorted(f"{name} {shape}" for _, name, shape in torch_entries(expected))
    assert "Mixed_6c.branch7x7dbl_2.conv.weight (160, 160, 7, 1)" in lines
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "d84f693f2abd7fea61cb31c87d3b2f268bf707c1bae1db219afdad3363959cb0"


def test_images_are_grey_or_rgb(expected):
    image = jnp.zeros((2, 8, 8, 4))
    with pytest.raises(BadInput, match="1 or 3 channels, not 4: convert"):
        jax.eval_shape(InceptionV3().apply, expected, image)


def test_equal_nets_are_equal_and_the_convention_is_part_of_them():
    assert InceptionV3() == InceptionV3(tensorflow_1) != InceptionV3(pytorch)
    assert len({InceptionV3(), InceptionV3(tensorflow_1), InceptionV3(pytorch)}) == 2


# ---------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def state(expected):
    """A state dict in which the activations keep their scale."""
    random, state = np.random.RandomState(0), {}
    shapes = {name: shape for _, name, shape in torch_entries(expected)}
    for name in sorted(shapes):
        u = random.random_sample(shapes[name]).astype(np.float32)
        if u.ndim > 1:
            state[name] = (u - 0.5) * math.sqrt(24 / math.prod(u.shape[1:]))
        else:
            state[name] = u - 0.5 if name.endswith(("bias", "mean")) else u + 0.5
    return state


@pytest.fixture(scope="module")
def variables(state):
    aside = {"Mixed_5b.branch1x1.bn.num_batches_tracked", "AuxLogits.fc.weight"}
    return from_torch({**state, **dict.fromkeys(aside, np.zeros(()))})


def test_from_torch_renames_and_transposes(state, variables, expected):
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for path, name, _ in torch_entries(variables):
        leaf, tensor = variables, state[name]
        for word in path:
            leaf = leaf[word]
        axes = {1: "o->o", 2: "oi->io", 4: "oihw->hwio"}[tensor.ndim]
        np.testing.assert_array_equal(leaf, np.einsum(axes, tensor))


def test_activations_are_those_of_pytorch_fid(variables):
    """Reference: pytorch-fid 0.3.0, torch 2.15, the same weights and image.

    107 pixels leave 2×2 before the last pool: enough to tell every kind of pool.
    """
    image = numbers(1, 1, 107, 107, 3)
    out = jax.jit(InceptionV3(identity).apply)(variables, image)
    assert isinstance(out, Activations)
    pool = [0, 0.12187528, 10.096466, 0, 0, 0.017248200, 3.0220613, 0]
    logits = [4.4433684, 2.9793220, 16.185331, -3.9784730]
    logits += [2.8578067, 2.3899772, -1.3553770, 7.8672733]
    np.testing.assert_allclose(out.pool[0, ::256], pool, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out.logits[0, ::126], logits, rtol=1e-4, atol=1e-4)
    assert jnp.linalg.norm(out.pool) == pytest.approx(158.85480, rel=1e-5)
    assert jnp.linalg.norm(out.logits) == pytest.approx(161.00243, rel=1e-5)


ZERO = np.zeros((1000, 2048), np.float32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Conv2d_1a_3x3.conv.weight": None}, "lack Conv2d_1a_3x3.conv.weight: use"),
        ({"fc.weight": ZERO}, r"fc.weight has .*\(1000, 2048\) where .*\(1008, 2048\)"),
        ({"Mixed_8a.bias": ZERO}, "Mixed_8a.bias has no place .*: use the FID weights"),
    ],
)
def test_other_weights_are_refused_by_the_first_tensor(state, change, sentence):
    tensors = {**state, **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(BadInput, match=sentence):
        from_torch(tensors)
