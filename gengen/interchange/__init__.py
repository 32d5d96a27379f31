"""Weights of other libraries as arrays of ours, and back.

A module for each architecture has

    net_of(config)    the network of their configuration, a JSON object
    config_of(net)    their configuration of a network; BadInput if there is none
    rules(net)        which tensors of theirs are which arrays of ours: `rules.Rule`

and `rules.to_ours` and `rules.to_theirs` apply them: pure functions of arrays, each the
inverse of the other, bit for bit. Files are read and written by `train.import_weights`
and `train.export_weights`.
"""

from gengen.interchange import dit, gpt2
from gengen.interchange.rules import Rule, to_ours, to_theirs

__all__ = ["Rule", "dit", "gpt2", "to_ours", "to_theirs"]
