"""Retrieval: is an example's own caption the nearest, and the caption's own example?"""

import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.losses.contrastive import equal_rows
from gengen.tasks import require
from gengen.types import Array, Matches, static

GALLERY = 100


@static
class Recall:
    """Recall at one among `gallery` pairs: `(params, state, batch, key) -> [B, 2]`.

    The first number of example i is 1 where its own caption, or an equal one, is nearer
    to x_i than all others of its gallery; the second is 1 where its own x, or one of an
    equal caption, is nearer to c_i. A tie counts 0. The gallery is the pair and those
    after it in the batch, or the whole batch, if that is smaller.
    """

    model: Matches
    """What says how near an image and a caption are."""
    gallery: int = GALLERY
    """The pairs among which there is a choice, at least two."""

    def __post_init__(self):
        require(self.model, Matches, "take a CLIP")
        if self.gallery < 2:
            raise BadInput(f"gallery={self.gallery}: a choice is among two at least")

    def __call__(self, params, state, batch, key) -> Array:
        u, v = self.model.embeddings(params, state, batch)
        same = equal_rows(batch[self.model.condition.key])
        return recall_at_one(u @ v.T, same, self.gallery)


def recall_at_one(similarity: Array, same: Array, gallery: int) -> Array:
    """Whether the nearest is right, of x_i and of c_i, [B, 2] of 0 and 1.

    Args:
        similarity: floats [B, B], of x_i and c_j.
        same: bool [B, B], which belong together.
        gallery: the choice of row i is among i, i + 1, … of so many, modulo B.

    >>> recall_at_one(jnp.array([[2.0, 3.0], [0.0, 1.0]]), jnp.eye(2) > 0, 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    i = jnp.arange(len(same))
    seen = (i - i[:, None]) % len(same) < gallery

    def right(similarity):
        own = jnp.max(jnp.where(seen & same, similarity, -jnp.inf), axis=1)
        other = jnp.max(jnp.where(seen & ~same, similarity, -jnp.inf), axis=1)
        return (own > other).astype(jnp.float32)

    return jnp.stack([right(similarity), right(similarity.T)], axis=1)
