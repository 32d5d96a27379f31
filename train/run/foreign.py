"""Runs of weights that another library trained, and the weights of runs for it.

A folder of theirs has config.json, and its tensors in safetensors. A run of such
weights is a published one: nothing trains on from it, every command opens it.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.interchange import gpt2, to_ours, to_theirs
from gengen.models.autoregressive import Autoregressive
from gengen.nets.transformer import Transformer

from ..cli.options import IDENTITY, RunOptions
from ..data.dataset import Spec
from ..experiments import EXPERIMENTS
from ..files import write_json, written_atomically
from . import published, tensors
from .digests import leaf_names
from .record import Record
from .workdir import open_workdir

CONFIG = "config.json"
FILE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def config_of(folder: Path) -> dict:
    """Their configuration; BadInput for a folder without, or of what is not known."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
        kind = config.get("model_type", config.get("_class_name"))
    except FileNotFoundError:
        raise BadInput(
            f"{folder} holds no {CONFIG}: give the folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read ({error}): fetch it again") from error
    if kind != gpt2.KIND:
        raise BadInput(
            f"{folder} is of the architecture {kind}, and runs are made of {gpt2.KIND} "
            "alone; gengen.interchange has the networks that it knows"
        )
    return config


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, views of its files; BadInput for pickles, and none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path for kind in _PICKLES for path in folder.glob(kind)]
        if pickles:
            raise BadInput(
                f"{pickles[0]} is a pickle, which may run any program, and is not "
                "read. Where you trust it: import torch, safetensors.torch as s; "
                f's.save_file(torch.load("{pickles[0].name}", weights_only=True), '
                f'"{FILE}")'
            )
        raise BadInput(f"{folder} holds no .safetensors: fetch it again")
    found = {}
    for path in files:
        found |= tensors.mapped(path)
    return found


def run_of(folder: Path, workdir: Path, dataset: str) -> Record:
    """Write the run of a folder of GPT-2 to a new workdir; its record.

    Args:
        folder: theirs.
        workdir: the run's, new.
        dataset: the data set of tokens that evaluation reads, npz:FILE.
    """
    config = config_of(folder)
    try:
        net = gpt2.net_of(config)
    except LookupError as error:
        raise BadInput(f"{folder / CONFIG} says nothing of {error}") from error
    named = {gpt2.bare(name): x for name, x in tensors_of(folder).items()}
    named.pop(None, None)
    record = record_of(net, workdir, dataset)
    params = to_ours(gpt2.rules(net), named, shapes_of(record)["autoregressive"])
    arrays = leaf_names({"params": {"autoregressive": params}})
    arrays = {name: of_float32(x) for name, x in arrays.items()}
    with published.new_folder(workdir) as part:
        published.write_run(part, record, 0, arrays, averaged=False)
    return record


def of_float32(x: np.ndarray) -> np.ndarray:
    """Parameters are float32; the same array where it is that already."""
    return x if x.dtype == np.float32 else x.astype(np.float32)


def record_of(net: Transformer, workdir: Path, dataset: str) -> Record:
    """The record of a prior over tokens with this network."""
    prior = EXPERIMENTS["prior"]
    options = prior.options(
        architecture="transformer",
        width=net.width,
        layers=net.blocks,
        heads=net.heads,
        dropout=net.dropout,
        positions="learned",
        tied=True,
        start_symbol=net.start_symbol,
        norm_epsilon=net.epsilon,
        ema_decay=0.0,
    )
    run = RunOptions(workdir=workdir, dataset=dataset)
    identity = {name: getattr(run, name) for name in IDENTITY} | {"examples": 1}
    data = Spec(dataset, (net.length,), net.vocabulary, 0, (), "symbols")
    return Record("prior", vars(options), identity, data)


def shapes_of(record: Record) -> dict:
    """The shapes of a run's parameters."""
    batch = record.data.example(1)
    start = jax.eval_shape(record.build().model.init, jax.random.key(0), batch)
    return start[0]


def written_of(trained, out: Path) -> int:
    """Write the weights of a run as their library reads them; the bytes of the file."""
    model = trained.model
    net = getattr(model, "net", None)
    if not isinstance(model, Autoregressive) or not isinstance(net, Transformer):
        raise BadInput(
            f"{trained.workdir} holds a {trained.record.experiment}, and weights are "
            "exported of transformers over symbols: take a run of text or prior with "
            "--architecture transformer"
        )
    config = gpt2.config_of(net)
    params = jax.device_get(trained.params["autoregressive"])
    theirs = to_theirs(gpt2.rules(net), params)
    named = {f"transformer.{name}": np.asarray(x) for name, x in theirs.items()}
    with published.new_folder(out) as part:
        write_json(part / CONFIG, config)
        with written_atomically(part / FILE) as file:
            tensors.write(file, named, {"format": "pt"})
    return (out / FILE).stat().st_size


def difference(folder: Path, workdir: Path, step: int | None = None) -> float | None:
    """The greatest difference of our log-probabilities from theirs, of random symbols.

    Args:
        folder: theirs.
        workdir: the run's.
        step: of its checkpoint; None for the last one.

    Returns:
        The difference in nats; None where their library is not installed.
    """
    try:
        import torch
        from transformers import GPT2LMHeadModel
    except ImportError:
        return None
    trained = open_workdir(workdir, step)
    net, params = trained.model.net, trained.params["autoregressive"]
    length = min(net.length, 64)
    x = np.random.default_rng(0).integers(0, net.vocabulary, (2, length))
    ours = jax.jit(net.apply)({"params": params}, jnp.asarray(x, jnp.int32))
    before = np.full((2, 1), net.start_symbol)
    seen = torch.tensor(np.concatenate([before, x[:, :-1]], axis=1))
    with torch.no_grad():
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()(seen).logits
    two = [jax.nn.log_softmax(np.asarray(logits)) for logits in (ours, theirs)]
    return float(np.max(np.abs(two[0] - two[1])))


def said(found: float | None) -> str:
    """The difference in words."""
    if found is None:
        return "install torch and transformers to compare the outputs"
    return f"greatest difference of log-probabilities from theirs: {found:.1e}"


def options_of(record: Record) -> dict:
    """What the record says of the network, for a line of text."""
    return {k: record.options[k] for k in ("width", "layers", "heads")} | {
        "symbols": record.data.levels,
        "positions": record.data.shape[0],
    }
