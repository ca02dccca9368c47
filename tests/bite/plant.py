#!/usr/bin/env python3
"""Plants each fault of faults.toml in a copy of jit, and checks that its tests find it.

The source is copied to target/bite/src-tree and does not change. In the copy, every `find`
becomes a switch that the environment variable JIT_PLANTED turns on, so that one build
contains all faults. The tests must pass with no fault planted, and the test of each fault
must fail with it.

    python3 tests/bite/plant.py            all faults
    python3 tests/bite/plant.py K1a nonce  the faults whose id begins with one of these
    python3 tests/bite/plant.py --sources  only write the copy

JIT_SIM_SEEDS is the number of seeds in which the simulation must find a fault (5,000).
"""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "target" / "bite"
TREE = PLACE / "src-tree"
FAULTS = ROOT / "tests" / "bite" / "faults.toml"
SEEDS = os.environ.get("JIT_SIM_SEEDS", "5000")
CARGO = os.environ.get("CARGO", "cargo").split()
SIMULATION = ("simulation", "no_seed_breaks_a_promise")
# Seconds. A test that does not end in this time has not found its fault.
TIMEOUT = 900
# The profiles in Cargo.toml, up to the next other section.
PROFILES = re.compile(r"^\[profile\..*?(?=^\[(?!profile\.)|\Z)", re.M | re.S)
KINDS = ("expression", "statement", "raw")
PLACED = {"file", "find", "plant"}
NEEDED = {"id", "why", "found_by"}

MODULE = '''//! The fault that is planted in this process. tests/bite/plant.py writes this file.

use std::sync::LazyLock;

static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("JIT_PLANTED").ok());

pub fn is(id: &str) -> bool {
    let planted = PLANTED.as_deref().unwrap_or_default();
    planted.split(',').any(|one| one == id)
}
'''

# The profile of the copy, if Cargo.toml does not have one.
SIM_PROFILE = '\n[profile.sim]\ninherits = "release"\nlto = "off"\ncodegen-units = 16\n'


class Wrong(Exception):
    """An error in a fault or in its source file."""


class Fault:
    def __init__(self, table):
        self.id = table.get("id", "?")
        together = "with" in table
        unknown = set(table) - NEEDED - ({"with"} if together else PLACED | {"kind"})
        missing = NEEDED - set(table) | (set() if together else PLACED - set(table))
        if unknown or missing:
            raise Wrong(f"{self.id}: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.id):
            raise Wrong(f"{self.id}: an id is letters, digits and hyphens")
        self.why, self.together = table["why"], table.get("with", [])
        self.file = table.get("file")
        self.find, self.plant = table.get("find", "").strip("\n"), table.get("plant", "").strip("\n")
        self.kind = table.get("kind", "expression")
        if self.kind not in KINDS:
            raise Wrong(f"{self.id}: kind is one of {', '.join(KINDS)}")
        self.target, self.test = self.found_by(table["found_by"])
        self.planted = ",".join(self.together or [self.id])

    def found_by(self, text):
        if text == "simulation":
            return SIMULATION
        target, colon, test = text.partition(":")
        if not colon or not test.strip():
            raise Wrong(f'{self.id}: found_by is "simulation" or "target: test", and not "{text}"')
        return target.strip(), test.strip()

    def switched(self):
        condition = f'crate::planted::is("{self.id}")'
        if self.kind == "raw":
            if "PLANTED" not in self.plant:
                raise Wrong(f"{self.id}: a raw plant contains PLANTED in the place of its condition")
            return self.plant.replace("PLANTED", condition)
        switch = f"if {condition} {{ {self.plant} }} else {{ {self.find} }}"
        return f"({switch})" if self.kind == "expression" else switch


def faults():
    read = [Fault(table) for table in tomllib.loads(FAULTS.read_text())["fault"]]
    ids = [fault.id for fault in read]
    for one in ids:
        if ids.count(one) > 1:
            raise Wrong(f"{one}: two faults have this id")
    for fault in read:
        for other in fault.together:
            if other not in ids:
                raise Wrong(f"{fault.id}: there is no fault {other} to plant with")
    return read


def planted(file, text, some):
    """Returns the text with a switch in place of the `find` of each fault."""
    places = []
    for fault in some:
        count = text.count(fault.find)
        if count != 1:
            raise Wrong(f"{fault.id}: its `find` occurs {count} times in {file}, and must occur once")
        at = text.index(fault.find)
        places.append((at, at + len(fault.find), fault))
    places.sort(key=lambda place: place[0])
    for (_, end, one), (begin, _, other) in zip(places, places[1:]):
        if begin < end:
            raise Wrong(f"{one.id} and {other.id}: their `find`s overlap in {file}")
    for begin, end, fault in reversed(places):
        text = text[:begin] + fault.switched() + text[end:]
    return text


def write_if_changed(path, content):
    """Keeps the time of an unchanged file, so that it is not compiled again."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def copy(all_faults):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout.decode().split("\0")
    files = {name for name in listed if name and (ROOT / name).is_file()}
    for fault in all_faults:
        if fault.file and fault.file not in files:
            raise Wrong(f"{fault.id}: there is no file {fault.file}")
    written = files | {"src/planted.rs"}
    for name in sorted(files):
        content = (ROOT / name).read_bytes()
        some = [fault for fault in all_faults if fault.file == name]
        if some:
            content = planted(name, content.decode(), some).encode()
        if name == "Cargo.toml":
            content = PROFILES.sub("", content.decode()).encode()
        if name == "src/lib.rs":
            content += b"\npub mod planted;\n"
        write_if_changed(TREE / name, content)
    write_if_changed(TREE / "src" / "planted.rs", MODULE.encode())
    for path in [path for path in TREE.rglob("*") if path.is_file()]:
        if str(path.relative_to(TREE)) not in written:
            path.unlink()
    # The tests expect the files of `make dynamodb` and `make moto` here.
    if not (TREE / "target").is_symlink():
        (TREE / "target").symlink_to(ROOT / "target")
    # A separate workspace: the crates of the copy have other names than those of jit, and the
    # dependencies of both are compiled once.
    manifest = (ROOT / "Cargo.toml").read_text()
    profiles = PROFILES.findall(manifest)
    workspace = '[workspace]\nresolver = "3"\nmembers = ["src-tree"]\n\n' + "".join(profiles)
    if "[profile.sim]" not in workspace:
        workspace += SIM_PROFILE
    write_if_changed(PLACE / "Cargo.toml", workspace.encode())
    write_if_changed(PLACE / "Cargo.lock", (ROOT / "Cargo.lock").read_bytes())


def build(targets):
    """Returns the test binary of each target, which contains every fault and plants none."""
    simulation = SIMULATION[0]
    others = [target for target in targets if target != simulation]
    binaries = build_together(others, []) if others else {}
    if simulation in targets:
        binaries |= build_together([simulation], ["--profile", "sim"])
    return binaries


def build_together(targets, profile):
    which = []
    for target in targets:
        which += ["--lib"] if target == "lib" else ["--test", target]
    command = [*CARGO, "test", "--locked", *profile, *which, "--no-run", "--message-format=json"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    done = subprocess.run(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True)
    binaries = {}
    for line in done.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "compiler-message" and message["message"]["level"] == "error":
            print(message["message"]["rendered"], file=sys.stderr)
        if message.get("profile", {}).get("test") and message.get("executable"):
            target = message["target"]
            name = target["name"] if target["kind"] == ["test"] else "lib"
            if target["kind"] != ["bin"]:
                binaries[name] = message["executable"]
    missing = set(targets) - set(binaries)
    if done.returncode or missing:
        raise Wrong(
            f"the copy in {TREE} is not compiled (cargo ended with {done.returncode}): "
            "if an error is shown above, a plant does not fit its place"
        )
    return binaries


class Run:
    """A run of one test, with one fault planted or none."""

    def __init__(self, binary, test, fault):
        environment = {**os.environ, "JIT_SIM_SEEDS": SEEDS, "RUST_BACKTRACE": "0"}
        environment["CARGO_MANIFEST_DIR"] = str(TREE)
        environment.pop("JIT_PLANTED", None)
        if fault:
            environment["JIT_PLANTED"] = fault.planted
        try:
            done = subprocess.run(
                [binary, test], cwd=TREE, env=environment, timeout=TIMEOUT,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )
        except subprocess.TimeoutExpired:
            self.ended, self.passed, self.said, self.count = False, False, "it does not end", 1
            return
        self.ended = True
        self.said, self.passed = done.stdout, done.returncode == 0
        counted = re.search(r"^running (\d+) tests?$", self.said, re.M)
        self.count = int(counted.group(1)) if counted else 0

    def found(self):
        """Returns the message of the seed that found the fault, or the tests that failed."""
        seed = re.search(r"^seed (\d+): (.*)$", self.said, re.M)
        if seed:
            return f"seed {seed.group(1)}: {seed.group(2)}"
        failed = re.findall(r"^test (\S+) \.\.\. FAILED$", self.said, re.M)
        return ", ".join(failed) or self.said.strip().splitlines()[-1]


def check_unplanted(binaries, some):
    for target, test in sorted({(fault.target, fault.test) for fault in some}):
        run = Run(binaries[target], test, None)
        if run.count == 0:
            ids = [fault.id for fault in some if (fault.target, fault.test) == (target, test)]
            raise Wrong(f"{', '.join(ids)}: there is no test {test} in {target}")
        if not run.passed:
            raise Wrong(f"{target}: {test} fails with no fault planted:\n{run.said[-4000:]}")


def main(arguments):
    every = faults()
    copy(every)
    if "--sources" in arguments:
        return 0
    some = [fault for fault in every if not arguments or fault.id.startswith(tuple(arguments))]
    if not some:
        raise Wrong(f"no fault's id begins with {' or '.join(arguments)}")
    binaries = build(sorted({fault.target for fault in some}))
    check_unplanted(binaries, some)
    width, missed = max(len(fault.id) for fault in some), []
    for fault in some:
        begun = time.monotonic()
        run = Run(binaries[fault.target], fault.test, fault)
        seconds = time.monotonic() - begun
        is_found = run.ended and not run.passed
        verdict = f"{fault.target}: {run.found()}" if is_found else "NOT FOUND"
        if not is_found:
            missed.append(fault.id)
        print(f"{fault.id:{width}}  {fault.why}\n{'':{width}}  {verdict}  ({seconds:.1f} s)", flush=True)
    print(f"{len(some) - len(missed)} of {len(some)} faults are found")
    if missed:
        print(f"not found: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Wrong as wrong:
        sys.exit(f"bite: {wrong}")
