"""CycleGAN: two domains without pairs, and a map each way that undoes the other.

Two sets of images, a and b, of which nobody knows which belong together. G maps a to b
and F maps b to a; a critic of each domain tells translations from its own images. That
leaves G free to map a to *any* image of b. So translations must lead back,

    λ (|F(G(a)) - a| + |G(F(b)) - b|),

and an image that is of the domain already should stay as it is: ι (|G(b) - b| +
|F(a) - a|), without which colours may be exchanged at will. The game is that of least
squares, on patches; a critic sees half of its fakes from a buffer of earlier steps.

What the losses cannot know: domains with a symmetry may be mapped with their classes
permuted, and F(G(a)) may be near a because G hides a in what nobody sees (Chu et al.
2017, arXiv:1712.02950). Known pairs measure both (`train.translate`).

Zhu et al. 2017, arXiv:1703.10593, equations 1 to 3 and section 5.2 (identity).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen import buffer
from gengen.conditions import Condition, Nothing
from gengen.errors import BadInput, no_density
from gengen.losses.adversarial import LeastSquares, Separable
from gengen.nets.patch import patch_mean
from gengen.objective import loss
from gengen.spaces import Space
from gengen.types import Array, HasFeatures, Translates, static

DOMAINS = ("a", "b")


@static
class CycleGAN(Translates, HasFeatures):
    """Two generators and two critics, of one network each with parameters of its own.

    A batch has images of domain a under the space's key and of domain b under
    `partner`; which of them stand in one row says nothing.
    """

    generator: nn.Module
    """x [B, …] -> x of the other domain, such as a `Translator`."""
    discriminator: nn.Module
    """x -> logits [B, …] of being of the domain, such as a `PatchGAN`."""
    space: Space
    """The type of x, the same for both domains."""
    partner: str = "partner"
    """The batch's name for the images of domain b."""
    game: Separable = LeastSquares()
    """The game; the generator's part counts twice, (l - 1)² of least squares."""
    cycle: float = 10.0
    """λ, the weight of coming back."""
    identity: float = 5.0
    """ι, the weight of leaving alone what is of the domain."""
    buffer: int = 50
    """Translations of each domain that are kept for its critic."""
    condition: ClassVar[Condition] = Nothing()
    density: ClassVar[str] = "none"

    def both(self, batch) -> dict[str, Array]:
        """{"a": x, "b": x}; BadInput for domains of different shapes."""
        if self.partner not in batch:
            raise BadInput(
                f"the batch has {', '.join(sorted(batch))} and no {self.partner}, the "
                "images of the second domain: take data of two domains"
            )
        a, b = batch[self.space.key], batch[self.partner]
        if a.shape[1:] != b.shape[1:]:
            raise BadInput(
                f"domain a has images of shape {list(a.shape[1:])} and domain b of "
                f"{list(b.shape[1:])}: bring them to one shape"
            )
        first, second = ({self.space.key: x} for x in (a, b))
        return {"a": self.space.read(first), "b": self.space.read(second)}

    def init(self, key, batch=None):
        """Parameters by player and domain, and empty buffers."""
        if batch is not None:
            self.both(batch)
        keys, x = jax.random.split(key, 4), self.space.zeros(1)

        def two(net, keys):
            made = [net.init(key, x)["params"] for key in keys]
            return dict(zip(DOMAINS, made, strict=True))

        params = {"discriminator": two(self.discriminator, keys[:2])}
        params["generator"] = two(self.generator, keys[2:])
        kept = buffer.empty(self.buffer, self.space.shape)
        return params, {"buffer": dict.fromkeys(DOMAINS, kept)}

    def losses(self):
        return {
            "discriminator": self.play_discriminator,
            "generator": self.play_generator,
        }

    def _mapped(self, params, x: Array, to: str) -> Array:
        return self.generator.apply({"params": params["generator"][to]}, x)

    def _score(self, params, x: Array, domain: str) -> Array:
        return self.discriminator.apply({"params": params["discriminator"][domain]}, x)

    @loss
    def play_discriminator(self, params, state, batch, key):
        """Both critics' losses, the mean over patches; fakes go through the buffer."""
        x, total, kept = self.both(batch), 0.0, {}
        for i, (to, other) in enumerate((("b", "a"), ("a", "b"))):
            fake = jax.lax.stop_gradient(self._mapped(params, x[other], to))
            key_to = jax.random.fold_in(key, i)
            fake, kept[to] = buffer.exchanged(state["buffer"][to], fake, key_to)
            real = self.game.of_real(self._score(params, x[to], to))
            fake = self.game.of_fake(self._score(params, fake, to))
            total = total + jnp.mean(patch_mean(real) + patch_mean(fake))
        return total, ({**state, "buffer": kept}, {})

    @loss
    def play_generator(self, params, state, batch, key):
        """The game, the cycle and the identity, of both generators."""
        params = {
            "generator": params["generator"],
            "discriminator": jax.lax.stop_gradient(params["discriminator"]),
        }
        x, game, cycle, identity = self.both(batch), 0.0, 0.0, 0.0
        for to, other in (("b", "a"), ("a", "b")):
            y = self._mapped(params, x[other], to)
            game = game + 2.0 * jnp.mean(self.game.of_real(self._score(params, y, to)))
            back = self._mapped(params, y, other)
            cycle = cycle + jnp.mean(jnp.abs(back - x[other]))
            if self.identity:
                same = self._mapped(params, x[to], to)
                identity = identity + jnp.mean(jnp.abs(same - x[to]))
        total = game + self.cycle * cycle + self.identity * identity
        metrics = {"game": game, "cycle": cycle, "identity": jnp.asarray(identity)}
        return total, (state, metrics)

    def translate(self, params, state, x: Array, to: str = "b") -> Array:
        """x [B, …] of one domain as images of the domain `to`."""
        if to not in DOMAINS:
            raise BadInput(f"to={to!r}: the domains are {' and '.join(DOMAINS)}")
        return self._mapped(params, x, to)

    def sample(self, params, state, key, num, **condition):
        """Raises BadInput: images are translated, not drawn."""
        raise BadInput(
            "a CycleGAN translates images and draws none: give it images "
            "(train.translate), or take a generative model"
        )

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a CycleGAN")

    def features(self, params, state, batch, key) -> Array:
        """The last features [B, F] of domain a's critic; the key is not used."""
        _, sown = self.discriminator.apply(
            {"params": params["discriminator"]["a"]},
            self.space.read(batch),
            mutable="intermediates",
        )
        return sown["intermediates"]["features"][0]
