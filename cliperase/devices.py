"""How tensors come to the device that computes, without making the host wait."""

import torch


def send(tensor, device):
    """`tensor` on `device`. A GPU fetches it from pinned memory, in the order of its work, while the host goes on."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
