# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# procs - processes that a script starts, each a process group of its own, and all ended by procs_stop
#
# PROCS_FILE holds one line per process, "PGID NAME", so that a second script can end them as well.

PROCS_FILE=

# procs_start NAME LOG COMMAND... - starts COMMAND in the background; its id is in procs_id[NAME]
declare -A procs_id=()
procs_start() {
    local name=$1 log=$2
    shift 2
    setsid -- "$@" >>"$log" 2>&1 </dev/null &
    procs_id[$name]=$!
    printf '%d %s\n' "$!" "$name" >>"$PROCS_FILE"
}

procs_alive() { kill -0 "${procs_id[$1]}" 2>/dev/null; }

# procs_kill NAME - kill -9 of the whole process group
procs_kill() {
    kill -9 -- "-${procs_id[$1]}"
    wait "${procs_id[$1]}" 2>/dev/null || true
}

# procs_group_gone PGID - is no process of the group left?
procs_group_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

# procs_stop - ends all: politely, after 5 s by force; the last started goes first
procs_stop() {
    local id name end
    [[ -n $PROCS_FILE && -f $PROCS_FILE ]] || return 0
    while read -r id name; do
        kill -TERM -- "-$id" 2>/dev/null || true
        end=$((SECONDS + 5))
        until procs_group_gone "$id" || ((SECONDS > end)); do
            sleep 0.05
        done
        kill -KILL -- "-$id" 2>/dev/null || true
        wait "$id" 2>/dev/null || true
    done < <(tac "$PROCS_FILE")
    rm -f "$PROCS_FILE"
}

# wait_until SECONDS WHAT COMMAND... - waits for COMMAND to succeed; says WHAT did not happen
wait_until() {
    local seconds=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > end)); then
            ui_error "waited $seconds s in vain: $what"
            return 1
        fi
        sleep 0.1
    done
}
