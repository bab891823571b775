"""The image: built without a daemon on a base made of this machine's glibc, and run as an orchestrator would: not as root, nothing to write on.

The stage that compiles is not built here, for it needs a builder's image; what it runs, deploy/release.sh, is what `make ship` runs.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time

from harness import check, free_port, get, wait_until_up

MOST_MIB = 40
USER = 65532
# A stop without streams, with drain.min_delay of 0, ends at once.
STOP_SECONDS = 5


def held(root, weir, folder):
    """Builds it, looks at it, runs it, and takes it away again."""
    store = os.path.join(folder, "store")
    environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def buildah(*command):
        full = ["buildah", "--root", os.path.join(store, "root"), "--runroot", os.path.join(store, "run"), *command]
        done = subprocess.run(full, env=environment, capture_output=True, text=True, timeout=180)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr[-600:]}")
        return done.stdout.strip()

    source = os.path.join(folder, "source")
    os.makedirs(os.path.join(source, "dist"))
    subprocess.run(["strip", "--strip-all", "-o", os.path.join(source, "dist", "weir"), weir], check=True)
    for name in ("Dockerfile", "LICENSE", "THIRD-PARTY.md", ".dockerignore"):
        shutil.copy(os.path.join(root, name), source)
    base(buildah, weir, folder)
    buildah("bud", "--pull-never", "--target", "ready", "--build-arg", "BASE=localhost/weir-base", "--build-arg", "BUILDER=localhost/weir-base",
            "--build-arg", "WEIR_REVISION=of-the-test", "-t", "weir:test", source)
    told = json.loads(buildah("inspect", "--type", "image", "weir:test"))["OCIv1"]
    size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(source) for name in names if name in ("weir", "LICENSE", "THIRD-PARTY.md"))
    check(size / 2**20 <= MOST_MIB, f"without its base the image is {size / 2**20:.1f} MiB (at most {MOST_MIB} is asked)")
    config = told["config"]
    check(config["User"] == f"{USER}:{USER}", f"its user is {config['User']}")
    check(set(config["ExposedPorts"]) == {"8000/tcp", "9902/tcp"}, f"its ports are {sorted(config['ExposedPorts'])}")
    check(config["Labels"]["org.opencontainers.image.revision"] == "of-the-test", "it names its revision")
    container = buildah("from", "--pull-never", "weir:test")
    try:
        run(buildah("mount", container), [*config["Entrypoint"], *config["Cmd"]], weir, folder)
    finally:
        buildah("umount", container)


def base(buildah, weir, folder):
    """What distroless' cc has and we need: the loader, glibc and libgcc, and the folders that a runtime mounts on."""
    tree = os.path.join(folder, "base")
    for path in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", weir], capture_output=True, text=True, check=True).stdout):
        copy = tree + path
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copy(os.path.realpath(path), copy)
    for name in ("etc/weir", "proc", "dev", "tmp"):
        os.makedirs(os.path.join(tree, name))
    with open(os.path.join(tree, "etc", "passwd"), "w") as file:
        file.write(f"nonroot:x:{USER}:{USER}:nonroot:/:/none\n")
    container = buildah("from", "scratch")
    buildah("copy", container, tree, "/")
    buildah("commit", "--rm", container, "weir-base")


def run(mounted, command, weir, folder):
    """The image's own command on its own root, which is mounted for reading only in a name space of ours."""
    data, admin, engine = free_port(), free_port(), free_port()
    config = os.path.join(folder, "config")
    os.mkdir(config)
    with open(os.path.join(config, "weir.yaml"), "w") as file:
        file.write(f"listen: 127.0.0.1:{data}\nbackends: [{{ name: engine, url: 'http://127.0.0.1:{engine}' }}]\n"
                   f"admin: {{ listen: '127.0.0.1:{admin}' }}\ndrain: {{ min_delay: 0s }}\n")
    script = ('set -e; root=$1; shift; mount --rbind "$root" "$root"; mount --rbind /proc "$root/proc"; mount --bind "$CONFIG" "$root/etc/weir"\n'
              'mount -o remount,bind,ro "$root/etc/weir"; mount -o remount,bind,ro "$root"\n'
              f'exec setpriv --no-new-privs chroot --userspec={USER}:{USER} "$root" "$@"')
    isolated = ["unshare", "--mount", "bash", "-c", script, "bash", mounted, *command]
    environment = {"PATH": os.environ["PATH"], "CONFIG": config}
    with started([weir, "engine", "--listen", f"127.0.0.1:{engine}"], os.environ) as model, started(isolated, environment) as process:
        wait_until_up(engine, "/health", model)
        wait_until_up(admin, "/readyz", process)
        with open(f"/proc/{process.pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        check(status["Uid"].split() == [str(USER)] * 4 and status["CapEff"].strip("0") == "" and status["NoNewPrivs"] == "1", "it runs as nonroot, without capabilities and new privileges")
        with open(f"/proc/{process.pid}/mountinfo") as file:
            options = next(line.split()[5] for line in file if line.split()[4] == "/")
        check("ro" in options.split(","), "its root is mounted for reading only")
        answer = asked(data)
        check(answer[0] == 200 and b"[DONE]" in answer[1], "it serves a stream to its end")
        check(b'weir_requests_finished_total{' in get(admin, "/metrics")[1], "and counts it")
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        check(code == 0 and time.monotonic() - begin < STOP_SECONDS, f"told to stop it ends with {code} after {time.monotonic() - begin:.1f} s")


def asked(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {"model": "m", "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@contextlib.contextmanager
def started(command, environment):
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
