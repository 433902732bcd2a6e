"""Training that gives the same bits on a GPU each time; on a CPU it does so anyhow, with as many threads.

A sum whose order is left to chance is what differs. In training these are: the gradients of what is picked by index
(embeddings, relative positions), the scores of attention in the backward pass of the kernel without padding, and
cuBLAS, which may share its workspace among streams. PyTorch has another way for each, and ends with an error where it
had none. What stays as it is: the order in which several processes' gradients are summed is that of their library.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nmt.errors import NmtError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED = (":4096:8", ":16:8")  # those with which cuBLAS is deterministic; the first is faster, for 24 MB
FILLED = False  # new memory need not be filled: all of it is written before it is read, as a test shows


@contextmanager
def repeatable(wanted: bool = True) -> Iterator[None]:
    """In its block, PyTorch computes by what always gives the same bits, if that is wanted.

    It must begin before the first matrix product on a GPU: cuBLAS reads its setting only then. Raises `NmtError` where
    that may be too late.
    """
    if not wanted:
        yield
        return
    if os.environ.get(_WORKSPACE) not in _FIXED:
        if torch.cuda.is_initialized():
            raise NmtError(
                f"--deterministic: this process has used a GPU without {_WORKSPACE}={_FIXED[0]} in its environment: "
                "begin a new one"
            )
        os.environ[_WORKSPACE] = _FIXED[0]
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    benchmark, fill = torch.backends.cudnn.benchmark, memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # which picks the algorithm that was the fastest this time
    memory.fill_uninitialized_memory = FILLED
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = fill
