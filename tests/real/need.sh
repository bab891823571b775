# Sourced by the end-to-end parts: fetches what they need, or ends the part with SKIPPED.
#
# Everything lands in E2E_DIR (default target/e2e) and is fetched once. A part that could not be given what it needs prints a
# line that begins with SKIPPED and ends with status 77; any other failure is a failure.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
E2E_DIR=$(realpath -m "${E2E_DIR:-$here/../../target/e2e}")
WEIR=$(realpath -m "${WEIR:-$here/../../target/release/weir}")
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1
mkdir -p "$E2E_DIR"

skip() {
  echo "SKIPPED: $*"
  exit 77
}

# as_root COMMAND...: only where nothing has to be asked.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
  command -v apt-get >/dev/null 2>&1 || return 1
  as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
} >&2

# python_venv NAME MODULES PACKAGE...: $python runs with these packages, prebuilt ones only.
python_venv() {
  local venv=$E2E_DIR/$1 modules=$2
  shift 2
  python=$venv/bin/python
  local stamp=$venv/packages
  if [ "$(cat "$stamp" 2>/dev/null)" = "$*" ]; then return; fi
  command -v python3 >/dev/null 2>&1 || apt_install python3 python3-venv || skip "there is no python3, and it could not be installed"
  python3 -m venv --clear "$venv" 2>/dev/null \
    || { apt_install python3-venv && python3 -m venv --clear "$venv"; } \
    || skip "python3 cannot make a virtual environment, and python3-venv could not be installed"
  "$venv/bin/pip" install --quiet --only-binary :all: "$@" >&2 || skip "pip could not install $*"
  # What is installed must work: that it does not is a failure, not a reason to skip.
  "$python" -c "import $modules"
  echo "$*" >"$stamp"
}

# debian PACKAGE: the package, unpacked into $folder and not installed; no service is started.
debian() {
  folder=$E2E_DIR/$1
  [ -d "$folder/usr" ] && return
  command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || skip "there is no $1, and no apt to fetch it with"
  rm -rf "$folder" && mkdir -p "$folder"
  as_root apt-get update -qq >&2 || true # an older list may do
  (cd "$folder" && apt-get download -qq "$1") >&2 || skip "apt could not fetch the package $1"
  dpkg-deb -x "$folder/$1"_*.deb "$folder"
}

# have_prometheus: $prometheus and $promtool run. PROMETHEUS and PROMTOOL may name those of the machine.
have_prometheus() {
  prometheus=${PROMETHEUS:-$(command -v prometheus || true)} promtool=${PROMTOOL:-$(command -v promtool || true)}
  [ -x "$prometheus" ] && [ -x "$promtool" ] && return
  debian prometheus
  prometheus=$folder/usr/bin/prometheus promtool=$folder/usr/bin/promtool
}

# have_chromium: $chromium runs, driven by the Playwright of $python. CHROMIUM may name that of the machine.
have_chromium() {
  export PLAYWRIGHT_BROWSERS_PATH=$E2E_DIR/browsers
  chromium=${CHROMIUM:-$(command -v chromium || command -v google-chrome || true)}
  [ -x "$chromium" ] && return
  if timeout 300 "$python" -m playwright install chromium >&2; then
    chromium=$("$python" -c 'from playwright.sync_api import sync_playwright as p
with p() as pw: print(pw.chromium.executable_path)')
    return
  fi
  apt_install chromium && chromium=$(command -v chromium) || skip "there is no chromium, and it could not be installed"
}
