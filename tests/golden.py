"""python tests/golden.py [ROW …]: what rows of the tables compute, to notice drift.

`fixtures/golden.json` holds, for each row of `test_conformance`, the shapes of its
arrays, the size of its initial parameters and, for parameters that NumPy draws by the
name of each array, the metrics of a step, the log-likelihoods and a sample; log p of
what the networks of `test_autoregressive` draw; losses of networks that attend, in
`test_combinators`. The tests look at the programs of their other laws. Run it again
where a change of numbers is meant, and say why.
"""

import json
import sys
import zlib
from pathlib import Path

import jax
import numpy as np

FILE = Path(__file__).parent / "fixtures/golden.json"


def paths(tree):
    """{path: leaf}, names joined by /."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def shapes(tree):
    return {path: list(leaf.shape) for path, leaf in paths(tree).items()}


def fill(tree):
    """Every array drawn from its name: N(0, 1/4 fan in)."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        fan = int(np.prod(leaf.shape[:-1])) or 1
        return (0.5 * fan**-0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.device_put(jax.tree.map_with_path(draw, tree), jax.devices()[0])


def check(found, name):
    """The shapes are those kept, and the numbers but for what float32 rounds."""
    kept = json.loads(FILE.read_text())[name]
    assert found["shapes"] == kept["shapes"]
    assert found["numbers"].keys() == kept["numbers"].keys()
    for what, value in found["numbers"].items():
        rtol = 1e-4 if "grad" in what else 1e-5
        np.testing.assert_allclose(
            np.ravel(value), kept["numbers"][what], rtol, 1e-5, err_msg=what
        )


def written(found):
    """As JSON keeps it, numbers of seven digits."""
    numbers = {
        what: [float(f"{x:.7g}") for x in np.ravel(value)]
        for what, value in found["numbers"].items()
    }
    return {"shapes": found["shapes"], "numbers": numbers}


if __name__ == "__main__":
    import test_autoregressive
    import test_combinators
    import test_conformance

    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    tables = test_conformance, test_autoregressive, test_combinators
    makers = {name: table.numbers for table in tables for name in table.ROWS}
    made = {name: written(makers[name](name)) for name in sys.argv[1:] or makers}
    every = {name: (kept | made)[name] for name in makers}
    lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(x)}" for n, x in every.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")
