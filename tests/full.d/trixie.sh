#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Debian 13 builds everything and passes the unit tests.
set -euo pipefail
if ((EUID != 0)); then
    echo "needs root: it makes a Debian 13 in a folder"
    exit 77
fi
exec deploy/prove.sh trixie-unit
