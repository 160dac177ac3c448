#!/usr/bin/env bash
# A grid as an array of jobs, each an `accelerate launch` of its own: job I of N takes every N-th cell. Jobs share the
# output folder and nothing else, so they can run at once, on one machine or many; the table is made when all are done.
#   configs/grids/array.sh configs/grids/ablation.yaml I/N [option of accelerate launch ...]
#   sbatch --array=1-8 --wrap 'configs/grids/array.sh configs/grids/ablation.yaml $SLURM_ARRAY_TASK_ID/8 --num_processes 1'
#   nlptrain grid configs/grids/ablation.yaml --table
set -euo pipefail

grid="$1" part="$2"
shift 2
exec accelerate launch "$@" -m nlptrain grid "$grid" --shard "$part"
