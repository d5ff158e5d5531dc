#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# quickstart.sh - two virtual machines without a network denoise a photograph on a pooled GPU
#
# Everything it starts lies in one temporary folder and is a process group of its own, so that all of
# it can be stopped and removed whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
for library in ui packages procs guest-image accel photo; do
    # shellcheck source=/dev/null
    source "deploy/lib/$library.sh"
done

# The work: picture of at most PIXELS pixels, patches and search window of these radii.
PIXELS=2000000
PATCH=3
SEARCH=32
TILE=128
VMS=(vm-a vm-b)
BUILD=build/release

usage() {
    cat <<EOF
usage: deploy/quickstart.sh [--photo FILE] [--out DIR] [--keep] [--help]

Installs what is missing (Debian packages; root, or through sudo), builds, starts a mediator and two
workers, boots two Linux VMs that have no network card, and lets each denoise a photograph on the
pool through its own PCI device. Half way one worker is killed; nothing is lost. Checks the pictures
against an independent computation, prints who ran what, where and how long, and stops and removes
all that it started. The last line is "quickstart: PASS". A first run takes some minutes, later ones
well under one.

  --photo FILE  a photograph of yours (PNG, JPEG, PNM; reduced to ${PIXELS} pixels). If it has hardly
                any noise, some is added, as to the photographs that are used without this option
  --out DIR     where the pictures and logs go; default: build/quickstart
  --keep        leave everything running; prints how to enter a VM, submit a job, see the queue, stop

exit status: 0 all went well, 1 something did not, 2 wrong usage
EOF
}

photo='' out=build/quickstart keep=''
while (($#)); do
    case $1 in
    --photo) photo=${2:?--photo needs a file} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --keep) keep=1 ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done
[[ -z $photo || -r $photo ]] || ui_die "--photo: $photo cannot be read"

run='' left_running=''
on_exit() {
    local status=$?
    trap '' INT TERM
    ui_stop
    if [[ -z $left_running && -n $run ]]; then
        procs_stop
        keep_logs
        rm -rf "$run"
    fi
    ((status == 0)) || ui_error "quickstart: FAIL; logs are in $out"
    exit "$status"
}

keep_logs() {
    local vm
    cp "$run"/*.log "$run/pool.yaml" "$out/" 2>/dev/null || true
    for vm in "${VMS[@]}"; do
        cp "$run/$vm/console" "$out/$vm-console.log" 2>/dev/null || true
        cp "$run/$vm/status" "$out/$vm-status.log" 2>/dev/null || true
        cp "$run/$vm/qemu.log" "$out/$vm-qemu.log" 2>/dev/null || true
    done
}

# ---- preparation ------------------------------------------------------------------------------

build_programs() {
    cmake --preset release && cmake --build --preset release -j "$(nproc)" --target \
        vgpu-mediator vgpu-worker vgpuctl vgpu nlm-reference
}

prepare_kernel() { guest_kernel >"$run/kernel"; }
prepare_accel() { accel_choose "$(<"$run/kernel")" >"$run/accel"; }

# prepare_photo VM NUMBER - $out/VM-before.png with noise, and $run/VM/sigma
prepare_photo() {
    local dir=$run/$1 file=$photo
    [[ -n $file ]] || file=$(photo_default "$2") || return
    photo_to_ppm "$file" "$PIXELS" "$dir/clean.ppm" || return
    /usr/bin/python3 -B tests/lib/noisy.py "$dir/clean.ppm" "$dir/noisy.ppm" "$((2026 + $2))" \
        >"$dir/sigma" || return
    pnmtopng -quiet "$dir/noisy.ppm" >"$out/$1-before.png"
}

# for_each_vm COMMAND - runs COMMAND VM NUMBER for all VMs at once; fails if one fails
for_each_vm() {
    local number pid status=0
    local -a pids=()
    for number in "${!VMS[@]}"; do
        "$1" "${VMS[number]}" "$number" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || status=1
    done
    return "$status"
}

prepare_photos() {
    # Unpacked once, before both need it.
    [[ -n $photo ]] || photo_default 0 || return
    for_each_vm prepare_photo
}

# strength SIGMA - the h of the filter; more noise needs a stronger one
strength() { awk -v sigma="$1" 'BEGIN { printf "%.1f", 0.4 * sigma }'; }

# expect VM - $run/VM/expected.ppm: the whole picture, computed independently. Kept in the cache, under
# the hash of the picture, the parameters and the program's source.
expect() {
    local dir=$run/$1 sigma kept
    sigma=$(<"$dir/sigma")
    kept=$VGPU_CACHE/expected/$({
        cat "$dir/noisy.ppm" tests/lib/nlm_reference.c
        printf '%s\n' "$PATCH" "$SEARCH" "$sigma" "$(strength "$sigma")"
    } | sha256sum | cut -c1-32).ppm
    if [[ ! -s $kept ]]; then
        mkdir -p "$VGPU_CACHE/expected"
        "$BUILD/bin/nlm-reference" make "$dir/noisy.ppm" "$dir/expected.ppm" "$PATCH" "$SEARCH" \
            "$sigma" "$(strength "$sigma")" || return
        # The newest few are kept.
        find "$VGPU_CACHE/expected" -name '*.ppm' -printf '%T@ %p\n' | sort -rn | tail -n +7 |
            cut -d' ' -f2- | xargs -r -d '\n' rm -f
        mv "$dir/expected.ppm" "$kept"
    fi
    cp "$kept" "$dir/expected.ppm"
}

# prepare_image VM - the VM's initramfs: busybox, vgpu, its photograph and what to do with it
prepare_image() {
    local dir=$run/$1 sigma
    sigma=$(<"$dir/sigma")
    cp "$out/$1-before.png" "$dir/in.png"
    cat >"$dir/run" <<EOF
# Runs in the guest; ttyS1 goes to the host.
cd /job && mkdir -p out
vgpu info
start=\$(cut -d' ' -f1 /proc/uptime)
vgpu denoise in.png out/out.png --tile $TILE --patch $PATCH --search $SEARCH --queue 6 \\
    --sigma $sigma --h $(strength "$sigma") --json --progress json 2>/dev/ttyS1 >out/denoise.json
status=\$?
echo "seconds \$start \$(cut -d' ' -f1 /proc/uptime)" >/dev/ttyS1
exit \$status
EOF
    guest_job "$dir/initrd" "$run/base" "$dir/run" "$dir/in.png"
    truncate -s 32M "$dir/out.img"
}

prepare_images() {
    guest_base "$run/base" deploy/guest/init "$BUILD/bin/vgpu" || return
    for_each_vm prepare_image
}

# ---- running ----------------------------------------------------------------------------------

ctl() { "$BUILD/bin/vgpuctl" --admin "$run/admin.sock" "$@"; }

# workers_up N - does the mediator know N live workers?
workers_up() { (($(ctl workers --json | grep -o '"state": *"up"' | wc -l) >= $1)); }

start_worker() {
    procs_start "$1" "$run/$1.log" "$BUILD/bin/vgpu-worker" --mediator "$run/worker.sock" \
        --name "$1" --backend cpu --threads "$(nproc)"
}

start_pool() {
    cp deploy/examples/quickstart.yaml "$run/pool.yaml"
    procs_start mediator "$run/mediator.log" "$BUILD/bin/vgpu-mediator" --config "$run/pool.yaml" \
        --run-dir "$run"
    wait_until 10 "the mediator does not answer on $run/admin.sock" ctl queues || return
    start_worker w0
    start_worker w1
    wait_until 10 "the workers do not register" workers_up 2
}

start_vm() {
    local dir=$run/$1 accel cpus=1
    accel=$(<"$run/accel")
    # With one CPU QEMU before 8.1 drops the guest's memory fences under TCG (docs/qemu.md).
    [[ $accel != tcg ]] || { accel=tcg,thread=multi && cpus=1,maxcpus=2; }
    procs_start "$1" "$dir/qemu.log" env VGPU_REQUIRE=1 stub/qemu-with-vgpu -name "$1" -nodefaults -no-reboot \
        -display none -nic none -m 512 -smp "$cpus" -accel "$accel" \
        -kernel "$(<"$run/kernel")" -initrd "$dir/initrd" \
        -append "console=ttyS0 quiet panic=-1${keep:+ stay}" \
        -serial "file:$dir/console" -serial "file:$dir/status" \
        -serial "unix:$dir/shell.sock,server=on,wait=off" \
        -drive "file=$dir/out.img,if=none,id=out,format=raw" -device nvme,drive=out,serial=out \
        -device "vgpu-stub,socket=$dir/vgpu.sock"
}

# tiles VM - "done total" of its picture, as its progress says; "0 0" before the first tile
tiles() {
    tail -n 3 "$run/$1/status" 2>/dev/null |
        sed -nE 's|^.*"done": ([0-9]+), "total": ([0-9]+).*$|\1 \2|p' | tail -n 1 | grep . || echo 0 0
}

vm_exit() { sed -nE 's/^exit ([0-9]+).*$/\1/p' "$run/$1/status" 2>/dev/null; }

# vm_line VM - one line about a VM
vm_line() {
    local finished total bar='' i state
    read -r finished total < <(tiles "$1")
    state=$(vm_exit "$1")
    if ((total == 0)); then
        if [[ -s $run/$1/status ]]; then state='reading its photograph'; else state=booting; fi
        printf '%s  %s' "$1" "$state"
        return
    fi
    for ((i = 0; i < 30; i++)); do
        if ((i * total < finished * 30)); then bar+='#'; else bar+='-'; fi
    done
    printf '%s  [%s] %d of %d tiles%s' "$1" "$bar" "$finished" "$total" \
        "${state:+, finished with status $state}"
}

show_progress() {
    local vm
    if [[ -n $ui_tty ]]; then
        [[ -z $drawn ]] || printf '\e[%dA' "${#VMS[@]}"
        for vm in "${VMS[@]}"; do
            printf '\r\e[K    %s\n' "$(vm_line "$vm")"
        done
        drawn=1
    elif ((SECONDS >= next_line)); then
        for vm in "${VMS[@]}"; do
            printf '    %3d s  %s\n' $((SECONDS - began)) "$(vm_line "$vm")"
        done
        next_line=$((SECONDS + 5))
    fi
}

half_done() {
    local vm finished total all=0 sum=0
    for vm in "${VMS[@]}"; do
        read -r finished total < <(tiles "$vm")
        ((total > 0)) || return 1
        sum=$((sum + finished)) all=$((all + total))
    done
    ((2 * sum >= all))
}

# watch_vms - shows progress, kills worker w1 half way, returns when both VMs have ended their jobs
watch_vms() {
    local vm ended name killed=''
    began=$SECONDS next_line=0 drawn=''
    while :; do
        ended=0
        for vm in "${VMS[@]}"; do
            if [[ -n $(vm_exit "$vm") ]]; then
                ended=$((ended + 1))
            elif ! procs_alive "$vm"; then
                ui_error "$vm ended before its job did; the end of its log:"
                tail -n 15 "$run/$vm/qemu.log" "$run/$vm/console" >&2
                return 1
            fi
        done
        for name in mediator w0; do
            procs_alive "$name" || { ui_error "$name ended: $(tail -n 3 "$run/$name.log")"; return 1; }
        done
        if [[ -z $killed ]] && half_done; then
            killed=$SECONDS
            procs_kill w1
            ui_note "half way, after $((killed - began)) s: worker w1 killed (kill -9), its tiles run again on w0"
            drawn=''
        fi
        ((ended < ${#VMS[@]})) || break
        show_progress
        if ((SECONDS - began > 600)); then
            ui_error "the VMs did not finish within 10 minutes"
            return 1
        fi
        sleep 0.2
    done
    next_line=0
    show_progress
    [[ -n $killed ]] || { ui_error "the VMs were done before a worker could be killed"; return 1; }
    ui_ok "both VMs are done ($((SECONDS - began)) s, boot included)"
}

# collect VM - takes the result off the VM's disk
collect() {
    local dir=$run/$1 status
    status=$(vm_exit "$1")
    if [[ $status != 0 ]]; then
        ui_error "$1: its job ended with status $status:"
        tail -n 15 "$dir/console" >&2
        tail -c 1000 "$dir/status" | tr '\r' '\n' | tail -n 5 >&2
        return 1
    fi
    mkdir -p "$dir/result"
    tar -C "$dir/result" -xf "$dir/out.img"
    cp "$dir/result/out.png" "$out/$1-after.png"
    cp "$dir/result/denoise.json" "$out/$1-denoise.json"
    pngtopnm -quiet "$out/$1-after.png" >"$dir/result.ppm"
}

# check VM - compares its result with the independent computation
check() {
    "$BUILD/bin/nlm-reference" compare "$run/$1/expected.ppm" "$run/$1/result.ppm"
}

summary() {
    local vm
    for vm in "${VMS[@]}"; do
        sed -nE "s/.*\"tiles\": ([0-9]+), \"again\": ([0-9]+), \"seconds\": ([0-9.]+),.*/    $vm: \1 tiles in \3 s, \2 of them ran a second time/p" \
            "$out/$vm-denoise.json"
    done
    printf '\n'
    ctl jobs --limit 1000 --json | /usr/bin/python3 -B tests/lib/who_ran.py | sed 's/^/    /'
    printf '\n'
    ctl workers | sed 's/^/    /'
}

# leave_running - writes the script that stops everything, and says what can be done meanwhile
leave_running() {
    start_worker w1
    {
        printf '#!/usr/bin/env bash\nset -euo pipefail\ncd %q\n' "$PWD"
        printf 'source deploy/lib/ui.sh\nsource deploy/lib/procs.sh\n'
        printf 'PROCS_FILE=%q\nprocs_stop\nrm -rf %q\n' "$PROCS_FILE" "$run"
    } >"$run/stop"
    chmod +x "$run/stop"
    left_running=1
    ui_title "Left running"
    ui_note "enter a VM (leave with Ctrl-]):  socat -,raw,echo=0,escape=0x1d unix-connect:$run/${VMS[0]}/shell.sock"
    ui_note "submit a job, in the VM:         vgpu denoise /job/in.png /tmp/out.png"
    ui_note "look at the queue, on the host:  $BUILD/bin/vgpuctl --admin $run/admin.sock queues"
    ui_note "stop and remove everything:      $run/stop"
}

# ---- the whole ----------------------------------------------------------------------------------

trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$out"
out=$(cd "$out" && pwd)
run=$(mktemp -d "${TMPDIR:-/tmp}/vgpu.XXXXXX")
PROCS_FILE=$run/processes
for vm in "${VMS[@]}"; do
    mkdir -m 700 "$run/$vm"
done

ui_title "1. What is needed"
pkg_install "$out/packages.log" build run qemu-source
ui_step "building the programs" "$out/build.log" build_programs
ui_step "building the device for the installed QEMU" "$out/plugin.log" stub/build-plugin.sh
ui_step "the guest's kernel" "$out/kernel.log" prepare_kernel
ui_step "does a Linux guest boot on KVM here?" "$out/accel.log" prepare_accel
ui_note "virtual machines run on $(tr '[:lower:]' '[:upper:]' <"$run/accel")"
ui_step "photographs" "$out/photos.log" prepare_photos
ui_step "what the pictures should become, computed independently" "$out/expect.log" for_each_vm expect
ui_step "the guests' images" "$out/images.log" prepare_images

ui_title "2. The pool"
start_pool
ui_ok "mediator, and workers w0 and w1 with $(nproc) threads each"

ui_title "3. Two virtual machines, no network"
for vm in "${VMS[@]}"; do
    start_vm "$vm"
done
watch_vms

ui_title "4. The results"
for vm in "${VMS[@]}"; do
    collect "$vm"
done
for vm in "${VMS[@]}"; do
    verdict=$(check "$vm") || ui_die "$vm: its picture differs from the independent computation: $verdict"
    ui_ok "$vm: $verdict"
done
for vm in "${VMS[@]}"; do
    ui_note "$vm  before $out/$vm-before.png  after $out/$vm-after.png"
done

ui_title "5. Who ran what, where, how long"
summary
[[ -z $keep ]] || leave_running
if [[ -z $keep ]]; then
    procs_stop
    ui_ok "everything is stopped and removed"
fi
printf '\nquickstart: PASS\n'
