"""The largest values of regions of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


@op("MaxRoiPool")
def max_roi_pool(x: Tensor, rois: Tensor, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Any:
    images = x[rois[:, 0].to(torch.int64)]
    # Both corners are pixels of the region; a half rounds away from zero.
    corners = torch.floor(rois[:, 1:] * spatial_scale + 0.5)
    y: Any = images
    for axis, (first, count) in enumerate(zip((1, 0), pooled_shape, strict=True)):
        inside = _cells(corners[:, first], corners[:, first + 2], count, x.size_of(2 + axis), x)
        # (rois, 1, cells, pixels) against the pixels of this axis, the last one for the time being.
        turned = torch.movedim(y, 2 + axis, -1).unsqueeze(-2)
        mask = torch.reshape(inside, [inside.size(0), 1, 1, count, inside.size(2)])
        best = torch.amax(torch.where(mask, turned, float("-inf")), -1)
        y = torch.movedim(best, -1, 2 + axis)
    return torch.where(torch.isinf(y), torch.zeros_like(y), y)


def _cells(start: Any, end: Any, count: int, size: Any, x: Tensor) -> Any:
    """Which pixels of an axis each cell of every region covers, (rois, cells, pixels)."""
    length = torch.clamp_min(end - start + 1, 1) / count
    cells, pixels = (torch.arange(n, device=x.device) for n in (count, size))
    begin = torch.floor(cells * length.unsqueeze(1)) + start.unsqueeze(1)
    stop = torch.ceil((cells + 1) * length.unsqueeze(1)) + start.unsqueeze(1)
    return torch.logical_and(pixels >= begin.unsqueeze(-1), pixels < stop.unsqueeze(-1))
