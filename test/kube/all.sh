#!/usr/bin/env bash
# all.sh: the tiers against a real Kubernetes, side by side: they mostly wait. What
# they need is built first. Each tier's output is shown when it ends, with its
# time. Fails if one does.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
logs=$root/bin/kube/logs
mkdir -p "$logs"
make="${MAKE:-make} --no-print-directory -C $root"

tier() {
  local name=$1 began=$SECONDS status=0
  $make "$name" >"$logs/$name.log" 2>&1 || status=$?
  {
    flock 8
    echo "== $name"
    # Of tests that passed their verdict is enough; the whole is in the log.
    if [ "$status" = 0 ]; then grep -E '^( *--- |ok|PASS|== )|[0-9] s$' "$logs/$name.log" || true; else cat "$logs/$name.log"; fi
    echo "== $name took $((SECONDS - began)) s, exit $status ($logs/$name.log)"
  } 8>"$logs/lock"
  return "$status"
}

began=$SECONDS
"$root/test/kube/build.sh" kind
$make build
echo "== building took $((SECONDS - began)) s"
# Each tier is a process group of its own, which ends with this script.
set -m
declare -A tiers
ended() { for pid in "${tiers[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done; }
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for name in test-api test-node test-kind; do
  tier "$name" &
  tiers[$name]=$!
done
set +m
status=0
for name in "${!tiers[@]}"; do
  wait "${tiers[$name]}" || status=$?
  unset "tiers[$name]"
done
exit "$status"
