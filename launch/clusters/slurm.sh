#!/usr/bin/env bash
# A run on Slurm: one Ray node per Slurm node, the driver on the first of them. From the repository's root, after
# `bash launch/setup.sh` on a machine of the kind that the job gets:
#
#   sbatch launch/clusters/slurm.sh launch/recipes/open-rs3.yaml [--dotted.field VALUE ...]
#
# The checkout with its .venv, the home folder and run.folder must be seen by all nodes. 20 minutes before the time limit the
# run is asked to stop: it saves, the job is queued again and goes on from there. After a preemption or a lost node, which
# Slurm queues again by itself, it goes on from its last checkpoint.
# docs/clusters.md says what has been tried of this. Change what your cluster wants otherwise:

#SBATCH --job-name=openrs
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@1200
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
(($# > 0)) || { echo "slurm.sh: the first argument must be a recipe, such as launch/recipes/open-rs3.yaml" >&2; exit 2; }
recipe=$1
shift

cd "${SLURM_SUBMIT_DIR:?slurm.sh is for sbatch}"
source .venv/bin/activate
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
(umask 077 && ray get-auth-token --generate >/dev/null)   # in ~/.ray/auth_token, which all nodes see

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts[0]}
address=$(getent ahostsv4 "$first" | awk 'NR == 1 { print $1 }')
port=$((20000 + SLURM_JOB_ID % 10000))   # above the ports of Ray's workers; jobs that share a node differ
# Ray lets all users write into its folder of sockets and logs, so that lies in one of this user's alone. Short: the path of a
# socket may have 107 characters.
private='install -d -m 700 "$0" && exec "$@"' folder=/tmp/openrs-$SLURM_JOB_ID
node=(--temp-dir="$folder/ray" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
    --object-store-memory=17179869184 --block)
on=(srun --overlap --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")

steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true' EXIT
"${on[@]}" --nodes=1 --ntasks=1 --nodelist="$first" \
    bash -c "$private" "$folder" ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=false "${node[@]}" &
steps+=($!)

for ((waited = 0; ; waited++)); do
    (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null && break
    kill -0 "${steps[0]}" 2>/dev/null || { echo "slurm.sh: Ray did not start on $first, see above" >&2; exit 1; }
    ((waited < 120)) || { echo "slurm.sh: Ray on $first does not answer at $address:$port after 120 s" >&2; exit 1; }
    sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    "${on[@]}" --nodes="$others" --ntasks="$others" --exclude="$first" \
        bash -c "$private" "$folder" ray start --address="$address:$port" "${node[@]}" &
    steps+=($!)
fi

# placement.wait_s: the other nodes join while the run looks for its GPUs.
RAY_ADDRESS="$address:$port" python -m launch.train "$recipe" --placement.wait_s 300 "$@" --resume --restart &
run=$!
asked=
stop() { asked=1 interrupted=1; kill -TERM "$run" 2>/dev/null || true; }   # it ends its step and saves
trap stop TERM
while true; do   # a signal ends `wait`, not the run
    interrupted='' code=0
    wait "$run" || code=$?
    [[ -n $interrupted ]] || break
done
if [[ -n $asked ]] && ((code == 143)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
