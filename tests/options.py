"""Pages of docs/reference/options/: every option, by the class that defines it."""

import collections
import dataclasses
import importlib
import inspect
import unittest.mock
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tests.markdown import MADE, wrapped
from train.cli.command import options_class
from train.cli.groups import groups_of, meaning
from train.cli.options import RunOptions
from train.experiments import DATASETS, EXPERIMENTS
from train.experiments.training import TrainingOptions

DOORS = {
    "drawing": (
        *("sample", "complete", "restore", "edit", "interpolate", "traverse"),
        *("styles", "translate"),
    ),
    "measuring": ("evaluate", "compare", "sweep", "benchmark", "throughput"),
    "tasks": ("bayes", "outliers", "probe"),
    "files": ("inspect", "export", "publish", "import_weights", "export_weights"),
}
KINDS = {  # of experiments; the page "others" has the rest
    "adversarial": ("gan", "stylegan2", "cyclegan"),
    "diffusion": (
        *("flow", "ddpm", "score_sde", "edm", "dit"),
        *("meanflow", "consistency", "distill", "drifting"),
    ),
    "codes": ("autoencoder", "vqvae", "prior", "autoencoder_kl", "vqgan"),
    "recognition": ("classifier", "m2", "clip"),
    "autoregressive": ("pixelrnn", "pixelcnn", "pixelcnnpp", "transformer", "text"),
}
# Pages that have the groups which only their own experiments share.
OWN = ("adversarial", "autoregressive", "codes", "recognition")
EVERY = groups_of(RunOptions) | groups_of(TrainingOptions)
TITLES = {
    "adversarial": "Options of the experiments: adversarial networks",
    "diffusion": "Options of the experiments: diffusion",
    "autoregressive": "Options of the experiments: autoregressive models",
    "codes": "Options of the experiments: autoencoders and their codes",
    "recognition": "Options of the experiments: labels and captions of images",
    "others": "Options of the experiments: all others",
    "drawing": "Options of the commands that draw",
    "measuring": "Options of the commands that measure",
    "tasks": "Options of the tasks on a trained run",
    "files": "Options of the commands that list a run and hand it on",
    "runs": "Options of every experiment",
    "groups": "Options that several experiments share",
    "networks": "Options of networks that several experiments share",
    "opened": "Options that several commands on a trained run share",
}


def door(name: str) -> type:
    """The class that `python -m train.NAME` parses."""
    module = importlib.import_module(f"train.{name}")
    found = []

    def parse(options, *_):
        found.append(options)
        raise SystemExit

    with unittest.mock.patch.object(module, "parse", parse):
        try:
            module.main()
        except SystemExit:
            return found[0]


def kind(hint: Any) -> str:
    """What follows an option on the command line."""
    if get_origin(hint) is Annotated:
        return kind(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    parts = [part for part in get_args(hint) if part not in (type(None), ...)]
    if parts:
        return " or ".join(dict.fromkeys(map(kind, parts)))
    return {"int": "N", "float": "X", "str": "NAME", "Path": "PATH"}.get(
        hint.__name__, hint.__name__
    )


def shown(value: Any) -> str:
    """A default as one types it."""
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == ():
        return "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def option(options: type, name: str) -> str:
    """A line of the list."""
    hint = get_type_hints(options, include_extras=True)[name]
    value = default_of(options, name)
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        said = f"`{flag}`, `--no-{flag[2:]}`" if value else f"`{flag}`"
    else:
        said = f"`{flag}` {kind(hint)} ({shown(value)})"
    return wrapped(f"- {said}: {meaning(options, name)}", "  ")


def default_of(options: type, name: str) -> Any:
    """The default of an option; MISSING for one that is required."""
    return next(f.default for f in dataclasses.fields(options) if f.name == name)


def heading(group: type) -> str:
    """The first line of what a class of options says of itself."""
    return (inspect.getdoc(group) or group.__name__).partition("\n")[0].rstrip(".")


def section(title: str, options: type, names: list[str], *more: str) -> str:
    """Options under a heading."""
    listed = "\n".join(option(options, name) for name in names)
    return "\n\n".join(filter(None, [f"## {title}", *map(wrapped, more), listed]))


def command(name: str, options: type, shared: set[type]) -> str:
    """What a command does, its own options, other defaults, and groups it shares."""
    groups = groups_of(options)
    own = [n for group, names in groups.items() if group not in shared for n in names]
    others = [
        f"`--{n.replace('_', '-')}` {shown(default_of(options, n))}"
        for group, names in groups.items()
        if group in shared
        for n in names
        if default_of(options, n) != default_of(group, n)
    ]
    said = [f"{heading(options)}."]
    if others:
        said.append(f"Other defaults: {', '.join(others)}.")
    every = EVERY if issubclass(options, RunOptions) else ()
    pages = collections.defaultdict(list)
    for g in groups:
        if g in shared and g not in every:
            pages[page_of(g) if every else "opened"].append(heading(g))
    for page, named in pages.items():
        said.append(f"[Shared]({page}.md): {'; '.join(named)}.")
    if every:
        said.append("[Every run's](runs.md).")
    return section(name, options, own, " ".join(said))


def page_of(group: type) -> str:
    """The page of a group that several experiments share."""
    return "networks" if group.__module__.endswith(".nets") else "groups"


def owned(commands: dict, page: str, groups: list[type]) -> list[type]:
    """The groups that the experiments of one page alone share."""
    users = {
        name: {g for options in those.values() for g in groups_of(options)}
        for name, those in commands.items()
    }
    others = set().union(*(used for name, used in users.items() if name != page))
    return [g for g in groups if g in users[page] - others]


def pages() -> dict[str, str]:
    """File below docs/reference/ -> its text."""
    commands = {page: {} for page in (*KINDS, "others")}
    for name, function in EXPERIMENTS.items():
        page = next((page for page, names in KINDS.items() if name in names), "others")
        commands[page][f"train {name}"] = options_class(function, DATASETS.get(name))
    for page, names in DOORS.items():
        commands[page] = {f"train.{name}": door(name) for name in names}
    every = [options for page in commands.values() for options in page.values()]
    users = collections.Counter(group for o in every for group in groups_of(o))
    shared = [group for group, num in users.items() if num > 1]
    trained = [
        g for page in DOORS for o in commands[page].values() for g in groups_of(o)
    ]
    runs = [group for group in shared if group in EVERY]
    opened = [g for g in shared if g in trained and g not in runs]
    groups = [g for g in shared if g not in trained and g not in runs]
    own = {page: owned(commands, page, groups) for page in OWN}
    groups = [g for g in groups if not any(g in those for those in own.values())]
    texts = {
        page: [command(name, o, set(shared)) for name, o in those.items()]
        for page, those in commands.items()
    }
    pages = {"runs": runs, "opened": opened, "groups": [], "networks": []}
    for g in groups:
        pages[page_of(g)].append(g)
    for page, those in pages.items():
        texts[page] = [section(heading(g), g, groups_of(g)[g]) for g in those]
    for page, those in own.items():
        texts[page] += [section(heading(g), g, groups_of(g)[g]) for g in those]
    back = "[All options](../options.md)"
    index = [f"- [{title}](options/{page}.md)" for page, title in TITLES.items()]
    intro = wrapped(
        "Every keyword of an experiment is an option. `python -m train EXPERIMENT "
        "--help` and `python -m train.COMMAND --help` say the same in the terminal."
    )
    made = {"options.md": ["# Options", MADE, intro, "\n".join(index)]}
    for page, title in TITLES.items():
        made[f"options/{page}.md"] = [f"# {title}", MADE, back, *texts[page]]
    return {name: "\n\n".join(text) + "\n" for name, text in made.items()}
