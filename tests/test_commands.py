"""The command line as a user meets it: help, near misses, files of options, streams."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import refused

from gengen.errors import BadInput
from train.cli.command import options_class, parse, split_options
from train.cli.config import with_config
from train.cli.doors import DOORS
from train.cli.groups import groups_of
from train.data.load import load
from train.experiments import DATASETS, EXPERIMENTS
from train.run import record as records
from train.run.loop import record_of

ROOT = Path(__file__).parents[1]
HELPS = """
import contextlib, io, sys, time
from train import __main__ as program
from train.cli.doors import DOORS
from train.experiments import EXPERIMENTS
for name in [*EXPERIMENTS, *DOORS]:
    sys.argv, out = ["train", name, "--help"], io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        program.main()
    heavy = {"jax", "flax", "optax", "orbax", "matplotlib", "PIL"} & sys.modules.keys()
    assert not heavy, (name, heavy)
    print(f"{name} {time.process_time() - began:.2f}", *out.getvalue().splitlines(),
          sep="\\n", end="\\0")
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[float, list[str]]]:
    """{command: (seconds, the lines of its help)}, of one process, in no terminal."""
    result = subprocess.run(
        [sys.executable, "-c", HELPS], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    found = {}
    for text in result.stdout.split("\0")[:-1]:
        first, *lines = text.splitlines()
        name, seconds = first.split()
        found[name] = float(seconds), lines
    return found


def test_help_is_quick_and_as_wide_as_80_columns(helps):
    assert list(helps) == [*EXPERIMENTS, *DOORS]
    for name, (seconds, lines) in helps.items():
        assert seconds < 1, f"{name} --help takes {seconds} s"
        assert max(map(len, lines[1:])) <= 80, name  # the first says the usage


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_has_a_group_for_every_class_that_defines_options(helps, name):
    text = "\n".join(helps[name][1]).partition("show this help")[2]
    options = options_class(EXPERIMENTS[name], DATASETS.get(name))
    for group, members in groups_of(options).items():
        heading = " ".join(group.__doc__.partition("\n")[0].split()[:5])
        assert heading in text, group
        for member in members:
            option = f"--{member.replace('_', '-')}"
            assert len(re.findall(rf"^[│ ] {option}\b(?!-)", text, re.M)) == 1, option


def test_the_doors_are_the_files_that_have_a_main():
    files = [p for p in (ROOT / "train").glob("*.py") if p.stem != "__main__"]
    assert {p.stem for p in files if "\ndef main()" in p.read_text()} == set(DOORS)


def test_the_overview_lists_every_experiment_and_command_in_a_line(cli):
    status, out, _ = cli("train")
    assert status == 0 and cli("train --help")[1] == out
    assert max(map(len, out.splitlines())) <= 80
    for name in (*EXPERIMENTS, *DOORS):
        assert len(re.findall(rf"^  {name} +[A-Z]", out, re.M)) == 1, name


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("train vea --workdir w", "did you mean vae?"),
        ("train sampel --workdir w", "did you mean sample?"),
        ("train vae --workdir w --latnet 3", "did you mean --latent?"),
        ("train sample --workdir w --tempratur 3", "did you mean --temperature?"),
        ("train --workdir w vae", "the experiment comes first"),
    ],
)
def test_a_name_that_is_nearly_one_gets_a_hint(cli, line, near):
    refused(cli(line), near)


# ------------------------------------------------------------------ a file of options


def test_a_file_gives_options_and_the_command_line_wins(tmp_path):
    file, options = tmp_path / "c.toml", options_class(EXPERIMENTS["flow"])
    file.write_text(
        "steps = 9\nattention = [4, 8]\nconditional = false\n"
        "[log]\nlog-every = 3\ndataset = 'mnist'\n"
    )
    line = ["--config", str(file), "--workdir", "w", "--log_every", "5"]
    run = parse(options, "flow", line)
    assert (run.steps, run.log_every, run.dataset) == (9, 5, "mnist")
    assert run.attention == (4, 8) and run.conditional is False
    assert run == parse(options, "flow", [f"--config={file}", *line[2:]])


def test_the_record_of_a_run_gives_its_options_back(cli, tmp_path):
    options = options_class(EXPERIMENTS["vae"])
    line = ["--workdir", "w", "--seed", "7", "--clip", "0.5", "--hidden", "8", "4"]
    first = parse(options, "vae", line)
    run, keywords = split_options(first)
    record = record_of(run, "vae", keywords, load("digits"))
    records.save(tmp_path, record)
    file = str(tmp_path / records.FILE)
    again = parse(options, "vae", ["--config", file, "--workdir", "w"])
    assert again == first
    other = parse(options, "vae", ["--config", file, "--workdir", "w", "--seed", "8"])
    assert other == replace(first, seed=8)
    refused(cli(f"train gan --config {file} --workdir w"), "experiment vae, not gan")
    record.data_options["reader"] = 2  # of folders: a fact, no option
    records.save(tmp_path, record)
    assert parse(options, "vae", ["--config", file, "--workdir", "w"]) == first


def test_an_option_that_stands_twice_in_a_file_is_refused(cli, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[one]\nhidden = [8]\n[two]\nhidden = [9]\n")
    refused(cli(f"train vae --workdir w --config {file}"), "says hidden twice")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"latnet": 3}', ("latnet", "did you mean latent?")),
        ("[1]", ("no table",)),
        ("{", ("cannot be read",)),
        ('{"latent": 0}', ("--latent 0", "at least 1")),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(cli, tmp_path, text, words):
    file = tmp_path / "c.json"
    file.write_text(text)
    refused(cli(f"train vae --workdir {tmp_path / 'w'} --config {file}"), *words)
    refused(cli(f"train vae --workdir w --config {tmp_path}"), "cannot be read")
    assert not (tmp_path / "w").exists()


def test_without_a_file_the_command_line_is_as_it_was():
    assert with_config(object, ["--steps", "3"]) == ["--steps", "3"]


# --------------------------------------------------------------- streams and alphabets

STREAMS = """
python -m train flow --help | head -1 && test ${PIPESTATUS[0]} = 0 &&
python -m train sample --help > /dev/full && python -m train > /dev/full &&
export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 && python -m train ddpm --help
"""


def test_a_closed_pipe_a_full_disk_and_ascii_end_no_command():
    result = subprocess.run(
        ["bash", "-c", STREAMS.replace("python", sys.executable)],
        capture_output=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    told = b"note: not all of the output could be written: No space left on device\n"
    assert result.stderr == 2 * told
    assert result.stdout.isascii() and b"Nichol" in result.stdout


# ------------------------------------------------------------- random command lines

WORDS = ["", "-", "--", "0", "-1", "1", "2.5", "nan", "inf", "1e400", "9" * 30, "None"]
WORDS += [
    "true",
    "x",
    "digits",
    "folder:",
    "\x00",
    "\udcff",
    "é×",
    "--help-me",
    "=",
    "a b",
]


def command_lines(num: int):
    """(command, options, arguments), from a fixed seed."""
    draw = np.random.default_rng(2)
    known = {n: options_class(f, DATASETS.get(n)) for n, f in EXPERIMENTS.items()}
    for _ in range(num):
        name = draw.choice(list(known))
        options = known[name]
        names = list(options.__dataclass_fields__)
        arguments = ["--workdir", "w"]
        for option in draw.choice(names, draw.integers(1, 3)):
            dashed = option.replace("_", "-")
            arguments.append(draw.choice([f"--{dashed}", f"--no-{dashed}", option]))
            arguments += list(draw.choice(WORDS, draw.integers(0, 3)))
        yield str(name), options, [str(argument) for argument in arguments]


def test_no_command_line_surprises(capsys):
    num, good = 100, 0
    for name, options, arguments in command_lines(num):
        try:
            parse(options, name, arguments)
            good += 1
        except BadInput as error:
            assert "\n" not in str(error), arguments
        except SystemExit as stop:
            assert stop.code == 2, arguments
    assert 0 < good < num
