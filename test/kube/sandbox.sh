#!/usr/bin/env bash
# sandbox.sh COMMAND...: runs the command as root in mount, network, control
# group, process, IPC and host name spaces of its own. There is a loopback
# interface, what the command makes, and no way out. With the command end all of
# its daemons, containers, mounts and interfaces; empty control groups remain,
# which are removed here.
set -euo pipefail

if [ "${RUNNERWARD_SANDBOX:-}" != inside ]; then
  fail() { printf 'sandbox.sh: %s\n' "$*" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || fail "this needs root: it makes namespaces and mounts (run it with sudo)"
  unshare --mount --net --cgroup --pid --ipc --uts --fork true 2>/dev/null ||
    fail "this machine does not let root make namespaces (in a container: run it with --privileged)"
  status=0
  RUNNERWARD_SANDBOX=inside unshare --mount --propagation private --net --cgroup --pid --ipc --uts \
    --fork --kill-child --mount-proc "$0" "$@" || status=$?
  # rmdir removes only groups without a process.
  for top in /sys/fs/cgroup/{,*/}{,process_api/*/}{docker,kubepods,kubelet,kubelet.slice,kubepods.slice,k8s.io}; do
    [ -d "$top" ] && find "$top" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
  exit "$status"
fi

hostname "${SANDBOX_HOSTNAME:-sandbox}"
ip link set lo up
mount -t sysfs sysfs /sys
# In the new control group namespace each hierarchy is rooted at our own group.
if [ -e /sys/fs/cgroup/cgroup.controllers ] || grep -qw '^0::' /proc/self/cgroup && [ "$(wc -l </proc/self/cgroup)" = 1 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs -o mode=755,size=1m tmpfs /sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case $controllers in
      '') at=unified && mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
      name=*) at=${controllers#name=} && mkdir -p "/sys/fs/cgroup/$at" && mount -t cgroup -o "none,$controllers" cgroup "/sys/fs/cgroup/$at" ;;
      *) at=$controllers && mkdir -p "/sys/fs/cgroup/$at" && mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$at" ;;
    esac
  done </proc/self/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mount --make-rshared /
exec "$@"
