# Sourced by the scripts beside it.
# shellcheck shell=bash

say() { echo "$(basename "$0"): $*" >&2; }
die() { say "$@"; exit 1; }

# The container engine that really runs, not just its client.
engine() {
  local e
  for e in docker podman; do
    if "$e" info >/dev/null 2>&1; then echo "$e"; return; fi
  done
  return 1
}
