"""Packs jit for Lambda: python3 infra/package.py BINARY CONFIG ZIP

The binary becomes bootstrap, the configuration jit.toml beside it. What could not start
there is refused here: a binary that needs a newer C library than Amazon Linux 2023 has,
and a configuration that is not one.
"""

import os
import re
import subprocess
import sys
import zipfile

GLIBC_OF_AL2023 = (2, 34)

# What the template says; here only so that the rest can be looked over.
FROM_THE_TEMPLATE = {
    "JIT_STORE__KIND": "dynamodb",
    "JIT_IDENTITY_CENTER__MODE": "aws",
    "JIT_IDENTITY_CENTER__INSTANCE_ARN": "arn:aws:sso:::instance/ssoins-1111111111111111",
    "JIT_IDENTITY_CENTER__IDENTITY_STORE_ID": "d-1111111111",
    "JIT_KEYS__PLUGIN__SECRET": "looked over, and not packed: 1",
    "JIT_KEYS__OPERATOR__SECRET": "looked over, and not packed: 2",
}


def needs(binary):
    """The newest version of the C library that it asks for."""
    # readelf reads any machine's binaries, and comes with every linker.
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
        sys.exit(f"{binary} is not for this machine, and cannot look {config} over: {why}")
    if said.returncode != 0:
        sys.exit(f"{config}: {said.stderr.strip()}")


def add(archive, name, path, mode):
    # The same bytes make the same package, whenever it is packed.
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
