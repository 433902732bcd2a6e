"""The kernels in C as a library of this machine: compiled once by the C compiler at hand, and kept."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from nmt.errors import NmtError
from nmt.files import whole_file

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("decoding.c", "gradients.c")]
FLAGS = ["-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
SECONDS = 60  # that compiling may take; it takes one
SWITCH = "NMT_KERNELS"  # off: as though there were no compiler


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, it fails, or the environment says NMT_KERNELS=off."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get(SWITCH) == "off" or not compiler or sys.platform == "win32":
        return None
    try:
        path = _folder() / f"kernels-{_fingerprint(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError, NmtError):
        return None


def _folder() -> Path:
    """Where compiled kernels are kept: a folder that only this user can write to, for what lies there is run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "nmt"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _fingerprint(compiler: str) -> str:
    """What the library is made of: source, compiler, flags, and the processor, for -march=native is of this one."""
    texts = [path.read_text() for path in sorted(HERE.glob("*.[ch]"))]
    parts = [*texts, compiler, *FLAGS, platform.machine(), _processor()]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _processor() -> str:
    """What the processor can do, in words of the system; a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / path.name
        command = [compiler, *FLAGS, "-o", str(made), *map(str, SOURCES), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        with whole_file(path) as file:
            file.write(made.read_bytes())
