#!/usr/bin/env bash
# run.sh BIN: plays the tests of this package with the binaries in the folder BIN:
# what befalls a leader, which mostly waits, beside all the others, with a control
# plane for each.
set -euo pipefail
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")"
export RUNNERWARD_KUBE=$bin
waits='^TestWhatBefallsTheLeader$'
"$bin/api.test" -test.v -test.timeout 30m -test.run "$waits" >"$bin/leader.log" 2>&1 &
leader=$!
status=0
"$bin/api.test" -test.v -test.timeout 30m -test.parallel 8 -test.skip "$waits" || status=$?
wait "$leader" || status=$?
cat "$bin/leader.log"
exit "$status"
