"""Compile little, and nothing twice."""

import jax
import pytest

# Tests check what programs compute, not how fast: LLVM's costly passes are left out.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Programs that several tests compile (a run, and its resumption) are kept."""
    folder = tmp_path_factory.getbasetemp() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
