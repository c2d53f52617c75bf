"""Real architectures for the tests."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def torchvision_models() -> ModuleType:
    """`torchvision.models`, beside a torch that cannot load torchvision's compiled operators.

    torchvision registers shape functions for its operators on import, which needs their schemas only; no net of the
    tests calls the operators.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    schemas = (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor",
        "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
        "-> (Tensor, Tensor)",
        "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio) -> (Tensor, Tensor)",
        "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
        "-> (Tensor, Tensor)",
        "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
        "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
        "SymInt offset_groups, bool use_mask) -> Tensor",
    )
    for schema in schemas:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    # A Library that is collected takes its schemas with it.
    torchvision_models.library = library  # type: ignore[attr-defined]
    import torchvision

    return torchvision.models
