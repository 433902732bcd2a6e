"""Which device, and in which precision."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nmt.errors import DeviceError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the GPU if there is one. DeviceError if it is not there.

    Of several processes that torchrun or srun has started on one machine, each gets a GPU of its own, if no number is
    named.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"no device is called {name!r}: use cpu, cuda, cuda:N for one of several GPUs, or auto")
    device = torch.device(name + _own_number() if name == "cuda" else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"{name}: this machine has no GPU that PyTorch {torch.__version__} can use; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{name}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0")
    return device


def _own_number() -> str:
    """What to add to the name of a GPU for that of this process; srun may have left it only one to see."""
    local = os.environ.get("SLURM_LOCALID", "") if torch.cuda.device_count() > 1 else ""
    local = os.environ.get("LOCAL_RANK", local)
    return local and f":{local}"


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type to compute in: what is asked for, or for `auto` bf16 where the hardware multiplies it natively.

    `int8` only translates, and only on a CPU. DeviceError where it cannot be.
    """
    if name == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise DeviceError(f"no precision is called {name!r}: use {', '.join(PRECISIONS)} or auto")
    if name == "int8" and (device.type != "cpu" or not torch.backends.mkldnn.is_available()):
        raise DeviceError("int8: is for CPUs that oneDNN knows; use --precision fp32 or bf16, or --device cpu")
    return PRECISIONS[name]


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 matrices natively; elsewhere bf16 is emulated, and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


@contextmanager
def without_denormals() -> Iterator[None]:
    """In the block, this thread of a CPU takes numbers below 1.2 · 10⁻³⁸ for 0.

    Each of them takes as long as a hundred others. Attention that has made up its mind has gradients that small: with
    them an update takes twice as long, and the more the better a model is. The flag is the thread's, Python's own
    numbers and all, so it is set for no longer than something is computed. Threads with which torch shares an operation
    keep theirs, or have it for good if they begin in the block; no Python runs in them.
    """
    smallest = sys.float_info.min
    before = smallest / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
