#!/usr/bin/env bash
# Lint, types and tests; the words given go to pytest, e.g. scripts/test.sh -m "slow or not slow" -k resume
# Tests that need real data read it below NLPTRAIN_DATA, and skip where that is not set.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/scripts/setup.sh"
cd "$root"

python=".venv/bin/python"
status=0
"$python" -m ruff check . || status=1
"$python" -m ruff format --check . || status=1
"$python" -m mypy || status=1
if ((status)); then
    echo "test: ruff or mypy found something above; the tests run all the same" >&2
fi
# one worker per core; a worker that is done takes tests from another
"$python" -m pytest -n auto --dist worksteal "$@" || status=$?
exit "$status"
