"""How fast a device multiplies matrices at best: what the speed of training is held against."""

import time
from typing import NamedTuple

import torch


class Published(NamedTuple):
    """What a maker says of a GPU, of dense matrices, in TFLOP/s."""

    bf16: float
    tf32: float
    fp32: float


GPUS = {  # the first name that fits counts
    "B200": Published(2250, 1125, 75),
    "GH200": Published(989, 494, 67),
    "H200 NVL": Published(835, 417, 60),
    "H200": Published(989, 494, 67),
    "H100 PCIe": Published(756, 378, 51),
    "H100 NVL": Published(835, 417, 60),
    "H100": Published(989, 494, 67),
    "A100": Published(312, 156, 19.5),
    "L40S": Published(362, 183, 91.6),
    "A10G": Published(70, 35, 31.2),
    "L4": Published(121, 60, 30.3),
    "V100": Published(125, 15.7, 15.7),  # fp16, for it has no bf16
    "T4": Published(65, 8.1, 8.1),  # likewise
    "RTX 4090": Published(165, 82.6, 82.6),
    "RTX 3090": Published(71, 35.6, 35.6),
}
_WIDTH = {"cpu": 512, "cuda": 8192}  # of the matrices multiplied where nothing is published
_PATIENCE = 0.1  # seconds


class Peak(NamedTuple):
    """Floating point operations a second, and whether they are "published" or "measured"."""

    flops: float
    source: str


def peak_of(device: torch.device, precision: torch.dtype) -> Peak:
    """The peak of a device in the precision that a model is trained in.

    That of a GPU in `GPUS` is its maker's; of any other device, what square matrices reach here and now with the
    threads that torch has.
    """
    if device.type == "cuda" and (peaks := published(torch.cuda.get_device_name(device))):
        full = peaks.fp32 if torch.get_float32_matmul_precision() == "highest" else peaks.tf32
        return Peak(1e12 * (peaks.bf16 if precision == torch.bfloat16 else full), "published")
    return Peak(_measured(device, precision), "measured")


def published(name: str) -> Published | None:
    """What is published of the GPU that PyTorch calls so, if it is in `GPUS`."""
    words = f" {name.replace('-', ' ')} "
    return next((peaks for key, peaks in GPUS.items() if f" {key} " in words), None)


def _measured(device: torch.device, precision: torch.dtype) -> float:
    """The fastest of the matrix products that fit into the time there is, at least two.

    On a CPU that of one thread, times the threads: of several that share a product the slowest counts, and on a busy
    machine that says nothing of the cores.
    """
    if device.type != "cpu":
        return _fastest(device, precision)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return threads * _fastest(device, precision)
    finally:
        torch.set_num_threads(threads)


def _fastest(device: torch.device, precision: torch.dtype) -> float:
    width = _WIDTH[device.type]
    matrix = torch.linspace(-1, 1, width * width, device=device).view(width, width).to(precision)
    times: list[float] = []
    while len(times) < 2 or sum(times) < _PATIENCE:  # the first lays out memory
        begun = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return 2 * width**3 / min(times)
