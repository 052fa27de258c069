#!/usr/bin/env bash
# build.sh TIER: builds what the tests of a tier run, from source at pinned
# versions, and links it into RUNNERWARD_KUBE (bin/kube of the repository by default).
#
#   api    the components of a cluster in one binary, kwok, helm, Karpenter's controllers
#   node   and a container runtime, the agent's test images
#   kind   and kind, and unless KIND_IMAGE names another, a node image (make kind-image)
#
# What was built is kept in ${XDG_CACHE_HOME:-~/.cache}/runnerward/kube under a
# hash of all that went into it; a second run takes a second or two. KUBEBUILDER_ASSETS, a folder
# with etcd, kube-apiserver, kube-controller-manager and kube-scheduler, is used
# instead of building these.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tier=${1:?api, node or kind}
dir=${RUNNERWARD_KUBE:-$root/bin/kube}
store=${XDG_CACHE_HOME:-$HOME/.cache}/runnerward/kube

# One set of flags for everything: another one compiles thousands of packages anew.
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' GOWORK=off
unset GOOS GOARCH

kubernetes=v1.37.2
kwok=v0.8.0
helm=v4.3.1
containerd=v2.4.2
runc=v1.5.2
cni=v1.9.1
kind=v0.33.0
pause=3.10.2

say() { printf '   %s\n' "$*" >&2; }
fail() { printf 'test/kube/build.sh: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE: a command of Debian's, which CI installs itself.
need() {
  command -v "$1" >/dev/null && return
  missing+=("$2")
}

busybox_is_static() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "these packages are missing: ${missing[*]}"
  say "installing ${missing[*]}"
  # A docker daemon that is installed must not start: the tests run their own.
  # https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=yes
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$store/apt.log" 2>&1 || status=$?
  [ -z "$ours" ] || rm -f "$policy"
  [ "$status" = 0 ] || { tail -20 "$store/apt.log" >&2; fail "cannot install ${missing[*]}"; }
  missing=()
}

# made NAME INPUT...: the place in the store of what its recipe, the function
# build_NAME or installed, makes of these inputs: files, folders and words.
made() {
  local name=$1 input recipe
  shift
  recipe=build_${name//-/_}
  declare -F "$recipe" >/dev/null || recipe=installed
  {
    go env GOVERSION GOARCH
    echo "$GOFLAGS"
    declare -f "$recipe"
    for input in "$@"; do
      if [ -d "$input" ]; then
        (cd "$input" && find . -type f | LC_ALL=C sort | xargs sha256sum)
      elif [ -f "$input" ]; then
        sha256sum <"$input"
      else
        echo "$input"
      fi
    done
  } | sha256sum | cut -c1-16 | sed "s|^|$store/$name-|"
}

# make_once PLACE COMMAND...: runs the command with an empty folder in $out, and
# moves the folder to its place when it is whole. It must not be called where bash
# ignores failures, such as before && or ||.
make_once() {
  local place=$1 began=$SECONDS name status
  shift
  [ -d "$place" ] && return
  name=$(basename "$place" | sed 's/-[0-9a-f]*$//')
  out=$place.new
  rm -rf "$out"
  mkdir -p "$out"
  say "building $name"
  set +e
  (set -e; "$@")
  status=$?
  set -e
  [ "$status" = 0 ] || { rm -rf "$out"; fail "building $name failed"; }
  mv "$out" "$place"
  say "building $name took $((SECONDS - began)) s"
}

# watched COMMAND...: a go command with -v, which names each package that it
# compiles; a line for every 200 of them shows that it goes on.
watched() {
  local began=$SECONDS log
  log=$(mktemp)
  if ! "$@" 2> >(tee "$log" | awk -v began="$began" 'NF == 1 { n++; if (n % 200 == 0) { printf "     %d packages compiled\n", n > "/dev/stderr"; fflush() } }'); then
    grep -v '^[a-z0-9./_-]*$' "$log" | tail -30 >&2
    return 1
  fi
  rm -f "$log"
}

build_kube() {
  local version=k8s.io/component-base/version
  (cd "$here/components" && watched go build -v -o "$out/kube" -ldflags "-s -w \
    -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=37 -X $version.gitTreeState=clean" ./kube)
  local name
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm; do ln -s kube "$out/$name"; done
}

# build_karpenter makes Karpenter's controllers with a test's cloud. They share the
# packages of Kubernetes with what is built before.
build_karpenter() {
  (cd "$here/karpenter" && watched go build -v -o "$out/karpenter" -ldflags '-s -w' ./karpenter)
}

# installed VERSION PACKAGE...: commands of a module that has no replacements.
installed() {
  local version=$1 package
  shift
  for package in "$@"; do
    (cd / && GOBIN=$out watched go install -v -ldflags '-s -w' "$package@$version")
  done
}

build_runc() {
  # Seccomp is cgo's; the library comes with every Debian.
  (cd / && CGO_ENABLED=1 GOBIN=$out watched go install -v -tags seccomp -ldflags '-s -w' "github.com/opencontainers/runc@$runc")
}

# pause holds a pod's namespaces. Its source comes with Kubernetes.
build_pause() {
  local source
  source=$(cd "$here/components" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c
  gcc -Os -Wall -static -DVERSION="$pause" -o "$out/pause" "$source"
}

build_coredns() {
  (cd "$here/dns" && watched go build -v -ldflags '-s -w' -o "$out/coredns" .)
}

# The packages of kind's own image, without those for other storage and network.
debian=bookworm
packages=systemd,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,bash,ca-certificates,curl,jq,procps

# build_rootfs takes today's packages; what they were is listed beside them.
build_rootfs() {
  local sources=()
  # A mirror that the machine was given for the same release is the one to use.
  if grep -qs "VERSION_CODENAME=$debian" /etc/os-release && [ -e /etc/apt/sources.list.d/debian.sources ]; then
    sources=(/etc/apt/sources.list.d/debian.sources)
  fi
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='chroot "$1" dpkg-query -W >&2' "$debian" "$out/rootfs.tar" "${sources[@]}" 2>"$out/packages.txt" ||
    { tail -20 "$out/packages.txt" >&2; return 1; }
}

build_node_image() {
  kubernetes=$kubernetes kind=$kind pause=$pause "$here/node-image.sh" "$dir" "$1" "$out/node.tar.zst"
}

# The tools are built anew each time: Go's own cache knows what changed.
build_tools() {
  (cd "$here/tools" && go build -ldflags '-s -w' -o "$dir/" ./mkimage ./runc-clamp)
}

# image NAME FLAG-OR-ENTRY...: images/NAME.tar and, in images/NAME.name, what to
# call it by digest. Another tier may be reading those that are there.
image() {
  local file=$dir/images/$1
  shift
  "$dir/mkimage" -o "$file.tar.new" "$@" >"$file.name.new"
  mv "$file.tar.new" "$file.tar"
  mv "$file.name.new" "$file.name"
}

# What scripts of jobs may use.
applets=(sh cat cp cut date dd echo env false grep head id kill ls mkdir mount printf ps rm sed sleep sort tail tee test tr true uname unshare wc)

# The images of the runner's pod: the agent that is shipped, and a runner
# application of ours on the paths, with the user and the environment of
# ghcr.io/actions/actions-runner. It trusts what its pod trusts, as simulators
# have no other certificates.
build_images() {
  local links=() applet
  mkdir -p "$dir/images"
  (cd "$root" && go build -ldflags '-s -w' -o "$dir/images/" ./cmd/runnerward-agent ./test/kube/standin)
  for applet in "${applets[@]}"; do links+=("/bin/$applet=@busybox"); done
  printf 'root:x:0:0::/:/bin/sh\nrunner:x:1001:1001::/home/runner:/bin/bash\n' >"$dir/images/passwd"
  image pause -name registry.k8s.io/pause:$pause -user 65535:65535 -entrypoint /pause "/pause=$dir/pause"
  image agent -name ghcr.io/runnerward/runnerward-agent:test -entrypoint /runnerward-agent \
    "/runnerward-agent=$dir/images/runnerward-agent"
  image runner -name ghcr.io/actions/actions-runner:test -user runner -workdir /home/runner \
    -env RUNNER_MANUALLY_TRAP_SIG=1 -env ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT=1 \
    -env SSL_CERT_FILE=/var/run/runnerward-identity/ca.crt \
    /bin/bash="$(command -v bash-static)" /bin/busybox=/bin/busybox "${links[@]}" /tmp/=1777 "/etc/passwd=$dir/images/passwd" \
    /home/runner/=0777 "/home/runner/run.sh=$here/standin/run.sh" "/home/runner/bin/Runner.Listener=$dir/images/standin"
}

linked() {
  local file
  for file in "$1"/*; do ln -sfn "$file" "$dir/$(basename "$file")"; done
}

tier_api() {
  local name place
  if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do
      [ -x "$KUBEBUILDER_ASSETS/$name" ] || fail "KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS, and it has no $name"
      ln -sfn "$KUBEBUILDER_ASSETS/$name" "$dir/$name"
    done
  else
    place=$(made kube "$here/components" "$kubernetes")
    make_once "$place" build_kube
    linked "$place"
  fi
  place=$(made kwok "$kwok")
  make_once "$place" installed "$kwok" sigs.k8s.io/kwok/cmd/kwok
  linked "$place"
  place=$(made karpenter "$here/karpenter")
  make_once "$place" build_karpenter
  linked "$place"
  place=$(made helm "$helm")
  make_once "$place" installed "$helm" helm.sh/helm/v4/cmd/helm
  linked "$place"
}

tier_node() {
  local place
  [ -z "${KUBEBUILDER_ASSETS:-}" ] || fail "tier $tier needs a kubelet, which KUBEBUILDER_ASSETS has not: unset it"
  need pkg-config pkg-config
  need gcc gcc
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  need ip iproute2
  need iptables iptables
  need bash-static bash-static
  busybox_is_static || missing+=(busybox-static)
  pkg-config --exists libseccomp 2>/dev/null || missing+=(libseccomp-dev)
  install_missing
  place=$(made containerd "$containerd")
  make_once "$place" installed "$containerd" github.com/containerd/containerd/v2/cmd/{containerd,ctr,containerd-shim-runc-v2}
  linked "$place"
  place=$(made runc "$runc")
  make_once "$place" build_runc
  linked "$place"
  place=$(made cni "$cni")
  make_once "$place" installed "$cni" github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}
  linked "$place"
  place=$(made pause "$kubernetes" "$pause")
  make_once "$place" build_pause
  linked "$place"
  build_tools
  build_images
}

tier_kind() {
  local place
  if [ -z "${KIND_IMAGE:-}" ]; then
    need dockerd docker.io
    need docker docker.io
    need mmdebstrap mmdebstrap
    need zstd zstd
    need jq jq
    need systemctl systemd
  fi
  install_missing
  place=$(made kind "$kind")
  make_once "$place" installed "$kind" sigs.k8s.io/kind
  linked "$place"
  [ -z "${KIND_IMAGE:-}" ] || return 0
  local dns rootfs
  dns=$(made coredns "$here/dns")
  make_once "$dns" build_coredns
  linked "$dns"
  rootfs=$(made rootfs "$debian" "$packages")
  make_once "$rootfs" build_rootfs
  place=$(made node-image "$here"/{node-image.sh,tools,dns,components} "$debian" "$packages" \
    "$kubernetes" "$containerd" "$runc" "$cni" "$kind" "$pause")
  make_once "$place" build_node_image "$rootfs/rootfs.tar"
  linked "$place"
}

mkdir -p "$store" "$dir"
missing=()
exec 9>"$store/lock"
flock -n 9 || { say "another build is under way, waiting for it"; flock 9; }
case $tier in
  api) tier_api ;;
  node) tier_api; tier_node ;;
  kind) tier_api; tier_node; tier_kind ;;
  *) fail "no tier is called $tier: api, node or kind" ;;
esac
