#!/usr/bin/env bash
# weir against real parts, one after the other: a line for each at the end.
#
# usage: e2e.sh [PART...]      llamacpp | knee | gate | sdks | prometheus | alerts | scrape | page | deploy | fleet; without a name, all of them
#
# E2E_STRICT=1 judges times and rates by what was asked, for a machine that does nothing else; without it a busy one passes too.
# A part that fails is tried once more and shown as such: it measures real time, and others may have had the machine.
# A part that could not be given what it needs (status 77) is shown as SKIPPED and does not fail the run; one that failed does.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
parts=("$@")
[ $# -gt 0 ] || parts=(llamacpp knee gate sdks prometheus alerts scrape dashboards page deploy fleet)

summary=()
failed=0
for part in "${parts[@]}"; do
  begin=$SECONDS
  echo "== e2e $part"
  "$here/e2e_$part.sh"
  status=$? again=""
  if [ "$status" != 0 ] && [ "$status" != 77 ]; then
    echo "== e2e $part failed, once more"
    "$here/e2e_$part.sh"
    status=$? again=" at the second try; what failed at the first stands above"
  fi
  took="($((SECONDS - begin)) s)"
  case $status in
    0) summary+=("passed   e2e $part $took$again") ;;
    77) summary+=("SKIPPED  e2e $part, the reason stands above") ;;
    *) summary+=("FAILED   e2e $part $took"); failed=1 ;;
  esac
done
printf '%s\n' "== e2e summary" "${summary[@]}"
exit "$failed"
