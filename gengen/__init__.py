"""gengen: deep generative models as pure functions in JAX and Flax.

Import the room you need: `gengen.models.diffusion`, `gengen.losses.divergence`,
`gengen.objective`, … Nothing is imported until then.
"""

__version__ = "0.1.0"
