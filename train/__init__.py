"""The training program: every file, clock, print and device of the project is here.

From Python: `fit(model, arrays, workdir=…)` trains, `open_run(workdir)` opens a run.
"""

__all__ = ["fit", "open_run"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .run import library  # when it is asked for: to import JAX takes a second

    return getattr(library, name)
