"""The memory of a GPU that one image takes, held against what a report states."""

from typing import Any

import torch

from ntire.method import Method


def measured_memory(method: type[Method], at: tuple[int, int]) -> dict[str, Any]:
    """A pass of the networks over one image of (height, width) in float32 with random weights, on the first GPU.

    `memory_mb`, in 2^20 bytes as PyTorch's allocator counts them, parameters included, and `device`; None and `why_not` where
    there is none.
    """
    if not torch.cuda.is_available():
        return {"memory_mb": None, "device": None, "why_not": "no GPU here"}
    device = torch.device("cuda:0")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    built = method().eval().to(device)
    with torch.no_grad():
        built(torch.zeros(1, method.lq_channels(), *at, device=device))
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    return {"memory_mb": round(peak, 1), "device": torch.cuda.get_device_name(device), "why_not": ""}
