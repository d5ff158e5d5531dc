#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The quick start passes on a fresh minimal Debian 12, twice, the second time in less than a minute.
set -euo pipefail
if ((EUID != 0)); then
    echo "needs root: it makes a Debian 12 in a folder"
    exit 77
fi
exec deploy/prove.sh quickstart
