#!/usr/bin/env bash
# Lint, types and tests; the words given go to pytest, e.g. scripts/test.sh -m "slow or not slow" -k resume
# Reads real data from NLPTRAIN_DATA, or from ../shared/data where that exists; tests that need it skip otherwise.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/scripts/setup.sh"
cd "$root"
if [[ -z "${NLPTRAIN_DATA+set}" && -d ../shared/data ]]; then
    NLPTRAIN_DATA="$(cd ../shared/data && pwd -P)"
    export NLPTRAIN_DATA
fi

python=".venv/bin/python"
status=0
"$python" -m ruff check . || status=1
"$python" -m ruff format --check . || status=1
"$python" -m mypy || status=1
if ((status)); then
    echo "test: ruff or mypy found something above; the tests run all the same" >&2
fi
"$python" -m pytest "$@" || status=$?
exit "$status"
