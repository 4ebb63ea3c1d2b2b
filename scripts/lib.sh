# What do scripts/test and scripts/demo need on this machine? Sourced by both: prepare installs what is missing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=.venv/bin/python

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# The first Python of at least 3.11 that can make virtual environments.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

missing_packages() {
    find_python >/dev/null || echo python3 python3-venv
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && command -v epmd >/dev/null || echo rabbitmq-server
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || echo postgresql
    command -v setpriv >/dev/null || echo util-linux
    command -v git >/dev/null || echo git
}

# The packages' own services are not started: the tests run servers of their own, and an existing one is left alone.
install_packages() {
    local as_root=() policy=/usr/sbin/policy-rc.d code=0
    command -v apt-get >/dev/null || fail "missing: $*; this system has no apt-get, please install them"
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || fail "missing: $*; run as root: apt-get install --no-install-recommends $*"
        as_root=(sudo -n)
    fi
    echo "installing $*"
    if [ -e "$policy" ]; then policy=; else
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    {
        "${as_root[@]}" apt-get update -qq &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } </dev/null >/dev/null || code=$?
    [ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
    [ "$code" = 0 ] || fail "apt-get could not install: $*"
}

# .venv holds this project, editable, and its pinned dependencies; nothing is done while those stay as they are.
make_environment() {
    local base stamp
    base=$(find_python) || fail "no Python of at least 3.11 with venv on PATH"
    stamp=$(cat pyproject.toml constraints.txt <("$base" --version) <(pwd) | sha256sum)
    [ -x "$python" ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && return
    echo "making .venv"
    [ -x "$python" ] || "$base" -m venv .venv
    install_python_packages -c constraints.txt -e '.[dev]'
    echo "$stamp" >.venv/stamp
}

# uv (by the makers of ruff) needs three seconds where pip needs half a minute, and the Rucio server is installed with it
# too. It does not read pip's settings: where it cannot be had or does not reach an index, pip installs.
install_python_packages() {
    local pip=("$python" -m pip --quiet --disable-pip-version-check install)
    if "${pip[@]}" -c constraints.txt uv >/dev/null 2>&1 </dev/null; then
        UV_HTTP_TIMEOUT=20 "$python" -m uv pip install --quiet --python "$python" "$@" >/dev/null 2>&1 </dev/null && return
    fi
    "${pip[@]}" "$@" </dev/null
}

prepare() {
    local missing
    missing=$(missing_packages)
    # shellcheck disable=SC2086 # one word a package
    [ -z "$missing" ] || install_packages $missing
    make_environment
}

# What the tests on a newer RabbitMQ need (tests/stack/broker_root.py). Without it they are skipped, and say why.
prepare_newer_broker() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v mmdebstrap >/dev/null; then
        (install_packages mmdebstrap) || true
    fi
}

# Tries the alert rules. Debian's package, unpacked and not installed: its service is nobody's business here.
prepare_promtool() {
    command -v promtool >/dev/null && return
    [ -x .cache/prometheus/usr/bin/promtool ] && return
    command -v apt-get >/dev/null || { echo "no promtool and no apt-get: the alert rules' own tests are left out"; return; }
    local folder
    folder=$(mktemp -d)
    if (cd "$folder" && { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; }) \
        >/dev/null 2>&1; then
        mkdir -p .cache && dpkg-deb -x "$folder"/prometheus_*.deb .cache/prometheus
    else
        echo "no promtool to be had: the alert rules' own tests are left out"
    fi
    rm -rf "$folder"
}
