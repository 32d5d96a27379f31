"""The options of an evaluation, which a table of several runs gives each of them."""

from pathlib import Path

from ..cli.bounds import Count, Figures, Index, Seed
from ..cli.groups import group
from ..cli.options import BoundOptions, RunToOpen
from ..cli.sampler import SamplerOptions


@group()
class Evaluate(RunToOpen, BoundOptions, SamplerOptions):
    """Measure a trained run: samples, likelihood, speed; write evaluation.json.

    Samples are drawn with the averaged parameters (EMA) where the run keeps them, and
    compared with training images in the features of a classifier or of Inception-v3. Of
    text there are bits per byte, and the speed of samples.
    """

    num: Figures = 10_000
    """Number of samples."""
    seed: Seed = 0
    """Seed of the samples and of all estimates."""
    extractor: Path | None = None
    """Weight file of the FID convention's Inception-v3 (pt_inception….pth or
    .safetensors), or workdir of a classifier; by default the classifier beside the
    run's workdir, trained first if there is none."""
    clip: Path | None = None
    """Workdir of a clip run, which scores how well samples fit the captions of what
    they were asked for."""
    likelihood_num: Index = 10_000
    """Examples of each split, at most, whose likelihood (of a classifier: accuracy) is
    measured; 0 leaves the likelihood out."""
    batch_size: Count = 256
    """Examples at a time."""
    data_dir: Path | None = None
    """Where the data set's files are."""
