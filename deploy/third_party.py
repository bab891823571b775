#!/usr/bin/env python3
"""Lists the crates whose code is in the binary, with their licences, in THIRD-PARTY.md.

usage:  third_party.py [--check]      write THIRD-PARTY.md, or compare it
        third_party.py --texts FILE   the licence texts themselves, one after the other, as they lie in the crates

What is judged to be allowed stands in deny.toml. Crates of tests, benches and other systems are left out: they are not shipped.
Standard library only; asks cargo.
"""

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
LIST = HERE / "THIRD-PARTY.md"
# What images and tarballs are made for.
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
HEAD = """# Third-party code in weir

The crates that are compiled into the binary (Linux, x86-64 and arm64) and their licences, as each declares it. `deny.toml` says
which licences may come in. `make sbom` writes the same as an SBOM, and the texts of the licences.

Made by deploy/third_party.py; run it after a change of Cargo.lock.

| crate | version | licence |
|---|---|---|
"""


def shipped():
    """The packages reached from ours by normal dependencies: name and version to package."""
    found = {}
    for target in TARGETS:
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        ahead, seen = [metadata["resolve"]["root"]], set()
        while ahead:
            one = ahead.pop()
            if one in seen:
                continue
            seen.add(one)
            # A macro runs while compiling; its own dependencies are not in the binary, but it may leave code of its own there.
            ahead += [dep["pkg"] for dep in nodes[one]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        seen.remove(metadata["resolve"]["root"])
        found.update({(packages[one]["name"], packages[one]["version"]): packages[one] for one in seen})
    return [found[key] for key in sorted(found)]


def licence(package):
    return (package["license"] or f"see {package['license_file']}").replace("/", " OR ").replace("  OR  ", " OR ")


def texts(packages):
    """Every licence text once, under the crates that have it."""
    holders = {}
    for package in packages:
        folder = pathlib.Path(package["manifest_path"]).parent
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")):
                text = path.read_text(errors="replace").strip()
                holders.setdefault(text, []).append(f"{package['name']} {package['version']}")
    return "\n\n".join(f"==== {', '.join(names)}\n\n{text}" for text, names in holders.items()) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Lists the crates whose code is in the binary, with their licences.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("--texts", metavar="FILE", type=pathlib.Path, help="write the licence texts there")
    options = parser.parse_args()
    packages = shipped()
    if options.texts:
        options.texts.write_text(texts(packages))
        return 0
    text = HEAD + "".join(f"| {package['name']} | {package['version']} | {licence(package)} |\n" for package in packages)
    if LIST.exists() and LIST.read_text() == text:
        return 0
    if not options.check:
        LIST.write_text(text)
        return 0
    print("THIRD-PARTY.md: not what deploy/third_party.py writes; run it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
