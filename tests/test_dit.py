"""Laws of attention, of DiT, and of the U-Net that attends."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_keys import quick_key
from test_nets import KEY, images, output_shape, randomised

from gengen.conditions import Labels, Maps, Sequence, Text
from gengen.conditions import both as product
from gengen.errors import BadInput
from gengen.nets.attention import Attention, attend
from gengen.nets.conditioning import Context
from gengen.nets.dit import Block, DiT, patchify, positions, unpatchify
from gengen.nets.unet import PixelAttention, UNet

T = jnp.linspace(0.1, 0.9, 2)
TOKENS = images(2, (3, 5), seed=3)  # three tokens, 5 wide, per image
CONTEXT = {"context": TOKENS}
FIVE = Sequence(5)


def tiny(**options):
    return DiT(**{"patch": 4, "width": 8, "blocks": 2, "heads": 2} | options)


def close(a, b, tolerance=1e-5):
    """Equal up to the rounding of float32 sums, of the largest number there is."""
    np.testing.assert_allclose(a, b, atol=tolerance * np.max(np.abs(b)))


def moved(a, b):
    """Every row [B, …] of a differs from that of b, and not by rounding."""
    a, b = np.asarray(a), np.asarray(b)
    change = np.max(np.abs(a - b), axis=tuple(range(1, a.ndim)))
    return np.all(change > 1e-3 * np.max(np.abs(b)))


# ---------------------------------------------------------------- attention


def test_attention_is_a_softmax_of_scaled_products():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 3, 4)) for n in (5, 6, 6))
    mask = rng.random((2, 1, 5, 6)) < 0.7
    mask[..., 0] = True
    for given in (None, mask):
        expected = np.zeros((2, 5, 3, 4))
        for b, t, n in np.ndindex(2, 5, 3):
            weight = np.exp([q[b, t, n] @ k[b, s, n] / 2 for s in range(6)])
            if given is not None:
                weight = weight * mask[b, 0, t]
            expected[b, t, n] = weight / weight.sum() @ v[b, :, n]
        close(attend(*(x.astype("f4") for x in (q, k, v)), given), expected)


def test_a_block_is_its_equations_and_knows_no_places():
    h, e, order = images(2, (5, 8)), images(2, (6,)), np.array([3, 1, 4, 0, 2])
    block = Block(2)
    variables, apply = randomised(block, h, e), jax.jit(block.apply)
    out = apply(variables, h, e)
    close(apply(variables, h[:, order], e), out[:, order])
    assert moved(out, out[:, order])

    params = variables["params"]
    film, expand, contract = (params[f"Dense_{i}"] for i in range(3))
    film = (nn.silu(e) @ film["kernel"] + film["bias"])[:, None]
    shift, scale, gate, *of_mlp = np.split(film, 6, axis=-1)

    def modulated(h, shift, scale):
        centred = h - np.mean(h, axis=-1, keepdims=True)
        return centred / np.std(h, axis=-1, keepdims=True) * (1 + scale) + shift

    attention = {"params": params["Attention_0"]}
    h = h + gate * Attention(2).apply(attention, modulated(h, shift, scale))
    shift, scale, gate = of_mlp
    inner = nn.gelu(modulated(h, shift, scale) @ expand["kernel"] + expand["bias"])
    close(out, h + gate * (inner @ contract["kernel"] + contract["bias"]), 1e-4)


def test_context_is_a_set_of_tokens_of_which_zeros_are_not_there():
    net, h = Attention(2), images(2, (4, 8))
    null = {"params": {"null": images(1, (1, 5))}}
    there = jnp.ones((2, 3), bool)
    variables = randomised(net, h, (TOKENS, there))

    @jax.jit
    def out(tokens):
        c = None if tokens is None else {"context": tokens}
        return net.apply(variables, h, Context(FIVE).apply(null, c, 2))

    given = out(TOKENS)
    close(out(TOKENS[:, ::-1]), given)
    assert moved(out(TOKENS[::-1]), given)
    assert moved(out(TOKENS.at[:, 2].set(0)), given)
    close(out(TOKENS.at[:, 2].set(0)), out(TOKENS[:, :2]))  # padding
    dropped = out(TOKENS.at[1].set(0))
    close(dropped[0], given[0])
    close(dropped[1], out(None)[1])  # the null condition, learned
    assert moved(out(None), given)


# ---------------------------------------------------------------- patches


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_unpatchify_inverts_patchify(p):
    x = images(2, (6, 12, 3))
    tokens = patchify(x, p)
    assert tokens.shape == (2, 72 // p**2, 3 * p**2)
    np.testing.assert_array_equal(unpatchify(tokens, 6, 12, p), x)
    patch = tokens[:, 12 // p - 1].reshape(2, p, p, 3)  # the last of the first row
    np.testing.assert_array_equal(patch, x[:, :p, -p:])


def test_positions_tell_rows_from_columns():
    where = positions(3, 4, 8).reshape(3, 4, 8)
    np.testing.assert_array_equal(where[:, :, :4], where[:, :1, :4].repeat(4, axis=1))
    np.testing.assert_array_equal(where[:, :, 4:], where[:1, :, 4:].repeat(3, axis=0))
    assert len(np.unique(where.reshape(12, 8), axis=0)) == 12


# ---------------------------------------------------------------- DiT


@pytest.fixture(scope="module")
def classes():
    """(variables, compiled apply) of a tiny DiT of three classes."""
    net = tiny(condition=Labels(3), dropout=0.5)
    c = {"label": jnp.zeros(2, jnp.int32)}
    variables = randomised(net, images(), T, c)
    return variables, jax.jit(net.apply)


def test_at_init_blocks_are_the_identity_and_networks_zero():
    h, e, pixels = images(2, (4, 8)), images(2, (6,)), images(2, (2, 2, 8))
    context = TOKENS, jnp.ones((2, 3), bool)
    net = tiny(condition=Labels(3), learned_variance=True)

    @jax.jit
    def init(key):
        return (
            Block(2).init_with_output(key, h, e, context)[0],
            PixelAttention(2).init_with_output(key, pixels, context)[0],
            *net.init_with_output(key, images(), T, {"label": jnp.arange(2)}),
        )

    same, same_pixels, out, variables = init(KEY)
    np.testing.assert_array_equal(same, h)
    np.testing.assert_array_equal(same_pixels, pixels)
    np.testing.assert_array_equal(out, jnp.zeros((2, 8, 8, 2)))
    # Each block from matrices of its own, of variance 1/width.
    kernel = variables["params"]["blocks"]["Dense_1"]["kernel"]
    assert kernel.shape == (2, 8, 32) and moved(*kernel[:, None])
    np.testing.assert_allclose(jnp.std(kernel), 8**-0.5, rtol=0.1)


def test_dit_answers_each_example_by_its_own_image_time_and_label(classes):
    variables, apply = classes
    z, label, other = (
        images(),
        {"label": jnp.array([0, 2])},
        {"label": jnp.array([2, 0])},
    )
    out = apply(variables, z, T, label)
    close(apply(variables, z[::-1], T[::-1], other)[::-1], out, 1e-4)
    for args in (z[::-1], T, label), (z, T[::-1], label), (z, T, other):
        assert moved(apply(variables, *args), out)
    # Patches know their places: shifted ones are not answered by a shifted answer.
    shifted = apply(variables, jnp.roll(z, 4, axis=1), T, label)
    assert moved(shifted, jnp.roll(out, 4, axis=1))
    # Without a block, the last norm still knows the time.
    params = variables["params"]
    film = jax.tree.map(jnp.zeros_like, params["blocks"]["Dense_0"])
    params = {**params, "blocks": {**params["blocks"], "Dense_0": film}}
    early, late = (apply({"params": params}, z, t, label) for t in (T, T[::-1]))
    assert moved(early, late)
    # A row's neighbours are nothing to it.
    other = {"label": jnp.array([0, 1])}
    other = apply(variables, z.at[1].set(0), T.at[1].set(1), other)
    close(other[0], out[0], 1e-4)
    null = apply(variables, z, T, {"label": jnp.full(2, 3)})
    close(null, apply(variables, z, T, None))
    assert moved(null, out)


def test_a_block_that_is_the_identity_may_as_well_be_absent():
    """So the scan gives each block its own parameters, and one after the other."""

    @partial(jax.jit, static_argnums=0)
    def forward(blocks, params):
        net = tiny(blocks=blocks)
        out, seen = net.apply({"params": params}, images(), T, mutable="intermediates")
        return out, seen["intermediates"]["features"][0]

    def only(layers):
        of = jnp.array(layers)
        return {**params, "blocks": jax.tree.map(lambda x: x[of], params["blocks"])}

    params = randomised(tiny(blocks=4), images(), T)["params"]
    film = jax.tree.map(lambda x: x.at[2:].set(0), params["blocks"]["Dense_0"])
    params["blocks"] = {**params["blocks"], "Dense_0": film}
    deep, after_two = forward(4, params)
    shallow, after_one = forward(2, only([0, 1]))
    close(shallow, deep)
    assert moved(forward(2, only([1, 0]))[0], deep)
    assert after_one.shape == after_two.shape == (2, 4, 8)
    # Features are the tokens after half of the blocks: of four, two.
    np.testing.assert_array_equal(after_two, forward(4, only([0, 1, 3, 2]))[1])
    np.testing.assert_array_equal(after_two, forward(4, only([0, 1, 0, 1]))[1])
    assert moved(after_two, forward(4, only([0, 2, 1, 3]))[1])
    assert moved(after_two, after_one)


def test_dropout_acts_in_training(classes):
    """And only there: without a key, every other test would fail."""
    variables, _ = classes

    @jax.jit
    def out(seed):
        rngs = {"dropout": quick_key(seed)}
        net = tiny(condition=Labels(3), dropout=0.5)
        return net.apply(variables, images(), T, train=True, rngs=rngs)

    assert moved(out(0), out(1))


def loss(net):
    def of(variables, z, t):
        return jnp.mean((net.apply(variables, z, t) - z) ** 2)

    return of


def test_rematerialisation_changes_memory_and_nothing_else():
    z = images()
    plain, remat = tiny(), tiny(remat=True, unroll=2)
    shapes = (jax.eval_shape(net.init, KEY, z, T) for net in (plain, remat))
    chex.assert_trees_all_equal_shapes_and_dtypes(*shapes)
    variables = randomised(plain, z, T, scale=0.3)
    (a, one), (b, other) = (
        jax.jit(jax.value_and_grad(loss(net)))(variables, z, T)
        for net in (plain, remat)
    )
    np.testing.assert_allclose(a, b, rtol=1e-6)
    chex.assert_trees_all_close(one, other, rtol=1e-4, atol=1e-6)

    def kept(blocks, remat):
        """Numbers that the forward pass keeps for the backward pass, no parameters."""
        net = tiny(blocks=blocks, remat=remat)
        shapes = jax.eval_shape(net.init, KEY, z, T)
        back = jax.eval_shape(
            lambda p: jax.vjp(lambda p: loss(net)(p, z, T), p)[1], shapes
        )
        sizes = [x.size for x in jax.tree.leaves(back)]
        return sum(sizes) - sum(x.size for x in jax.tree.leaves(shapes))

    # The tokens before it, 2×4×8 numbers a block, instead of all that it computes.
    assert kept(6, True) - kept(5, True) == 2 * 4 * 8
    assert kept(6, False) - kept(5, False) > 10 * 2 * 4 * 8


def test_the_program_does_not_grow_with_depth():
    def length(blocks):
        net = tiny(blocks=blocks, dropout=0.1, condition=FIVE)
        variables = jax.eval_shape(net.init, KEY, images(), T)

        def of(variables):
            rngs = {"dropout": KEY}
            out = net.apply(variables, images(), T, CONTEXT, train=True, rngs=rngs)
            return jnp.mean(out**2)

        return len(jax.jit(jax.grad(of)).lower(variables).as_text())

    assert length(12) < 1.05 * length(2)


def test_one_trace_for_a_net_that_is_rebuilt():
    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(1)
    def apply(net, *args):
        return net.apply(*args)

    variables = randomised(tiny(), images(), T)
    for _ in range(3):
        apply(tiny(), variables, images(), T)
    assert hash(tiny()) == hash(tiny()) and tiny() != tiny(heads=1)


# ---------------------------------------------------------------- both networks

NETS = {
    "dit": tiny,
    "unet": lambda **options: UNet(
        4, (1, 2), groups=2, attention=(4,), heads=2, **options
    ),
}
both = pytest.mark.parametrize("net", NETS.values(), ids=NETS)


@both
def test_a_network_reads_its_context_as_a_set_in_either_precision(net):
    net = net(condition=FIVE)
    variables = randomised(net, images(), T, CONTEXT, scale=0.3)
    apply = jax.jit(net.apply)
    out = apply(variables, images(), T, CONTEXT)
    close(apply(variables, images(), T, {"context": TOKENS[:, ::-1]}), out, 1e-4)
    assert moved(apply(variables, images(), T, {"context": TOKENS[::-1]}), out)
    assert moved(apply(variables, images(), T, {"context": 0 * TOKENS}), out)
    # bfloat16 has 8 bits: 2^-8 a layer, of the largest number there is.
    half = jax.jit(net.clone(dtype=jnp.bfloat16).apply)
    narrow = half(variables, images(), T, CONTEXT)
    assert narrow.dtype == jnp.float32
    assert 0 < jnp.max(jnp.abs(narrow - out)) < 0.05 * jnp.max(jnp.abs(out))


@both
def test_parameters_do_not_depend_on_whether_there_is_a_context(net):
    init = net(condition=FIVE).init
    shapes = (jax.eval_shape(init, KEY, images(), T, c) for c in (CONTEXT, None))
    chex.assert_trees_all_equal_shapes(*shapes)


@both
def test_a_learned_variance_is_as_many_channels_again(net):
    z = images(2, (8, 8, 3))
    assert output_shape(net(), z, T) == (2, 8, 8, 3)
    assert output_shape(net(learned_variance=True), z, T) == (2, 8, 8, 6)


@both
def test_a_batch_of_images_that_are_not_square(net):
    assert output_shape(net(), images(2, (8, 16, 1)), T) == (2, 8, 16, 1)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("net", "label", "sentence"),
    [
        (tiny(patch=3), None, "8×8 pixels .* patches of 3×3: .* divides both sides"),
        (tiny(patch=0), None, "patches of 0×0"),
        (tiny(heads=3), None, "width of 8 cannot be cut into 3 heads"),
        (tiny(heads=0), None, "width of 8 cannot be cut into 0 heads"),
        (tiny(width=7, heads=1), None, "width of 7 .* a multiple of 4"),
        (tiny(width=6), None, "width of 6 .* a multiple of 4"),
        (tiny(blocks=0), None, "0 blocks"),
        (tiny(condition=Sequence(4)), CONTEXT, r"\[2, 3, 5\].* give \[2, length, 4\]"),
        (tiny(condition=FIVE), {"context": TOKENS[:1]}, "context has 1 rows and x"),
        (tiny(condition=Maps((8, 8, 1))), None, "a DiT does not read Maps"),
        (UNet(8, condition=Maps((8, 8, 1))), None, "a UNet does not read Maps"),
        (
            tiny(condition=product(FIVE, Text(9, 2))),
            None,
            "one sequence, not to context",
        ),
        (UNet(8, attention=(5,)), None, r"side of 5 pixels .* from \[8, 4\]"),
        (UNet(8, attention=(4,), heads=3), None, "16 cannot be cut into 3 heads"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(net, label, sentence):
    with pytest.raises(BadInput, match=sentence):
        jax.eval_shape(net.init, KEY, images(), T, label)


# ---------------------------------------------------------------- U-Net


def test_attention_adds_to_the_unet_and_takes_nothing_away():
    """Without it, trained parameters are read as they were written."""

    def names(**options):
        shapes = jax.eval_shape(UNet(8, (1, 2), **options).init, KEY, images(), T)
        leaves = jax.tree.leaves_with_path(shapes["params"])
        return {jax.tree_util.keystr(path): x.shape for path, x in leaves}

    plain = names()
    assert {name.split("'")[1].rsplit("_", 1)[0] for name in plain} == {
        "Conditioning",
        "Conv",
        "GroupNorm",
        "ResidualBlock",
    }
    assert (
        sum("ResidualBlock" in name and "Conv_1']['bias" in name for name in plain) == 7
    )

    def mixers(**options):
        return {name.split("'")[1] for name in names(**options) if "Pixel" in name}

    # One block down, two up, at either side; and the middle.
    assert len(mixers(attention=(4,))) == len(mixers(attention=(8,))) == 4
    assert len(mixers(attention=(8, 4))) == 7
    assert len(mixers(condition=FIVE)) == 1
    assert names(attention=(4,), remat=True) == names(attention=(4,))


def test_pixels_attend_to_all_pixels_whatever_their_place():
    net, h = PixelAttention(2), images(2, (4, 6, 8))
    variables = randomised(net, h)
    apply = jax.jit(net.apply)
    out = apply(variables, h)
    close(apply(variables, h[:, ::-1, ::-1]), out[:, ::-1, ::-1])
    one = jax.jit(jax.grad(lambda h: apply(variables, h)[0, 0, 0].sum()))(h)
    assert np.all(np.max(np.abs(one[0]), axis=-1) > 0) and not np.any(one[1])
