#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# portable.sh - pack what the benchmarks without a VM need into one folder, for a machine that has nothing
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh

programs=(vgpu-mediator vgpu-worker bench-place bench-eventfd bench-poll bench-filepoll bench-host
    bench-shm bench-many bench-nuisance bench-floor)

usage() {
    cat <<'EOT'
usage: bench/portable.sh [--build DIR] FOLDER

Copies mediator, worker, the benchmarks' programs and scripts and every library that they load, but for
the C library, into FOLDER, which must not exist. There:

  FOLDER/run.sh                      device, pipeline, bulk, many and nuisance, 5 rounds
  FOLDER/run.sh --runs 3 device      as bench/run.sh

The other machine needs bash, coreutils, util-linux, awk, sed, grep and a glibc not older than this one's.

  --build DIR  take the programs of this build (default: build/release)
EOT
}

build=build/release folder=''
while (($#)); do
    case $1 in
    --build) build=${2:?--build needs a folder} && shift ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
    *) folder=$1 ;;
    esac
    shift
done
[[ -n $folder ]] || { usage >&2 && exit 2; }
[[ ! -e $folder ]] || ui_die "$folder is there already"

# libraries PROGRAM... - paths of the shared libraries that they load, without those of the C library
libraries() {
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libpthread|librt|libdl|libresolv)\.so\.[0-9]+$'
}

mkdir -p "$folder"/{bin,lib,bench,deploy/lib}
for program in "${programs[@]}"; do
    [[ -x $build/bin/$program ]] || ui_die "$build/bin/$program is not built"
    strip -o "$folder/bin/$program" "$build/bin/$program"
done
libraries "${programs[@]/#/$build/bin/}" | xargs cp -Lt "$folder/lib"
cp bench/run.sh bench/lib.sh bench/bench_{device,pipeline,bulk,many,nuisance}.sh "$folder/bench"
cp deploy/lib/{ui,procs}.sh "$folder/deploy/lib"
cat >"$folder/run.sh" <<'EOT'
#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures with the programs of this folder; flags as for bench/run.sh.
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
(($#)) || set -- device pipeline bulk many
lscpu | grep -E 'Model name|^CPU\(s\)|Thread|Hypervisor'
printf 'Linux %s, clock %s\n' "$(uname -r)" \
    "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
exec bash "$here/bench/run.sh" --build . "$@"
EOT
chmod +x "$folder/run.sh"
ui_ok "$folder: $(du -sh "$folder" | cut -f1)"
