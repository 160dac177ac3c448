"""Write requirements.lock anew: versions that the tests ran with stay, and every package gets the hashes of its files.

    python scripts/lock.py [WORDS FOR uv pip compile, such as --upgrade-package numpy]

Torch is not in the lock: which build is right depends on the machine (CPU only, or one of several CUDA versions with
packages of their own), and so do the file and its hash. requirements-torch.txt pins its version alone.
"""

import re
import subprocess
import sys

from own_environment import LOCK, ROOT, TORCH, installed

UV = "uv==0.13.9"
BUILD_OF_TORCH = re.compile(r"(torch|triton|cuda-\S+|nvidia-\S+)==")


def without_torch(lock: str) -> str:
    """The lock's text without torch and the packages that only a CUDA build of it needs."""
    return "".join(block for block in re.split(r"^(?=\w)", lock, flags=re.M) if not BUILD_OF_TORCH.match(block))


def main() -> int:
    """Resolve for every system and Python that pyproject.toml allows; uv keeps the versions of the file it rewrites."""
    words = ["--universal", "--generate-hashes", "--no-annotate", "--no-config", "--system-certs", "--quiet"]
    words += ["--extra", "default-model", "--extra", "dev", "--constraint", TORCH.name, "--output-file", LOCK.name]
    words += ["--custom-compile-command", "python scripts/lock.py", "pyproject.toml", *sys.argv[1:]]
    with installed(UV) as commands:
        done = subprocess.run([commands / "uv", "pip", "compile", *words], cwd=ROOT)
    if done.returncode == 0:
        LOCK.write_text(without_torch(LOCK.read_text()))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
