#!/usr/bin/env bash
# host.sh DIR BIN ADDRESS GATEWAY PORT: is a host, in a sandbox of its own: a
# container runtime and a kubelet, configured in DIR by host.go, with a cable to
# the bridge "vpc" in the network namespace that is file 3. Everything ends with
# either of the two, or with a signal, as if the power had failed.
set -euo pipefail
dir=$1 bin=$2 address=$3 gateway=$4 port=$5
export PATH=$bin:$PATH

ip link add eth0 type veth peer name "$port" netns /proc/self/fd/3
ip addr add "$address/16" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
nsenter --net=/proc/self/fd/3 ip link set "$port" master vpc up
exec 3<&-

# What the machine says of itself.
mount --bind "$dir/etc/os-release" "$(readlink -f /etc/os-release)"
mount --bind "$dir/etc/machine-id" /etc/machine-id
mount --bind "$dir/etc/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mount --bind "$dir/etc/boot_id" /proc/sys/kernel/random/boot_id
# A kubelet sets these; they are the whole machine's, so it gets copies.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$dir/etc/sysctl/${setting%=*}
  mkdir -p "$(dirname "$file")"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log

containerd -c "$dir/etc/containerd.toml" >"$dir/log/containerd.log" 2>&1 &
runtime=$!
until ctr version >/dev/null 2>&1; do
  kill -0 "$runtime" || exit
  sleep 0.05
done
for image in "$bin"/images/*.tar; do
  ctr -n k8s.io images import --local "$image" >/dev/null
done
# shellcheck disable=SC2046 # words are meant
kubelet $(cat "$dir/etc/kubelet.args") >"$dir/log/kubelet.log" 2>&1 &
wait -n
