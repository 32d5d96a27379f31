"""Compiled programs, kept on disk: a second start need not compile.

They are executed as they lie there, so only a folder that nobody else can write will
do: one of the user's own, in the user's cache.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import platformdirs

_UNREADABLE = "Error reading persistent compilation cache entry"


def own_folder() -> Path:
    """Where programs are kept unless the user names another folder."""
    return platformdirs.user_cache_path("gengen") / "xla"


def enable_compilation_cache() -> str | None:
    """Keep compiled programs, if they are safe there; else a sentence that says why.

    In `own_folder`, or in the one of JAX_COMPILATION_CACHE_DIR, which is the user's own
    affair.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return None
    folder = own_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        return f"compiled programs are not kept: {folder} ({error.strerror})"
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        return (
            f"compiled programs are not kept: others can write in {folder}, whose "
            f"content would be executed; make it your own (chmod go-w {folder}), or "
            "name another one as JAX_COMPILATION_CACHE_DIR"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The small ones, too, of which a start has about a hundred.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return None


def compiled_quickly() -> dict:
    """`compiler_options` for what runs seldom: on CPU, half of the time to compile.

    The numbers are the same wherever it is used: those of an initial state, samples
    and likelihoods, but not of gradients.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}


@contextlib.contextmanager
def cache_hits() -> Iterator[list]:
    """A list that gets an entry for every program found among the kept ones.

    Where one cannot be read, JAX compiles it again and keeps the old one for ever: so
    all are removed, from a folder that is ours.
    """
    hits = []

    def listen(event, **about):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        with warnings.catch_warnings(record=True) as seen:
            yield hits
    finally:
        jax.monitoring.unregister_event_listener(listen)
    kept = Path(jax.config.jax_compilation_cache_dir or "")
    for warning in seen:
        if kept == own_folder() and str(warning.message).startswith(_UNREADABLE):
            for entry in kept.glob("*-cache"):
                entry.unlink(missing_ok=True)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
