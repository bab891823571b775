"""The unit, the Dockerfile, the compose file and the image, each asked of the tool that reads it in earnest.

Kubernetes' objects are in manifests.py, what an image does when it runs in image.py, the unit under a running systemd in booted.py.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

import booted
import image
import manifests
from harness import check, verdict

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
DEPLOY = os.path.join(ROOT, "deploy")
# What `systemd-analyze security` calls "OK" begins at 2.0 and falls; below it the unit may do little but what it is for.
MOST_EXPOSED = 2.0


def said(*command, **more):
    """Status and everything said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **more)
    return done.returncode, done.stdout.strip()


def unit(weir, folder):
    """An unknown key is only a warning there, so that nothing at all may be said."""
    with open(os.path.join(DEPLOY, "systemd", "weir.service")) as file:
        text = file.read().replace("/usr/bin/weir", weir)

    def verified(name, text):
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(text)
        return said("systemd-analyze", "verify", "--man=no", path)

    status, words = verified("weir.service", text)
    check(status == 0 and not words, f"systemd-analyze verify has nothing to say of the unit {words[:300]}")
    _, words = verified("wrong.service", text.replace("ProtectHome=", "ProtectHoem="))
    check("ProtectHoem" in words, "and would have said that a key is unknown")
    _, words = said("systemd-analyze", "security", "--offline=true", "--no-pager", os.path.join(folder, "weir.service"))
    score = re.search(r"exposure level for weir.service: ([0-9.]+)", words)
    check(score and float(score.group(1)) <= MOST_EXPOSED, f"systemd-analyze security: {score and score.group(1)} (at most {MOST_EXPOSED} is asked)")


def dockerfile(tools):
    status, words = said(os.path.join(tools, "hadolint"), os.path.join(ROOT, "Dockerfile"))
    check(status == 0, f"hadolint has nothing to say of the Dockerfile {words[:300]}")


def context(folder):
    """What .dockerignore lets through is a package that cargo understands."""
    for line in open(os.path.join(ROOT, ".dockerignore")):
        path = line.strip().removeprefix("!")
        if not line.startswith("!") or not os.path.exists(os.path.join(ROOT, path)):
            continue
        copy = os.path.join(folder, path)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if os.path.isdir(os.path.join(ROOT, path)):
            shutil.copytree(os.path.join(ROOT, path), copy)
        else:
            shutil.copy(os.path.join(ROOT, path), copy)
    status, words = said("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1", cwd=folder)
    check(status == 0, f"what .dockerignore lets through is a whole package {'' if status == 0 else words[-300:]}")


def compose(options, folder):
    path = os.path.join(DEPLOY, "compose", "docker-compose.yaml")
    if options.compose:
        status, words = said(options.compose, "-f", path, "config", "-q")
        check(status == 0 and not words, f"docker-compose config has nothing to say {words[:300]}")
        with open(path) as file:
            wrong = file.read().replace("read_only:", "read_olny:")
        status, words = said(options.compose, "-f", "-", "--project-directory", folder, "config", "-q", input=wrong)
        check(status != 0 and "read_olny" in words, "and would have said that a key is unknown")
    if options.promtool:
        rules = os.path.join(folder, "rules")
        shutil.copytree(os.path.join(ROOT, "dashboards", "rules"), rules)
        with open(os.path.join(DEPLOY, "compose", "prometheus", "prometheus.yaml")) as file:
            text = file.read().replace("/etc/prometheus/rules", rules)
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w") as file:
            file.write(text)
        status, words = said(options.promtool, "check", "config", config)
        check(status == 0 and "1 rule files found" in words, f"promtool takes the configuration and its rules {'' if status == 0 else words[-300:]}")
    if options.amtool:
        status, words = said(options.amtool, "check-config", os.path.join(DEPLOY, "compose", "alertmanager", "alertmanager.yaml"))
        check(status == 0 and "1 inhibit rules" in words, f"amtool takes Alertmanager's {'' if status == 0 else words[-300:]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weir", required=True)
    parser.add_argument("--tools", required=True)
    for tool in ("compose", "promtool", "amtool", "schemas", "system"):
        parser.add_argument(f"--{tool}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = {name: os.path.join(folder, name) for name in ("unit", "context", "compose", "kubernetes", "image")}
        for path in parts.values():
            os.mkdir(path)
        if shutil.which("systemd-analyze"):
            unit(options.weir, parts["unit"])
        dockerfile(options.tools)
        context(parts["context"])
        compose(options, parts["compose"])
        manifests.held(DEPLOY, options, parts["kubernetes"])
        if os.geteuid() == 0 and shutil.which("buildah"):
            image.held(ROOT, options.weir, parts["image"])
        if options.system:
            booted.held(ROOT, options.weir, options.system)
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
