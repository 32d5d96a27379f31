"""What libraries do anew for every network, command and run is done once per process.

All that a test can see is as without it, but for the curves of a run: their picture is
that of the first run in this process with metrics of these names.
"""

import flax.core.scope
import jax
from tyro._parsers import ParserSpecification

from train.files import written_atomically
from train.run import finish


class ShapesKnown:
    """What Flax calls `jax`: the shapes of equal initial values are found once.

    It compares them with the parameters whenever a network is traced, and traced each
    initialiser for it: a seventh of all tracing.
    """

    def __init__(self):
        self._known = {}

    def __getattr__(self, name):
        return getattr(jax, name)

    def eval_shape(self, function, *arguments):
        if arguments:
            return jax.eval_shape(function, *arguments)
        names = function.__code__.co_freevars
        values = (cell.cell_contents for cell in function.__closure__)
        given = dict(zip(names, values, strict=True))
        key = given["init_fn"], given["init_args"], *given["init_kwargs"].items()
        try:
            if key not in self._known:
                self._known[key] = jax.eval_shape(function)
            return self._known[key]
        except TypeError:  # an initialiser with arrays
            return jax.eval_shape(function)


def options_read_once(make):
    """tyro's specification of a command: made from its fields once, for all lines.

    It was 30 ms of every command.
    """
    known = {}

    def once(options, *, description, intern_prefix, **more):
        given = {"description": description, "intern_prefix": intern_prefix, **more}
        if intern_prefix:  # of a group within
            return make(options, **given)
        key = options, description
        if key not in known:
            known[key] = make(options, **given)
        return known[key]

    return staticmethod(once)


def curves_drawn_once(draw):
    """The curves of a run are drawn for each set of names, and copied for its others.

    They were two fifths of what a run of four steps costs.
    """
    drawn = {}

    def curves(rows, path):
        names = frozenset(name for row in rows for name in row)
        if names not in drawn:
            drawn[names] = draw(rows, path).read_bytes()
        with written_atomically(path) as file:
            file.write(drawn[names])
        return path

    return curves


def install():
    """From now on, in this process."""
    flax.core.scope.jax = ShapesKnown()
    made = ParserSpecification.from_callable_or_type
    ParserSpecification.from_callable_or_type = options_read_once(made)
    finish.curves = curves_drawn_once(finish.curves)
