# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# ui - what the scripts print: steps with their time, notes, warnings, the reason of a failure
#
# On a terminal a running step shows a spinner, its time and the last line that it wrote; elsewhere
# it prints plain lines, and one every 30 s so that a log shows that it lives. Source it; it sets
# nothing but the names that begin with ui_.

ui_ticker=
ui_job=
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
    ui_tty=1
    ui_bold=$'\e[1m' ui_red=$'\e[31m' ui_green=$'\e[32m' ui_yellow=$'\e[33m'
    ui_off=$'\e[0m'
else
    ui_tty=
    ui_bold='' ui_red='' ui_green='' ui_yellow='' ui_off=''
fi

ui_title() { printf '\n%s%s%s\n' "$ui_bold" "$*" "$ui_off"; }
ui_note() { printf '    %s\n' "$*"; }
ui_ok() { printf '%s ok %s%s\n' "$ui_green" "$ui_off" "$*"; }
ui_warn() { printf '%swarn%s %s\n' "$ui_yellow" "$ui_off" "$*" >&2; }
ui_error() { printf '%sfail%s %s\n' "$ui_red" "$ui_off" "$*" >&2; }

# ui_die SENTENCE... - says why and ends the script
ui_die() {
    ui_error "$@"
    exit 1
}

# ui_columns - width of the terminal
ui_columns() {
    local size
    size=$(stty size 2>/dev/null </dev/tty) || size="24 80"
    printf '%s' "${size#* }"
}

# ui_tick TITLE LOG START - draws the state of a running step until it is killed
ui_tick() {
    local title=$1 log=$2 start=$3 spin="|/-\\" i=0 last width
    if [[ -z $ui_tty ]]; then
        while sleep 30; do
            last=$(tail -c 300 "$log" 2>/dev/null | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c1-100)
            printf '     ... %s, %d s: %s\n' "$title" $((SECONDS - start)) "$last"
        done
        return
    fi
    width=$(ui_columns)
    while sleep 0.2; do
        last=$(tail -c 300 "$log" 2>/dev/null | tr '\r' '\n' | tr -dc '[:print:]\n' | grep -v '^ *$' | tail -n 1)
        printf '\r\e[K  %s %.*s' "${spin:i++%4:1}" $((width - 6)) \
            "$title ($((SECONDS - start)) s)  $last"
    done
}

# ui_tick_stop - ends the drawing and clears its line
ui_tick_stop() {
    [[ -n $ui_ticker ]] || return 0
    kill "$ui_ticker" 2>/dev/null || true
    wait "$ui_ticker" 2>/dev/null || true
    ui_ticker=
    [[ -z $ui_tty ]] || printf '\r\e[K'
}

# ui_stop - ends a step that runs, with all its processes, and its drawing; for a trap on EXIT
ui_stop() {
    [[ -z $ui_job ]] || kill -- "-$ui_job" 2>/dev/null || true
    ui_job=
    ui_tick_stop
}

# ui_start LOG COMMAND... - starts COMMAND in a process group of its own; its id is in ui_job
ui_start() {
    local log=$1
    shift
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    ui_job=$!
    set +m
}

# ui_wait TITLE LOG START - draws until the command of ui_start has ended. Returns its status.
ui_wait() {
    local status=0
    ui_tick "$@" &
    ui_ticker=$!
    wait "$ui_job" || status=$?
    ui_job=
    ui_tick_stop
    return "$status"
}

# ui_step TITLE LOG COMMAND... - runs COMMAND with its output in LOG; shows that it runs and how long
# it took. Returns COMMAND's status; on failure prints the end of LOG and where it lies.
ui_step() {
    local title=$1 log=$2 start=$SECONDS status=0
    shift 2
    mkdir -p "$(dirname "$log")"
    ui_start "$log" "$@"
    ui_wait "$title" "$log" "$start" || status=$?
    if ((status == 0)); then
        ui_ok "$title ($((SECONDS - start)) s)"
        return 0
    fi
    ui_error "$title: ended with status $status after $((SECONDS - start)) s. The end of $log:"
    tail -n 25 "$log" | sed 's/^/     | /' >&2
    return "$status"
}
