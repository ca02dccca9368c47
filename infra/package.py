"""Packs jit for Lambda: python3 infra/package.py BINARY CONFIG ZIP

The package contains the binary as bootstrap and the configuration as jit.toml. The script
refuses a binary that needs a newer C library than Amazon Linux 2023 has, and a
configuration that jit config check refuses.
"""

import os
import re
import subprocess
import sys
import zipfile

GLIBC_OF_AL2023 = (2, 34)

# The template sets these keys; the check of the configuration needs some value for them.
FROM_THE_TEMPLATE = {
    "JIT_STORE__KIND": "dynamodb",
    "JIT_IDENTITY_CENTER__MODE": "aws",
    "JIT_IDENTITY_CENTER__INSTANCE_ARN": "arn:aws:sso:::instance/ssoins-1111111111111111",
    "JIT_IDENTITY_CENTER__IDENTITY_STORE_ID": "d-1111111111",
    "JIT_KEYS__PLUGIN__SECRET": "for the check only, not packed: 1",
    "JIT_KEYS__OPERATOR__SECRET": "for the check only, not packed: 2",
}


def needs(binary):
    """The newest version of the C library that the binary needs."""
    # readelf reads the binaries of every architecture, and is part of binutils.
    said = subprocess.run(["readelf", "-V", binary], check=True, capture_output=True, text=True)
    found = re.findall(r"GLIBC_(\d+)\.(\d+)", said.stdout)
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def check_config(binary, config):
    ours = {name: value for name, value in os.environ.items() if not name.startswith("JIT_")}
    command = [binary, "config", "check", "--offline", "--config", config]
    try:
        said = subprocess.run(
            command, env={**ours, **FROM_THE_TEMPLATE}, capture_output=True, text=True, check=False
        )
    except OSError as why:
        sys.exit(f"{binary} does not run on this machine, so it cannot check {config}: {why}")
    if said.returncode != 0:
        sys.exit(f"{config}: {said.stderr.strip()}")


def add(archive, name, path, mode):
    # A constant time: the same files always give the same package.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with open(path, "rb") as file:
        archive.writestr(entry, file.read())


def main(binary, config, out):
    newest = needs(binary)
    if newest > GLIBC_OF_AL2023:
        have, want = (".".join(map(str, one)) for one in (GLIBC_OF_AL2023, newest))
        sys.exit(
            f"{binary} needs glibc {want}, and provided.al2023 has {have}: build it on a system "
            f"with glibc {have} or older, such as Amazon Linux 2023 or Debian 11"
        )
    check_config(binary, config)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with zipfile.ZipFile(out, "w") as archive:
        add(archive, "bootstrap", binary, 0o100755)
        add(archive, "jit.toml", config, 0o100644)
    size = os.path.getsize(out) / 2**20
    print(f"{out}: {size:.1f} MiB, needs glibc {newest[0]}.{newest[1]}")


main(*sys.argv[1:])
