"""One file per experiment: options, and the function that builds it from them.

Each takes the data set's `Spec` and the keywords that ARE its command line, and returns
an `Experiment`. The options are groups (of a network, of training, …), composed. Heavy
imports stay inside the functions, so that `--help` is quick.
"""

from .autoencoder import autoencoder
from .autoencoder_kl import autoencoder_kl
from .classifier import classifier
from .clip import clip
from .consistency import consistency
from .cyclegan import cyclegan
from .ddpm import ddpm
from .distill import distill
from .dit import dit
from .drifting import drifting
from .edm import edm
from .flow import flow
from .gan import gan
from .hvae import hvae
from .m2 import m2
from .meanflow import meanflow
from .pixelcnn import pixelcnn
from .pixelcnnpp import pixelcnnpp
from .pixelrnn import pixelrnn
from .prior import prior
from .realnvp import realnvp
from .score_sde import score_sde
from .stylegan2 import stylegan2
from .text import text
from .transformer import transformer
from .vae import vae
from .vqgan import vqgan
from .vqvae import vqvae

FAMILIES = (vae, hvae, m2, realnvp, autoencoder, vqvae, prior)
FAMILIES += (autoencoder_kl, vqgan)
FAMILIES += (gan, stylegan2, cyclegan)
FAMILIES += (flow, ddpm, score_sde, edm, dit, meanflow, consistency)
FAMILIES += (distill, drifting)
FAMILIES += (pixelrnn, pixelcnn, pixelcnnpp, transformer, text, classifier)
FAMILIES += (clip,)
EXPERIMENTS = {function.__name__: function for function in FAMILIES}
OF_TEXT = {"text"}
OF_LATENTS = {
    "symbols": ("prior",),
    "reals": ("flow", "ddpm", "score_sde", "edm", "dit", "drifting", "distill"),
}
"""The experiments on the latents of another run, by the latents' kind."""
DATASETS = {"text": "text", "cyclegan": "pair:thick:digits", "clip": "scenes"}
"""The data set by default; others: digits."""
FEW_STEPS = {"meanflow", "consistency", "distill", "drifting"}
"""Those whose loss measures no progress, and whose samples cost a call or two."""
NOT_ONLY_IMAGES = OF_TEXT | {"gan", "prior"}
