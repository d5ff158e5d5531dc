#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# prove.sh - shows on a fresh minimal Debian that what the README promises holds
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh

usage() {
    cat <<'EOF'
usage: deploy/prove.sh quickstart | tests | trixie-unit

Each makes a minimal Debian in a temporary folder (deploy/debian-chroot.sh; needs root), runs there
and removes it.

  quickstart    Debian 12: deploy/quickstart.sh twice; the second run takes less than a minute
  tests         Debian 12: tests/run.sh
  trixie-unit   Debian 13: builds everything, warnings as errors, and passes the unit tests
EOF
}

prove_quickstart() {
    # shellcheck disable=SC2016
    deploy/debian-chroot.sh bookworm "$dir" bash -ec '
        ./deploy/quickstart.sh --out /tmp/first
        SECONDS=0
        ./deploy/quickstart.sh --out /tmp/second
        printf "second run: %d s\n" "$SECONDS"
        ((SECONDS < 60))'
}

prove_tests() { deploy/debian-chroot.sh bookworm "$dir" ./tests/run.sh; }

prove_trixie-unit() {
    # shellcheck disable=SC2016
    deploy/debian-chroot.sh trixie "$dir" bash -ec '
        source deploy/lib/ui.sh
        source deploy/lib/packages.sh
        pkg_install /tmp/packages.log build
        ui_step "configuring" /tmp/configure.log cmake --preset dev
        ui_step "building" /tmp/build.log cmake --build --preset dev -j "$(nproc)"
        ctest --preset dev -j "$(nproc)" -L "^unit$"'
}

case ${1:-} in
quickstart | tests | trixie-unit) ;;
-h | --help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/vgpu-prove.XXXXXX")
trap 'rm -rf --one-file-system "$dir"' EXIT
trap 'exit 130' INT TERM
"prove_$1"
ui_ok "prove: $1"
