"""What every test shares: one thread per parallel worker, and no GPU tests where there is no GPU."""

import os

import pytest

# Two workers with two threads each would fight over two cores. torch reads this when it is first imported,
# and so does every `nmt` that a test starts, so nothing is imported for it here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
