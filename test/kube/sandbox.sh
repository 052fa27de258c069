#!/usr/bin/env bash
# sandbox.sh COMMAND...: runs the command as root in mount, network, control
# group, process, IPC and host name spaces of its own. There is a loopback
# interface, what the command makes, and no way out. With the command end all of
# its daemons, containers, mounts and interfaces, and its control groups are
# removed. A sandbox may be made inside a sandbox. In a container with version 2
# of control groups, whose root group may not have processes beside groups, those
# are moved to a group "processes", which stays.
set -euo pipefail

# hierarchies: the folder of our own group in each control group hierarchy that
# is mounted; of version 2, whose groups hold either processes or groups, the
# uppermost that we see.
hierarchies() {
  local controllers path at
  while IFS=: read -r _ controllers path; do
    at=/sys/fs/cgroup/${controllers#name=}
    if [ -z "$controllers" ]; then
      path=
      [ -e "$at/cgroup.controllers" ] || at=/sys/fs/cgroup/unified
    fi
    at=${at%/}
    [ ! -e "$at${path%/}/cgroup.procs" ] || echo "$at${path%/}"
  done </proc/self/cgroup
}

# hand_down GROUP: lets the groups below a group of version 2 have its
# controllers. Processes may not stay beside them, but in the machine's uppermost,
# which alone has no type.
hand_down() {
  local process
  enable "$1"
  grep -qw memory "$1/cgroup.subtree_control" && return
  [ -e "$1/cgroup.type" ] || return 0
  mkdir -p "$1/processes"
  for process in $(cat "$1/cgroup.procs"); do
    echo "$process" >"$1/processes/cgroup.procs" || : # it may have ended
  done
  enable "$1"
}

enable() {
  local controller
  for controller in $(cat "$1/cgroup.controllers"); do
    { echo "+$controller" >"$1/cgroup.subtree_control"; } 2>/dev/null || : # not every one is for groups
  done
}

# join NAME: moves this process into a group of this name in each hierarchy.
join() {
  local above file
  for above in $(hierarchies); do
    [ "$above" != /sys/fs/cgroup ] || hand_down "$above"
    mkdir -p "$above/$1"
    for file in cpuset.cpus cpuset.mems; do
      # A group of version 1 begins with none.
      [ "$above" = /sys/fs/cgroup ] || [ ! -e "$above/$file" ] || cat "$above/$file" >"$above/$1/$file"
    done
    echo $$ >"$above/$1/cgroup.procs"
  done
}

# leave NAME: removes the groups of this name, once nothing is in them.
leave() {
  local above
  for above in $(hierarchies); do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      [ -d "$above/$1" ] || break
      find "$above/$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
}

case ${RUNNERWARD_SANDBOX:-} in
'')
  fail() { printf 'sandbox.sh: %s\n' "$*" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || fail "this needs root: it makes namespaces and mounts (run it with sudo)"
  unshare --mount --net --cgroup --pid --ipc --uts --fork true 2>/dev/null ||
    fail "this machine does not let root make namespaces (in a container: run it with --privileged)"
  status=0
  group=runnerward-$$-$RANDOM
  RUNNERWARD_SANDBOX=$group unshare --mount --propagation private --net --pid --ipc --uts \
    --fork --kill-child --mount-proc "$0" "$@" || status=$?
  leave "$group"
  exit "$status"
  ;;
runnerward-*)
  # Only the first process of the sandbox, and not what waits for its end, is in
  # the group that becomes the root of the control groups.
  join "$RUNNERWARD_SANDBOX"
  RUNNERWARD_SANDBOX=inside exec unshare --cgroup "$0" "$@"
  ;;
esac

hostname "${SANDBOX_HOSTNAME:-sandbox}"
ip link set lo up
# Nothing of the machine's own control groups stays in the list of mounts, in
# which kubelets and runtimes look for theirs.
umount --recursive --lazy /sys 2>/dev/null || :
mount -t sysfs sysfs /sys
# In the new control group namespace each hierarchy is rooted at our own group.
if [ "$(grep -c . /proc/self/cgroup)" = 1 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  hand_down /sys/fs/cgroup
else
  mount -t tmpfs -o mode=755,size=1m tmpfs /sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case $controllers in
      '') at=unified && mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
      name=*) at=${controllers#name=} && mkdir -p "/sys/fs/cgroup/$at" && mount -t cgroup -o "none,$controllers" cgroup "/sys/fs/cgroup/$at" ;;
      *) at=$controllers && mkdir -p "/sys/fs/cgroup/$at" && mount -t cgroup -o "$at" cgroup "/sys/fs/cgroup/$at" ;;
    esac
  done </proc/self/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mount --make-rshared /
exec "$@"
