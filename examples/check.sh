#!/usr/bin/env bash
# Every example, as an outsider would use it: bash examples/check.sh dist/optima_bridge-0.1.0-py3-none-any.whl /usr/bin/python3
# The wheel and a driver package go into an empty environment, outside this folder; the program lists the driver, and its tests run.
set -euo pipefail
wheel=$(realpath "$1") python=$(command -v "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || echo "$PWD/.tools/bin/uv")
export UV_PYTHON_DOWNLOADS=never
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$uv" venv --quiet --python "$python" "$work/venv"
install=("$uv" pip install --quiet --python "$work/venv/bin/python" --only-binary :all:)
"${install[@]}" --require-hashes -r requirements.lock
"${install[@]}" --no-deps "$wheel"
"${install[@]}" -c requirements-dev.lock pytest hatchling editables
PATH="$work/venv/bin:$PATH"

cp -r examples/optima-driver-* "$work"
(cd "$work" && bridge drivers new door-seal)   # what the command makes is held to the same
for package in "$work"/optima-driver-*; do
  name=${package##*/optima-driver-}
  "$uv" pip install --quiet --python "$work/venv/bin/python" --no-deps --no-build-isolation "$package"
  bridge drivers list | grep "^$name "
  (cd "$package" && pytest -q -p no:cacheprovider)
done
