#!/bin/sh
# The paper's four sub-tasks at their true size on a machine without images and without a GPU, in one command: annotation
# files are made (or taken from --annotations DIR), splits drawn, and a run of preset full is started with two processes,
# evaluated on a part of val, stopped and continued. Images are drawn by code for the few that are asked for.
#
#   scripts/rehearse.sh                              all four; 7 GB of made files, 12 GB of splits below --work-dir
#   scripts/rehearse.sh coco-o365 --keep             one of them, and leave its files there
#   scripts/rehearse.sh --scale 0.01                 a quick try
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-${VENV:-.venv}/bin/python}" scripts/rehearse.py "$@"
