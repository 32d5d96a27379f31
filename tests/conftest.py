"""Compile little, and nothing twice."""

import fcntl
import gc
import os
import shutil

import jax
import once
import pytest
from program import EVENTS, RARELY, TINY, call

# Tests check what programs compute, not how fast: LLVM's costly passes are left out,
# here and in the processes that tests start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_disable_most_optimizations", True)
# Nobody looks up where in the source an operation of theirs comes from.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)
gc.set_threshold(*RARELY)
if jax.__version_info__ < (0, 11):  # XLA ends where it does not know a flag
    FLAGS = os.environ.get("XLA_FLAGS", "")
    FLAGS = f"{FLAGS} --xla_cpu_use_fusion_emitters=false"
    # A program cut into 32 parts, for as many threads, is 32 small programs' overhead.
    os.environ["XLA_FLAGS"] = f"{FLAGS} --xla_cpu_parallel_codegen_split_count=1"


once.install()


# The files that take longest come first, so that no worker ends long after the other:
# beside `program`, which trains `runs`, one that does not wait for them.
LONG = ("program", "autoregressive", "conformance", "scale", "notebooks", "processes")
LONG += ("combinators", "task_programs", "evaluate", "faults")
LONG += ("solvers", "models", "solver_facts", "observations", "experiments", "sweep")
LONG += ("inverse", "examples", "likelihood", "dit", "walkthrough", "codes", "latent")
LONG += ("paths", "library", "doors", "step", "pipeline", "tasks", "text", "loop")


def pytest_collection_modifyitems(items):
    """Test files in the order of `LONG`, then the others."""
    names = [f"test_{name}" for name in LONG]

    def place(item):
        return names.index(item.path.stem) if item.path.stem in names else len(names)

    items.sort(key=place)


def of_all_workers(tmp_path_factory):
    """The folder that the workers of one session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Programs that several tests compile (a run, and its resumption) are kept."""
    folder = of_all_workers(tmp_path_factory) / "xla"
    kept = {"COMPILATION_CACHE_DIR": str(folder)}
    kept["PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = 0.1
    kept["PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = -1
    for name, value in kept.items():
        jax.config.update(f"jax_{name.lower()}", value)
        os.environ[f"JAX_{name}"] = str(value)


@pytest.fixture
def cli(capsys):
    """`cli("train vae --workdir …") -> (exit status, stdout, stderr)`, in process."""

    def run(line):
        capsys.readouterr()
        return call(line), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A trained tiny run of each family, four steps long; tests copy, not change it."""
    folder = of_all_workers(tmp_path_factory) / "trained"
    with (folder.parent / "trained.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the first worker trains
        if not folder.exists():
            beside = folder.with_name("in-training")
            for name, options in TINY.items():
                line = f"train {name} --workdir {beside / name} --steps 4 {options}"
                assert call(f"{line} {EVENTS}") == 0
            beside.rename(folder)
    return shutil.copytree(folder, tmp_path_factory.mktemp("runs") / "runs")
