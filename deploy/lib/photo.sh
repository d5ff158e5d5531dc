# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# photo - the photographs that the quick start denoises; docs/quickstart.md names their authors
#
# Needs packages.sh; netpbm converts.

PHOTO_PACKAGE=lomiri-wallpapers-16.04
PHOTO_FOLDER=usr/share/backgrounds
PHOTO_NAMES=(picosdeeuropa_by_Aitzol_Berasategi.jpg seeding_by_Clements_Engelhardt.jpg)

# photo_default NUMBER - prints the path of a photograph of the Debian package
photo_default() {
    local tree
    tree=$(pkg_unpack "$PHOTO_PACKAGE") || return
    printf '%s\n' "$tree/$PHOTO_FOLDER/${PHOTO_NAMES[$1]}"
}

# photo_to_ppm FILE PIXELS OUT - converts a PNG, JPEG or PNM file to an 8-bit colour PPM of at most
# PIXELS pixels
photo_to_ppm() {
    local file=$1 pixels=$2 out=$3 width height
    case $(head -c 4 "$file" | od -An -tx1 | tr -d ' ') in
    89504e47) pngtopnm -quiet "$file" ;;
    ffd8*) jpegtopnm -quiet "$file" ;;
    503[1-6]*) cat "$file" ;;
    *)
        printf '%s is neither PNG nor JPEG nor PNM\n' "$file" >&2
        return 1
        ;;
    esac | pamdepth -quiet 255 | ppmtoppm -quiet >"$out.full" || return
    read -r width height < <(sed -n '2{p;q}' "$out.full")
    if ((width * height > pixels)); then
        pamscale -quiet -pixels "$pixels" "$out.full" >"$out" || return
        rm -f "$out.full"
    else
        mv "$out.full" "$out"
    fi
}
