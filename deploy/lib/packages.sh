# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# packages - what the project needs from Debian, and how it is fetched
#
# Installs only what is missing, as root or through sudo. Whatever is fetched and not installed (the
# guest's kernel, a photograph, QEMU's source) lies in one cache folder, $VGPU_CACHE, by default
# ${XDG_CACHE_HOME:-$HOME/.cache}/vgpu; removing it costs nothing but the next download. The host's
# /etc/apt is read and never written: source packages come through a private apt configuration.

VGPU_CACHE=${VGPU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vgpu}

# pkg_group NAME... - prints the packages of the groups, one per line
pkg_group() {
    local group
    for group in "$@"; do
        case $group in
        build) # compiling the programs
            printf '%s\n' gcc libc6-dev cmake ninja-build pkg-config libuv1-dev libcyaml-dev \
                libjansson-dev check libopenblas-dev libfftw3-dev libpng-dev zlib1g-dev \
                libyaml-dev libprotobuf-c-dev protobuf-c-compiler
            ;;
        run) # the virtual machines and the photographs of the quick start
            printf '%s\n' qemu-system-x86 busybox-static cpio netpbm python3 python3-numpy \
                procps socat
            ;;
        qemu-source) # QEMU's headers, for the plug-in
            printf '%s\n' gcc libc6-dev binutils dpkg-dev pkg-config libglib2.0-dev python3
            ;;
        qemu-tree) # building QEMU with the device in its tree, besides qemu-source
            printf '%s\n' patch ninja-build meson python3-venv libpixman-1-dev libfdt-dev flex bison
            ;;
        test) # what tests/run.sh uses besides
            printf '%s\n' clang clang-format clang-tidy shellcheck git python3-pytest \
                python3-numpy procps debootstrap
            # The run-time libraries of clang's sanitizers are a package of their own since Debian 12.
            printf 'libclang-rt-dev\n'
            ;;
        *)
            printf 'pkg_group: there is no package group "%s"\n' "$group" >&2
            return 1
            ;;
        esac
    done | sort -u
}

# pkg_missing PACKAGE... - prints those that are not installed
pkg_missing() {
    local package
    local -A installed=()
    while read -r package; do
        installed[$package]=1
    done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
        sed -n 's/^installed //p')
    for package in "$@"; do
        [[ -n ${installed[$package]:-} ]] || printf '%s\n' "$package"
    done
}

# pkg_as_root COMMAND... - runs COMMAND as root, through sudo if need be
pkg_as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        printf 'This needs root and there is no sudo: %s\n' "$*" >&2
        return 1
    fi
}

pkg_apt_get() {
    pkg_as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@"
}

# pkg_apt_install PACKAGE... - refreshes the package lists if they do not know all of these; installs
pkg_apt_install() {
    if apt-get -s -q install --no-install-recommends "$@" >/dev/null 2>&1; then
        pkg_apt_get install --no-install-recommends "$@" && return
    fi
    pkg_apt_get update && pkg_apt_get install --no-install-recommends "$@"
}

# pkg_install LOG GROUP... - installs what is missing of the groups
pkg_install() {
    local log=$1
    local -a packages missing
    shift
    mapfile -t packages < <(pkg_group "$@")
    mapfile -t missing < <(pkg_missing "${packages[@]}")
    if ((${#missing[@]} == 0)); then
        ui_ok "packages: everything is installed"
        return
    fi
    # Ask for the password before the output goes to the log.
    ((EUID == 0)) || ! command -v sudo >/dev/null || sudo -v
    printf 'packages to install: %s\n' "${missing[*]}" | fold -s -w 96 | sed 's/^/    /'
    ui_step "installing ${#missing[@]} packages" "$log" pkg_apt_install "${missing[@]}"
}

# pkg_source_entries CODENAME FILE... - prints, as deb822 deb-src stanzas, those entries of apt's
# source files (*.sources: deb822, others: one line each) that serve this release of Debian. Entries
# of third parties are left out.
pkg_source_entries() {
    local codename=$1
    shift
    awk -v codename="$codename" '
        function wanted(suites,    i, n, s) {
            n = split(suites, s, /[ \t\n]+/)
            for (i = 1; i <= n; i++)
                if (s[i] == codename || index(s[i], codename "-") == 1 ||
                    index(s[i], codename "/") == 1)
                    return 1
            return 0
        }
        function flush() {
            if (stanza != "" && wanted(suites) && " " components " " ~ /[ \t]main[ \t]/ && !disabled)
                printf "Types: deb-src\n%s\n", stanza
            stanza = suites = components = ""; disabled = 0; key = ""
        }
        FNR == 1 { flush() }
        /^[ \t]*#/ { next }
        FILENAME ~ /\.sources$/ {
            if ($0 ~ /^[ \t]*$/) { flush(); next }
            if ($0 !~ /^[ \t]/) { key = tolower($0); sub(/:.*/, "", key) }
            if (key == "types") next
            value = $0; sub(/^[^:]*:/, "", value)
            if (key == "suites") suites = suites " " value
            if (key == "components") components = components " " value
            if (key == "enabled" && tolower(value) ~ /no|false|0/) disabled = 1
            if (key == "architectures") next
            stanza = stanza $0 "\n"
            next
        }
        $1 == "deb" {
            options = ""; rest = $0; sub(/^[ \t]*deb[ \t]+/, "", rest)
            if (rest ~ /^\[/) {
                options = rest; sub(/\].*/, "", options); sub(/^\[[ \t]*/, "", options)
                sub(/^\[[^]]*\][ \t]*/, "", rest)
            }
            n = split(rest, word, /[ \t]+/)
            suites = word[2]; components = ""
            for (i = 3; i <= n && word[i] !~ /^#/; i++) components = components " " word[i]
            stanza = "URIs: " word[1] "\nSuites: " suites "\nComponents:" components "\n"
            n = split(options, option, /[ \t]+/)
            for (i = 1; i <= n; i++) {
                if (option[i] ~ /^signed-by=/) stanza = stanza "Signed-By: " substr(option[i], 11) "\n"
                if (option[i] ~ /^trusted=/) stanza = stanza "Trusted: " substr(option[i], 9) "\n"
            }
            flush()
        }
        END { flush() }' "$@"
}

# pkg_private_apt - makes $VGPU_CACHE/apt, a private apt configuration with source entries derived
# from the host's own, and refreshes its lists
pkg_private_apt() {
    local apt=$VGPU_CACHE/apt codename file
    local -a files=() names=()
    # shellcheck disable=SC1091
    mapfile -t names < <(. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}")
    # sid calls itself by the name of the next release.
    ! grep -qs /sid /etc/debian_version || names+=(sid unstable testing)
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [[ ! -r $file ]] || files+=("$file")
    done
    ((${#files[@]})) || { printf 'apt has no sources in /etc/apt\n' >&2; return 1; }
    mkdir -p "$apt/sources.d" "$apt/lists/partial" "$apt/archives/partial"
    for codename in "${names[@]}"; do
        pkg_source_entries "$codename" "${files[@]}" >"$apt/sources.d/vgpu.sources"
        [[ ! -s $apt/sources.d/vgpu.sources ]] || break
    done
    if [[ ! -s $apt/sources.d/vgpu.sources ]]; then
        printf 'No entry of /etc/apt serves "%s main"; source packages cannot be fetched.\n' \
            "${names[0]}" >&2
        return 1
    fi
    pkg_private_apt_get update
}

# pkg_private_apt_get ARGS... - apt-get with the private configuration
pkg_private_apt_get() {
    local apt=$VGPU_CACHE/apt
    apt-get -q -o Acquire::Retries=3 -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$apt/sources.d" -o Dir::State::Lists="$apt/lists" \
        -o Dir::Cache="$apt" -o Dir::Cache::Archives="$apt/archives" \
        -o APT::Sandbox::User=root "$@"
}

# pkg_qemu_version - source version of the installed QEMU, without the epoch in file names
pkg_qemu_version() {
    dpkg-query -W -f '${source:Version}' qemu-system-x86
}

# pkg_qemu_source - fetches and unpacks the source of the installed QEMU; prints its folder,
# $VGPU_CACHE/qemu/VERSION/source. Everything else goes to standard error. Does nothing when it is
# there already.
pkg_qemu_source() {
    local version folder dsc
    version=$(pkg_qemu_version) || {
        printf 'qemu-system-x86 is not installed: its source cannot be chosen\n' >&2
        return 1
    }
    folder=$VGPU_CACHE/qemu/${version#*:}
    if [[ ! -d $folder/source ]]; then
        rm -rf "$folder"
        mkdir -p "$folder/download"
        pkg_private_apt >&2 || return
        if ! (cd "$folder/download" &&
            pkg_private_apt_get source --download-only "qemu=$version") >&2; then
            rm -rf "$folder"
            printf 'The source of QEMU %s cannot be fetched. If the package is older than what the\n' \
                "$version" >&2
            printf 'archive has now, upgrade it: apt-get install qemu-system-x86\n' >&2
            return 1
        fi
        dsc=$(find "$folder/download" -name '*.dsc')
        dpkg-source --no-check -x "$dsc" "$folder/source.part" >&2 || return
        rm -rf "$folder/download"
        mv "$folder/source.part" "$folder/source"
    fi
    printf '%s\n' "$folder/source"
}

# pkg_unpack PACKAGE - downloads PACKAGE without installing it and unpacks it; prints its folder,
# $VGPU_CACHE/deb/PACKAGE. Does nothing when it is there already.
pkg_unpack() {
    local package=$1 folder=$VGPU_CACHE/deb/$1 work
    if [[ ! -d $folder ]]; then
        mkdir -p "$VGPU_CACHE/deb"
        work=$(mktemp -d "$VGPU_CACHE/deb/.part.XXXXXX")
        if ! (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package") >&2; then
            { pkg_apt_get update && cd "$work" &&
                apt-get -q -o APT::Sandbox::User=root download "$package"; } >&2 || {
                rm -rf "$work"
                return 1
            }
        fi
        mkdir "$work/tree"
        dpkg-deb -x "$work"/*.deb "$work/tree" >&2
        mv "$work/tree" "$folder"
        rm -rf "$work"
    fi
    printf '%s\n' "$folder"
}

# pkg_depends_on PACKAGE PATTERN - the first package that PACKAGE depends on and whose name matches
pkg_depends_on() {
    apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null |
        awk -v pattern="$2" '$1 == "Depends:" && $2 ~ pattern { print $2; exit }'
}
