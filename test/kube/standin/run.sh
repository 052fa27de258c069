#!/bin/bash
# What run.sh, run-helper.sh and RUNNER_MANUALLY_TRAP_SIG=1 of the stock runner
# do around the listener: https://github.com/actions/runner/tree/main/src/Misc/layoutroot

# Job control: the listener gets a process group of its own.
set -m
signalled=
trap 'signalled=1; kill -INT -$PID' INT TERM

/home/runner/bin/Runner.Listener &
PID=$!
wait $PID
code=$?
trap - INT TERM
if [ -n "$signalled" ]; then
  wait $PID # the signal ended the first wait, not the listener
  exit $code
fi
case $code in
7) [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = 1 ] && exit 7 ;;
esac
# run-helper.sh makes 0 of success, failure, conflicts and what it does not know.
exit 0
