#!/bin/sh
# Parity of CPU and device, kernels and synchronisations of a step, and throughput, as JSON on the standard output.
#
#     sh benchmarks/gpu/run.sh                # one CUDA device, from a machine with torch
#     sh benchmarks/gpu/run.sh --device cpu   # proves the script without a GPU
set -e
cd "$(dirname "$0")/../.."
python -m pip install --quiet --disable-pip-version-check --editable .
exec python benchmarks/gpu/measure.py "$@"
