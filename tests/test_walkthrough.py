"""What README and tutorials tell one to type runs in order, in one fresh folder.

Sizes are tiny ones, appended; all else is as it is written. A command that uses a run
which none before it made fails, as it would for a reader.
"""

import re
import shlex
import shutil

import matplotlib
from program import EVENTS, OTHERS, TINY, call

from tests.record import ROOT

PAGES = ["README.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
PAGES.append("docs/reference/networks.md")
NETS = {**OTHERS, **TINY}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
MADE = {
    "make train": "python -m train flow --workdir runs/flow-digits",
    "make test": "",
}
SMALL = {  # of the programs for trained runs
    "train.sample": "--num 4 --steps 2",
    "train.evaluate": "--num 20 --steps 2 --likelihood-num 10",
    "train.complete": "--rows 2 --steps 2",
    "train.restore": "--rows 2 --steps 2",
    "train.edit": "--rows 2 --steps 2",
    "train.interpolate": "--num 3 --rows 2",
    "train.throughput": "--seconds 0.1",
}


def commands(text: str) -> list[str]:
    """The lines of a block as a shell reads them, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    lines = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    return [MADE.get(line, line) for line in lines if MADE.get(line, line)]


def small(line: str, steps: int) -> list[str]:
    """A command of a page with the sizes of a test; options given last count."""
    python, minus_m, module, *rest = shlex.split(line)
    assert (python, minus_m) == ("python", "-m"), line
    if module == "train":
        sizes = f"{NETS[rest[0]]} {EVENTS} --steps {steps}"
    else:
        sizes = SMALL[module]
    return [module, *rest, *sizes.split()]


def test_what_the_pages_say_runs_in_order(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The default extractor of features, which an evaluation would train for a while.
    shutil.copytree(runs / "classifier", "runs/classifier-digits")
    matplotlib.use("agg")
    steps, done = 2, set()
    for page in PAGES:
        names = {"__name__": "page"}
        for language, text in BLOCK.findall((ROOT / page).read_text()):
            if language == "python":
                exec(compile(text, str(page), "exec"), names)
            for line in commands(text) if language == "bash" else ():
                if line in done:  # on an earlier page
                    continue
                done.add(line)
                steps += 2 * ("-m train " in line)
                status = call(small(line, steps))
                assert not status, f"{page}: {line}\n{capsys.readouterr().err}"
