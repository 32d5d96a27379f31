"""The points of a sweep as a table and as a plot."""

import math
from pathlib import Path

from ..files import write_atomically, written_atomically
from .tables import aligned

# Option -> the axis of the plot, if it is the first of these of which there are many.
EVALUATIONS = "network evaluations a sample"
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
    "solver": EVALUATIONS,
    "grid": EVALUATIONS,
}
PANELS = {
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "class_accuracy": "share of the class asked for",
}


def words(point: dict) -> str:
    """ "heun, guidance scale 2": a point's options."""
    named = {k: k.replace("_", " ") + " " for k in point} | {"solver": ""}
    return ", ".join(f"{named[k]}{number(v)}" for k, v in point.items())


def number(value) -> str:
    """An option's value, as short as it can be."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def figures(point: dict) -> dict[str, float]:
    """{panel: value} of a point, or of the noise floor."""
    quality = point["sample_quality"]
    values = {name: quality[name]["value"] for name in PANELS if name in quality}
    if (share := point.get("class_accuracy")) is not None:
        values["class_accuracy"] = share
    return values


def in_words(point: dict) -> str:
    """ "Fréchet distance 1.234, precision 0.912, …": a point's figures."""
    return ", ".join(f"{PANELS[k]} {v:.3f}" for k, v in figures(point).items())


def show(result: dict, values: dict[str, tuple], out: Path) -> None:
    """Write and print the table, draw the plot."""
    text = markdown(result)
    write_atomically(out.with_suffix(".md"), text)
    plot(result, values, out.with_suffix(".png"))
    print(f"\n{text}")
    for suffix in (".json", ".md", ".png"):
        print(out.with_suffix(suffix))


def markdown(result: dict) -> str:
    """A row a point; under it what the figures depend on."""
    asked = list(result["points"][0]["options"])
    panels = list(figures(result["points"][0]))
    lines = [[*(name.replace("_", " ") for name in asked), "evaluations"]]
    lines[0] += [*(PANELS[name] for name in panels), "ms/sample"]
    for point in result["points"]:
        options = [*map(number, point["options"].values())]
        milliseconds = f"{1e3 * point['seconds_per_sample']:.3g}"
        lines.append([*options, str(point["network_evaluations"] or "adaptive")])
        lines[-1] += [f"{value:.3f}" for value in figures(point).values()]
        lines[-1] += [milliseconds]
    floor = figures({"sample_quality": result["noise_floor"]})
    row = ["*noise floor*", *[""] * len(asked)]
    row += [f"{floor[name]:.3f}" if name in floor else "" for name in panels]
    lines.append([*row, ""])
    return "\n".join([*aligned(lines, 1), "", *notes(result)]) + "\n"


def notes(result: dict) -> list[str]:
    """What the figures depend on, a sentence each."""
    sizes = [
        quality["frechet_distance"]
        for quality in (result["points"][0]["sample_quality"], result["noise_floor"])
    ]
    (fake, real), (half, other) = ((x["n_fake"], x["n_real"]) for x in sizes)
    return [
        f"{result['experiment']} on {result['dataset']}, step {result['step']}: "
        f"{fake:,} samples of seed {result['seed']} a point, against {real:,} training "
        f"images in the features of: {result['extractor']}.",
        f"*noise floor*: {half:,} of the training images against {other:,} others.",
    ]


def plot(result: dict, values: dict[str, tuple], path: Path) -> None:
    """A panel a figure, a line for each combination of what is not the axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axis, lines = lines_of(result, values)
    panels = list(figures(result["points"][0]))
    floor = figures({"sample_quality": result["noise_floor"]})
    size = (3.6 * len(panels), 3.8)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained")
    for ax, panel in zip(axes, panels, strict=True):
        for i, (name, line) in enumerate(lines.items()):
            at = sorted((abscissa(each, axis), figures(each)[panel]) for each in line)
            width = 1.2 + 3 * (1 - (i + 1) / len(lines))  # one below another is seen
            style = {"linewidth": width, "marker": "o", "markersize": width + 3}
            ax.plot(*zip(*at, strict=True), **style, label=name)
        if panel in floor:
            style = {"color": "0.5", "linestyle": "--", "linewidth": 1}
            ax.axhline(floor[panel], **style, label="training, half against half")
        ax.set(xlabel=AXES[axis], ylabel=PANELS[panel])
        ax.grid(alpha=0.3)
        if AXES[axis] == EVALUATIONS:
            ax.set_xscale("log")
            plain(ax.xaxis)
        if panel == "frechet_distance":
            ax.set_yscale("log")
            plain(ax.yaxis)
        else:
            low, high = ax.get_ylim()
            ax.set_ylim(max(low - 0.04, -0.01), min(high + 0.04, 1.01))
    named = axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=5, frameon=False)
    title = f"{result['experiment']} on {result['dataset']}, step {result['step']}"
    figure.suptitle(f"{title}: {result['num']:,} samples a point", fontsize=11)
    with written_atomically(path) as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def plain(axis) -> None:
    """1, 2, 5, 10, … on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def lines_of(result: dict, values: dict[str, tuple]) -> tuple[str, dict[str, list]]:
    """(the option along the axis, {name of a line: its points})."""
    many = [name for name in AXES if len(values.get(name, ())) > 1]
    axis, lines = (many or list(values))[0], {}
    apart = {name for name in many if name != axis or name == "solver"}
    for point in result["points"]:
        of = {k: v for k, v in point["options"].items() if k in apart}
        lines.setdefault(words(of) or result["experiment"], []).append(point)
    return axis, lines


def abscissa(point: dict, axis: str) -> float:
    """Where a point stands on an axis."""
    if AXES[axis] == EVALUATIONS:
        return point["network_evaluations"] or math.nan  # adaptive: not drawn
    return point["options"][axis]
