#!/usr/bin/env python3
"""Fetches nginx and HAProxy of a release of Debian, with the libraries that they need, into a folder of their own.

    benches/gateway/newest.py FOLDER [--release trixie]

Nothing is installed: FOLDER/bin/nginx and FOLDER/bin/haproxy run them by their own loader. With FOLDER/bin in front of PATH the
benches measure these in place of the machine's.
"""

import argparse
import lzma
import pathlib
import platform
import re
import subprocess
import sys
import urllib.request

MIRROR = "http://deb.debian.org/debian"
WANTED = {"nginx": "usr/sbin/nginx", "haproxy": "usr/sbin/haproxy"}
MACHINES = {"x86_64": ("amd64", "x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
            "aarch64": ("arm64", "aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1")}


def index(release, architecture):
    with urllib.request.urlopen(f"{MIRROR}/dists/{release}/main/binary-{architecture}/Packages.xz") as response:
        text = lzma.decompress(response.read()).decode()
    packages = {}
    for entry in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", entry, re.MULTILINE))
        if "Package" in fields:
            packages[fields["Package"]] = fields
    return packages


def needed(packages):
    """The programs, and the libraries that they depend on in the end."""
    found, left = [], list(WANTED)
    while left:
        name = left.pop()
        if name in found or name not in packages:
            continue
        found.append(name)
        for group in packages[name].get("Depends", "").split(","):
            first = re.sub(r"[ (:].*", "", group.split("|")[0].strip())
            if first.startswith("lib") or first == "zlib1g":
                left.append(first)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--release", default="trixie")
    options = parser.parse_args()
    architecture, triplet, loader = MACHINES[platform.machine()]
    root = options.folder.resolve()
    (root / "bin").mkdir(parents=True, exist_ok=True)
    packages = index(options.release, architecture)
    for name in needed(packages):
        archive = root / f"{name}.deb"
        urllib.request.urlretrieve(f"{MIRROR}/{packages[name]['Filename']}", archive)
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)
        archive.unlink()
    loader = next(path for path in (root / loader, root / "usr" / loader) if path.exists())
    libraries = ":".join(str(root / folder / triplet) for folder in ("usr/lib", "lib"))
    for name, program in WANTED.items():
        script = root / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{libraries}" "{root / program}" "$@"\n')
        script.chmod(0o755)
        print(name, packages[name]["Version"], script)


if __name__ == "__main__":
    sys.exit(main())
