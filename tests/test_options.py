"""Options: each has a meaning and bounds, a name is one value, old records stay."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from program import refused

from gengen.errors import BadInput
from gengen.step import init_train_state
from train.cli import names
from train.cli.bounds import Above, AtLeast, AtMost, Below, bounds_of, check_numbers
from train.cli.command import options_class
from train.cli.groups import groups_of, meaning
from train.data.dataset import Spec
from train.experiments import DATASETS, EXPERIMENTS, OF_TEXT
from train.experiments.training import TrainingOptions
from train.run import record as records
from train.run.checkpoint import Checkpoints
from train.run.same import difference

DIGITS = Spec("digits", (8, 8, 1), 17, 10, tuple("0123456789"))
TEXT = Spec("text", (16,), 256, 0, (), "text")
BEFORE = json.loads((Path(__file__).parent / "fixtures/records.json").read_text())
DOORS = "bayes benchmark compare complete edit export inspect interpolate outliers"
DOORS = (
    f"{DOORS} probe publish restore sample styles sweep throughput translate traverse"
)
DOORS = DOORS.split()


def commands() -> dict[str, type]:
    """{command: its options} of all experiments and doors."""
    made = {n: options_class(f, DATASETS.get(n)) for n, f in EXPERIMENTS.items()}
    for name in DOORS:
        made[name] = getattr(importlib.import_module(f"train.{name}"), name.title())
    made["evaluate"] = importlib.import_module("train.measure.options").Evaluate
    return made


COMMANDS = commands()
OF_COMMANDS = pytest.mark.parametrize("name", COMMANDS)


def has_number(hint) -> bool:
    return hint in (int, float) or any(map(has_number, get_args(hint)))


@OF_COMMANDS
def test_every_number_has_bounds_on_both_sides_and_every_option_a_meaning(name):
    options = COMMANDS[name]
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        bounds = bounds_of(hints[field.name])
        if has_number(hints[field.name]) and "Literal" not in str(hints[field.name]):
            assert any(isinstance(b, AtLeast | Above) for b in bounds), field.name
            assert any(isinstance(b, AtMost | Below) for b in bounds), field.name
        assert meaning(options, field.name), f"{name} --{field.name} has no meaning"
    if name in EXPERIMENTS:
        check_numbers(options(workdir=Path("w")))  # the defaults are within bounds


def test_an_option_is_described_once():
    """No text and no bound of an option stands in two classes."""
    owners = {}
    for options in COMMANDS.values():
        for cls, members in groups_of(options).items():
            for field in () if hasattr(cls, "MEANINGS") else members:
                text = meaning(cls, field)
                if len(text) > 60:
                    owners.setdefault((field, text), set()).add(cls)
    assert {k: v for k, v in owners.items() if len(v) > 1} == {}


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (f"train.sample --workdir w --num 1{30 * '0'}", "--num 1000"),
        (f"train vae --workdir w --hidden {2**63 - 1}", "--hidden 9223372036854775807"),
        (f"train vae --workdir w --steps {10**10}", "--steps 10000000000"),
        ("train flow --workdir w --learning-rate 1e300", "--learning-rate 1e+300"),
        ("train.edit --workdir w --strength 0.5 inf", "--strength inf"),
        (f"train.sweep --workdir w --top-k 5 {10**20}", "--top-k 1000"),
        (f"train.traverse --workdir w --dims {10**40}", "--dims 1000"),
    ],
)
def test_a_number_out_of_bounds_is_one_sentence(cli, line, number):
    refused(cli(line), number, "it must be")


# ------------------------------------------------------------------- values by name

EXPECTED = {
    "PATHS": """Linear() VariancePreserving( SubVariancePreserving( VarianceExploding(
        Cosine( Trigonometric( Karras(data_std=0.3, DDPMSchedule(""",
    "PREDICTIONS": "Noise() Data() V() Velocity() Score() EDM(data_std=0.3)",
    "WEIGHTS": """Unweighted() MinSNR( TruncatedSNR( ELBOWeight() Sigmoid(
        ErrorIn(prediction=Noise()) ErrorIn(prediction=Data()) ErrorIn(prediction=V())
        ErrorIn(prediction=Velocity()) ErrorIn(prediction=Score())
        ErrorIn(prediction=EDM(data_std=0.3))""",
    "TIMES": "Uniform( LogitNormal( LogNormal( Steps(",
    "DRAWS": "independent antithetic stratified",
    "COUPLINGS": "Independent() OptimalTransport( Sinkhorn(",
    "SOLVERS": """Euler() Heun( AdamsBashforth(order=2) AdamsBashforth(order=3)
        DDIM(eta=0.0 DDIM(eta=1.0
        Ancestral(log_variance=fixed_large
        Ancestral(log_variance=learned_range DPMSolver(eta=0.0
        DPMSolver(eta=1.0 EDMSampler(churn=0.0 EDMSampler(churn=40.0 EulerMaruyama(
        PredictorCorrector(predictor=EulerMaruyama()
        PredictorCorrector(predictor=NoPredictor()
        Adaptive(method=tsit5
        Adaptive(method=dopri5""",
    "GRIDS": "Even() ShiftedGrid( Leading(table=1000) Quadratic() KarrasGrid( LogSNR(",
    "LIKELIHOODS": """VariationalBound(steps=None VariationalBound(steps=1000
        FlowDensity(""",
}


@pytest.mark.parametrize("table", EXPECTED)
def test_a_name_is_the_value_it_says_and_no_two_are_one(table):
    rows = getattr(names, table)
    given = (0.3,) if table in ("PATHS", "PREDICTIONS", "WEIGHTS") else ()
    values = {
        name: repr(row(*given)).replace("<function ", "") for name, row in rows.items()
    }
    expected = EXPECTED[table].split()
    for (name, value), beginning in zip(values.items(), expected, strict=True):
        assert value.startswith(beginning), (name, value)
    assert len(set(values.values())) == len(values)


# ---------------------------------------------------------- what was stays as it was


# Defaults of before that are others now.
CHANGED = {"gan": {"loss": "nonsaturating", "learning_rate": 2e-4}}


@pytest.mark.parametrize("name", BEFORE)
def test_an_older_record_loads_and_is_the_same_run(name, tmp_path):
    old = BEFORE[name]
    (tmp_path / records.FILE).write_text(json.dumps(old))
    record = records.load(tmp_path)
    assert record.as_json()["options"].items() >= old["options"].items()
    spec = TEXT if name in OF_TEXT else DIGITS
    then = CHANGED.get(name, {})
    assert record.build().model == EXPERIMENTS[name](spec, **then).model
    # A new run with the defaults says the same of every keyword that was there.
    new = dataclasses.replace(record, options=vars(EXPERIMENTS[name].options(**then)))
    assert difference(record, new) is None


# ------------------------------------------------------------------------ optimisers

PARAMS = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}
GRADIENTS = {"kernel": jnp.linspace(-3, 3, 12).reshape(3, 4), "bias": jnp.ones(4)}


def updates(optimizer, num=3):
    state, every = optimizer.init(PARAMS), []
    for _ in range(num):
        update, state = optimizer.update(GRADIENTS, state, PARAMS)
        every.append(update)
    return every, state


@pytest.mark.parametrize("name", BEFORE)
def test_the_defaults_are_the_optimisers_of_before(name):
    spec = TEXT if name in OF_TEXT else DIGITS
    experiment = EXPERIMENTS[name](spec, **CHANGED.get(name, {}))
    rate = BEFORE[name]["options"]["learning_rate"]
    before = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.linear_schedule(0.0, rate, 100), b1=0.9, b2=0.999),
    )
    before = optax.adam(rate, b1=0.5) if name == "gan" else before
    for optimizer in experiment.optimizers.values():
        (ours, state), (theirs, there) = updates(optimizer), updates(before)
        assert jax.tree.structure(state) == jax.tree.structure(there)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_the_learning_rate_rises_then_stays_or_falls_to_zero(schedule):
    options = TrainingOptions(
        learning_rate=0.5, rate_schedule=schedule, warmup=10, steps=110
    )
    rate = options.experiment(None, "player").learning_rate
    end, middle = (0.5, 0.5) if schedule == "constant" else (0.0, 0.25)
    expected = {0: 0.0, 5: 0.25, 10: 0.5, 60: middle, 110: end}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7), step
    update, _ = updates(options.experiment(None, "p").optimizers["p"], 1)
    assert float(jnp.abs(update[0]["kernel"]).max()) == 0  # the rate of step 0


def test_a_falling_rate_makes_the_steps_part_of_the_run(tmp_path):
    options = vars(EXPERIMENTS["vae"].options(rate_schedule="cosine"))
    run = BEFORE["vae"]["run"]
    old = records.Record("vae", options, run, DIGITS)
    new = dataclasses.replace(old, options={**options, "steps": 3_000})
    assert difference(old, new) == "--steps 1500, not 3000"
    with pytest.raises(BadInput, match="--warmup 100.*take a shorter warm-up"):
        EXPERIMENTS["vae"](DIGITS, rate_schedule="cosine", steps=100)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_weights_decay_and_biases_do_not(name):
    def of(decay):
        options = TrainingOptions(
            optimizer=name, weight_decay=decay, warmup=0, learning_rate=0.1
        )
        return updates(options.transformation(options.rate()), 1)[0][0]

    decayed = jax.tree.map(lambda a, b: a - b, of(0.3), of(0.0))
    np.testing.assert_allclose(decayed["kernel"], -0.1 * 0.3 * PARAMS["kernel"], 1e-4)
    assert not decayed["bias"].any()
    with pytest.raises(BadInput, match="adam has none.*adamw"):
        EXPERIMENTS["vae"](DIGITS, weight_decay=0.1)


def test_the_half_life_of_the_average_is_in_examples():
    options = TrainingOptions(batch_size=50, ema_half_life=1_000.0)
    assert options.decay() ** (1_000 / 50) == pytest.approx(0.5)
    both = dataclasses.replace(options, ema_decay=0.9)
    with pytest.raises(BadInput, match="--ema-decay 0.9 and --ema-half-life 1000"):
        both.decay()


def test_a_clip_of_zero_does_not_clip():
    clipped, free = (TrainingOptions(clip=c, b1=0.0, b2=0.0) for c in (1.0, 0.0))
    states = [updates(o.transformation(1.0), 1)[1] for o in (clipped, free)]
    norms = [
        float(jnp.sqrt(sum(jnp.sum(x) for x in jax.tree.leaves(nu))))
        for nu in (states[0][1][0].nu, states[1][0].nu)
    ]
    assert norms == pytest.approx([1.0, float(optax.global_norm(GRADIENTS))])


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_an_optimisers_state_comes_back_from_a_checkpoint(name, tmp_path):
    options = TrainingOptions(optimizer=name, weight_decay=0.1, warmup=1)
    optimizers = options.experiment(None, "p").optimizers
    begun = init_train_state(jax.random.key(0), {"p": PARAMS}, {}, optimizers, ema=True)
    memory = updates(optimizers["p"])[1]
    state = begun.replace(opt_state={"p": memory}, step=jnp.int32(3))
    checkpoints = Checkpoints(tmp_path, 1)
    assert not checkpoints.save(state)
    back, _ = checkpoints.restore(begun)
    jax.tree.map(np.testing.assert_array_equal, back.opt_state, state.opt_state)
    assert jax.tree.structure(back.opt_state) == jax.tree.structure(state.opt_state)
