#!/usr/bin/env bash
# run.sh [FLAG...]: plays the story of this package, in a sandbox of its own
# unless KIND_IMAGE names a node image: then the cluster is made with the
# machine's own docker. Flags go to the test, such as -test.run. Everything that
# the test leaves on disk is in one folder, which is removed unless KEEP is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
export GOTOOLCHAIN=local GOFLAGS='-trimpath -buildvcs=false'
export RUNNERWARD_KIND_BIN=${RUNNERWARD_KUBE:-$root/bin/kube}
[ -e "$RUNNERWARD_KIND_BIN/images/runner.tar" ] && [ -e "$RUNNERWARD_KIND_BIN/kind" ] ||
  { echo "run.sh: $RUNNERWARD_KIND_BIN is not complete: run test/kube/build.sh kind, or make test-kind" >&2; exit 1; }
RUNNERWARD_KIND=$(mktemp -d "${TMPDIR:-/tmp}/runnerward-kind.XXXXXX")
export RUNNERWARD_KIND
trap '[ -n "${KEEP:-}" ] && echo "kept: $RUNNERWARD_KIND" || rm -rf "$RUNNERWARD_KIND"' EXIT
mkdir "$RUNNERWARD_KIND/images"
cp "$RUNNERWARD_KIND_BIN/images/runner.tar" "$RUNNERWARD_KIND/images/"
cd "$root"
# Two versions of the same daemon, for an upgrade.
for version in v0.0.1-test v0.0.2-test; do
  mkdir -p "$RUNNERWARD_KIND/$version/bin"
  CGO_ENABLED=0 go build -ldflags "-s -w -X main.version=$version" -o "$RUNNERWARD_KIND/$version/bin/" ./cmd/runnerward
done
CGO_ENABLED=0 go build -ldflags '-s -w' -o "$RUNNERWARD_KIND/v0.0.1-test/bin/" ./cmd/runnerward-agent
go test -c -o "$RUNNERWARD_KIND/kind.test" ./test/kube/kind
cd "$here"
inside=("$root/test/kube/sandbox.sh")
[ -z "${KIND_IMAGE:-}" ] || inside=()
"${inside[@]}" "$RUNNERWARD_KIND/kind.test" -test.v -test.timeout 20m "$@"
