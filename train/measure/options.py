"""The options of an evaluation, which a table of several runs gives each of them."""

import dataclasses
from pathlib import Path

from ..cli.options import RunToOpen
from ..experiments.diffusion import GridName, SolverName


@dataclasses.dataclass(frozen=True)
class Evaluate(RunToOpen):
    """Measure a trained run: samples, likelihood, speed; write evaluation.json.

    Samples are drawn with the averaged parameters (EMA) where the run keeps them, and
    compared with training images in the features of a classifier or of Inception-v3. Of
    text there are bits per byte, and the speed of samples.
    """

    num: int = 10_000
    """Number of samples."""
    seed: int = 0
    """Seed of the samples and of all estimates."""
    extractor: Path | None = None
    """Weight file of the FID convention's Inception-v3 (pt_inception….pth or
    .safetensors), or workdir of a classifier; by default the classifier beside the
    run's workdir, trained first if there is none."""
    guidance_scale: float | None = None
    """Classifier-free guidance: 1 is none; by default the run's own."""
    interval: tuple[float, float] | None = None
    """The times at which there is guidance, 0 the data and 1 the noise."""
    rescale: float | None = None
    """Share of a guided image's contrast that is given back, against overexposure."""
    threshold: float | None = None
    """Dynamic thresholding of x at each step: the quantile, such as 0.995."""
    guide: Path | None = None
    """Workdir of a worse or shorter run of the same kind, which takes the place of the
    network without a class in guidance: autoguidance."""
    classifier: Path | None = None
    """Workdir of a classifier of noisy images (--path), which guides the sampler to the
    class, also of an unconditional run."""
    classifier_scale: float | None = None
    """How much it does: 1, the default, is Bayes' rule."""
    steps: int | None = None
    """The sampler's steps; by default the run's own."""
    solver: SolverName | None = None
    """The sampler's solver; by default the run's own."""
    grid: GridName | None = None
    """The grid of the sampler's times; by default the run's own."""
    temperature: float | None = None
    """Of an autoregressive model's symbols: below 1 the probable become more so."""
    top_k: int | None = None
    """Draw each symbol from the K most probable ones only."""
    top_p: float | None = None
    """Draw each symbol from the fewest that have this much probability together."""
    draw: bool = False
    """Draw x ~ p(x|z) where the run's samples are means E[x|z]."""
    importance_samples: int | None = None
    """K of the likelihood's bound (IWAE-K), for models with latents; by default the
    run's own."""
    likelihood_num: int = 10_000
    """Examples of each split, at most, whose likelihood (of a classifier: accuracy) is
    measured; 0 leaves the likelihood out."""
    batch_size: int = 256
    """Examples at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""
