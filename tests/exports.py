"""python -m tests.exports: every model of the conformance table, exported.

Each is exported for cpu, cuda and tpu, read back, and drawn here at a batch size that
it was not exported at, beside `model.sample`. What their samplers are made of goes into
`fixtures/exported.json`, where the suite looks: it exports few of them itself.
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from train.run.exported import PLATFORMS, exported, sampler_of

FIXTURE = Path(__file__).parent / "fixtures/exported.json"


def primitives(jaxpr) -> set[str]:
    """The names of all operations of a program, those of its inner programs too."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                found |= primitives(inner) if hasattr(inner, "eqns") else set()
    return found


def rows_of(draw, num: int) -> dict:
    """`num` rows of every argument beside the seed and the numbers of the samples."""
    usual = {"guidance": 1.0, "truncation": 1.0}
    return {
        name: jnp.full((num, *x.shape), usual.get(name, 1), x.dtype)
        for name, x in draw.given.items()
    }


def row_of(model, params, state, num: int = 5) -> dict:
    """The file's size, and the largest difference from `model.sample`'s own samples."""
    draw, key = sampler_of(model, params, state), jax.random.key(3)
    data = bytes(exported(draw, PLATFORMS).serialize())
    given, words = rows_of(draw, num), jax.random.key_data(key)
    x = export.deserialize(bytearray(data)).call(words, jnp.arange(num), **given)
    own = {k: v for k, v in given.items() if k not in ("guidance", "truncation")}
    y = jax.jit(lambda own: model.sample(params, state, key, num, **own))(own)
    x, y = (np.asarray(each, np.float64) for each in (x, y))
    return {
        "arguments": ", ".join(given) or "none",
        "kB": round(len(data) / 1e3),
        "largest value": float(np.max(np.abs(y))),
        "difference": float(np.max(np.abs(x - y))),
    }


def disturbed(params):
    """Parameters a little off the first ones, of which some layers are all zeros."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, "f"), params)


def main() -> None:
    """Export all, a line of JSON each, and note what they are made of."""
    sys.path.insert(0, str(Path(__file__).parent))
    from test_conformance import GENERATIVE, ROWS, examples, frozen

    @partial(jax.jit, static_argnums=0)
    def draw(model, params, state):
        return model.sample(params, state, jax.random.key(0), 8)

    made = set()
    for name in GENERATIVE:
        model = ROWS[name]()
        params, state = jax.jit(model.init)(jax.random.key(0), examples())
        params = disturbed(params)
        state = {**state, "frozen": frozen(model) or {}}
        made |= primitives(draw.trace(model, params, state).jaxpr)
        row = {"model": name, **row_of(model, params, state)}
        print(json.dumps(row), flush=True)
    FIXTURE.write_text(json.dumps(sorted(made), indent=0) + "\n")


if __name__ == "__main__":
    main()
