#!/usr/bin/env bash
# one on a TPU slice v4-32, 4 host(s): TPU_NAME=... ZONE=... bash THIS_FILE
# Yours to make: the slice, and on every host the folder /sysml-run: a disk of its own where there is one host, and one
# that they share (Filestore; gcsfuse refuses to rename folders) where there are several. It is started again after a
# stop by the same command, and skips what is done.
# On every host, before it starts: /data/rows.jsonl
# On every host, where it is wanted: ~/.sysml-run-secrets, mode 600, a line for each of HF_TOKEN=...
set -euo pipefail
: "${TPU_NAME:?the name of the TPU VM}" "${ZONE:?its zone}"
tpu() { gcloud compute tpus tpu-vm "$1" --zone "$ZONE" --worker=all "${@:2}"; }

read -r -d '' BEFORE <<'END' || true
set -eu
sudo mkdir -p /sysml-run /sysml-run-files /opt/sysml-run
sudo chown "$USER" /sysml-run /sysml-run-files /opt/sysml-run
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
export PATH="$HOME/.local/bin:$PATH"
[ -x /opt/sysml-run/bin/python ] || uv venv --quiet --python 3.11 /opt/sysml-run
uv pip install --quiet --python /opt/sysml-run/bin/python 'sysml-run[tpu]==0.1.0'
rm -f /sysml-run/runs/one/1/.stopped /sysml-run/runs/one/1/.failed /sysml-run/runs/one/1/.prepared
END

read -r -d '' ALL <<'END' || true
set -u
RUN=/sysml-run/runs/one/1
group='' stopped=''

# Asked to stop: pass it on once, so that the stage writes a checkpoint, and leave word for the other machines.
stop() {
  trap '' TERM
  stopped=1
  touch "$RUN/.stopped"
  [ -z "$group" ] || kill -TERM -- "-$group"
}
trap stop TERM

# NAME COMMAND...: a stage that is not done yet, in a process group of its own.
stage() {
  local name=$1 code=0
  shift
  [ -z "$stopped" ] || exit 130
  [ ! -e "$RUN/records/$name.json" ] || return 0
  set -m
  "$@" &
  group=$!
  set +m
  wait "$group" || true # a signal ends this wait
  while kill -0 -- "-$group" 2>/dev/null; do sleep 1; done
  wait "$group" || code=$?
  group=''
  [ "$code" -ne 0 ] || return 0
  [ ! -e "$RUN/.stopped" ] || exit 130
  exit "$code"
}

export PATH=/opt/sysml-run/bin:$PATH XDG_CACHE_HOME=/sysml-run/cache HF_HOME=/sysml-run/cache/huggingface
about() { curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
MACHINE_RANK=$(about agent-worker-number)
MASTER_ADDR=$(about worker-network-endpoints | cut -d, -f1 | cut -d: -f3)
export MACHINE_RANK MASTER_ADDR MASTER_PORT=29500
[ "$MACHINE_RANK" -ne 0 ] || trap 'mkdir -p "$RUN"; touch "$RUN/.failed"' EXIT
cd /sysml-run || exit
secrets=$HOME/.sysml-run-secrets
if [ -e "$secrets" ]; then
  if [ "$(stat -c %a "$secrets")" != 600 ]; then
    echo "others may read $secrets: chmod 600 $secrets" >&2
    exit 2
  fi
  while read -r line || [ -n "$line" ]; do
    case ${line%%=*} in HF_TOKEN) export "${line%%=*}=${line#*=}" ;; esac
  done <"$secrets"
fi
if [ "$MACHINE_RANK" -eq 0 ]; then
  mkdir -p "$RUN"
  if [ -e "$RUN/recipe.json" ] && ! cmp -s /sysml-run-files/recipe.json "$RUN/recipe.json"; then
    echo "$RUN holds a run of another recipe; give this one a folder of another name" >&2
    exit 2
  fi
  cp -rL /sysml-run-files/* "$RUN/"
  stage prepare env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=0 python -m sysml_run.worker prepare /sysml-run/runs/one/1
  [ -n "$stopped" ] || touch "$RUN/.prepared"
  trap - EXIT
else
  waited=0
  until [ -e "$RUN/.prepared" ]; do
    if [ -n "$stopped" ] || [ -e "$RUN/.stopped" ]; then exit 130; fi
    if [ -e "$RUN/.failed" ] || [ $((waited += 5)) -gt 43200 ]; then
      echo "host 0 has not prepared the rows: see what it says" >&2
      exit 1
    fi
    sleep 5
  done
fi
RANK="$MACHINE_RANK" WORLD_SIZE=4 stage train env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=1 PJRT_DEVICE=TPU XLA_USE_BF16=0 XLA_DOWNCAST_BF16=0 TF_CPP_MIN_LOG_LEVEL=2 accelerate launch --config_file /sysml-run/runs/one/1/launch/accelerate.yaml -m sysml_run.worker train /sysml-run/runs/one/1
[ "$MACHINE_RANK" -eq 0 ] || exit 0
stage evaluate env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=0 python -m sysml_run.worker evaluate /sysml-run/runs/one/1
stage merge env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=0 python -m sysml_run.worker merge /sysml-run/runs/one/1
stage package env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=0 python -m sysml_run.worker package /sysml-run/runs/one/1
stage report env HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false USE_TORCH_XLA=0 python -m sysml_run.worker report /sysml-run/runs/one/1
END

tpu ssh "$TPU_NAME" --command "$BEFORE"
tpu scp --recurse /here/runs/1/* "$TPU_NAME:/sysml-run-files"
tpu ssh "$TPU_NAME" --command "bash -c $(printf %q "$ALL")"
