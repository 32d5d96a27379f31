"""PixelRNN's equations, pixel by pixel in NumPy, and exactly what each kind sees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import KEY, check_views, random_batch, random_params

from gengen.conditions import Labels, Maps, both
from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive
from gengen.nets.pixelrnn import PixelRNN
from gengen.nets.recurrence import DiagonalBiLSTM, RowLSTM, skew, unskew
from gengen.observations.categorical import Categorical
from gengen.spaces import Images

KINDS = pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(gates, cell):
    """Equation 3 at one pixel: gates [C, 4, G], cell [C, G]."""
    o, f, i, g = np.moveaxis(gates, 1, 0)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


class Grid(dict):
    """Values by (row, column); zeros outside of the image."""

    def __init__(self, shape):
        self.shape = shape

    def __missing__(self, place):
        return np.zeros(self.shape)


def conv(weights, x, size, window, strict=False):
    """A masked convolution, subpixel by subpixel: x {(i, j): [C, F]} -> {[C, F']}.

    window: the offsets of its taps, the pixel's own last.
    """
    kernel, bias = weights["kernel"], weights["bias"]
    c, features = len(bias), x.shape[1]
    window = window[: kernel.shape[1] // (c * features)]
    kernel = kernel.reshape(c, len(window), c, features, -1)
    out = Grid(bias.shape)
    for i, j in np.ndindex(size):
        out[i, j] = bias.copy()
        for c_out, (tap, (di, dj)), c_in in (
            (a, b, d) for a in range(c) for b in enumerate(window) for d in range(c)
        ):
            own = (di, dj) == (0, 0)
            if not own or c_in < c_out or (c_in == c_out and not strict):
                said = x[i + di, j + dj][c_in] @ kernel[c_out, tap, c_in]
                out[i, j][c_out] += said
    return out


def row_lstm(weights, x, size):
    """Section 3.1: K_is over columns j-1 and j, K_ss over j-1 … j+1 of the row."""
    said = conv(weights["conv"], x, size, [(0, -1), (0, 0)])
    (kernel,) = weights["state"]
    c, _, f = kernel.shape[0], kernel.shape[1], kernel.shape[1] // 3
    h, cell = Grid((c, f // c)), Grid((c, f // c))
    for i, j in np.ndindex(size):
        above = np.concatenate([h[i - 1, j + d].ravel() for d in (-1, 0, 1)])
        gates = said[i, j] + np.einsum("f,cfg->cg", above, kernel)
        h[i, j], cell[i, j] = lstm(gates.reshape(c, 4, -1), cell[i - 1, j])
    return h


def diagonal_bilstm(weights, x, size):
    """Section 3.2, with no map skewed: h above and beside, c beside."""
    said = conv(weights["conv"], x, size, [(0, 0)])
    out = []
    for direction, kernel in enumerate(weights["state"]):
        c, f = kernel.shape[0], kernel.shape[1] // 2
        h, cell = Grid((c, f // c)), Grid((c, f // c))
        beside = 2 * direction - 1
        for i in range(size[0]):
            for j in range(size[1])[::-beside]:
                before = [h[i - 1, j].ravel(), h[i, j + beside].ravel()]
                gates = np.split(said[i, j], 2, axis=-1)[direction]
                gates = gates + np.einsum("f,cfg->cg", np.concatenate(before), kernel)
                step = lstm(gates.reshape(c, 4, -1), cell[i, j + beside])
                h[i, j], cell[i, j] = step
        out.append(h)
    left, right = out
    both = Grid(left.shape)
    both.update({(i, j): left[i, j] + right[i - 1, j] for i, j in np.ndindex(size)})
    return both


def each(grids, function):
    """A new grid: `function` of the values at every pixel."""
    values = {p: function(*(g[p] for g in grids)) for p in grids[0]}
    grid = Grid(next(iter(values.values())).shape)
    grid.update(values)
    return grid


def relu(x):
    return np.maximum(x, 0.0)


def reference(net, params, image, context=None):
    """Features [H, W, C, F] of one image [H, W, C]; context a map [H, W, D]."""
    size = image.shape[:2]
    x = Grid((image.shape[2], 1))
    x.update(
        {p: 2.0 * image[p][:, None] / (net.levels - 1) - 1 for p in np.ndindex(size)}
    )
    window = [(i, j) for i in range(-3, 1) for j in range(-3, 4) if (i, j) <= (0, 0)]
    h = conv(params["first"], x, size, window, strict=True)
    recurrence = {RowLSTM: row_lstm, DiagonalBiLSTM: diagonal_bilstm}[net.kind]
    point = partial(conv, size=size, window=[(0, 0)])
    for n in range(net.blocks):
        y = recurrence(params[f"cells_{n}"], h, size)
        y = point(params[f"expands_{n}"], y)
        h = each([h, y], np.add)
    h = point(params["last"], each([h], relu))
    h = point(params["out"], each([h], relu))
    return np.array([[h[i, j] for j in range(size[1])] for i in range(size[0])])


@KINDS
def test_the_network_is_the_equations_pixel_by_pixel(kind):
    shape, levels = (4, 5, 3), 3
    net = PixelRNN(levels, shape, levels, 3, 2, kind)
    model = Autoregressive(net, Categorical(levels), Images(shape, levels))
    batch = random_batch(shape, levels, 1)
    params = random_params(model, batch)
    features = jax.jit(model.features_of)(params, model.read(batch))
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    expected = reference(net, weights["autoregressive"], batch["image"][0])
    np.testing.assert_allclose(
        features.reshape(*shape, levels), expected, rtol=1e-4, atol=2e-5
    )


def test_skewing_makes_columns_of_diagonals():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4)
    expected = [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    np.testing.assert_array_equal(skew(x)[0], expected)
    np.testing.assert_array_equal(unskew(skew(x)), x)


def triangle(shape):
    """bool [T, T]: what one Row LSTM behind a 7×7 convolution can see.

    Its state at (i, j) has heard columns j - d - 1 … j + d of the features of row
    i - d, and those of (a, b) are heard from 3 rows above, 3 columns around.
    """
    h, w = shape
    seen = np.zeros((h, w, h, w), bool)
    for i, j, a, b, x, y in np.ndindex(h, w, h, w, h, w):
        d = i - a
        hears = d >= 0 and j - d - 1 <= b <= j + d
        reads = a - 3 <= x <= a and abs(b - y) <= 3 and (x, y) < (a, b)
        seen[i, j, x, y] |= hears and reads
    return seen.reshape(h * w, h * w)


def dependence(net, params, x):
    """bool [T, T]: whether features of t (row) move with symbol s (column)."""
    size = x.shape[1]
    moved = jnp.repeat(x, size, axis=0).at[jnp.arange(size), jnp.arange(size)].add(9)
    both = jax.jit(net.apply)({"params": params}, jnp.concatenate([x, moved]))
    change = jnp.abs(both[1:] - both[0]).max(-1)
    return np.array(change.T > 2e-6)


def seen_by(kind, shape):
    net = PixelRNN(2, (*shape, 1), 2, 12, 1, kind)
    model = Autoregressive(net, Categorical(2), Images((*shape, 1), 2))
    params = random_params(model, random_batch(model.space.shape, 2, 1))[
        "autoregressive"
    ]
    return dependence(net, params, jnp.zeros((1, model.length), jnp.int32))


def test_a_row_lstm_sees_its_triangle_exactly():
    np.testing.assert_array_equal(seen_by(RowLSTM, (5, 11)), triangle((5, 11)))


def test_a_diagonal_bilstm_sees_all_but_the_end_of_the_row_above():
    """No features of row i - 1 know its last pixel; those of row i do, where 7×7 does.

    So from the other columns it is out of sight until the next row: a gap in the
    "entire available context" of section 3.2.
    """
    expected = np.tril(np.ones((35, 35), bool), -1).reshape(5, 7, 5, 7)
    for i in range(1, 5):
        expected[i, :3, i - 1, 6] = False
    seen = seen_by(DiagonalBiLSTM, (5, 7)).reshape(5, 7, 5, 7)
    np.testing.assert_array_equal(seen, expected)


@KINDS
def test_a_map_as_context_reaches_its_own_place_in_both_views(kind):
    shape = (3, 4, 1)
    maps = Maps((3, 4, 2))
    net = PixelRNN(2, shape, 2, 3, 2, kind, maps)
    model = Autoregressive(net, Categorical(2), Images(shape, 2), maps)
    c = {"map": jax.random.normal(KEY, (3, 3, 4, 2))}
    batch = {**random_batch(shape, 2), **c}
    params = random_params(model, batch)
    check_views(model, params, c)
    x = model.read(batch)
    features_of = jax.jit(model.features_of)
    features = features_of(params, x, c)
    moved = features_of(params, x, {"map": c["map"].at[:, 1, 2].add(1.0)})
    changed = np.any(features != moved, axis=-1)
    assert np.all(changed[:, 6]) and not np.any(changed[:, :6])


def test_mistakes_are_sentences():
    net = PixelRNN(2, (4, 4, 3), 2, 4, 1)
    x = jnp.zeros((1, 48), jnp.int32)
    with pytest.raises(BadInput, match="take a multiple of 3"):
        net.init(KEY, x)
    for condition in (Maps((2, 2, 1)), both(Maps((4, 4, 1)), Labels(3))):
        net = PixelRNN(2, (4, 4, 3), 2, 3, 1, condition=condition)
        with pytest.raises(BadInput, match="one map of the image's size, or vectors"):
            net.init(KEY, x, condition.zeros(1))
