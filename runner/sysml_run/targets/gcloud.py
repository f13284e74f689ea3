"""A script that starts the same launch on every host of a TPU slice through `gcloud compute tpus tpu-vm`."""

from __future__ import annotations

import shlex

from sysml_run.errors import UsageError

from .base import BRING, FILES, STOPPED, VOLUME, Job, after_training, guard, stages

PYTHON = "/opt/sysml-run"  # the environment on each host: a TPU VM's own Python is older
SCRIPT = """\
#!/usr/bin/env bash
# {name} on a TPU slice {slice}, {hosts} host(s): TPU_NAME=... ZONE=... bash THIS_FILE
# Yours to make: the slice, and on every host the folder {volume}: a disk of its own where there is one host, and one
# that they share (Filestore; gcsfuse refuses to rename folders) where there are several. It is started again after a
# stop by the same command, and skips what is done.
{inputs}{secrets}set -euo pipefail
: "${{TPU_NAME:?the name of the TPU VM}}" "${{ZONE:?its zone}}"
tpu() {{ gcloud compute tpus tpu-vm "$1" --zone "$ZONE" --worker=all "${{@:2}}"; }}

read -r -d '' BEFORE <<'END' || true
set -eu
sudo mkdir -p {volume} {files} {python}
sudo chown "$USER" {volume} {files} {python}
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
export PATH="$HOME/.local/bin:$PATH"
[ -x {python}/bin/python ] || uv venv --quiet --python 3.11 {python}
uv pip install --quiet --python {python}/bin/python {requirement}
rm -f {marks}
END

read -r -d '' ALL <<'END' || true
{guard}
export PATH={python}/bin:$PATH XDG_CACHE_HOME={volume}/cache HF_HOME={volume}/cache/huggingface
{where}{trap}cd {volume} || exit
{read}{begin}{train}[ "$MACHINE_RANK" -eq 0 ] || exit 0
{rest}END

tpu ssh "$TPU_NAME" --command "$BEFORE"
tpu scp --recurse {folder}/* "$TPU_NAME:{files}"
tpu ssh "$TPU_NAME" --command "bash -c $(printf %q "$ALL")"
"""
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"
# The number of this host and the address of the first, as the VM's metadata has them.
WHERE = f"""\
about() {{ curl -sf -H 'Metadata-Flavor: Google' "{METADATA}/$1"; }}
MACHINE_RANK=$(about agent-worker-number)
MASTER_ADDR=$(about worker-network-endpoints | cut -d, -f1 | cut -d: -f3)
export MACHINE_RANK MASTER_ADDR MASTER_PORT=29500
"""
ALONE = "MACHINE_RANK=0\n"
MARKS = (".stopped", ".failed", ".prepared")  # in the run folder: words among the hosts; an earlier start's are removed
TRAP = """[ "$MACHINE_RANK" -ne 0 ] || trap 'mkdir -p "$RUN"; touch "$RUN/.failed"' EXIT\n"""
PREPARED = '  [ -n "$stopped" ] || touch "$RUN/.prepared"\n  trap - EXIT\n'
PATIENCE = 12 * 3600  # seconds that the other hosts wait for the rows
WAIT = f"""\
  waited=0
  until [ -e "$RUN/.prepared" ]; do
    if [ -n "$stopped" ] || [ -e "$RUN/.stopped" ]; then exit {STOPPED}; fi
    if [ -e "$RUN/.failed" ] || [ $((waited += 5)) -gt {PATIENCE} ]; then
      echo "host 0 has not prepared the rows: see what it says" >&2
      exit 1
    fi
    sleep 5
  done
"""
SECRETS = "~/.sysml-run-secrets"
READ = """\
secrets=$HOME/.sysml-run-secrets
if [ -e "$secrets" ]; then
  if [ "$(stat -c %a "$secrets")" != 600 ]; then
    echo "others may read $secrets: chmod 600 $secrets" >&2
    exit 2
  fi
  while read -r line || [ -n "$line" ]; do
    case ${{line%%=*}} in {names}) export "${{line%%=*}}=${{line#*=}}" ;; esac
  done <"$secrets"
fi
"""


def render(job: Job) -> str:
    """The script. Raises UsageError for hardware that is no TPU."""
    if job.slice is None:
        raise UsageError("gcloud starts TPU slices, and the recipe is for other hardware", "add --hardware tpu:v5e-8")
    several = job.nodes > 1
    inputs = "".join(f"# On every host, before it starts: {path}\n" for path in job.inputs)
    begin = BRING + stages(job, "prepare")
    if several:
        first = "".join(f"  {line}\n" for line in begin.splitlines())
        begin = f'if [ "$MACHINE_RANK" -eq 0 ]; then\n{first}{PREPARED}else\n{WAIT}fi\n'
    return SCRIPT.format(
        name=job.name,
        slice=job.slice.name,
        hosts=job.nodes,
        volume=VOLUME,
        files=FILES,
        python=PYTHON,
        inputs=inputs,
        secrets=_secrets(job),
        marks=" ".join(shlex.quote(f"{job.run}/{mark}") for mark in MARKS),
        trap=TRAP if several else "",
        read=READ.format(names=" | ".join(job.secrets)) if job.secrets else "",
        requirement=shlex.quote(job.requirement),
        guard=guard(job),
        where=WHERE if several else ALONE,
        begin=begin,
        train=stages(job, "train"),
        rest=stages(job, *after_training(job)),
        folder=shlex.quote(job.folder),
    )


def _secrets(job: Job) -> str:
    """What the header says of them: a value in the command would be read by everyone who lists processes."""
    names = "".join(f" {name}=..." for name in job.secrets)
    return f"# On every host, where it is wanted: {SECRETS}, mode 600, a line for each of{names}\n" if names else ""
