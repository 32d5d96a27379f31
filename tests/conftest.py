"""Compile little, and nothing twice."""

import fcntl
import os
import shutil

import jax
import pytest
from program import EVENTS, TINY, call

# Tests check what programs compute, not how fast: LLVM's costly passes are left out.
jax.config.update("jax_disable_most_optimizations", True)


def of_all_workers(tmp_path_factory):
    """The folder that the workers of one session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Programs that several tests compile (a run, and its resumption) are kept."""
    folder = of_all_workers(tmp_path_factory) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
