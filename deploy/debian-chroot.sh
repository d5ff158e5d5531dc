#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# debian-chroot.sh - a minimal Debian system in a folder, with this project in it, to prove that the
# install steps need nothing but what they install
#
# The command runs in namespaces of its own: its mounts and whatever it leaves running vanish with it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh
# shellcheck source=deploy/lib/packages.sh
source deploy/lib/packages.sh

place=src/vgpu # of the project, in the chroot

usage() {
    cat <<EOF
usage: deploy/debian-chroot.sh SUITE DIR [COMMAND...]

Makes a minimal Debian (debootstrap, variant minbase) of SUITE (bookworm, trixie or sid) in DIR from the
mirrors that this host uses, unless DIR holds one already; puts a clean copy of this project into
DIR/$place (a clone of the last commit, or the working tree if that has changes); runs COMMAND
there as root. Needs root. Exits with COMMAND's status.

  example: deploy/debian-chroot.sh trixie /var/tmp/trixie ./deploy/quickstart.sh
EOF
}

# host_sources - the host's apt entries for its own release, as deb822
host_sources() {
    local file
    local -a files=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [[ ! -r $file ]] || files+=("$file")
    done
    pkg_source_entries "$host_suite" "${files[@]}"
}

# existing_suites - leaves out what sid does not have: updates and security
existing_suites() {
    if [[ $suite == sid ]]; then
        sed '/^Suites:/ s/ sid-[a-z/-]*//g' | awk -v RS= -v ORS='\n\n' '/(^|\n)Suites: *sid/'
    else
        cat
    fi
}

# chroot_make - the base system; kept as an archive in the cache, since every proof starts from it
chroot_make() {
    local base=$VGPU_CACHE/chroot-$suite.tar mirror
    if [[ ! -s $base ]]; then
        mirror=$(host_sources | sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | head -n 1)
        [[ -n $mirror ]] || {
            printf 'no mirror for %s in /etc/apt\n' "$host_suite"
            return 1
        }
        rm -rf "$dir"
        debootstrap --variant=minbase "$suite" "$dir" "$mirror"
        mkdir -p "$dir/etc/apt/sources.list.d"
        rm -f "$dir/etc/apt/sources.list"
        host_sources | sed "s/^Types: .*/Types: deb/; /^Suites:/ s/\b$host_suite\b/$suite/g" |
            existing_suites >"$dir/etc/apt/sources.list.d/debian.sources"
        # A mirror that stands still for a while has an old sid, still signed; releases do not expire.
        [[ $suite != sid ]] || echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/sid"
        rm -f "$dir"/var/cache/apt/archives/*.deb
        mkdir -p "$VGPU_CACHE"
        tar -C "$dir" --one-file-system -cf "$base.part" .
        mv "$base.part" "$base"
        return
    fi
    rm -rf "$dir"
    mkdir -p "$dir"
    tar -C "$dir" -xf "$base"
}

# copy_project - the last commit, or the working tree with its changes as a commit of its own
copy_project() {
    rm -rf "${dir:?}/$place"
    mkdir -p "$dir/${place%/*}"
    if [[ -z $(git status --porcelain) ]]; then
        git clone -q --no-hardlinks . "$dir/$place"
        return
    fi
    printf 'the working tree has changes: it is copied, not the last commit\n'
    mkdir "$dir/$place"
    git ls-files -z -co --exclude-standard | (
        while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done
    ) | tar --null -T - -c | tar -C "$dir/$place" -x
    git -C "$dir/$place" init -q
    git -C "$dir/$place" add -A
    git -C "$dir/$place" -c user.name=copy -c user.email=copy@localhost commit -q -m copy
}

# What runs in the new namespaces. $1: DIR; $2: the project's folder in it; rest: COMMAND.
# shellcheck disable=SC2016
inside='
set -e
dir=$1 place=$2
shift 2
mount --make-rprivate /
mount --bind "$dir" "$dir"
mount -t proc proc "$dir/proc"
mount -t sysfs -o ro sys "$dir/sys"
mount -t tmpfs -o mode=755 dev "$dir/dev"
mkdir "$dir/dev/shm" "$dir/dev/pts"
mount -t tmpfs shm "$dir/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 pts "$dir/dev/pts"
ln -s pts/ptmx "$dir/dev/ptmx"
ln -s /proc/self/fd "$dir/dev/fd"
for node in null zero full random urandom tty kvm; do
    [ -e /dev/$node ] || continue
    : >"$dir/dev/$node"
    mount --bind /dev/$node "$dir/dev/$node"
done
mount -t tmpfs -o mode=755 run "$dir/run"
cp -L /etc/resolv.conf "$dir/etc/resolv.conf" 2>/dev/null || true
exec chroot "$dir" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 TERM="${TERM:-dumb}" ${http_proxy:+http_proxy="$http_proxy"} \
    ${https_proxy:+https_proxy="$https_proxy"} /bin/sh -c "cd \"/$place\" && exec \"\$@\"" sh "$@"
'

case ${1:-} in
-h | --help) usage && exit ;;
bookworm | trixie | sid) suite=$1 ;;
*) usage >&2 && exit 2 ;;
esac
dir=${2:?$(usage)}
shift 2
((EUID == 0)) || ui_die "deploy/debian-chroot.sh needs root: it makes device mounts"
# shellcheck disable=SC1091
host_suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
for tool in debootstrap git; do
    command -v "$tool" >/dev/null || ui_die "$tool is missing; install it with: apt-get install $tool"
done
log=$(mktemp)
trap 'ui_stop; rm -f "$log"' EXIT
if [[ ! -e $dir/etc/debian_version ]]; then
    ui_step "making a minimal $suite in $dir" "$log" chroot_make
fi
dir=$(cd "$dir" && pwd)
ui_step "copying the project" "$log" copy_project
(($#)) || exit 0
unshare --mount --pid --fork --kill-child -- /bin/sh -c "$inside" sh "$dir" "$place" "$@"
