"""Who may import whom, and what the library never touches: purity has an address."""

import ast
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Room of gengen -> the other rooms it may import. A new room is one line.
LEAVES = {"errors", "types", "images", "scan", "spaces", "conditions"}
MATHEMATICS = {"buffer", "losses", "objective", "nets", "diffusion", "autoregressive"}
MATHEMATICS |= {"observations", "latent"}
ROOMS = {
    "__init__": set(),
    "errors": set(),
    "types": {"errors"},
    "images": {"errors", "types"},
    "scan": {"errors", "types"},
    "spaces": {"errors", "types", "images"},
    "conditions": {"errors", "types", "scan"},
    "augment": {"types"},
    "buffer": {"errors", "types"},
    "guard": {"types"},
    "gradients": {"errors", "types"},
    "multi_step": {"types"},
    "step": {"errors", "types", "scan", "guard", "gradients"},
    "losses": {"errors", "types", "images"},
    "objective": {"errors", "types"},
    "metrics": {"errors", "types"},
    "autoregressive": {*LEAVES, "losses"},
    "observations": {*LEAVES, "losses", "autoregressive"},
    "nets": LEAVES,
    "diffusion": {*LEAVES, "losses"},
    "latent": {*LEAVES, "losses", "objective", "autoregressive"},
    "models": LEAVES | MATHEMATICS,
    "presets": {*LEAVES, "diffusion", "models"},
    "tasks": LEAVES | MATHEMATICS | {"models"},
    "interchange": LEAVES | {"nets"},
}

# Packages the library may use, and the files that may use more.
PACKAGES = {"jax", "flax", "optax", "chex", "numpy"}
MORE_PACKAGES = {
    "gengen/metrics/inception.py": {"scipy"},
    "gengen/metrics/modes.py": {"scipy"},
    "gengen/metrics/ranking.py": {"scipy"},
    "gengen/diffusion/ode.py": {"diffrax"},
}
EFFECTS = {"os", "sys", "time", "pathlib", "io", "datetime", "logging", "random"}
EFFECTS |= {"shutil", "subprocess", "tempfile", "socket", "threading"}
EFFECT_CALLS = {"print", "open", "input", "time", "devices", "device_put"}

# What takes seconds to import, or may be missing: only inside functions.
LAZY = {"tensorflow_datasets", "tensorflow", "grain", "sklearn", "matplotlib"}
LAZY |= {"orbax", "PIL", "diffrax"}


def tree(file):
    return ast.parse((ROOT / file).read_text())


def files(package):
    return sorted(str(f.relative_to(ROOT)) for f in (ROOT / package).rglob("*.py"))


def imports(nodes, package=()):
    """Dotted names, `from a import b` being a.b.

    Relative ones are resolved in `package`, a tuple; without it they are refused.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package), (
                "name the whole module: no relative imports"
            )
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def packages(nodes, package=()):
    return {name.split(".")[0] for name in imports(nodes, package)}


def at_import(node):
    """The nodes that run when the module is imported: none inside functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from at_import(child)


GENGEN = pytest.mark.parametrize("file", files("gengen"))


@GENGEN
def test_a_room_imports_only_the_rooms_below_it(file):
    room = Path(file).with_suffix("").parts[1]
    assert room in ROOMS, f"say in ROOMS what gengen/{room} may import"
    names = [name.split(".") for name in imports(ast.walk(tree(file)))]
    rooms = {name[1] for name in names if name[0] == "gengen"}
    assert rooms <= ROOMS[room] | {room}


STUDENTS = "consistency", "distilled", "progressive", "reflow"
GENERATORS = "drifting", "matching"
COMBINATORS = "gengen/models/combinators"
STUDENT = "gengen.models.combinators.student"
KINDS_OF = {  # a model and what it is
    "gengen/models/stylegan.py": {"gengen.models.gan.GAN"},
    "gengen/models/first_stage.py": {
        "gengen.models.vae.VAE",
        "gengen.models.vqvae.VQVAE",
    },
    **{f"{COMBINATORS}/{name}.py": {f"{STUDENT}.Student"} for name in STUDENTS},
    **{f"{COMBINATORS}/{name}.py": {f"{STUDENT}.OneStep"} for name in GENERATORS},
}


@pytest.mark.parametrize("file", files("gengen/models"))
def test_models_do_not_import_each_other(file):
    names = imports(ast.walk(tree(file)))
    others = {name for name in names if name.startswith("gengen.models")}
    assert others == KINDS_OF.get(file, set())


@GENGEN
def test_the_library_is_jax_and_the_standard_library(file):
    third_party = packages(ast.walk(tree(file))) - set(sys.stdlib_module_names)
    assert third_party <= PACKAGES | MORE_PACKAGES.get(file, set()) | {"gengen"}


# Rooms of equations: they take functions, never modules.
EQUATIONS = ("diffusion", "losses", "latent", "autoregressive", "observations")
FREE_OF_NETWORKS = [file for room in EQUATIONS for file in files(f"gengen/{room}")]


@pytest.mark.parametrize("file", FREE_OF_NETWORKS)
def test_mathematics_never_sees_a_network(file):
    allowed = {"optax"} if file.endswith("couplings.py") else set()  # assignments
    assert not {"flax", "optax"} & packages(ast.walk(tree(file))) - allowed


@GENGEN
def test_the_library_has_no_side_effects(file):
    nodes = list(ast.walk(tree(file)))
    assert not EFFECTS & packages(nodes)
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    called = {getattr(f, "id", getattr(f, "attr", None)) for f in calls}
    assert not EFFECT_CALLS & called


@pytest.mark.parametrize("file", files("gengen") + files("train"))
def test_heavy_packages_are_imported_inside_functions_only(file):
    assert not LAZY & packages(at_import(tree(file)), Path(file).parts[:-1])


def test_the_reader_of_imports_sees_through_every_form():
    """The laws above could not fail if this reader were blind."""
    code = """
import a.b, c as d
from e.f import g
if True:
    from h import i
class J:
    import k
def l():
    import m
"""
    nodes = ast.parse(code)
    names = {"a.b", "c", "e.f.g", "h.i", "k"}
    assert set(imports(at_import(nodes))) == names
    assert set(imports(ast.walk(nodes))) == names | {"m"}
    relative = ast.parse("from .a import b\nfrom ..c import d\nfrom . import e")
    with pytest.raises(AssertionError, match="no relative imports"):
        list(imports(ast.walk(relative)))
    found = set(imports(ast.walk(relative), ("x", "y")))
    assert found == {"x.y.a.b", "x.c.d", "x.y.e"}


# ------------------------------------------------------------- the program's rooms

# The rooms of train/ in order: each may import those before it. Doors, the files at
# the top that a user starts, may import every room, and nobody imports a door.
ORDER = ("files", "progress", "cli", "data", "experiments", "run", "measure")
PROGRAM = {".".join(Path(f).with_suffix("").parts): f for f in files("train")}
PROGRAM = {name.removesuffix(".__init__"): f for name, f in PROGRAM.items()}


def room_of(module):
    """The room of a module of train/, or "door"."""
    name = (*module.split("."), "")[1]
    return name if name in ORDER else "door"


def imported_modules(module):
    """The modules of train/ that one of them imports, inside functions too."""
    package = Path(PROGRAM[module]).parts[:-1]
    for name in imports(ast.walk(tree(PROGRAM[module])), package):
        while name.startswith("train"):
            if name in PROGRAM:
                yield name
                break
            name = name.rpartition(".")[0]


@pytest.mark.parametrize("module", PROGRAM)
def test_a_room_of_the_program_imports_no_later_room_and_no_door(module):
    here = room_of(module)
    seen = {room_of(name) for name in imported_modules(module)} - {"door"}
    doors = [name for name in imported_modules(module) if room_of(name) == "door"]
    if module == "train":  # what `import train` offers comes from the rooms
        return
    assert not doors, f"{module} imports the door {doors}"
    if here != "door":
        late = {name for name in seen if ORDER.index(name) > ORDER.index(here)}
        assert not late, f"{module} imports the later room {late}"


def circle(graph):
    """The modules of some circle of imports, or None."""
    left = {name: set(named) - {name} for name, named in graph.items()}
    while free := {name for name, named in left.items() if not named & left.keys()}:
        left = {name: named for name, named in left.items() if name not in free}
    return sorted(left) or None


def test_no_module_of_the_program_stands_in_a_circle():
    assert circle({name: imported_modules(name) for name in PROGRAM}) is None
    assert circle({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b", "c"]


def test_the_program_names_its_own_modules_relatively():
    """So that it is `train` in a checkout and `gengen_train` where it is installed."""
    for module, file in PROGRAM.items():
        absolute = imports(
            n for n in ast.walk(tree(file)) if not getattr(n, "level", 0)
        )
        assert "train" not in {name.split(".")[0] for name in absolute}, module


def test_every_package_is_installed():
    there = {str(Path(file).parent) for file in files("gengen") + files("train")}
    named = {re.sub("^train", "gengen_train", name.replace("/", ".")) for name in there}
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    assert set(setuptools["packages"]) == named


@pytest.mark.parametrize(
    ("arguments", "unloaded"),
    [
        (("-c", "import gengen"), LAZY | PACKAGES),
        (("-m", "train", "--help"), LAZY | PACKAGES - {"numpy"}),
    ],
)
def test_starting_is_quick_and_loads_nothing_heavy(arguments, unloaded):
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments],
            cwd=ROOT,  # `-c` and `-m` put it on the path
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()  # of the processor: others may compute beside the tests
        seconds.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
        assert done.returncode == 0, done.stderr[-2_000:]
    lines = done.stderr.splitlines()  # import time: self | cumulative | a.b
    loaded = {line.rsplit("|")[-1].strip().split(".")[0] for line in lines}
    assert not unloaded & loaded
    assert statistics.median(seconds) < 2.0
