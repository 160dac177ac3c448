#!/usr/bin/env bash
# Makes .venv beside this folder from requirements.lock, and the package itself in editable form.
# Needs Python 3.11 or newer (PYTHON names one that is not on PATH) and a package index, once.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
stamp="$venv/nlptrain-setup"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 2; }

# What .venv was made from; the folder belongs to it because an environment cannot be moved.
recipe() { printf '%s\n' "$root"; cat "$root/requirements.lock" "$root/pyproject.toml"; }

# Runs each candidate, since a version manager may put a name on PATH that has no interpreter behind it.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv was found on PATH; install one, or name it: PYTHON=/path/to/python3 $0"
}

# Takes the words of pip install. Python keeps what it compiles on import, so that compiling all here would be a minute lost.
install() {
    "$venv/bin/python" -m pip install -qq --no-compile --disable-pip-version-check --retries 1 "$@" ||
        fail "pip could not install the packages (its reason stands above);" \
            "check that a package index can be reached, then run this again"
}

if [[ -f "$stamp" && "$(cat "$stamp")" == "$(recipe)" ]]; then
    exit 0
fi
if ! "$venv/bin/pip" --version 2>/dev/null | grep -qF " from $venv/"; then
    python="$(find_python)"
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "could not make $venv; see the reason above"
fi
say "installing $(grep -c '^[^#].*==' "$root/requirements.lock") packages from requirements.lock (minutes, once)"
install -r "$root/requirements.lock"
say "installing nlptrain"
install --no-deps --no-build-isolation -e "$root"
# ... unless it is told to keep nothing: then every start of a command would compile for half a minute
if [[ -n "${PYTHONDONTWRITEBYTECODE:-}" ]]; then
    say "compiling, since PYTHONDONTWRITEBYTECODE is set (a minute, once)"
    # a few files of the libraries are for other Pythons and cannot be compiled
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" "$root/nlptrain" > /dev/null 2>&1 || true
fi
recipe > "$stamp"
say "done"
