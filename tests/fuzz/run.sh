#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run.sh - long runs of every fuzzer, one after the other, with a summary
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh
# shellcheck source=deploy/lib/packages.sh
source deploy/lib/packages.sh

usage() {
    cat <<'EOF'
usage: tests/fuzz/run.sh [--only REGEX] [--no-install] [--list] MINUTES

Builds every fuzzer and gives each an equal share of MINUTES:

  asan/NAME    a libFuzzer target of tests/fuzz with AddressSanitizer and UndefinedBehaviorSanitizer
  tsan/NAME    those with a second thread once more, with ThreadSanitizer
  guests       random guests at a mediator and a worker (AddressSanitizer), seed by seed
  registers    the device under qtest: random accesses of a guest and words of a mediator, seed by seed

What libFuzzer finds worth keeping stays in build/fuzz/fuzz/NAME.corpus, so that the next run starts
where this one stopped. Inputs that crash are in build/fuzz/crashes; logs are in build/fuzz/logs. A
fuzzer that found something does not stop the others. Exits 0 only if none found anything.

  --only REGEX    only the fuzzers whose name matches
  --no-install    install nothing
  --list          print the fuzzers and stop

examples:
  tests/fuzz/run.sh 60                       an hour over all of them
  tests/fuzz/run.sh --only ring 10           ten minutes for the rings
  build/fuzz/fuzz/fuzz_hello FILE            see a crash again
EOF
}

only=. minutes='' install=1 list=''
while (($#)); do
    case $1 in
    --only) only=${2:?--only needs a regular expression} && shift ;;
    --no-install) install='' ;;
    --list) list=1 ;;
    -h | --help) usage && exit ;;
    *[!0-9.]* | '') usage >&2 && exit 2 ;;
    *) minutes=$1 ;;
    esac
    shift
done
if [[ -z $minutes && -z $list ]]; then
    usage >&2
    exit 2
fi

crashes=build/fuzz/crashes
logs=build/fuzz/logs
rows=()
found=0

# fuzzers - their names, those with two threads twice
fuzzers() {
    sed -nE 's/^ *vgpu_fuzz_target\((\w+).*/asan\/\1/p' tests/fuzz/*.cmake
    # THREADS may stand on the next line.
    cat tests/fuzz/*.cmake | tr '\n' ' ' | grep -oE 'vgpu_fuzz_target\([^)]*THREADS' |
        sed -E 's/^vgpu_fuzz_target\((\w+).*/tsan\/\1/'
    printf 'guests\nregisters\n'
}

# build_preset PRESET TARGET...
build_preset() {
    local preset=$1
    shift
    cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@" -j "$(nproc)"
}

has() { [[ " ${names[*]} " == *" $1 "* ]]; }

# run_target KIND/NAME SECONDS - one libFuzzer program
run_target() {
    local kind=${1%/*} name=${1#*/} dir=build/fuzz/fuzz
    local corpus=$PWD/$dir/$name.corpus
    mkdir -p "$corpus"
    [[ $kind == asan ]] || dir=build/tsan/fuzz
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1 \
        TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$dir/$name" -max_total_time="$2" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$PWD/$crashes/$kind-$name-" "$corpus"
}

minutes_of() { awk "BEGIN { print $1 / 60 }"; }

# one NAME SECONDS - run it in the background, watch it, note the outcome
one() {
    local name=$1 seconds=$2 log=$logs/${1//\//-}.log start=$SECONDS status=0 note
    case $name in
    guests) ui_start "$log" tests/fuzz/guests --minutes "$(minutes_of "$seconds")" ;;
    registers) ui_start "$log" tests/fuzz/registers --sanitize --minutes "$(minutes_of "$seconds")" ;;
    *) ui_start "$log" run_target "$name" "$seconds" ;;
    esac
    ui_wait "$name" "$log" "$start" || status=$?
    if [[ $name != */* ]]; then
        note=$(tail -n 1 "$log")
    else
        note=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/\1 inputs/p' "$log")
        note+=$(sed -nE 's/^.*DONE +cov: ([0-9]+) .* corp: ([0-9]+).*/, coverage \1, corpus \2/p' "$log" | tail -n 1)
    fi
    if ((status == 0)); then
        ui_ok "$name ($((SECONDS - start)) s): $note"
        rows+=("$name|ok|$((SECONDS - start))|$note")
        return 0
    fi
    found=$((found + 1))
    ui_error "$name found something. From $log:"
    grep -E 'SUMMARY|ERROR:|WARNING: Thread|^FAILED|Test unit written|See it again|runtime error' "$log" |
        head -n 10 | sed 's/^/     | /' >&2
    note=$(sed -nE 's/^.*Test unit written to (.*)$/\1/p' "$log" | tail -n 1)
    rows+=("$name|FOUND|$((SECONDS - start))|${note:-$log}")
}

mapfile -t names < <(fuzzers | grep -E "$only")
if ((${#names[@]} == 0)); then
    ui_die "no fuzzer has a name that matches \"$only\" (tests/fuzz/run.sh --list prints them)"
fi
if [[ -n $list ]]; then
    printf '%s\n' "${names[@]}"
    exit
fi
trap ui_stop EXIT
trap 'exit 130' INT TERM
mkdir -p "$crashes" "$logs"

share=$(awk "BEGIN { s = int($minutes * 60 / ${#names[@]}); print s < 5 ? 5 : s }")
ui_title "vgpu: ${#names[@]} fuzzers, $share s each"
if [[ -n $install ]]; then
    pkg_install "$logs/packages.log" build run qemu-source test || ui_die "packages are missing"
fi
if [[ " ${names[*]}" == *" asan/"* ]]; then
    ui_step "build fuzz" "$logs/build-fuzz.log" build_preset fuzz fuzzers || exit 1
fi
if [[ " ${names[*]}" == *" tsan/"* ]]; then
    ui_step "build tsan" "$logs/build-tsan.log" build_preset tsan fuzzers || exit 1
fi
if has guests; then
    ui_step "build asan" "$logs/build-asan.log" build_preset asan vgpu-mediator vgpu-worker || exit 1
fi
if has registers; then
    ui_step "build the plug-in" "$logs/build-plugin.log" tests/fuzz/registers --sanitize --steps 0 || exit 1
fi
for name in "${names[@]}"; do
    one "$name" "$share"
done

ui_title "Summary"
printf '    %-26s %-6s %8s  %s\n' fuzzer result seconds ''
for row in "${rows[@]}"; do
    IFS='|' read -r name result took note <<<"$row"
    printf '    %-26s %-6s %8s  %s\n' "$name" "$result" "$took" "$note"
done
printf '\n%d fuzzers, %d found something\n' "${#names[@]}" "$found"
((found == 0))
