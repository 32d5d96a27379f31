"""Tiny runs of every family, and the program called in process as a user calls it."""

import importlib
import os
import sys

TINY = {
    "vae": "--hidden 8 --latent 2 --batch-size 16",
    "gan": "--channels 4 --latent 2 --batch-size 16",
    "flow": "--channels 8 --multipliers 1 --batch-size 16 --sampling-steps 2",
    "transformer": "--width 8 --blocks 1 --heads 2 --batch-size 16",
    "classifier": "--channels 8 --multipliers 1 --batch-size 16",
}
# Of the garbage collector: tracing makes many objects and little garbage, and the
# search for it was a sixth of the suite.
RARELY = (200_000, 50, 100)
SMALL_NETS = "--channels 8 --multipliers 1 --batch-size 16"
TEXT = "--dataset text --length 16 --layers 1 --width 8 --batch-size 16"
OTHERS = {  # that `tests.kill` knows, and the suite does not run as programs
    "autoencoder": "--hidden 8 --latent 2 --batch-size 16",
    "vqvae": "--channels 8 --code-width 2 --codes 20 --batch-size 16",
    "autoencoder_kl": "--channels 8 --latent 2 --critic-channels 4 --batch-size 16",
    "vqgan": "--channels 8 --codes 20 --critic-channels 4 --batch-size 16",
    "clip": "--dataset scenes:1 --channels 8 --multipliers 1 --text-width 8 "
    "--text-blocks 1 --text-heads 2 --embedding 4 --batch-size 16 --warmup 0",
    "hvae": "--channels 8 --latent 2 --components 2 --batch-size 16",
    "m2": "--hidden 8 --latent 2 --channels 8 --batch-size 16",
    "realnvp": "--channels 8 --batch-size 16",
    "stylegan2": "--channels 4 --latent 2 --style 4 --batch-size 16",
    "cyclegan": "--channels 4 --blocks 1 --critic-channels 4 --batch-size 16",
    "ddpm": f"{SMALL_NETS} --sampling-steps 5",
    "score_sde": f"{SMALL_NETS} --sampling-steps 3",
    "edm": f"{SMALL_NETS} --sampling-steps 2",
    "dit": "--width 8 --blocks 1 --heads 1 --batch-size 16 --sampling-steps 2",
    "consistency": "--width 8 --blocks 1 --heads 1 --batch-size 16",
    "meanflow": "--width 8 --blocks 1 --heads 1 --batch-size 16",
    "drifting": "--width 8 --blocks 1 --heads 1 --batch-size 16",
    "pixelrnn": "--scales 2 --width 4 --blocks 1 --batch-size 16",
    "pixelcnn": "--width 8 --blocks 1 --batch-size 16",
    "pixelcnnpp": "--width 8 --blocks 1 --components 2 --batch-size 16",
    "text": TEXT,
}
GENERATIVE = [name for name in TINY if name != "classifier"]
EVENTS = "--log-every 2 --sample-every 4 --checkpoint-every 2 --steps-per-call 2"


def with_devices(num: int) -> dict[str, str]:
    """The environment of a process that has so many CPU devices."""
    count = f"--xla_force_host_platform_device_count={num}"
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}


def call(line: str | list[str]) -> int:
    """The exit status of `python -m {line}`, run in this process."""
    module, *arguments = line.split() if isinstance(line, str) else line
    name = "train.__main__" if module == "train" else module
    before, sys.argv = sys.argv, [module, *arguments]
    try:
        importlib.import_module(name).main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return 0


def refused(result, *words):
    """Exit status 2 and one sentence that has the words; no traceback."""
    status, _, err = result
    assert status == 2, err
    assert "Traceback" not in err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err
