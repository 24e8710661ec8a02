#!/usr/bin/env bash
# Installs the Debian 12 packages Bracket needs and that are missing. A CUDA toolkit is used if present, never installed.
# Usage: tools/install_deps.sh [--run-only]     --run-only: what building and running the program needs, no test tools
set -euo pipefail
case ${1:-} in "" | --run-only) ;; -h | --help) echo "usage: tools/install_deps.sh [--run-only]"; exit 0 ;; *) echo "usage: tools/install_deps.sh [--run-only]" >&2; exit 2 ;; esac

packages=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libpng-dev zlib1g-dev libeigen3-dev)
[ "${1:-}" = "--run-only" ] || packages+=(libgtest-dev libbenchmark-dev python3)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install_deps: please install with your package manager: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install_deps: run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
