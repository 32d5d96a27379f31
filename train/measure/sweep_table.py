"""The points of a sweep as a table and as a plot."""

import math
from pathlib import Path

from ..files import write_atomically, written_atomically
from ..progress import print_table
from .tables import markdown

# Option -> the axis of the plot, if it is the first of these of which there are many.
EVALUATIONS = "network evaluations per sample"
AXES = {
    "evaluations": EVALUATIONS,
    "steps": EVALUATIONS,
    "guidance_scale": "guidance scale",
    "classifier_scale": "classifier scale",
    "rescale": "rescale of guidance",
    "threshold": "quantile of thresholding",
    "interval": EVALUATIONS,
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "truncation": "truncation",
    "solver": EVALUATIONS,
    "grid": EVALUATIONS,
}
PANELS = {
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "class_accuracy": "share of the class asked for",
    "bits_per_dim": "held-out bits/dim",
    "bits_per_byte": "held-out bits/byte",
    "rate": "rate, bits/dim",
    "distortion": "distortion, bits/dim",
    "mig": "mutual information gap",
    "sap": "SAP",
    "accuracy": "held-out accuracy",
    "modes_found": "modes found",
    "modes_good_samples": "samples within a mode",
    "modes_reverse_kl": "KL of modes",
}


def words(point: dict) -> str:
    """ "heun, guidance scale 2": a point's options."""
    named = {k: k.replace("_", " ") + " " for k in point} | {"solver": ""}
    return ", ".join(f"{named[k]}{number(v)}" for k, v in point.items())


def number(value) -> str:
    """An option's value, as short as it can be."""
    if isinstance(value, list | tuple):
        return "-".join(map(number, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def metrics(point: dict) -> dict[str, float]:
    """{panel: value} of a point or of the noise floor, where it is known and finite."""
    quality = point.get("sample_quality") or {}
    values = {n: quality[n]["value"] if n in quality else point.get(n) for n in PANELS}
    return {name: value for name, value in values.items() if value is not None}


def panels_of(result: dict) -> list[str]:
    """The panels that some point has."""
    seen = {name for point in result["points"] for name in metrics(point)}
    return [name for name in PANELS if name in seen]


def floor_of(result: dict) -> dict[str, float]:
    """The metrics of the noise floor, if there is one."""
    return metrics({"sample_quality": result.get("noise_floor")})


def metrics_in_words(point: dict) -> str:
    """ "Fréchet distance 1.234, precision 0.912, …": a point's metrics."""
    return ", ".join(f"{PANELS[k]} {cell(v)}" for k, v in metrics(point).items())


def show(result: dict, values: dict[str, tuple], out: Path) -> None:
    """Write and print the table, draw the plot."""
    lines, sentences = sweep_lines(result), notes(result)
    text = "\n".join([markdown(lines, 1), *sentences]) + "\n"
    write_atomically(out.with_suffix(".md"), text)
    plot(result, values, out.with_suffix(".png"))
    print()
    print_table(lines)
    print(*sentences, sep="\n")
    for suffix in (".json", ".md", ".png"):
        print(out.with_suffix(suffix))


def sweep_lines(result: dict) -> list[list[str]]:
    """A row per point, and one for the noise floor."""
    first, panels = result["points"][0], panels_of(result)
    names, columns = list(first["options"]), {}
    if "network_evaluations" in first:
        columns["evaluations"] = lambda p: str(p["network_evaluations"] or "adaptive")
    for panel in panels:
        columns[PANELS[panel]] = lambda p, name=panel: cell(metrics(p).get(name))
    if "seconds_per_sample" in first:
        columns["ms/sample"] = lambda p: f"{1e3 * p['seconds_per_sample']:.3g}"
    if "training_seconds" in first:
        columns["steps"] = lambda p: f"{p['step']:,}"
        columns["training s"] = lambda p: cell(p["training_seconds"])
    lines = [[*(name.replace("_", " ") for name in names), *columns]]
    for point in result["points"]:
        settings = (number(point["options"][name]) for name in names)
        lines.append([*settings, *(column(point) for column in columns.values())])
    if floor := floor_of(result):
        titles = {PANELS[name]: cell(value) for name, value in floor.items()}
        empty = [""] * (len(names) - 1)
        row = ["*noise floor*", *empty, *(titles.get(name, "") for name in columns)]
        lines.append(row)
    return lines


def cell(value: float | None) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def notes(result: dict) -> list[str]:
    """What the metrics depend on, a sentence each."""
    first = result["points"][0]
    of_run = f", step {result['step']}" if "step" in result else ""
    sentences = [f"{result['experiment']} on {result['dataset']}{of_run}."]
    for name, what in (("sample_quality", ""), ("noise_floor", "*noise floor*: ")):
        quality = (first if name in first else result).get(name) or {}
        if "frechet_distance" not in quality:
            continue
        sizes = quality["frechet_distance"]
        fake, real = f"{sizes['n_fake']:,}", f"{sizes['n_real']:,}"
        sentences.append(
            f"{what}{fake} of the training images against {real} others."
            if what
            else f"{fake} samples of seed {result['seed']} per point, against {real} "
            f"training images in the features of: {result['extractor']}."
        )
    if "split" in first:
        sentences.append(f"What is held out is the {first['split']} split.")
    sentences += [
        f"{name} failed: {why}" for name, why in result.get("failed", {}).items()
    ]
    return sentences + result.get("used", [])


def plot(result: dict, values: dict[str, tuple], path: Path) -> None:
    """A panel per metric, a line for each combination of what is not the axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axis, lines = lines_of(result, values)
    panels, floor = panels_of(result), floor_of(result)
    plane = {"rate", "distortion"} <= set(panels)
    num = len(panels) + plane
    size = (max(3.6 * num, 5), 3.8)
    figure, axes = plt.subplots(
        1, num, figsize=size, layout="constrained", squeeze=False
    )
    if plane:
        draw_plane(axes[0][-1], lines, axis)
    for ax, panel in zip(axes[0], panels, strict=False):
        for i, (name, line) in enumerate(lines.items()):
            at = along(line, axis, panel)
            width = 1.2 + 3 * (1 - (i + 1) / len(lines))  # one below another is seen
            style = {"linewidth": width, "marker": "o", "markersize": width + 3}
            ax.plot(*at, **style, label=name)
        if panel in floor:
            style = {"color": "0.5", "linestyle": "--", "linewidth": 1}
            ax.axhline(floor[panel], **style, label="training, half against half")
        ax.set(xlabel=label_of(axis), ylabel=PANELS[panel])
        ax.grid(alpha=0.3)
        if label_of(axis) == EVALUATIONS or is_wide(values.get(axis, ())):
            ax.set_xscale("log")
            plain(ax.xaxis)
        if panel == "frechet_distance":
            ax.set_yscale("log")
            plain(ax.yaxis)
        elif "bits" not in PANELS[panel]:
            low, high = ax.get_ylim()
            ax.set_ylim(max(low - 0.04, -0.01), min(high + 0.04, 1.01))
    named = axes[0][0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=5, frameon=False)
    title = f"{result['experiment']} on {result['dataset']}"
    title += f", step {result['step']}" if "step" in result else ""
    figure.suptitle(f"{title}: {result['num']:,} samples per point", fontsize=11)
    with written_atomically(path) as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def draw_plane(ax, lines: dict[str, list], axis: str) -> None:
    """Distortion over rate: a point per run, with its place along the axis beside it.

    On a diagonal the sum is the same: the bound, which a point can only move along.
    """
    for line in lines.values():
        terms = [metrics(p) for p in line]
        points = sorted((m["rate"], m["distortion"]) for m in terms if "rate" in m)
        ax.plot(*zip(*points, strict=True), marker="o")
        for point in line:
            where = point.get("rate"), point.get("distortion")
            if None not in where:
                ax.annotate(number(point["options"][axis]), where, fontsize=8)
    ax.set(xlabel=PANELS["rate"], ylabel=PANELS["distortion"])
    ax.grid(alpha=0.3)


def plain(axis) -> None:
    """1, 2, 5, 10, … on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def label_of(axis: str) -> str:
    """The words below an axis."""
    return AXES.get(axis, axis.replace("_", " "))


def is_wide(values: tuple) -> bool:
    """Whether the values are positive numbers over a decade or more."""
    if not all(type(value) in (int, float) and value > 0 for value in values):
        return False
    return bool(values) and max(values) >= 10 * min(values)


def lines_of(result: dict, values: dict[str, tuple]) -> tuple[str, dict[str, list]]:
    """(the option along the axis, {name of a line: its points})."""
    known = [*AXES, *(name for name in values if name not in AXES)]
    many = [name for name in known if len(values.get(name, ())) > 1]
    axis, lines = (many or list(values))[0], {}
    apart = {name for name in many if name != axis or name == "solver"}
    for point in result["points"]:
        of = {k: v for k, v in point["options"].items() if k in apart}
        lines.setdefault(words(of) or result["experiment"], []).append(point)
    return axis, lines


def along(line: list[dict], axis: str, panel: str) -> list[list]:
    """[abscissas, ordinates] of a line's points: numbers in order, words as listed."""
    pairs = [
        (abscissa(point, axis), metrics(point)[panel])
        for point in line
        if panel in metrics(point)
    ]
    if pairs and not isinstance(pairs[0][0], str):
        pairs.sort()
    return [list(column) for column in zip(*pairs, strict=True)] or [[], []]


def abscissa(point: dict, axis: str) -> float | str:
    """Where a point stands on an axis."""
    if AXES.get(axis) == EVALUATIONS:
        return point["network_evaluations"] or math.nan  # adaptive: not drawn
    value = point["options"][axis]
    return value if type(value) in (int, float) else number(value)
