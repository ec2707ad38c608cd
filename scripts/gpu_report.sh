#!/bin/sh
# Measures a machine with a GPU in at most nine minutes: tests/gpu, speed of sampling and training, a short training.
#   scripts/gpu_report.sh [--dry] [--data cifar10/train.parquet] [--out gpu-report]
# Run it in an environment with heptapod[dev] installed. --dry tries the script itself on a CPU.
exec "${PYTHON:-python}" "$(dirname "$0")/../benchmarks/gpu_report.py" "$@"
