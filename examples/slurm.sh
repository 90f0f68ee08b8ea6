#!/bin/bash
# A job of SLURM on two nodes: sbatch examples/slurm.sh, where .venv and examples are.
#
# Two minutes before its time is over every process gets SIGUSR1: the run is saved, queued again, and
# goes on in the midst of its epoch. What it prints is in softmax-regression-JOB.log.

#SBATCH --job-name=softmax-regression
#SBATCH --nodes=2
# A process a device: as many as a node has GPUs, with --gpus-per-node of the same number.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
# A job that was queued again writes where it wrote before.
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail
source .venv/bin/activate
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"
# Since 22.05 srun does not take the number of cores from the job. One process that fails ends all.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 python examples/several_processes.py
