#!/usr/bin/env bash
# Uses the wheel of a folder as a stranger would: installed with its dependencies alone, in another directory,
# with an empty home and no compiler on the path. The sdist beside it has to hold the last commit, no more.
# Usage: tests/try_wheel.sh FOLDER PYTHON. Refuses a wheel of 3 MB or more.
set -euo pipefail

python=$2
checkout=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(realpath "$1"/cnnctl-*.whl)
sdist=$(realpath "$1"/cnnctl-*.tar.gz)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

echo "sdist: what the last commit holds, and PKG-INFO"
tar -tzf "$sdist" | sed -e 's,^[^/]*/,,' -e '/\/$/d' -e '/^$/d' | sort >"$place/packed"
{ git -C "$checkout" ls-tree -r --name-only HEAD && echo PKG-INFO; } | sort | diff - "$place/packed"

bytes=$(stat --format=%s "$wheel" 2>/dev/null || stat -f %z "$wheel")
echo "wheel: $bytes bytes"
[ "$bytes" -lt 3000000 ] || { echo "$wheel: $bytes bytes are 3 MB or more" >&2; exit 1; }

"$python" -m venv "$place/env"
"$place/env/bin/python" -m pip --disable-pip-version-check install --quiet \
    --only-binary=:all: -c "$checkout/requirements-dev.lock" "$wheel"
mkdir "$place/home" "$place/work"
cd "$place/work"
bare() { env -i HOME="$place/home" PATH="$place/env/bin" "$@"; }

cat >small.yaml <<'YAML'
name: small
data: {dataset: shapes, validation: 100}
network:
  layers: [{conv: {filters: 8, kernel: 3}}, relu, {maxpool: 2}, {linear: 10}]
solver: {optimizer: {adam: {lr: 1e-3}}, epochs: 1, batch_size: 50, max_steps: 20}
YAML

bare python -c 'import cnnctl; print(cnnctl.__version__, cnnctl.__file__)' | grep -F "$place/env/"
bare cnnctl info --json | bare python -c 'import json, sys; assert json.load(sys.stdin)["kernels"]["built"]'
bare cnnctl train small.yaml
bare cnnctl runs show latest
bare cnnctl config init my.yaml --json
bare cnnctl selftest
