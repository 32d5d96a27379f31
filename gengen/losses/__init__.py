"""L0: equations between arrays, never reduced over the batch, never a parameter.

Log-probabilities are elementwise (sum them with `per_example`); divergences and
adversarial losses return [B]. `penalty` is L1: its functions take the critic.

Shapes are exact. A parameter of a distribution has the shape of the data or is one
number for all of them; everything else is an error, never a broadcast.
"""
