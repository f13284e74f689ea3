"""What a cluster's job is made of, and the shell lines that every kind of job has in common."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from sysml_run.backends.base import Launch
from sysml_run.errors import UsageError
from sysml_run.plan import command
from sysml_run.slices import Slice

STOPPED = 130  # the exit code of what was stopped and goes on when it is started again
GRACE = 330  # seconds between the request to stop and the end: longer than the launcher waits for a checkpoint
VOLUME = "/sysml-run"  # where a job that does not share this machine's disk keeps runs and caches
FILES = "/sysml-run-files"  # where such a job finds the files of the plan


@dataclass(frozen=True)
class Job:
    """One run on a cluster.

    `run` is the run directory as the job sees it and `folder` as this machine does; `devices` are GPUs of one machine,
    0 for none; `slice` is the TPU slice, whose hosts are the `nodes`; `files` are the run directory's by name; `inputs`
    are files and folders of this machine that the recipe reads; `secrets` are names of environment variables;
    `requirement` is what pip installs.
    """

    name: str
    run: str
    folder: str
    nodes: int
    devices: int
    card: str | None
    launches: tuple[Launch, ...]
    files: Mapping[str, str]
    inputs: tuple[str, ...]
    secrets: tuple[str, ...]
    requirement: str
    slice: Slice | None = None

    @property
    def label(self) -> str:
        """The name as clusters allow it: letters, digits and dashes, a letter first, and room for what they append."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower())
        return (plain if plain[0].isalpha() else f"run-{plain}")[:32].strip("-")


GUARD = """\
set -u
RUN={run}
group='' stopped=''

# Asked to stop: pass it on once, so that the stage writes a checkpoint, and leave word for the other machines.
stop() {{
  trap '' TERM
  stopped=1
  touch "$RUN/.stopped"
  [ -z "$group" ] || kill -TERM -- "-$group"
}}
trap stop TERM

# NAME COMMAND...: a stage that is not done yet, in a process group of its own.
stage() {{
  local name=$1 code=0
  shift
  [ -z "$stopped" ] || exit {stopped}
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
  [ ! -e "$RUN/.stopped" ] || exit {stopped}
  exit "$code"
}}
"""

BRING = f"""\
mkdir -p "$RUN"
if [ -e "$RUN/recipe.json" ] && ! cmp -s {FILES}/recipe.json "$RUN/recipe.json"; then
  echo "$RUN holds a run of another recipe; give this one a folder of another name" >&2
  exit 2
fi
cp -rL {FILES}/* "$RUN/"
"""

FRESH = 'rm -f "$RUN/.stopped"\n'  # the word that an earlier start of this job left


def guard(job: Job) -> str:
    """Shell functions for one machine: a stage that has been stopped ends with STOPPED, any other with its own code."""
    return GUARD.format(run=shlex.quote(job.run), stopped=STOPPED)


def stages(job: Job, *names: str) -> str:
    """Lines that run these stages, by the commands of the run directory's `launch`.

    On several machines the shell variables MACHINE_RANK, MASTER_ADDR and MASTER_PORT say where each stands.
    """
    chosen = [launch for launch in job.launches if launch.stage in names]
    return "".join(f"{_place(job, launch)}stage {launch.stage} {command(launch)}\n" for launch in chosen)


def _place(job: Job, launch: Launch) -> str:
    """Hosts of a slice meet without a launcher: training is told which of them it is on."""
    if job.slice is None or job.nodes == 1 or launch.stage != "train":
        return ""
    return f'RANK="$MACHINE_RANK" WORLD_SIZE={job.nodes} '


def no_slice(job: Job, what: str) -> UsageError:
    """For a slice that this kind of cluster does not have."""
    assert job.slice is not None
    message = f"hardware.topology {job.slice.name} is none that {what} has"
    return UsageError(message, "write --target gcloud, which reaches every slice")


def after_training(job: Job) -> tuple[str, ...]:
    """The stages that run on one machine once training is done; a teacher is run by training itself."""
    return tuple(launch.stage for launch in job.launches if launch.stage not in ("prepare", "teacher", "train"))


def as_yaml(*documents: Mapping[str, Any]) -> str:
    """Documents in the order of their keys, long texts as blocks."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """Block style for text of several lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
