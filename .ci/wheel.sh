#!/usr/bin/env bash
# A wheel of the tree, installed into an empty environment, is used outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
git archive HEAD | tar x -C "$(mkdir "$where/tree" && echo "$where/tree")"
"$python" -m venv "$where/venv"
bin=$where/venv/bin
"$bin/python" -m pip --disable-pip-version-check install --quiet build
"$bin/python" -m build --wheel --outdir "$where" "$where/tree" >"$where/build.log" ||
  { cat "$where/build.log"; exit 1; }
"$bin/python" -m pip --disable-pip-version-check install --quiet -c requirements.lock "$where"/gengen-*.whl
mkdir "$where/elsewhere"
cd "$where/elsewhere"
"$bin/gengen" flow --workdir runs/flow --steps 4 --channels 8 --multipliers 1 --sampling-steps 2
"$bin/python" -m gengen_train.sample --workdir runs/flow --num 4 --out x.npz
"$bin/python" - <<'PY'
import numpy as np

from gengen_train import fit, open_run

run = open_run("runs/flow")
assert run.step == 4
assert (np.load("x.npz")["image"] == run.sample(4)).all()
again = fit(run.model, run.data(), levels=17, workdir="runs/fit", steps=2)
print(again)
PY
echo "the wheel is whole"
