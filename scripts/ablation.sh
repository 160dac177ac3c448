#!/usr/bin/env bash
# Every technique against the plain recipe on four tasks with three seeds: difference, 95 % interval, ratio of time.
# Needs NLPTRAIN_DATA; finished runs are kept, so it can be stopped and started again. The words go to `nlptrain grid`.
#   scripts/ablation.sh --jobs 2
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/scripts/setup.sh"
cd "$root"
exec .venv/bin/python -m nlptrain grid configs/grids/ablation.yaml "$@"
