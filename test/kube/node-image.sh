#!/usr/bin/env bash
# node-image.sh BIN ROOTFS OUT: makes a node image for kind without docker and
# without a registry: Debian packages (the tar ROOTFS), the base files of kind's
# own module, the binaries of BIN, and the images that kubeadm asks for, made
# from the same binaries. OUT becomes a tar of its root, compressed with zstd, for
#
#   zstd -dc OUT | docker import --change 'ENV container=docker' \
#     --change 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' - NAME
#
# It differs from kind's image where that needs what is not everywhere: control
# groups are managed by containerd itself (under version 1 systemd's driver
# freezes them while pods start, and some fail), no hook of kind's mounts files of
# the machine, no process is preferred over the whole node by the kernel, runc is
# wrapped in runc-clamp, kubelets set no parameters of the machine's kernel, and
# there is no pod network: the cluster's maker gives each node a file of its own
# in /etc/cni/net.d.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
rootfs=$(realpath "$2")
out=$(realpath -m "$3")
: "${kubernetes:?}" "${kind:?}" "${pause:?the versions, from build.sh}"
# What kubeadm of this version asks for: cmd/kubeadm/app/constants.
etcd=3.7.0-0
coredns=v1.14.6

say() { printf '     %s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root" "$work/images"
tar -C "$root" -xf "$rootfs"

base_files() {
  local from
  from=$(cd / && go mod download -json "sigs.k8s.io/kind@$kind" | jq -r .Dir)/images/base/files
  cp -r --no-preserve=mode,timestamps "$from"/{etc,kind,usr} "$root/"
  chmod 755 "$root"/kind "$root"/kind/bin "$root"/kind/bin/* "$root"/usr/local/bin/*
  # From here to the mask it is what kind's Dockerfile does.
  rm -f "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
    "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
  echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
  ln -sf /usr/lib/systemd/systemd "$root/sbin/init"
  systemctl --quiet --root="$root" enable kubelet.service containerd.service undo-mount-hacks.service
  systemctl --quiet --root="$root" mask systemd-binfmt.service
  mkdir -p "$root"/etc/kubernetes/manifests "$root"/etc/cni/net.d "$root"/opt/cni/bin "$root"/kind/manifests
  sed -i -e 's/SystemdCgroup = true/SystemdCgroup = false/' -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    -e "s#registry.k8s.io/pause:3.10\"#registry.k8s.io/pause:$pause\"#" "$root/etc/containerd/config.toml"
  "$bin/ctr" oci spec | jq 'del(.process.rlimits)' >"$root/etc/containerd/cri-base.json"
  printf %s "$kubernetes" >"$root/kind/version"
  # A kubelet sets these; they are the whole machine's, so it gets copies.
  cat >"$root/usr/local/bin/own-kernel-settings" <<'SH'
#!/bin/sh
set -eu
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/run/kernel-settings/${setting%=*}
  [ ! -e "$file" ] || continue
  mkdir -p "$(dirname "$file")"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
SH
  chmod 755 "$root/usr/local/bin/own-kernel-settings"
  mkdir -p "$root/etc/systemd/system/kubelet.service.d"
  printf '[Service]\nExecStartPre=/usr/local/bin/own-kernel-settings\n' >"$root/etc/systemd/system/kubelet.service.d/04-kernel.conf"
  # kind applies this one whatever it is told; no provisioner's image is here.
  cat >"$root/kind/manifests/default-storage.yaml" <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
}

binaries() {
  local name
  install -m 755 "$bin/kube" "$root/usr/bin/kube"
  for name in kubeadm kubelet kubectl; do ln -sf kube "$root/usr/bin/$name"; done
  install -m 755 "$bin"/{containerd,ctr,containerd-shim-runc-v2} "$root/usr/local/bin/"
  install -D -m 755 "$bin/runc" "$root/usr/local/sbin/runc.real"
  install -m 755 "$bin/runc-clamp" "$root/usr/local/sbin/runc"
  install -m 755 "$bin"/{ptp,host-local,loopback,portmap} "$root/opt/cni/bin/"
  # The module of crictl is not to be had. kind asks it one thing, for "kind load".
  cat >"$root/usr/local/bin/crictl" <<'SH'
#!/bin/sh
# crictl inspecti IMAGE, and nothing else
[ "$1" = inspecti ] || { echo "crictl: this is a stand-in that knows inspecti only" >&2; exit 1; }
id=$(ctr -n k8s.io images ls "name==$2" | awk 'NR == 2 { print $3 }')
[ -n "$id" ] && printf '{"status":{"id":"%s","repoTags":["%s"]}}\n' "$id" "$2"
SH
  chmod 755 "$root/usr/local/bin/crictl"
}

# libraries FILE...: these programs of the root and what they are linked with,
# as a layer.
libraries() {
  local layer=$work/layer file needed
  rm -rf "$layer"
  for file in "$@"; do
    for needed in "$file" $(chroot "$root" ldd "$file" | grep -oE '/[^ ]+'); do
      install -D -m 755 "$(readlink -f "$root$needed")" "$layer$needed"
    done
  done
  mkdir "$layer/run"
  tar -C "$layer" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" .
}

images() {
  local name kube=("/usr/local/bin/kube=$bin/kube")
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do kube+=("/usr/local/bin/$name=@kube"); done
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    mkimage "$name" "registry.k8s.io/$name:$kubernetes" "$name" "${kube[@]}"
  done
  mkimage etcd "registry.k8s.io/etcd:$etcd" etcd "${kube[@]}"
  libraries /usr/sbin/nft /usr/sbin/conntrack
  mkimage kube-proxy "registry.k8s.io/kube-proxy:$kubernetes" kube-proxy -layer "$work/layer.tar" "${kube[@]}"
  mkimage coredns "registry.k8s.io/coredns/coredns:$coredns" /coredns "/coredns=$bin/coredns"
  mkimage pause "registry.k8s.io/pause:$pause" /pause "/pause=$bin/pause"
}

mkimage() {
  local file=$work/images/$1.tar name=$2 entrypoint=$3
  shift 3
  "$bin/mkimage" -name "$name" -o "$file" -entrypoint "$entrypoint" "$@" >/dev/null
}

# preload puts the images into the node's containerd, as kind does.
preload() {
  mkdir -p "$root/tmp/images"
  mv "$work"/images/*.tar "$root/tmp/images/"
  cat >"$root/tmp/preload.sh" <<'SH'
set -eu
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >/tmp/config.toml
containerd -c /tmp/config.toml -l error &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for archive in /tmp/images/*.tar; do ctr -n k8s.io images import --no-unpack "$archive" >/dev/null; done
for image in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images label "$image" io.cri-containerd.image=managed >/dev/null; done
kill $!
wait
SH
  unshare --mount --pid --fork --kill-child --propagation private chroot "$root" /bin/sh /tmp/preload.sh 2>"$work/preload.log" ||
    { tail -20 "$work/preload.log" >&2; return 1; }
  rm -rf "$root"/tmp/* "$root"/run/*
}

base_files
binaries
say "kind's base files and the binaries are in place"
images
preload
say "the images of kubernetes $kubernetes are preloaded"
tar -C "$root" --sort=name --numeric-owner -cf - . | zstd -T0 -3 -q -f -o "$out"
say "$(du -sh --apparent-size "$root" | cut -f1), $(du -h "$out" | cut -f1) compressed"
