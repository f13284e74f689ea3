"""A batch script for Slurm: every machine sees this environment and the run directory on a shared file system."""

from __future__ import annotations

from .base import FRESH, GRACE, STOPPED, Job, after_training, guard, no_slice, stages

SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{cards}#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@{grace}
#SBATCH --output={output}
# The run directory is written by: sysml-run plan RECIPE --target slurm --write DIR
# Partition, account and time are yours: sbatch --partition=... --account=... --time=... THIS_FILE
# Every machine needs the run directory and the Python of its commands at the same place. A token for the hub
# (HF_TOKEN) comes from the environment that sbatch is called in; none is written here.
set -u

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

stopped=''
trap 'stopped=1; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

# NUMBER: run the lines that follow on so many of the job's machines. What was stopped goes back into the queue and
# goes on from its checkpoint, unless it was cancelled.
machines() {{
  local lines step code=0
  lines=$(cat)
  if [ -n "$stopped" ]; then
    code={stopped}
  else
    srun --relative=0 --nodes="$1" --ntasks="$1" --cpus-per-task="$SLURM_CPUS_ON_NODE" --kill-on-bad-exit=1 \\
      bash -c "$GUARD$lines" </dev/null &
    step=$!
    wait "$step" || true # a signal ends this wait
    while kill -0 "$step" 2>/dev/null; do sleep 1; done
    wait "$step" || code=$?
  fi
  [ "$code" -ne 0 ] || return 0
  if [ "$code" -eq {stopped} ]; then
    case $(scontrol show job --oneliner "$SLURM_JOB_ID") in
      *JobState=RUNNING*) scontrol requeue "$SLURM_JOB_ID" ;;
    esac
  fi
  exit "$code"
}}

IFS='' read -r -d '' GUARD <<'END' || true
{guard}END

machines 1 <<'END'
{prepare}END

machines {nodes} <<'END'
{train}END

machines 1 <<'END'
{rest}END
"""
RANK = "export MACHINE_RANK=$SLURM_NODEID\n"


def render(job: Job) -> str:
    """The script; Slurm's output lies beside it. Raises UsageError for a TPU."""
    if job.slice is not None:
        raise no_slice(job, "Slurm")
    return SCRIPT.format(
        name=job.label,
        nodes=job.nodes,
        cards=f"#SBATCH --gpus-per-node={job.devices}\n" if job.devices else "",
        grace=GRACE,
        output=f"{job.run.replace('%', '%%')}/launch/slurm-%j.out".replace(" ", "\\ "),
        stopped=STOPPED,
        guard=guard(job),
        prepare=FRESH + stages(job, "prepare"),
        train=(RANK if job.nodes > 1 else "") + stages(job, "train"),
        rest=stages(job, *after_training(job)),
    )
