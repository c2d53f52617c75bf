"""Real architectures for the tests."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any


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


def settled(net: Any, image: Any) -> Any:
    """A torch net whose outputs tell something: statistics of a real batch, and nothing that is next to nothing.

    A head of zeros, or a block that is scaled by 1e-6, would hide what goes wrong before it. The batch should have 32
    images: where a BatchNorm sees one number per image, the variance of four may be next to nothing, and divided by it
    float32 in torch is 1e-4 from float64 in torch (LeViT).
    """
    import torch

    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.is_floating_point() and parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.1)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.as_tensor(image))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def settled_keras(net: Any, image: Any) -> Any:
    """The same for a Keras net: BatchNorm statistics of a real batch."""
    import keras

    norms = [layer for layer in net._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    net(image, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net
