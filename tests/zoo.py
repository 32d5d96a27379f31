"""python -m tests.zoo: what the runs of `zoo/` cost, in CPU seconds of whole processes.

A picture of 64 samples by `train.sample`; `train.export`; and a process without gengen
that loads the exported file, draws 16 samples and draws them again.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ZOO = Path(__file__).parents[1] / "zoo"
TIMES = """
import time
began = time.process_time()
{}
loaded = time.process_time()
for i in range(2):
    before = time.process_time()
    {}
    x.block_until_ready()
    print(time.process_time() - before)
print(loaded - began)
"""


def cost(*words: str) -> tuple[float, str]:
    """(CPU seconds of a process, what it printed)."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    done = subprocess.run([sys.executable, *words], stdout=-1, text=True, check=True)
    return used() - before, done.stdout


def row_of(folder: Path, scratch: Path) -> dict:
    """The figures of one run that draws."""
    run, file = ("--workdir", str(folder)), scratch / "sampler.jaxexport"
    picture, _ = cost("-m", "train.sample", *run, "--out", str(scratch / "x.png"))
    export, said = cost("-m", "train.export", *run, "--out", str(file))
    *lines, last = said.splitlines()[1:]
    lines.append("program = export.deserialize(bytearray(program))")
    call = last.replace("export.deserialize(bytearray(program))", "program")
    _, times = cost("-c", TIMES.format("\n".join(lines), call))
    first, again, load = map(float, times.split())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    seconds = {"picture": picture, "export": export, "load": load}
    seconds |= {"16 samples, first": first, "again": again}
    sizes = {"MB": size / 1e6, "MB exported": file.stat().st_size / 1e6}
    return {k: round(x, 3) for k, x in {**sizes, **seconds}.items()}


def main() -> None:
    """A line of JSON per run that draws."""
    for folder in sorted(ZOO.iterdir()):
        if "train.sample" in (folder / "README.md").read_text():
            with tempfile.TemporaryDirectory() as scratch:
                row = row_of(folder, Path(scratch))
            print(json.dumps({"run": folder.name, **row}), flush=True)


if __name__ == "__main__":
    main()
