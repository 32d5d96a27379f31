"""Every family under one budget: what is compared, and the rows of the table."""

import inspect
import math
from pathlib import Path
from typing import Any

from gengen.errors import BadInput
from gengen.types import draws

from .. import experiments
from ..cli.bounds import check_numbers
from ..cli.near import did_you_mean
from ..cli.options import RunOptions
from ..data.dataset import READER, Spec
from ..data.load import load
from ..files import file_name, write_atomically, write_json
from ..progress import print_table
from ..run.record import FILE, reader_of
from .comparison_table import TAXONOMY, comparison_lines, comparison_notes, draw_samples
from .evaluation import training_seconds
from .extractors import extractor_if_any
from .options import Evaluate
from .series import Member, budget_used, measure_all
from .tables import markdown

DATA = ("data_dir", "image_size", "levels")


# Latent diffusion is an experiment like others, on the latents of a first stage.
MORE = {"latent_dit": ("dit", {"first_stage": "autoencoder_kl"})}


def families_of(known: dict) -> dict[str, tuple[str, dict[str, str]]]:
    """{family: (experiment, {option: the experiment of the run that it reads})}."""
    own = {name: (name, getattr(f, "reads", {})) for name, f in known.items()}
    return own | {name: of for name, of in MORE.items() if of[0] in known}


def select_families(options, spec: Spec) -> dict[str, tuple[str, dict[str, str]]]:
    """Those of `families_of` that are compared; BadInput for unknown names."""
    known, selected = experiments.EXPERIMENTS, {}
    families = families_of(known)
    for name in options.families or families:
        if name not in families:
            raise BadInput(
                f"--families {name}: no experiment is called so"
                f"{did_you_mean(name, families)}; choose from {', '.join(families)}"
            )
        experiment, reads = families[name]
        try:
            models = [known[x](spec).model for x in reads.values() if x in known]
            models = models or [known[experiment](spec).model]
        except BadInput:
            if name in options.families:
                raise
            continue  # nothing for these data, as a classifier without labels
        if all(x in known for x in reads.values()) and (reads or draws(models[0])):
            selected[name] = families[name]
        elif name in options.families:
            raise BadInput(f"--families {name}: it draws no samples; leave it out")
    return selected


def keywords_of(experiment: str, steps: int | None) -> dict[str, Any]:
    """All keywords of an experiment: its defaults, and the number of steps."""
    function = experiments.EXPERIMENTS[experiment]
    parameters = list(inspect.signature(function).parameters.values())[1:]
    keywords = {p.name: p.default for p in parameters}
    return keywords | ({} if steps is None else {"steps": steps})


def compare(options) -> None:
    """Train, evaluate; write comparison.json, comparison.md and comparison.png."""
    check_numbers(options)
    folder = options.workdir or Path("runs") / f"compare-{file_name(options.dataset)}"
    begun = [reader_of(path.parent) for path in folder.glob(f"*/{FILE}")]
    data = {name: getattr(options, name) for name in DATA}
    dataset = load(options.dataset, **data, reader=min(begun, default=READER))
    dataset.spec.images_only("train.compare")
    selected = select_families(options, dataset.spec)
    budget = f"{options.minutes:g} minutes"
    if options.steps is not None:
        budget = f"{options.steps} steps, or {budget}"
    print(f"data: {dataset.note}")
    print(
        f"cost: {len(selected)} families ({', '.join(selected)}), each trained for at "
        f"most {budget}, then {options.num:,} samples and likelihoods of each; into "
        f"{folder}"
    )
    members = [
        member_of(name, *family, folder, options) for name, family in selected.items()
    ]
    for member in members:
        member.check(dataset)
    first, data_dir = [*members[0].reads, members[0]][0], options.data_dir
    record = first.stage(dataset).record
    extractor = extractor_if_any(options.extractor, first.run.workdir, record, data_dir)
    results, failed = measure_all(members, extractor)
    named = {member.name: member for member in members}
    rows = [row_of(named[name], result) for name, result in results.items()]
    rows.sort(key=rank_of)
    result = {"dataset": options.dataset, "budget": budget, "rows": rows}
    result |= {"failed": failed, "used": budget_used(results, options.minutes)}
    path = folder / "comparison"
    lines, notes = comparison_lines(result), comparison_notes(result)
    write_json(path.with_suffix(".json"), result)
    text = f"{markdown(lines, 3)}\n{chr(10).join(notes)}\n"
    write_atomically(path.with_suffix(".md"), text)
    print()
    print_table(lines, left=3)
    print(*notes, sep="\n")
    trained = [folder / row["family"] for row in rows]
    draw_samples(trained, dataset, path.with_suffix(".png"))
    for suffix in (".md", ".json", ".png"):
        print(path.with_suffix(suffix))


def member_of(
    name: str, experiment: str, reads: dict[str, str], folder: Path, options
) -> Member:
    """How a family is trained and evaluated, and those whose runs it reads."""
    others = {
        option: member_of(other, other, {}, folder, options)
        for option, other in reads.items()
    }
    run = RunOptions(
        workdir=folder / name,
        dataset=options.dataset,
        seed=options.seed,
        minutes=options.minutes,
        **{option: str(other.run.workdir) for option, other in others.items()},
        **{name: getattr(options, name) for name in DATA},
    )
    evaluation = Evaluate(
        workdir=run.workdir,
        num=options.num,
        likelihood_num=options.likelihood_num,
        seed=options.seed,
        extractor=options.extractor,
        data_dir=options.data_dir,
    )
    keywords = keywords_of(experiment, options.steps)
    return Member(name, run, experiment, keywords, evaluation, tuple(others.values()))


def row_of(member: Member, result: dict[str, Any]) -> dict[str, Any]:
    """A family's row of the table, from its evaluation."""
    bits = result.get("bits_per_dim", {}).get("test")
    seconds = [training_seconds(other.run.workdir) for other in member.reads]
    return {
        "family": member.name,
        "reads": [other.name for other in member.reads],
        "samples": result["samples"],
        "density": result["density"],
        "test_bits_per_dim": bits and bits["value"],
        "kind": bits and bits["kind"],
        "quality": main_metrics(result.get("sample_quality")),
        "parameters": result["parameter_count"],
        "steps": result["step"],
        "training_seconds": total([result["training_seconds"], *seconds]),
        "milliseconds_per_sample": 1e3 * result["seconds_per_sample"],
        "network_evaluations": result["network_evaluations"],
        "class_accuracy": result.get("class_accuracy"),
        "extractor": result.get("extractor"),
        "device": result["device"],
        "test_images": main_metrics(result.get("test_images")),
        "noise_floor": main_metrics(result.get("noise_floor")),
    }


def total(seconds: list[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    return None if None in seconds else sum(seconds)


def main_metrics(quality: dict | None) -> dict | None:
    """The metrics of samples that the table has, and of how many they are.

    None without a Fréchet distance, which needs the fewest images.
    """
    if not quality or "frechet_distance" not in quality:
        return None
    names = ("frechet_distance", "precision", "recall")
    numbers = {n: quality["frechet_distance"][n] for n in ("n_fake", "n_real")}
    return {name: quality.get(name, {}).get("value") for name in names} | numbers


def rank_of(row: dict[str, Any]) -> tuple:
    """Where a row stands: by kind of density, then bits, then Fréchet distance."""
    bits, quality = row["test_bits_per_dim"], row["quality"]
    distance = quality and quality["frechet_distance"]
    return (
        list(TAXONOMY).index(row["density"]),
        math.inf if bits is None else bits,
        math.inf if distance is None else distance,
    )
