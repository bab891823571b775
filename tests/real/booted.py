"""The unit under a systemd that runs: in a container of systemd's own, on a small Debian, with the real weir and its engine.

Where such a container cannot be started (no root, no control groups) this is said and not checked.
"""

import os
import shutil
import subprocess

from harness import check

# Starting, stopping with drain.min_delay, a restart and a bad file: some 20 s.
PATIENCE = 150
# Without streams a stop takes drain.min_delay, 5 s, and not much more.
STOP_SECONDS = 9
# In place of the unit's 30 s, so that a test need not wait so long.
WATCHDOG_SECONDS = 6

SCRIPT = r"""
exec >/told 2>/said
tell() { echo "$1=$2"; }
show() { systemctl show -P "$1" weir; }
until_is() { for _ in $(seq 250); do [ "$("${@:2}")" = "$1" ] && return; sleep 0.1; done; }
systemctl start engine
systemctl start weir; tell started $?
tell type "$(show Type)"
until_is 200 curl -s -o /dev/null -w '%{http_code}' localhost:9902/readyz
tell stream "$(curl -s localhost:8000/v1/chat/completions -H 'content-type: application/json' \
  -d '{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":8}' | grep -c '\[DONE\]')"
pid=$(show MainPID)
while read -r key value _; do tell "${key%:}" "$value"; done < <(grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/$pid/status)
until_is 1 sh -c 'wc -l </var/lib/weir/journal.jsonl'
tell journal "$(wc -l </var/lib/weir/journal.jsonl)"
if [ "$(show Type)" = notify ]; then
  tell status "$(show StatusText)"
  echo 'mode: enforce' >>/etc/weir/weir.yaml
  systemctl reload weir; tell reload $?
  until_is 1 sh -c 'curl -s localhost:9902/status | grep -c "\"mode\":\"enforce\""'
  tell enforce "$(curl -s localhost:9902/status | grep -c '"mode":"enforce"')"
  tell same "$([ "$(show MainPID)" = "$pid" ] && echo 1)"
  kill -STOP "$pid"
  until_is 1 show NRestarts; until_is active show ActiveState
  tell watched "$(show NRestarts)"
  pid=$(show MainPID)
fi
before=$(show NRestarts)
kill -KILL "$pid"
until_is 200 curl -s -o /dev/null -w '%{http_code}' localhost:9902/livez
tell restarts $(($(show NRestarts) - before))
begin=$SECONDS; systemctl stop weir; tell stopped "$(show Result)"; tell seconds $((SECONDS - begin))
echo 'mdoe: enforce' >>/etc/weir/weir.yaml
systemctl reset-failed weir; systemctl start weir
until_is failed show ActiveState; sleep 2
tell bad "$(show ExecMainStatus)"; tell tried "$(show NRestarts)"
journalctl -u weir --no-pager -o cat >/journal
"""


def held(root, weir, system):
    """Boots the folder `system`, in which Debian lies, and holds what it tells against what the unit promises."""
    notifies = prepared(root, weir, system)
    command = ["systemd-nspawn", "-D", system, "--register=no", "--keep-unit", "--boot", "--private-network", f"--machine=weir-{os.getpid()}", "systemd.wants=told.service"]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    if not os.path.exists(os.path.join(system, "told")):
        print("SKIPPED: no systemd can be started in a container here: the unit is only read")
        return
    with open(os.path.join(system, "told")) as file:
        told = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    judge(told, notifies)


def prepared(root, weir, system):
    """Puts weir, its unit and the script into place. Whether this weir speaks to systemd."""
    for name in ("told", "said", "journal", "var/lib/weir", "var/lib/private/weir", "etc/systemd/system/weir.service.d"):
        path = os.path.join(system, name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.path.lexists(path) and os.remove(path)
    shutil.copy(weir, os.path.join(system, "usr/bin/weir"))
    units = os.path.join(system, "etc/systemd/system")
    shutil.copy(os.path.join(root, "deploy/systemd/weir.service"), units)
    os.makedirs(os.path.join(system, "etc/weir"), exist_ok=True)
    with open(os.path.join(root, "deploy/systemd/weir.yaml")) as file:
        config = file.read()
    texts = {
        "etc/weir/weir.yaml": config + "journal: { path: /var/lib/weir/journal.jsonl }\n",
        "script.sh": SCRIPT,
        "etc/systemd/system/engine.service": "[Service]\nExecStart=/usr/bin/weir engine\n",
        "etc/systemd/system/told.service": "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/bin/bash /script.sh\nExecStopPost=/bin/systemctl --no-block poweroff\n",
    }
    with open(weir, "rb") as file:
        notifies = b"NOTIFY_SOCKET" in file.read()
    if not notifies:
        print("SKIPPED: this weir tells systemd nothing: it is started as Type=exec, and not reloaded")
        os.makedirs(os.path.join(units, "weir.service.d"))
        texts["etc/systemd/system/weir.service.d/exec.conf"] = "[Service]\nType=exec\nWatchdogSec=0\n"
    else:
        os.makedirs(os.path.join(units, "weir.service.d"))
        texts["etc/systemd/system/weir.service.d/watch.conf"] = f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n"
    for name, text in texts.items():
        with open(os.path.join(system, name), "w") as file:
            file.write(text)
    return notifies


def judge(told, notifies):
    check(told.get("started") == "0" and told.get("stream") == "1", f"under a running systemd it starts and serves {told if told.get('stream') != '1' else ''}")
    locked = told.get("Uid", "0") != "0" and told.get("CapEff", "1").strip("0") == "" and told.get("NoNewPrivs") == "1" and told.get("Seccomp") == "2"
    check(locked, "as a user of its own, without capabilities, its system calls filtered")
    check(told.get("journal") == "1", "and writes its journal into its own folder")
    if notifies:
        check(told.get("type") == "notify" and told.get("status"), f"it says of itself: {told.get('status')}")
        check(told.get("reload") == "0" and told.get("enforce") == "1" and told.get("same") == "1", "systemctl reload has it read its file anew, and it goes on")
        check(told.get("watched") == "1", "stopped in its tracks, it is started again by the watchdog")
    check(told.get("restarts") == "1", "killed, it is started again")
    check(told.get("stopped") == "success" and int(told.get("seconds", 99)) <= STOP_SECONDS, f"systemctl stop drains it, {told.get('seconds')} s")
    check(told.get("bad") == "78" and told.get("tried") == "0", f"with a bad file it ends with {told.get('bad')} and is not tried again")
