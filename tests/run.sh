#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run.sh - all checks and tests of the project, in order, with a summary
#
# A step is a function step_<name>; it passes, fails, or is skipped with a reason. Every step's
# output is in build/test-logs/<name>.log.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh
# shellcheck source=deploy/lib/packages.sh
source deploy/lib/packages.sh

usage() {
    cat <<'EOF'
usage: tests/run.sh [--full] [--only REGEX] [--tests REGEX] [--no-install] [--list]

Installs what the tests need (Debian packages), checks the sources, builds with gcc and clang, runs
the unit and integration tests, again with sanitizers, and ends with the line "N passed, N failed".
Exits 0 only if nothing failed. Takes at most 25 minutes on two cores; a second run is quicker.

  --full          also repetition, version matrices and long fault runs (tests/full.d)
  --only REGEX    only the steps whose name matches; builds are taken as they are unless they match
  --tests REGEX   of the programs under CTest only those whose name matches (unit/..., integration/...)
  --no-install    install nothing
  --list          print the steps and stop

examples:
  tests/run.sh                                    everything that must pass before a change goes in
  tests/run.sh --only 'format|tidy|shellcheck'    the source checks
  tests/run.sh --only 'build-dev|ctest' --tests unit/
EOF
}

full='' only=. tests=. install=1 list=''
while (($#)); do
    case $1 in
    --full) full=1 ;;
    --only) only=${2:?--only needs a regular expression} && shift ;;
    --tests) tests=${2:?--tests needs a regular expression} && shift ;;
    --no-install) install='' ;;
    --list) list=1 ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

logs=build/test-logs
jobs=$(nproc)
passed=0 failed=0 skipped=0
rows=()
SKIP=77 # status of a step or a drop-in script that cannot run here; its last line says why

# project_files PATTERN... - files of the project, whether or not they are committed already
project_files() {
    git ls-files -z -co --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
        [[ ! -f $file ]] || printf '%s\n' "$file"
    done
}

c_files() { project_files '*.c' '*.h'; }

shell_files() {
    project_files '*.sh'
    project_files .ci/run
    project_files deploy stub tests bench guest | while read -r file; do
        [[ $file == *.* ]] || { head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' && printf '%s\n' "$file"; }
    done || true
}

configure() { cmake --preset "$1" >"$logs/configure-$1.log" 2>&1 || { cat "$logs/configure-$1.log"; return 1; }; }
build() { configure "$1" && cmake --build --preset "$1" -j "$jobs"; }

# ctest_run PRESET ARGS... - runs tests of a build that match --tests
ctest_run() {
    local preset=$1
    shift
    ctest --preset "$preset" -j "$jobs" -R "$tests" --no-tests=ignore "$@"
}

# ---- checks of the sources --------------------------------------------------------------------

step_spdx() {
    local file want bad=0
    while read -r file; do
        case $file in
        *.c | *.h | *.S | *.ld | *.sh | *.py | *.cmake | *CMakeLists.txt | *.yaml | *.proto) ;;
        *) head -c 2 "$file" | grep -q '^#!' || continue ;;
        esac
        want=MIT
        [[ $file != stub/* ]] || want=GPL-2.0-or-later
        if ! head -n 3 "$file" | grep -q "SPDX-License-Identifier: $want"; then
            printf '%s: no "SPDX-License-Identifier: %s" in its first three lines\n' "$file" "$want"
            bad=1
        fi
    done < <(project_files)
    return "$bad"
}

step_words() {
    local hosts
    # Spelled in two parts, so that this file passes its own check.
    local pattern='\b(TO''DO|FIX''ME|X''XX)\b|/ho''me/[a-z]|/ro''ot/'
    ((${#PWD} < 5)) || pattern+="|$PWD"
    hosts=$(grep -rhoE 'https?://[^ /]+' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
        sed -E 's#https?://##; s/[.]/[.]/g' | sort -u | paste -sd'|') || true
    [[ -z $hosts ]] || pattern+="|$hosts"
    if project_files ':!LICENSES' | tr '\n' '\0' | xargs -0 grep -nIE "$pattern"; then
        printf 'These lines hold an open end, a path of one machine, or the name of a package host.\n'
        return 1
    fi
}

step_format() {
    local version
    version=$(clang-format --version | grep -oE 'version [0-9]+' | grep -oE '[0-9]+')
    if ((version != 14)); then
        printf 'the form is defined by clang-format 14, this is %s\n' "$version"
        return $SKIP
    fi
    c_files | xargs -r -d '\n' clang-format --dry-run -Werror
}

step_shellcheck() { shell_files | sort -u | xargs -r -d "\n" shellcheck -x -P SCRIPTDIR -P .; }

step_tidy() { configure clang && /usr/bin/python3 -B tests/lib/tidy.py build/clang build/tidy-cache "$jobs"; }

# ---- builds and what CTest runs ---------------------------------------------------------------

step_build-dev() { build dev; }
step_build-clang() { build clang; }
# The optimiser of the release build sees more: its warnings are errors here too.
step_build-release() {
    cmake --preset release -B build/release-strict -DVGPU_WERROR=ON &&
        cmake --build build/release-strict -j "$jobs"
}

step_core-purity() {
    local library=build/dev/common/core/libvgpu_core.a extra
    if [[ ! -f $library ]]; then
        printf '%s is not there: run step build-dev first\n' "$library"
        return 1
    fi
    extra=$(comm -23 \
        <(comm -23 <(nm -u --format=posix "$library" | awk 'NF == 2 { print $1 }' | sort -u) \
            <(nm --defined-only --format=posix "$library" | awk 'NF > 1 { print $1 }' | sort -u)) \
        <(grep -v '^#' tests/lib/core-symbols.txt | sort -u))
    if [[ -n $extra ]]; then
        printf 'common/core is pure, but uses symbols that tests/lib/core-symbols.txt does not allow:\n'
        printf '%s\n' "$extra"
        return 1
    fi
}

step_plugin() {
    if [[ ! -x stub/build-plugin.sh ]]; then
        printf 'stub/build-plugin.sh is not there\n'
        return $SKIP
    fi
    stub/build-plugin.sh
}

step_ctest() { ctest_run dev -LE '^fuzz$'; }
step_asan() { build asan && ctest_run asan -L '^(unit|san)$'; }
# The fuzz targets with two threads are also for ThreadSanitizer.
step_tsan() { build tsan && ctest_run tsan -L '^(unit|san|fuzz)$'; }
step_fuzz() { build fuzz && ctest_run fuzz -L '^fuzz$'; }

# ---- running them -----------------------------------------------------------------------------

# record NAME PASSED FAILED SECONDS NOTE
record() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    rows+=("$1|$2|$3|$4|$5")
}

# why LOG TESTS - the lines of a log that say what failed; of a run of CTest those of the tests
why() {
    if [[ -n $2 ]]; then
        grep -E '\*\*\*|^E  |^FAILED|:[EF]:|ERROR: |SUMMARY: |WARNING: ThreadSanitizer' "$1" | head -n 40
    else
        tail -n 40 "$1"
    fi
}

# run_step NAME COMMAND...
run_step() {
    local name=$1 log=$logs/${1//\//-}.log start=$SECONDS status=0 n bad
    shift
    [[ $name =~ $only ]] || return 0
    if [[ -n $list ]]; then
        printf '%s\n' "$name"
        return 0
    fi
    ui_start "$log" "$@"
    ui_wait "$name" "$log" "$start" || status=$?
    local took=$((SECONDS - start))
    # A run of CTest counts as many tests as it ran; anything else counts as one.
    n=$(sed -nE 's/^.*tests passed, ([0-9]+) tests? failed out of ([0-9]+).*$/\1 \2/p' "$log" | tail -n 1)
    if [[ -n $n ]]; then
        bad=${n% *} n=${n#* }
        ((status == 0 || bad > 0)) || bad=1
        record "$name" $((n - bad)) "$bad" "$took" ""
    elif ((status == SKIP)); then
        skipped=$((skipped + 1))
        record "$name" 0 0 "$took" "skipped: $(tail -n 1 "$log")"
        ui_warn "$name skipped: $(tail -n 1 "$log")"
        return 0
    elif ((status == 0)); then
        record "$name" 1 0 "$took" ""
    else
        record "$name" 0 1 "$took" ""
    fi
    if ((status == 0)); then
        ui_ok "$name (${n:+$n tests, }$took s)"
    else
        ui_error "$name ($took s). From $log:"
        why "$log" "$n" | sed 's/^/     | /' >&2
    fi
    return 0
}

# run_folder FOLDER - every script of a drop-in folder is a step of its own
run_folder() {
    local script
    for script in "$1"/*.sh; do
        [[ ! -f $script ]] || run_step "$(basename "$1" .d)/$(basename "$script" .sh)" bash "$script"
    done
}

trap ui_stop EXIT
trap 'exit 130' INT TERM

mkdir -p "$logs"
[[ -n $list ]] || ui_title "vgpu: tests${full:+, full}"
if [[ -n $install && -z $list ]]; then
    pkg_install "$logs/packages.log" build run qemu-source qemu-tree test || ui_die "packages are missing"
fi

run_step spdx step_spdx
run_step words step_words
run_step format step_format
run_step shellcheck step_shellcheck
run_step build-dev step_build-dev
run_step core-purity step_core-purity
run_step plugin step_plugin
run_step ctest step_ctest
run_step build-clang step_build-clang
run_step tidy step_tidy
run_step asan step_asan
run_step tsan step_tsan
run_step fuzz step_fuzz
run_folder tests/short.d
if [[ -n $full ]]; then
    run_step build-release step_build-release
    run_folder tests/full.d
fi
[[ -z $list ]] || exit 0

ui_title "Summary"
printf '    %-28s %8s %8s %8s\n' step passed failed seconds
for row in "${rows[@]}"; do
    IFS='|' read -r name ok bad took note <<<"$row"
    printf '    %-28s %8s %8s %8s  %s\n' "$name" "$ok" "$bad" "$took" "$note"
done
printf '    %-28s %8s %8s %8s\n\n' total "$passed" "$failed" "$SECONDS"
((skipped == 0)) || ui_note "$skipped skipped, see above"
if ((passed + failed == 0)); then
    ui_error "no step has a name that matches \"$only\" (tests/run.sh --list prints them)"
    exit 2
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
