"""python -m tests.games WHAT …: figures of adversarial networks that need training.

points   25 Gaussians in a grid, or 8 in a ring: modes, good samples and KL by seed
stacked  1,000 combinations of three digits: the same, by a classifier of the digits
losses   every loss on the same networks and budget, plain DCGAN among them
step     a step of both players over the sum of their gradients; what regularisers cost

A line of JSON a figure. --folder keeps the runs: an interrupted command goes on.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from gengen.step import init_train_state, make_train_step
from train.cli.options import RunOptions
from train.data.load import load
from train.experiments import EXPERIMENTS
from train.files import to_json
from train.measure.evaluation import evaluate
from train.measure.options import Evaluate
from train.run.loop import train

POINTS = {
    "latent": 2,
    "learning_rate": 4e-3,
    "b2": 0.99,
    "rate_schedule": "linear",
    "r1_weight": 0.1,
    "ema_decay": 0.999,
}
PLAIN = {"loss": "minimax", "regulariser": ("off",)}
LOSSES = {
    "plain DCGAN": {
        "loss": "nonsaturating",
        "regulariser": ("off",),
        "learning_rate": 2e-4,
    },
    "minimax": {"loss": "minimax"},
    "non-saturating": {"loss": "nonsaturating"},
    "least squares": {"loss": "least-squares"},
    "hinge": {"loss": "hinge"},
    "wasserstein": {"loss": "wasserstein"},
    "relativistic": {},
}


def trained(folder: Path, name: str, dataset: str, seed: int, options: dict, num: int):
    """The evaluation of a run, which is trained to its end first."""
    workdir = folder / name.replace(" ", "-")
    asked = RunOptions(
        workdir=workdir,
        dataset=dataset,
        seed=seed,
        sample_every=10**9,
        checkpoint_every=10_000,
        log_every=1_000,
    )
    train(asked, "gan", vars(EXPERIMENTS["gan"].options(**options)))
    return evaluate(Evaluate(workdir=workdir, num=num, likelihood_num=0))


def of_modes(asked, dataset: str, games: dict, steps: int):
    """A line per game and seed: what the samples reach of the known modes."""
    for name, options in games.items():
        for seed in range(asked.seeds):
            run = f"{dataset}-{name}-{seed}".replace(":", "-")
            options = {**options, "steps": asked.steps or steps}
            result = trained(asked.folder, run, dataset, seed, options, 1_000)
            modes = result["modes"]
            yield {
                "data": dataset,
                "game": name,
                "seed": seed,
                "modes": modes["found"],
                "good samples": round(modes["good_samples"], 4),
                "KL": modes["reverse_kl"] and round(modes["reverse_kl"], 4),
                "chance KL": round(modes["chance_kl"], 4),
                "steps": options["steps"],
                "training s": round(result["training_seconds"]),
            }


def points(asked):
    """The default game and plain minimax, on the same networks and budget."""
    games = {"default": POINTS, "minimax": POINTS | PLAIN}
    games = {name: games[name] for name in asked.games or games}
    yield from of_modes(asked, f"gaussians:{asked.kind}", games, 300_000)


def stacked(asked):
    """The default game and the classic one, on the same networks and budget."""
    games = {"default": {}, "packed": {"packing": 2}, "classic": LOSSES["plain DCGAN"]}
    small = {"channels": 32}
    games = {name: small | games[name] for name in asked.games or games}
    yield from of_modes(asked, "stacked:digits", games, 6_000)


def losses(asked):
    """Fréchet distance, precision, recall and coverage of every loss."""
    for name in asked.games or LOSSES:
        options = {"channels": 32, "steps": asked.steps or 2_000, **LOSSES[name]}
        run = f"{asked.dataset}-{name}"
        result = trained(asked.folder, run, asked.dataset, 0, options, 1_000)
        quality = result["sample_quality"]
        yield {
            "loss": name,
            "Fréchet": round(quality["frechet_distance"]["value"], 4),
            "precision": round(quality["precision"]["value"], 3),
            "recall": round(quality["recall"]["value"], 3),
            "coverage": round(quality["coverage"]["value"], 3),
            "right class": round(result["class_accuracy"], 3),
            "steps": result["step"],
            "training s": round(result["training_seconds"]),
        }


VARIANTS = {
    "no penalty": {"regulariser": ("off",)},
    "R1, every step": {"regulariser": ("r1",), "r1_interval": 1},
    "R1 and R2, every step": {"r1_interval": 1},
    "R1 and R2, every 4th step": {"r1_interval": 4},
    "R1 and R2, every 16th step": {"r1_interval": 16},
    "flips and shifts": {"regulariser": ("off",), "critic_augment": ("flip", "shift")},
}


def step(asked):
    """Milliseconds of 16 steps over those of the gradients alone, in turns."""
    spec, batch = load("digits").spec, load("digits").fetch(range(64))
    for name, options in VARIANTS.items():
        whole, parts = programs(EXPERIMENTS["gan"](spec, channels=48, **options), batch)
        times = {"step": [], "gradients": []}
        for _ in range(asked.rounds):
            for which, program in (("step", whole), ("gradients", parts)):
                began = time.process_time()
                jax.block_until_ready(program())
                times[which].append(1e3 * (time.process_time() - began) / 16)
        medians = {f"{k} ms": round(statistics.median(v), 2) for k, v in times.items()}
        ratios = [a / b for a, b in zip(*times.values(), strict=True)]
        yield {"game": name, **medians, "ratio": round(statistics.median(ratios), 3)}


def programs(experiment, batch):
    """(16 whole steps, the gradients of both players 16 times), compiled."""
    model = experiment.model
    params, state = jax.jit(model.init)(jax.random.key(0))
    begun = init_train_state(jax.random.key(1), params, state, experiment.optimizers)
    one = jax.jit(
        make_train_step(model.losses(), experiment.optimizers, experiment.order, 0.99)
    )

    @jax.jit
    def gradients(params, state, step):
        state = {**state, "step": step, "ema": params}
        key, found = jax.random.fold_in(jax.random.key(1), step), []
        for turn, (player, loss) in enumerate(model.losses().items()):

            def own(mine, player=player, loss=loss, turn=turn):
                key_turn = jax.random.fold_in(key, turn)
                return loss({**params, player: mine}, state, batch, key_turn)[0]

            found.append(jax.grad(own)(params[player]))
        return found

    def whole():
        train_state = begun
        for _ in range(16):
            train_state, _ = one(train_state, batch)
        return train_state

    def parts():
        return [gradients(params, state, jnp.int32(i)) for i in range(16)]

    jax.block_until_ready((whole(), parts()))
    return whole, parts


def main() -> None:
    """The command line."""
    kinds = {"points": points, "stacked": stacked, "losses": losses, "step": step}
    parser = argparse.ArgumentParser(
        prog="python -m tests.games",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--kind", choices=("grid", "ring"), default="grid")
    parser.add_argument("--dataset", default="digits", help="of the losses")
    parser.add_argument("--games", nargs="+", help="by default all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="by default those of each figure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/games"))
    asked = parser.parse_args()
    for row in kinds[asked.what](asked):
        print(to_json(row), end="", flush=True)


if __name__ == "__main__":
    main()
