#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# pkg_source_entries: apt's two source formats become deb-src entries of this release only.
set -euo pipefail
source deploy/lib/packages.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/one.list" <<'EOF'
# a comment
deb http://mirror.example/debian bookworm main contrib # why
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg trusted=yes] http://mirror.example/sec bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb https://other.example/linux bookworm stable
deb http://mirror.example/debian trixie main
EOF
cat >"$work/two.sources" <<'EOF'
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://other.example/
Suites: nodistro
Components: main
EOF
cat >"$work/expected" <<'EOF'
Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main contrib

Types: deb-src
URIs: http://mirror.example/sec
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/a.gpg
Trusted: yes

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

EOF
pkg_source_entries bookworm "$work/one.list" "$work/two.sources" | diff -u "$work/expected" -
[[ -z $(pkg_source_entries sid "$work/one.list" "$work/two.sources") ]]
echo "apt's sources are understood"
