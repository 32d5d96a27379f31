"""Augmentations: what comes out is one of the images it may be, as often as it may."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from program import EVENTS, TINY, refused
from scipy import stats

from gengen.augment import Chain, Flip, Shift
from gengen.errors import BadInput
from gengen.types import static
from train.data.augment import augmented
from train.data.dataset import Spec

KEY = jax.random.key(3)
# No two pixels alike, and no level 0: every shift and mirror image is another array.
IMAGE = np.arange(1, 41, dtype=np.uint8).reshape(5, 4, 2)


def copies(num, image=IMAGE):
    label = np.arange(num, dtype=np.int32)
    return {"image": np.stack([image] * num), "label": label}


def apply(change, batch, key=KEY):
    """The changed images; whatever else is in the batch must stay."""
    out = jax.jit(change)(batch, key)
    assert out.keys() == batch.keys()
    assert out["image"].dtype == np.uint8
    assert out["image"].shape == batch["image"].shape
    np.testing.assert_array_equal(out["label"], batch["label"])
    return np.asarray(out["image"])


def counts(images, candidates):
    """How often each candidate is among the images, each of which must be one."""
    same = np.all(images[:, None] == np.stack(candidates), axis=(2, 3, 4))
    assert np.array_equal(same.sum(axis=1), np.ones(len(images)))
    return same.sum(axis=0)


def shifted(image, rows, columns):
    """By hand: the image moved down and to the right, level 0 behind it."""
    out = np.zeros_like(image)
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - rows < height and 0 <= column - columns < width:
                out[row, column] = image[row - rows, column - columns]
    return out


# ------------------------------------------------------------------------ shift


@pytest.mark.parametrize("pixels", [1, 2])
def test_all_shifts_occur_equally_often_and_zeros_come_in(pixels):
    steps = range(-pixels, pixels + 1)
    candidates = [shifted(IMAGE, i, j) for i in steps for j in steps]
    found = counts(apply(Shift(pixels), copies(5_000)), candidates)
    assert len(found) == (2 * pixels + 1) ** 2
    assert stats.chisquare(found).pvalue > 1e-3


def test_what_stays_inside_is_the_image():
    """With a margin of level 0 nothing is lost: shifts only move the levels."""
    margin = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)))
    for image in apply(Shift(2), copies(50, margin)):
        np.testing.assert_array_equal(image[image > 0], IMAGE.ravel())


def test_a_shift_by_no_pixels_is_the_identity():
    batch = copies(3)
    np.testing.assert_array_equal(apply(Shift(0), batch), batch["image"])


# ------------------------------------------------------------------------- flip


def test_half_of_the_images_are_mirrored_left_to_right():
    candidates = [IMAGE, IMAGE[:, ::-1]]
    kept, mirrored = counts(apply(Flip(), copies(2_000)), candidates)
    assert stats.binomtest(int(mirrored), int(kept + mirrored)).pvalue > 1e-3


def test_flip_is_an_involution():
    batch = copies(50)
    once = {**batch, "image": apply(Flip(), batch)}
    assert np.any(once["image"] != batch["image"])
    np.testing.assert_array_equal(apply(Flip(), once), batch["image"])


@pytest.mark.parametrize(
    ("change", "same"), [(Shift(1, "digit"), Shift(1)), (Flip("digit"), Flip())]
)
def test_images_may_have_another_name_in_the_batch(change, same):
    batch = copies(50)
    named = {"digit": batch["image"], "label": batch["label"]}
    out = change(named, KEY)
    assert out.keys() == named.keys()
    np.testing.assert_array_equal(out["digit"], apply(same, batch))


# ------------------------------------------------------------------------ chain


@static
class Write:
    """Notes its name and the key it was given."""

    name: str

    def __call__(self, batch, key):
        return {
            **batch,
            "seen": (*batch["seen"], (self.name, jax.random.key_data(key))),
        }


def test_a_chain_goes_in_order_and_gives_each_its_own_key():
    functions = tuple(map(Write, "abca"))
    seen = Chain(functions)({"seen": ()}, KEY)["seen"]
    assert [name for name, _ in seen] == list("abca")
    keys = [tuple(np.asarray(key)) for _, key in seen]
    assert len({tuple(np.asarray(jax.random.key_data(KEY))), *keys}) == 5
    again = Chain(functions)({"seen": ()}, KEY)["seen"]
    assert keys == [tuple(np.asarray(key)) for _, key in again]


def test_a_chain_is_its_functions_one_after_the_other():
    """A shift and then a mirror image: all 9 × 2 of them, equally often."""
    steps = (-1, 0, 1)
    moved = [shifted(IMAGE, i, j) for i in steps for j in steps]
    candidates = [*moved, *(image[:, ::-1] for image in moved)]
    found = counts(apply(Chain((Shift(1), Flip())), copies(5_000)), candidates)
    assert stats.chisquare(found).pvalue > 1e-3


def test_an_empty_chain_changes_nothing():
    batch = copies(2)
    assert Chain(())(batch, KEY) is batch


# ------------------------------------------------------------------- all of them

ALL = [Shift(1), Flip(), Chain((Shift(1), Flip()))]


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_an_example_does_not_depend_on_the_others(change):
    batch = copies(8)
    image = batch["image"].copy()
    image[np.arange(8) != 5] = jnp.uint8(77)
    one, other = (apply(change, b)[5] for b in (batch, {**batch, "image": image}))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_two_examples_change_independently(change):
    """Whether each of two was changed, over 3,000 keys: the 2 × 2 table's χ²."""

    @jax.jit
    @jax.vmap
    def changed(key):
        image = change(copies(2), key)["image"]
        return jnp.any(image != IMAGE, axis=(1, 2, 3))

    first, second = np.asarray(changed(jax.random.split(KEY, 3_000))).T
    table = [[np.sum((first == a) & (second == b)) for b in (0, 1)] for a in (0, 1)]
    assert np.min(table) > 0
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_the_same_key_is_the_same_change_and_another_is_not(change):
    batch = copies(20)
    first, again = apply(change, batch), apply(change, batch)
    np.testing.assert_array_equal(first, again)
    assert np.any(apply(change, batch, jax.random.key(4)) != first)


def test_equal_augmentations_are_equal_values():
    def build():
        return Chain((Shift(2), Flip(), Chain(())))

    assert build() == build() and hash(build()) == hash(build())
    assert Shift(1) != Shift(2)
    assert Chain((Shift(), Flip())) != Chain((Flip(), Shift()))


# -------------------------------------------------------------------- every model


SPEC = Spec("x", (5, 4, 2), 256, 2, ("a", "b"))


def seen(params, state, batch, key):
    """A loss that says which images it was given."""
    return batch["image"], (state, {"label": batch["label"]})


@pytest.mark.parametrize("names", [("flip",), ("shift",), ("flip", "shift")])
def test_every_loss_sees_augmented_levels_and_the_labels_as_they_are(names):
    batch = copies(4_000)
    losses = augmented({"one": seen, "two": seen}, names, SPEC)
    steps = {name: jax.jit(loss) for name, loss in losses.items()}
    images, (_, metrics) = steps["one"]({}, {}, batch, KEY)
    np.testing.assert_array_equal(metrics["label"], batch["label"])
    assert images.dtype == np.uint8
    mirror = [IMAGE, IMAGE[:, ::-1]] if "flip" in names else [IMAGE]
    moves = range(-1, 2) if "shift" in names else [0]  # 4 // 8 is none, but 1 is least
    moved = [shifted(IMAGE, i, j) for i in moves for j in moves]
    candidates = moved + [x[:, ::-1] for x in moved] if len(mirror) > 1 else moved
    found = counts(np.asarray(images), candidates)
    assert stats.chisquare(found).pvalue > 1e-3
    again, _ = steps["two"]({}, {}, batch, KEY)
    other, _ = steps["one"]({}, {}, batch, jax.random.key(4))
    np.testing.assert_array_equal(again, images)
    assert not np.array_equal(other, images)


def test_what_cannot_be_augmented_is_refused():
    text = Spec("t", (9,), 256, 0, (), kind="text")
    assert augmented({"one": seen}, (), text) == {"one": seen}
    with pytest.raises(BadInput, match="--augment flip works on images, and t is text"):
        augmented({"one": seen}, ("flip",), text)
    with pytest.raises(BadInput, match="--augment flip flip: name each once"):
        augmented({"one": seen}, ("flip", "flip"), SPEC)


def test_a_run_is_augmented_as_its_record_says_and_resumes_bit_for_bit(cli, tmp_path):
    """A classifier's own --flip is the same change by the same key."""
    tiny = f"train classifier {TINY['classifier']} {EVENTS} --shift 0"
    ways = {"augment": "--augment flip", "own": "--flip"}
    sums = {}
    for way, option in ways.items():
        line = f"{tiny} {option} --workdir {tmp_path / way}"
        for steps in (1, 2) if way == "augment" else (2,):
            status, _, err = cli(f"{line} --steps {steps}")
            assert status == 0, err
        sums[way] = cli(f"train.inspect --workdir {tmp_path / way}")[1]
    assert sums["augment"] == sums["own"]
    line = f"{tiny} --augment shift --workdir {tmp_path / 'augment'} --steps 3"
    refused(cli(line), "--augment flip, not shift")
    refused(cli(f"{tiny} --workdir {tmp_path / 'augment'}"), "--augment flip, not")
