"""Each public function of L0 and L1 has an example that prints what it says."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# Rooms whose functions are no equations between arrays: families, networks, the step.
OTHERS = {"models", "nets", "step", "types"}

# Public functions whose example is still to be written, room by room. No name may be
# added, and a function that has an example may not stay.
TO_COME = """
refuse_unknown
given_labels sample_labels
fold_in normal randint sample_keys sample_scan
add every map_batch scale weight_at with_state
check_symbols choose log_mass symbols_of
check_particles observed_mask resampled
squared_distances
image_log_density log_density with_divergence
classifier_guided from_paper_w guided map_denoised rescaled thresholded
data_variance inverse_solver pinv_residual posterior_guided projected
bound_terms continuous diffusion_loss level_log_probs lower_end prior_kl
reconstruction_loss sigma_min squared_error steps
matching_loss
alone along dopri5 integrate largest_rms probability_flow tsit5
derivatives is_discrete resolution_shift snr
ddim_mean posterior posterior_kl step_logvar transition
convert corrupt expand from_data loss_weight ode_velocity recover score usable_times
check_start invert solve solve_parallel trajectory
DDPM adams_bashforth_weights annealed_langevin fixed_large learned_range
antithetic check_grid histogram_quantile importance independent sample_times
starting_at stratified times_of uniform_grid
conditional_from generative_classifier rejection_threshold
paired_noise
"""


def modules():
    """{dotted name: file} of gengen's modules."""
    names = {}
    for file in sorted((ROOT / "gengen").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = file
    return names


EXAMPLES = [name for name, file in modules().items() if ">>> " in file.read_text()]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_print_what_they_say(module):
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    report = []
    with np.printoptions(precision=4, suppress=True):
        for example in finder.find(importlib.import_module(module), module):
            runner.run(example, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)


def has_example(function):
    """Whether its docstring has a line that a doctest runs."""
    return bool(doctest.DocTestParser().get_examples(inspect.getdoc(function) or ""))


def public_functions(module):
    """The functions that the module defines for others."""
    members = inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    own = (function for _, function in members if function.__module__ == module)
    return [function for function in own if not function.__name__.startswith("_")]


def test_every_public_function_of_l0_and_l1_has_an_example():
    rooms = {name: (*name.split("."), "")[1] for name in modules()}
    equations = [name for name, room in rooms.items() if room not in OTHERS]
    functions = [f for module in equations for f in public_functions(module)]
    assert len(functions) > 100  # the reader is not blind
    without = {f.__name__: f.__module__ for f in functions if not has_example(f)}
    listed = set(TO_COME.split())
    missing = {name: module for name, module in without.items() if name not in listed}
    assert not missing, f"write an example for each of {missing}"
    done = listed - set(without)
    assert not done, f"take out of TO_COME what has an example or is gone: {done}"
