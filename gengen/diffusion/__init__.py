"""L1: diffusion and flow matching from one 2×2 matrix; see `process`.

Nothing here knows parameters: a network enters as a function `predict(z, t) -> r̂`.
"""
