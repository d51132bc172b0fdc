#!/bin/bash
# Unlearn on shards on two nodes of eight GPUs. From the repository, after `make setup`:
#
#     sbatch docs/examples/slurm.sh <folder of shards>
#
# All nodes must see the repository, the shards and the output. A job that was killed resumes from its last checkpoint
# when it is submitted again. The settings are examples: no search chose them.
#SBATCH --job-name=cliperase
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
. .venv/bin/activate
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes="$SLURM_NNODES" --nproc-per-node=8 \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$first:29500" \
    -m cliperase unlearn --model ViT-B-32/openai --data "$1" --forget apple \
    --set steps=20000 learning_rate=1.0e-6 forget_batch=64 retain_batch=256 evaluate_every=1000 lanes=16 autocast=true \
    --output artifacts/forgotten
