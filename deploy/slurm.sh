#!/usr/bin/env bash
# A Ray cluster inside a Slurm allocation, and `sightline repro` on it. In the project's folder, which all nodes see:
#   sbatch --nodes=4 --gpus-per-node=4 --cpus-per-task=32 deploy/slurm.sh [ARGUMENTS OF dvc repro]
# Slurm sends SIGTERM two minutes before the time is over: a state is written, and the same command goes on from it.
#SBATCH --job-name=sightline
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
umask 077
. .venv/bin/activate

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 12000))
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/state/ray-token-$SLURM_JOB_ID"
export SLURM_JOB_NAME=bash # or Lightning takes each worker for a task of Slurm's own
mkdir -p state
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

common=(--block --disable-usage-stats --num-cpus="${SLURM_CPUS_PER_TASK:-1}")
srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    ray start --head --port="$port" --dashboard-port="$((port + 1))" "${common[@]}" &
export RAY_ADDRESS="${nodes[0]}:$port"
until python -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)' "${nodes[0]}" "$port" 2> /dev/null; do
    kill -0 $! || exit 1 # the head did not start
    sleep 1
done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" ray start --address="$RAY_ADDRESS" "${common[@]}" &
done

sightline repro "$@" &
work=$!
trap 'kill -TERM "$work"' TERM
code=0
wait "$work" || code=$?
if kill -0 "$work" 2> /dev/null; then # the trap ended the wait, not the work
    wait "$work" || code=$?
fi
kill $(jobs -p) 2> /dev/null || true
exit "$code"
