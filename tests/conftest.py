"""Compile little, and nothing twice."""

import jax
import pytest
from program import EVENTS, TINY, call

# Tests check what programs compute, not how fast: LLVM's costly passes are left out.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Programs that several tests compile (a run, and its resumption) are kept."""
    folder = tmp_path_factory.getbasetemp() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
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
    folder = tmp_path_factory.mktemp("runs")
    for name, options in TINY.items():
        line = f"train {name} --workdir {folder / name} --steps 4 {options} {EVENTS}"
        assert call(line) == 0
    return folder
