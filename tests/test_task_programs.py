"""What a user asks of a run: outliers, probes, walks in latents, Bayes' rule."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from program import EVENTS, TINY, refused
from scipy import stats

from gengen.errors import BadInput
from train.data.dataset import Spec
from train.measure.outlier_sets import (
    MADE,
    another,
    constant,
    faint,
    inverted,
    noise,
    shuffled,
)
from train.measure.probing import few_labels, fitted
from train.measure.scores import feature_scores, judged, overflow
from train.run.pictures import STRIP

RNG = np.random.default_rng
IMAGES = RNG(0).integers(0, 17, (40, 8, 8, 3)).astype(np.uint8)
GREY = Spec("fashion", (12, 20, 1), 256, 10, tuple("0123456789"))


@pytest.fixture(scope="module")
def conditional(runs, tmp_path_factory):
    """A tiny conditional VAE."""
    from program import call

    workdir = tmp_path_factory.mktemp("conditional") / "vae"
    line = f"train vae --workdir {workdir} --steps 4 {TINY['vae']} {EVENTS}"
    assert call(f"{line} --conditional") == 0
    return workdir


def answer(cli, runs, line, file):
    """(what was printed, the JSON that was written) of a program that succeeds."""
    workdir = line.split("--workdir ")[1].split()[0]
    if "interpolate" not in line and "traverse" not in line and "probe" not in line:
        line += f" --extractor {runs / 'classifier'}"
    status, out, err = cli(line)
    assert status == 0, err
    return out, json.loads(open(f"{workdir}/{file}").read())


# ---------------------------------------------------------------- sets of outliers


@pytest.mark.parametrize("made", MADE.values())
def test_made_outliers_are_levels_and_a_function_of_the_generator(made):
    first, again, other = (made(IMAGES, 17, RNG(seed)) for seed in (1, 1, 2))
    assert first.shape == IMAGES.shape and first.dtype == np.uint8
    assert first.max() <= 16
    np.testing.assert_array_equal(first, again)
    assert np.any(first != IMAGES)
    assert made in (inverted, faint) or np.any(first != other)


def test_noise_is_uniform_over_the_levels():
    counts = np.bincount(noise(IMAGES, 17, RNG(0)).ravel(), minlength=17)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_inverting_twice_changes_nothing():
    once = inverted(IMAGES, 17, RNG(0))
    np.testing.assert_array_equal(inverted(once, 17, RNG(0)), IMAGES)
    np.testing.assert_array_equal(once.astype(int) + IMAGES, 16)


def test_constant_images_have_one_level_each_and_uniform_ones():
    image = constant(np.zeros((2_000, 2, 2, 3), np.uint8), 17, RNG(0))
    assert np.all(image == image[:, :1, :1, :1])
    counts = np.bincount(image[:, 0, 0, 0], minlength=17)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_shuffling_moves_whole_pixels_of_each_image_differently():
    image = shuffled(IMAGES, 17, RNG(0))

    def pixels(x):
        return sorted(map(tuple, x.reshape(-1, 3).tolist()))

    assert all(pixels(a) == pixels(b) for a, b in zip(image, IMAGES, strict=True))
    numbered = np.broadcast_to(np.arange(64).reshape(8, 8, 1), (40, 8, 8, 1))
    places = shuffled(numbered, 64, RNG(0)).reshape(40, 64)
    assert len({tuple(row) for row in places.tolist()}) == 40
    # Every pixel is as likely to come first as any other.
    many = np.broadcast_to(np.arange(4).reshape(2, 2, 1), (4_000, 2, 2, 1))
    counts = np.bincount(shuffled(many, 4, RNG(0))[:, 0, 0, 0])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_another_data_set_is_scaled_smoothly_to_size_and_levels():
    from sklearn.datasets import load_digits

    image = another("digits", GREY, 447, 0, None)
    assert image.shape == (447, 12, 20, 1) and image.dtype == np.uint8
    digits = load_digits().images[1350:] / 16
    assert abs(image.mean() / 255 - digits.mean()) < 0.02
    assert len(np.unique(image)) > 100  # neither 17 levels nor blocks
    small = Spec("other", (8, 8, 1), 17, 0, ())
    same = another("digits", small, 447, 0, None)[..., 0]
    assert sorted(map(bytes, same)) == sorted(
        bytes(x) for x in load_digits().images[1350:].astype(np.uint8)
    )


def test_another_data_set_that_does_not_fit_is_refused():
    colour = Spec("photographs", (8, 8, 3), 256, 0, ())
    with pytest.raises(BadInput, match="1 channels, the run's have 3"):
        another("digits", colour, 10, 0, None)


# ---------------------------------------------------------------- scores


class Options:
    batch_size, seed = 16, 0


def test_feature_scores_are_those_of_the_whole_set_whatever_the_batch():
    rng = RNG(0)
    known, labels = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2
    near = known[:21] + 0.01
    far = near + 100.0
    found = {"test": near, "far": far}
    values, missing = feature_scores("own", found, known, labels, Options)
    assert set(values) == {"own feature distance", "own Mahalanobis"} and not missing
    assert all(len(x) == 21 for score in values.values() for x in score.values())
    figure = judged(values["own Mahalanobis"])["far"]
    assert figure["auroc"] == figure["average_precision"] == 1
    # Mahalanobis by its definition, in float64.
    means = np.stack([known[labels == k].mean(0) for k in (0, 1)]).astype(float)
    rest = known - means[labels]
    precision = np.linalg.inv(rest.T @ rest / len(rest))
    gaps = near[:, None] - means
    expected = np.einsum("nkd,de,nke->nk", gaps, precision, gaps).min(1)
    np.testing.assert_allclose(values["own Mahalanobis"]["test"], expected, rtol=1e-3)


def test_a_covariance_is_not_estimated_from_too_few_images():
    known = RNG(0).normal(size=(4, 5)).astype(np.float32)
    found = {"test": known, "far": known + 1}
    values, missing = feature_scores("own", found, known, None, Options)
    assert list(values) == ["own feature distance"]
    assert "4 training images" in missing["own Mahalanobis"]


def test_what_float32_cannot_hold_is_the_strangest():
    outside = overflow(np.array([np.nan, np.inf, 3.0]))
    np.testing.assert_array_equal(outside, [np.inf, np.inf, 3.0])
    figure = judged({"test": np.array([1.0, 4.0]), "far": outside})["far"]
    assert figure["auroc"] == 5 / 6 and figure["n_overflow"] == 2


def figures_are_proper(result, sets, n_test=30):
    for judgement in result["scores"].values():
        assert list(judgement) == sets
        for figure in judgement.values():
            assert 0 <= figure["auroc"] <= 1
            assert 0 < figure["average_precision"] <= 1
            assert figure["n_inliers"] <= n_test


def test_outliers_of_a_vae(cli, runs):
    line = f"train.outliers --workdir {runs / 'vae'} --num 30 --batch-size 16"
    out, result = answer(cli, runs, f"{line} --regret-num 5", "outliers.json")
    assert out.startswith("cost: ") and "5 images per set" in out
    figures_are_proper(result, list(MADE))
    assert result["likelihood_kind"] == "ELBO" and not result["missing"]
    assert len(result["scores"]) == 8
    assert result["scores"]["likelihood regret"]["noise"]["n_outliers"] == 5
    assert result["scores"]["own Mahalanobis"]["noise"]["n_outliers"] == 30
    low = [
        name
        for name, figure in result["scores"]["negative log-likelihood"].items()
        if figure["auroc"] < 0.5 - 2 * figure["standard_error"]
    ]
    assert out.count("MORE likely than the data") == len(low)
    with Image.open(runs / "vae" / "outliers.png") as picture:
        assert min(picture.size) > 300


def test_outliers_of_a_conditional_vae_are_judged_by_its_mixture(
    cli, runs, conditional
):
    line = f"train.outliers --workdir {conditional} --num 30 --batch-size 32"
    line += " --against constant noise --regret-num 0 --importance-samples 2"
    _, result = answer(cli, runs, line, "outliers.json")
    figures_are_proper(result, ["constant", "noise"])
    assert result["likelihood_kind"] == "IWAE-2"
    assert result["missing"] == {"likelihood regret": "--regret-num 0"}


def test_a_model_without_density_has_distances_of_features(cli, runs):
    line = f"train.outliers --workdir {runs / 'gan'} --num 30 --against noise"
    out, result = answer(cli, runs, line, "outliers.json")
    figures_are_proper(result, ["noise"])
    assert all("istance" in x or "Mahalanobis" in x for x in result["scores"])
    for name in ("negative log-likelihood", "complexity-corrected"):
        assert "has no density" in result["missing"][name]
        assert f"no {name}: " in out
    assert result["likelihood_kind"] is None


def test_outliers_refuses(cli, runs):
    line = f"train.outliers --workdir {runs / 'vae'} --extractor {runs / 'classifier'}"
    refused(cli(f"{line} --against digits"), "--against digits", "own data set")
    refused(cli(f"{line} --against nose"), "nose", "noise")
    refused(cli(f"{line} --num 3"), "--num 3", "at least 10")
    gan = line.replace(str(runs / "vae"), str(runs / "gan"))
    refused(cli(f"{gan} --importance-samples 2"), "--importance-samples 2", "GAN")


# ---------------------------------------------------------------- probes


def test_few_labels_are_balanced_distinct_and_differ_between_draws():
    labels = np.repeat([0, 1, 2], [5, 9, 30])
    draws = few_labels(labels, 4, 3, 0)
    for chosen in draws:
        assert len(set(chosen)) == 12
        np.testing.assert_array_equal(np.bincount(labels[chosen]), [4, 4, 4])
    assert len({tuple(sorted(chosen)) for chosen in draws}) == 3
    with pytest.raises(BadInput, match="5 training images of class 0"):
        few_labels(labels, 6, 1, 0)


def test_rotating_into_the_span_of_few_examples_loses_nothing():
    """Against scikit-learn on the features as they are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = RNG(0)
    labels = np.arange(30) % 3
    features = rng.normal(size=(30, 50)) + labels[:, None] * rng.normal(size=50)
    found = fitted(features, labels)
    c = found[-1].best_params_["C"]
    scaled = StandardScaler().fit(features)
    plain = LogisticRegression(C=c, max_iter=200, tol=1e-3)
    plain.fit(scaled.transform(features), labels)
    new = rng.normal(size=(200, 50)) + (np.arange(200) % 3)[:, None]
    np.testing.assert_allclose(
        found.predict_proba(new), plain.predict_proba(scaled.transform(new)), atol=0.01
    )


@pytest.mark.parametrize("family", ["vae", "gan", "classifier"])
def test_probe_measures_learnt_and_untrained_features_and_pixels(cli, runs, family):
    line = f"train.probe --workdir {runs / family} --per-class 3 --repeats 2"
    out, result = answer(cli, runs, f"{line} --num-train 80", "probe.json")
    assert ("learnt from all labels" in out) == (family == "classifier")
    assert (result["n_few"], result["n_train"], result["n_test"]) == (30, 80, 447)
    found = result["accuracy"]
    assert list(found) == ["learnt features", "untrained features", "pixels"]
    assert found["learnt features"]["size"] == found["untrained features"]["size"]
    assert found["pixels"]["size"] == 64
    for figure in found.values():
        assert 0 <= figure["few"] <= 1 and 0 <= figure["all"] <= 1
        assert figure["few_standard_error"] >= 0
    assert found["pixels"]["all"] > 0.6  # ten digits from 80 labels


def test_probe_refuses(cli, runs, conditional, tmp_path):
    refused(cli(f"train.probe --workdir {conditional}"), "label away", "unconditional")
    line = f"train.probe --workdir {runs / 'vae'}"
    refused(cli(f"{line} --per-class 1"), "--per-class 1", "at least 2")
    refused(cli(f"{line} --per-class 900"), "--per-class 900", "lower it")
    refused(cli(f"train.probe --workdir {unlabelled(runs, tmp_path)}"), "no labels")


def unlabelled(runs, tmp_path):
    """The tiny VAE, as if its data had no labels."""
    workdir = tmp_path / "unlabelled"
    shutil.copytree(runs / "vae", workdir)
    record = json.loads((workdir / "experiment.json").read_text())
    record["data"] |= {"num_classes": 0, "class_names": []}
    (workdir / "experiment.json").write_text(json.dumps(record))
    for name in ("experiment.json", "SHA256SUMS"):  # as of a version without them
        for path in (workdir / "checkpoints").glob(f"*/{name}"):
            path.unlink()
    return workdir


# ---------------------------------------------------------------- walks


def picture(cli, line, out):
    status, said, err = cli(f"{line} --out {out}")
    assert status == 0, err
    assert "cost: " in said and str(out) in said
    with Image.open(out) as image:
        return np.asarray(image)


def cells(image, columns, rows):
    """The grid's tiles of 8 × 8 pixels, each of side 8: [rows, columns, 8, 8].

    Above them is a line of words, at the left their names, below them what they are.
    """
    side, gap = 68, 4
    left = image.shape[1] - columns * side - gap
    below = image.shape[0] - rows * side - gap - STRIP
    assert left >= 0 and below > 0 and below % STRIP == 0
    grid = image[STRIP + gap :, left + gap :, 0]
    grid = grid[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return grid.transpose(0, 2, 1, 3)[:, :, 4:64:8, 4:64:8]


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_interpolation_is_a_row_a_pair(cli, runs, family, tmp_path):
    line = f"train.interpolate --workdir {runs / family} --num 3 --rows 2"
    curved = picture(cli, line, tmp_path / "a.png")
    assert cells(curved, 3, 2).shape == (2, 3, 8, 8)
    straight = picture(cli, f"{line} --path linear", tmp_path / "b.png")
    ends = [cells(image, 3, 2)[:, ::2].astype(int) for image in (curved, straight)]
    assert np.abs(ends[0] - ends[1]).max() <= 1  # the paths share their ends


def test_interpolation_of_data_stands_between_the_originals(
    cli, runs, conditional, tmp_path
):
    from train.data.load import load

    line = "train.interpolate --num 2 --rows 3 --between data"
    test = load("digits", split="test").fetch(np.arange(447))
    known = {bytes(x): y for x, y in zip(test["image"], test["label"], strict=True)}

    def labels(image):
        tiles = cells(image, 4, 3)[:, [0, 3]]
        levels = np.round(tiles / 255 * 16).astype(np.uint8)
        return [[known[bytes(x[..., None])] for x in row] for row in levels]

    labels(picture(cli, f"{line} --workdir {runs / 'vae'}", tmp_path / "a.png"))
    asked = f"{line} --workdir {conditional}"
    assert labels(picture(cli, asked, tmp_path / "b.png")) == [[0, 0], [1, 1], [2, 2]]
    threes = picture(cli, f"{asked} --label 3", tmp_path / "c.png")
    assert labels(threes) == [[3, 3]] * 3


@pytest.mark.parametrize("family", ["vae", "flow"])
def test_traversal_is_a_row_a_coordinate(cli, runs, family, tmp_path):
    line = f"train.traverse --workdir {runs / family} --num 3"
    rows = cells(picture(cli, f"{line} --rows 2", tmp_path / "a.png"), 3, 2)
    assert rows.shape == (2, 3, 8, 8)
    chosen = picture(cli, f"{line} --dims 1", tmp_path / "b.png")
    assert any(np.array_equal(cells(chosen, 3, 1)[0], row) for row in rows)


def test_traversal_of_a_vae_has_the_largest_divergence_first(runs):
    import jax

    from gengen.losses.divergence import gaussian_kl
    from train.run.workdir import open_workdir
    from train.traverse import Traverse, code

    trained = open_workdir(runs / "vae")
    z, label, kl = code(trained, Traverse(workdir=runs / "vae", image=5))
    image = trained.dataset("test").fetch(np.arange(447))["image"]
    mean, logvar = jax.jit(trained.model.posterior)(trained.params, {"image": image})
    np.testing.assert_allclose(z, mean[5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kl.sum(), gaussian_kl(mean, logvar).mean(), rtol=1e-4)
    assert not label and kl.shape == (2,)


def test_walks_refuse(cli, runs, tmp_path):
    for program in ("interpolate", "traverse"):

        def line(family, more="", program=program):
            out = f"--out {tmp_path / 'x.png'}"
            return cli(f"train.{program} --workdir {runs / family} {out} {more}")

        refused(line("classifier"), "no from_latent", "VAE")
        refused(line("vae", "--label 1"), "--label 1", "unconditional")
        refused(line("flow", "--label 10"), "--label 10", "0 to 9")
        refused(line("vae", "--num 1"), "--num 1", "at least 2")
        jpg = cli(f"train.{program} --workdir {runs / 'vae'} --out x.jpg")
        refused(jpg, "x.jpg", ".png")
    refused(
        cli(f"train.interpolate --workdir {runs / 'gan'} --between data"),
        "no to_latent",
        "--between noise",
    )
    vae = f"train.traverse --workdir {runs / 'vae'} --out {tmp_path / 'x.png'}"
    refused(cli(f"{vae} --dims 0 2"), "[2]", "0 to 1")
    refused(cli(f"{vae} --image 447"), "--image 447", "0 to 446")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- Bayes' rule


def test_a_conditional_density_classifies_and_rejects(cli, runs, conditional):
    line = f"train.bayes --workdir {conditional} --num 60 --reject-rate 0.1"
    line += " --against noise constant --importance-samples 2 --batch-size 32"
    out, result = answer(cli, runs, line, "bayes.json")
    assert "cost: 10 likelihoods (IWAE-2)" in out
    for figure in result["accuracy"].values():
        assert 0 <= figure["value"] <= 1 and figure["num"] <= 60
    threshold = result["threshold"]
    assert (threshold["split"], threshold["rate"]) == ("validation", 0.1)
    assert threshold["log_p_x"] < 0
    assert list(result["rejected"]) == ["test", "noise", "constant"]
    for figure in result["rejected"].values():
        for by in ("by_p_x", "by_confidence"):
            assert 0 <= figure[by]["value"] <= 1
            assert figure[by]["num"] == 60
        assert 0.1 <= figure["mean_confidence"] <= 1
    test = result["rejected"]["test"]["by_p_x"]["value"]
    assert test < 0.4  # a tenth of data like these
    kept = result["accuracy"]["generative, of what it does not reject"]["num"]
    assert kept == round(60 * (1 - test))


@pytest.mark.parametrize("draw", ["", "--draw"])
def test_a_classifier_makes_an_unconditional_model_conditional(
    cli, runs, tmp_path, draw
):
    line = f"train.bayes --workdir {runs / 'vae'} --candidates 4 --per-class 2 {draw}"
    line += f" --out {tmp_path / 'x.png'}"
    out, result = answer(cli, runs, line, "bayes.json")
    assert "cost: 80 candidates" in out
    kind = "draws of p(x|z)" if draw else "means E[x|z]"
    assert result["candidates_are"] == kind
    assert 0 < result["mean_probability"] < 1
    assert result["asked_for"]["num"] == 20 and result["chance"] == 0.1
    assert all(1 <= size <= 4 for size in result["effective_sample_size"].values())
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size[1] == 10 * 68 + 4


def test_bayes_refuses(cli, runs, tmp_path):
    def line(workdir, more=""):
        extractor = f"--extractor {runs / 'classifier'}"
        return cli(f"train.bayes --workdir {workdir} {extractor} {more}")

    refused(line(runs / "classifier"), "p(y|x) already", "generative")
    refused(line(runs / "gan"), "no likelihood", "--no-conditional")
    refused(line(runs / "vae", "--reject-rate 1"), "--reject-rate 1.0", "below 1")
    refused(line(runs / "vae", "--candidates 0"), "--candidates 0", "at least 1")
    refused(line(runs / "vae", "--out x.jpg"), "x.jpg", ".png")
    refused(line(unlabelled(runs, tmp_path)), "no labels")
    other = cli(f"train.bayes --workdir {runs / 'vae'} --extractor {runs / 'gan'}")
    refused(other, "not a classifier")
    conditional_only = line(runs / "gan", "--importance-samples 2")
    refused(conditional_only, "no likelihood")


# ---------------------------------------------------------------- inverse problems


@pytest.fixture(scope="module")
def guides(runs, tmp_path_factory):
    """A tiny classifier of noisy images, and a tiny unconditional flow."""
    from program import call

    folder = tmp_path_factory.mktemp("guides")
    line = f"train classifier --workdir {folder / 'noisy'} {TINY['classifier']}"
    assert call(f"{line} --steps 2 --path linear {EVENTS}") == 0
    line = f"train flow --workdir {folder / 'flow'} {TINY['flow']} --no-conditional"
    assert call(f"{line} --steps 2 {EVENTS}") == 0
    return folder


@pytest.mark.parametrize("method", ["repaint", "projection"])
def test_diffusion_completes_and_keeps_what_was_seen(cli, runs, method, tmp_path):
    line = (
        f"train.complete --workdir {runs / 'flow'} --rows 2 --num 2 --method {method}"
    )
    rows = cells(picture(cli, line, tmp_path / "a.png"), 4, 2)
    for row in rows:
        assert all(np.array_equal(row[0][:4], each[:4]) for each in row[1:])
    assert np.any(rows[0, 2][4:] != rows[0, 3][4:])


def test_drawing_again_is_columns_of_a_strength(cli, runs, tmp_path):
    line = f"train.edit --workdir {runs / 'flow'} --rows 2 --strength 0.1 1 --steps 4"
    image = picture(cli, f"{line} --label 3 --num 2", tmp_path / "a.png")
    rows = cells(image, 5, 2).astype(int)
    near, far = (np.abs(rows[:, k : k + 2] - rows[:, :1]).mean() for k in (1, 3))
    assert near < far and np.any(rows[:, 3] != rows[:, 4])


def test_restorations_made_small_are_the_small_image(cli, runs, tmp_path):
    line = f"train.restore --workdir {runs / 'flow'} --rows 2 --num 2 --steps 3"
    rows = cells(picture(cli, line, tmp_path / "a.png"), 4, 2)
    small = rows[:, 0].reshape(2, 4, 2, 4, 2).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    assert np.abs(rows[:, 1] - small).max() <= 1


def test_images_are_walked_between_by_inverting_the_flow(cli, runs, tmp_path):
    line = (
        f"train.interpolate --workdir {runs / 'flow'} --between data --num 2 --rows 2"
    )
    assert cells(picture(cli, line, tmp_path / "a.png"), 4, 2).shape[0] == 2


def test_other_networks_guide_a_run(cli, runs, guides, tmp_path):
    from train.run.guides import guided
    from train.run.workdir import open_workdir
    from train.sample import Sample

    line = (
        f"train.sample --workdir {guides / 'flow'} --num 4 --out {tmp_path / 'a.npz'}"
    )
    line = f"{line} --classifier {guides / 'noisy'} --guide {runs / 'flow'}"
    refused(cli(line), "needs a class")
    line = line.rsplit(" --guide", 1)[0]
    assert cli(f"{line} --classifier-scale 2 --label 3")[0] == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert list(arrays["label"]) == [3] * 4
    options = Sample(workdir=runs / "flow", guide=guides / "flow")
    trained = guided(open_workdir(runs / "flow"), options)
    assert trained.model.sampler.guidance.model.condition.names == ()
    assert "guide" in trained.state["frozen"]
    line = f"train.sample --workdir {runs / 'flow'} --num 4 --out {tmp_path / 'b.png'}"
    assert cli(f"{line} --guide {guides / 'flow'} --guidance-scale 2")[0] == 0


def test_inverse_problems_refuse(cli, runs, guides, tmp_path):
    out = f"--out {tmp_path / 'x.png'}"

    def line(program, family, more=""):
        return cli(f"train.{program} --workdir {runs / family} {out} {more}")

    refused(line("complete", "flow", "--particles 4"), "--particles 4", "leave it out")
    refused(line("complete", "flow", "--temperature 0.5"), "--temperature 0.5")
    refused(line("complete", "transformer", "--method repaint"), "--method repaint")
    refused(line("complete", "flow", "--method replace --repeats 2"), "--repeats 2")
    refused(line("complete", "flow", "--solver dpmpp-2m"), "without memory")
    refused(line("edit", "vae"), "VAE has no noise", "diffusion")
    refused(line("edit", "flow", "--strength 0"), "--strength 0.0")
    refused(line("restore", "gan"), "GAN has no sampler", "diffusion")
    refused(line("restore", "flow", "--factor 3"), "factor 3", "divisor")
    noisy, clean = guides / "noisy", runs / "classifier"
    refused(line("sample", "flow", f"--classifier {clean}"), "clean images", "--path")
    refused(line("sample", "flow", f"--classifier {runs / 'gan'}"), "not a classifier")
    refused(line("sample", "flow", "--classifier-scale 2"), "--classifier too")
    refused(line("sample", "vae", f"--classifier {noisy}"), "guides a diffusion")
    refused(line("sample", "flow", f"--guide {runs / 'vae'}"), "not a diffusion")
    assert not list(tmp_path.iterdir())
