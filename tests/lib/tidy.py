#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run clang-tidy over the project's C files of a build, several at once, remembering clean ones.

usage: tidy.py BUILD_DIR CACHE_DIR JOBS

A file is clean for as long as its preprocessed text, its own text, its flags, .clang-tidy and
clang-tidy's version stay the same; a clean file leaves an empty file named by their hash in
CACHE_DIR. Exits 1 if anything was found.
"""
import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys


def load_commands(build):
    """One (file, argument list, folder) per C file of the project, generated files left out."""
    root = os.getcwd() + os.sep
    seen = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        for entry in json.load(f):
            path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
            if not path.endswith(".c"):
                continue
            if path.startswith(root) and not path.startswith(os.path.join(root, "build") + os.sep):
                seen.setdefault(path, (shlex.split(entry["command"]), entry["directory"]))
    return [(path, *rest) for path, rest in sorted(seen.items())]


def preprocess(arguments, folder):
    """The file as the compiler sees it: the same command, with -E in place of -c -o FILE."""
    command, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word == "-o":
            skip = True
        elif word != "-c":
            command.append(word)
    return subprocess.run(command + ["-E"], cwd=folder, check=True, stdout=subprocess.PIPE).stdout


def check(path, arguments, folder, build, cache, base):
    """Return (path, findings); findings is empty for a clean file."""
    digest = base.copy()
    digest.update(" ".join(arguments).encode())
    digest.update(preprocess(arguments, folder))
    with open(path, "rb") as f:
        digest.update(f.read())
    stamp = os.path.join(cache, digest.hexdigest())
    if os.path.exists(stamp):
        return path, ""
    done = subprocess.run(["clang-tidy", "--quiet", "-p", build, path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode == 0:
        open(stamp, "w", encoding="utf-8").close()
        return path, ""
    return path, done.stdout or done.stderr


def main():
    build, cache, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(cache, exist_ok=True)
    base = hashlib.sha256(subprocess.run(["clang-tidy", "--version"], check=True,
                                         stdout=subprocess.PIPE).stdout)
    with open(".clang-tidy", "rb") as f:
        base.update(f.read())
    commands = load_commands(build)
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(check, *command, build, cache, base) for command in commands]
        for number, run in enumerate(concurrent.futures.as_completed(runs), 1):
            path, findings = run.result()
            print(f"[{number}/{len(runs)}] {os.path.relpath(path)}", flush=True)
            if findings:
                bad += 1
                print(findings, flush=True)
    print(f"{len(commands)} files, {bad} with findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
