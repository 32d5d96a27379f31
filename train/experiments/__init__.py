"""One file an experiment: a function whose keyword arguments ARE its command line.

Each takes the data set's `Spec` and keywords, and returns an `Experiment`. Heavy
imports stay inside the functions, so that `--help` is quick.
"""

from train.experiments.classifier import classifier
from train.experiments.ddpm import ddpm
from train.experiments.dit import dit
from train.experiments.edm import edm
from train.experiments.flow import flow
from train.experiments.gan import gan
from train.experiments.pixelcnn import pixelcnn
from train.experiments.pixelcnnpp import pixelcnnpp
from train.experiments.pixelrnn import pixelrnn
from train.experiments.score_sde import score_sde
from train.experiments.text import text
from train.experiments.transformer import transformer
from train.experiments.vae import vae

FAMILIES = (vae, gan, flow, ddpm, score_sde, edm, dit)
FAMILIES += (pixelrnn, pixelcnn, pixelcnnpp, transformer, text, classifier)
EXPERIMENTS = {function.__name__: function for function in FAMILIES}
OF_TEXT = {"text"}
