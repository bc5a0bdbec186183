#!/bin/sh
# Resolves every version anew into the locks: names, versions and hashes, no addresses.
# Needs uv on PATH (or UV=/path/to/uv). ARGS to uv, as --upgrade, may follow.
set -eu
cd "$(dirname "$0")/.."

lock() {
    out=$1
    shift
    "${UV:-uv}" pip compile --quiet --no-config --universal --python-version "$python" \
        --generate-hashes --no-header --no-annotate \
        --output-file "$out" "$@"
}

python=3.11
lock requirements.lock pyproject.toml "$@"
lock requirements-dev.lock pyproject.toml --all-extras --group dev --constraints requirements.lock "$@"
lock requirements-build.lock --group build --constraints requirements-dev.lock "$@"
lock requirements-node.lock --group node "$@"
lock requirements-servers.lock --no-deps --group servers "$@"
lock benchmarks/negmas/requirements.lock benchmarks/negmas/requirements.in "$@"
python=3.12
lock requirements-oracles.lock --group oracles --constraints requirements-dev.lock "$@"
