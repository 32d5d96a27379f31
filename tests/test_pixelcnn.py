"""What each PixelCNN sees: masks of channels, the blind spot, precisions, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.nets.gated_pixelcnn import GatedPixelCNN
from gengen.nets.pixelcnn import PixelCNN
from gengen.nets.pixelcnnpp import PixelCNNPP
from gengen.nets.raster import RasterConv
from gengen.observations.categorical import Categorical
from gengen.observations.logistic_mixture import LogisticMixture
from gengen.spaces import Images

KEY = jax.random.key(0)
HEAD = LogisticMixture(5, 3, 2)


def drawn(net, *args):
    """Parameters from N(0, 1/inputs)."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(net.init, KEY, *args))


@pytest.mark.parametrize("strict", [True, False])
def test_masks_of_channels_are_block_triangular(strict):
    """In a row of three pixels of three channels: the Jacobian, two features each."""
    conv = RasterConv(6, 6, left=1, groups=3, strict=strict)
    h = jnp.zeros((1, 1, 3, 3, 2))
    variables = drawn(conv, h)
    jacobian = jax.jacobian(lambda h: conv.apply(variables, h))(h)
    hears = np.abs(jacobian.reshape(9, 2, 9, 2)).max((1, 3)) > 0
    own = np.tri(3, k=-1 if strict else 0)
    window = np.eye(3, k=-1)  # the pixel before, all its channels
    expected = np.kron(np.eye(3), own) + np.kron(window, np.ones((3, 3)))
    np.testing.assert_array_equal(hears, expected > 0)


def seen_by_the_last_row(net, shape, column):
    """bool [H, W]: the pixels that the features of the last row's `column` know."""
    h, w, _ = shape
    x = jnp.zeros((1, h * w), jnp.int32)
    variables = drawn(net, x)
    every = jnp.concatenate([x, jnp.eye(h * w, dtype=jnp.int32)])
    features = np.asarray(jax.jit(net.apply)(variables, every))
    features = features[:, (h - 1) * w + column]
    return (np.abs(features[1:] - features[0]).max(-1) > 1e-6).reshape(h, w)


SHAPE, COLUMN = (6, 12, 1), 5


def test_the_blind_spot_is_a_triangle_to_the_right():
    """d rows up, a 7×7 and one 3×3 see up to column j + d + 2, at most j + 4."""
    seen = seen_by_the_last_row(PixelCNN(2, SHAPE, 2, 64, 1), SHAPE, COLUMN)
    up = np.arange(6)[::-1, None]
    right = np.arange(12) - COLUMN
    reach = np.where(up == 0, -1, np.minimum(up + 2, 4))
    expected = (up <= 4) & (right >= -4) & (right <= reach)
    np.testing.assert_array_equal(seen, expected)


def test_the_gated_network_has_no_blind_spot():
    seen = seen_by_the_last_row(GatedPixelCNN(2, SHAPE, 2, 32, 4), SHAPE, COLUMN)
    before = np.arange(72).reshape(6, 12) < 5 * 12 + COLUMN
    np.testing.assert_array_equal(seen, before)


@pytest.mark.parametrize(
    ("net", "head"),
    [
        (PixelCNN(5, (4, 4, 3), 5, 6, 1, dtype=jnp.bfloat16), Categorical(5)),
        (GatedPixelCNN(5, (4, 4, 3), 5, 6, 2, dtype=jnp.bfloat16), Categorical(5)),
        (
            PixelCNNPP(HEAD.features, (4, 4, 3), 5, 6, 1, 2, dtype=jnp.bfloat16),
            HEAD,
        ),
    ],
    ids=["pixelcnn", "gated", "pixelcnnpp"],
)
def test_in_half_precision_parameters_and_output_are_float32(net, head):
    model = Autoregressive(net, head, Images((4, 4, 3), 5))
    batch = {"image": jnp.zeros((2, 4, 4, 3), jnp.uint8)}
    params, _ = jax.eval_shape(model.init, KEY, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    x = jax.ShapeDtypeStruct((2, model.length, *head.symbol), jnp.int32)
    assert jax.eval_shape(model.features_of, params, x).dtype == jnp.float32
    sample = jax.eval_shape(lambda p: model.sample(p, {}, KEY, 2), params)
    assert sample.shape == (2, 4, 4, 3)


def test_mistakes_are_sentences():
    x = jnp.zeros((1, 36), jnp.int32)
    for kind, width, parts in ((PixelCNN, 9, 6), (GatedPixelCNN, 8, 3)):
        with pytest.raises(BadInput, match=f"{width} cannot be cut into {parts} parts"):
            jax.eval_shape(kind(2, (3, 4, 3), 2, width).init, KEY, x)
    net = PixelCNNPP(HEAD.features, (6, 8, 3), 5, 6)
    with pytest.raises(BadInput, match="a side of 6 pixels does not allow"):
        jax.eval_shape(net.init, KEY, jnp.zeros((1, 48, 3), jnp.int32))
