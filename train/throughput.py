"""python -m train.throughput --dataset NAME: how fast the input pipeline is.

A training run's `steps_per_second` times its batch size is what it takes; where that
comes near to what is printed here, reading limits the run (its metrics say so, too:
`input_share`).
"""

import contextlib
import time

from .cli.bounds import Count, Positive, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import ReadOptions, SourceOptions


@group()
class Throughput(SourceOptions, ReadOptions):
    """Images/s that training would be fed with; nothing is trained or written."""

    batch_size: Count = 128
    """Images in a batch."""
    seconds: Positive = 5.0
    """How long to read."""


def images_per_second(feed, seconds: float) -> tuple[float, float]:
    """What `feed` gives once it runs, over `seconds` and one batch at least.

    By the clock, and by the processor's time in this process: on a busy machine the
    second says what an idle core would give.
    """
    for step in range(10):
        feed.items(step, 1)
    began, began_here = time.perf_counter(), time.process_time()
    while True:
        step += 1
        feed.items(step, 1)
        taken = time.perf_counter() - began
        if taken >= seconds:
            images = (step - 9) * feed.batch_size
            return images / taken, images / (time.process_time() - began_here)


def throughput(options: Throughput) -> None:
    """Measure and print."""
    from .data.feed import Feed
    from .data.load import load

    check_numbers(options)
    names = ("data_dir", "image_size", "levels")
    dataset = load(options.dataset, **{name: getattr(options, name) for name in names})
    print(f"data: {dataset.note}")
    arguments = (dataset, options.batch_size, 0)
    with contextlib.closing(Feed(*arguments, 0, options.workers)) as feed:
        rate, of_cpu = images_per_second(feed, options.seconds)
    by, beside = "a thread", f" ({of_cpu:,.0f} a second of CPU)"
    if options.workers:
        by, beside = f"{options.workers} process{'es' * (options.workers > 1)}", ""
    print(
        f"read ahead by {by}: {rate:,.0f} images/s in batches of {feed.batch_size}"
        f"{beside}"
    )
    began = time.perf_counter()
    feed = Feed(*arguments, options.resident_bytes)
    if not feed.resident:
        print(f"{dataset.bytes / 2**20:,.0f} MiB: training reads it so")
        return
    taken = time.perf_counter() - began
    micro = 1e6 * feed.batch_size / images_per_second(feed, 0.1)[1]
    print(
        f"{dataset.bytes / 2**20:,.1f} MiB: training reads all of it once, in "
        f"{taken:.2f} s, and keeps it on the device; a batch then takes {micro:.0f} µs "
        "of this process, for its indices"
    )


def main() -> None:
    """The command line."""
    run_command(lambda: throughput(parse(Throughput, "throughput")))


if __name__ == "__main__":
    main()
