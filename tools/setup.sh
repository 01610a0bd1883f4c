#!/bin/sh
# Set up scgpu in .venv of this checkout. See usage below.
set -eu

usage() {
    cat <<'TEXT'
Usage: sh tools/setup.sh demo|dev

Makes .venv in this checkout with an editable scgpu and everything that
    demo   `.venv/bin/scgpu demo` needs
    dev    the tests and checks need as well

On Debian and Ubuntu it first installs the system packages that are missing (as
root, or with sudo). A second run returns at once unless the sources of the native
library, or what pyproject.toml asks for, have changed.

Environment:
    PYTHON   Python 3.11 or newer to make .venv with (default: python3)
TEXT
}

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

case "$#,${1:-}" in
    1,demo | 1,dev) extra=$1 ;;
    1,-h | 1,--help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# --- Python ---------------------------------------------------------------------------
modern='import sys; sys.exit(sys.version_info < (3, 11))'
command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or newer, or set PYTHON"
"$python" -c "$modern" || fail "scgpu needs Python 3.11 or newer, $python is $("$python" -V 2>&1); set PYTHON"

# --- System packages ------------------------------------------------------------------
# The Vulkan loader with Mesa's drivers, and what wgpu's OpenGL adapter loads.
packages='libvulkan1 mesa-vulkan-drivers libegl1 libgl1-mesa-dri'
# The tests run the library of other processors too, and some under memcheck, and open windows on a
# display of their own.
[ "$extra" = demo ] || packages="$packages qemu-user valgrind xvfb"

missing=''
if command -v dpkg-query >/dev/null; then
    for package in $packages; do
        case "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)" in
            *' installed') ;;
            *) missing="$missing $package" ;;
        esac
    done
elif [ "$(uname)" = Linux ]; then
    libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)
    case "$libraries" in *libvulkan.so.1*) ;; *) missing="$missing libvulkan1 mesa-vulkan-drivers" ;; esac
    case "$libraries" in *libEGL.so.1*) ;; *) missing="$missing libegl1 libgl1-mesa-dri" ;; esac
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

install_packages() {
    if [ "$(id -u)" = 0 ]; then
        as_root=''
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        say "this needs root or sudo"
        return 1
    fi
    # A failed update may concern a source that we do not need: the installation decides.
    $as_root apt-get update >"$log" 2>&1 || true
    # shellcheck disable=SC2086 # lists of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=120 $missing >>"$log" 2>&1 </dev/null && return 0
    tail -n 5 "$log" >&2
    return 1
}

if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null; then
        say "installing the Debian packages$missing"
        install_packages || say "NOT INSTALLED; as root run: apt-get install$missing"
    else
        say "install what Debian calls$missing with this system's package manager"
    fi
    # Without the others scgpu still has its cpu device; without venv nothing works.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module; install python3-venv"
fi

# --- .venv ----------------------------------------------------------------------------
stamp=.venv/.scgpu-setup
state=$(
    {
        pwd
        "$python" -V
        cat pyproject.toml scgpu/_version.py scgpu/_abi.py tools/build_cpu_ref.py tools/gen_abi.py tools/hatch_build.py cpu_ref/*.zig
    } | cksum
)

# True when .venv is what this checkout asks for, its native library included.
ready() {
    [ -f "$stamp" ] || return 1
    read -r installed found <"$stamp" || return 1
    [ "$found" = "$state" ] || return 1
    [ "$installed" = "$extra" ] || [ "$installed" = dev ] || return 1
    .venv/bin/python -c 'import scgpu; scgpu.simd_tiers()' 2>/dev/null
}

if ready; then
    say ".venv is up to date"
    exit 0
fi
rm -f "$stamp"
if ! .venv/bin/python -c "import pip; $modern" 2>/dev/null; then
    say "making .venv with $("$python" -V)"
    "$python" -m venv --clear .venv || fail "$python -m venv failed"
fi
say "building the native library, installing scgpu[$extra] and what it needs (minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" ||
    fail "pip failed; see above"
.venv/bin/python -c 'import scgpu; scgpu.simd_tiers()' || fail "the installed scgpu does not work; see above"
echo "$extra $state" >"$stamp"
say "ready"
