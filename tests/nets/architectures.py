"""The architectures of torchvision and timm that cross in the tests: the smallest of each family.

Where a family repeats a block, it is repeated once or twice only: what can go wrong is in the block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.nets.vision import torchvision_models


class Net(NamedTuple):
    """One architecture.

    Attributes:
        shape: of one image or video, channels first.
        options: what its constructor is given.
    """

    shape: tuple[int, ...]
    options: dict[str, Any]


def _net(size: int = 64, **options: Any) -> Net:
    return Net((3, size, size), options)


def _video(frames: int, size: int) -> Net:
    return Net((3, frames, size, size), {})


_BACKBONE = {"weights_backbone": None, "num_classes": 5}

CLASSIFICATION = {
    "alexnet": _net(),
    "convnext_tiny": _net(),
    "densenet121": _net(),
    "efficientnet_b0": _net(),
    "efficientnet_v2_s": _net(),
    "googlenet": _net(aux_logits=True, init_weights=False),
    "inception_v3": _net(128, aux_logits=False, init_weights=False),
    "maxvit_t": _net(224),
    "mnasnet0_5": _net(),
    "mobilenet_v2": _net(),
    "mobilenet_v3_small": _net(),
    "mobilenet_v3_large": _net(),
    "regnet_x_400mf": _net(),
    "regnet_y_400mf": _net(),
    "resnet18": _net(),
    "resnet50": _net(),
    "resnext50_32x4d": _net(),
    "shufflenet_v2_x0_5": _net(),
    "squeezenet1_0": _net(),
    "squeezenet1_1": _net(),
    "swin_t": _net(),
    "swin_v2_t": _net(),
    "vgg11": _net(32),
    "vgg11_bn": _net(32),
    "vit_b_16": _net(image_size=64),
    "wide_resnet50_2": _net(),
}
SEGMENTATION = {
    "segmentation.deeplabv3_mobilenet_v3_large": _net(aux_loss=True, **_BACKBONE),
    "segmentation.deeplabv3_resnet50": _net(**_BACKBONE),
    "segmentation.fcn_resnet50": _net(aux_loss=True, **_BACKBONE),
    "segmentation.lraspp_mobilenet_v3_large": _net(**_BACKBONE),
}
DETECTION = {
    "detection.retinanet_resnet50_fpn": _net(**_BACKBONE),
    "detection.ssdlite320_mobilenet_v3_large": _net(**_BACKBONE),
}
"""What is a net in a detector: backbone and head. What follows takes a list of images and finds any number of boxes."""
VIDEO = {
    "video.mc3_18": _video(8, 32),
    "video.mvit_v2_s": _video(8, 64),
    "video.r2plus1d_18": _video(8, 32),
    "video.r3d_18": _video(8, 32),
    "video.s3d": _video(16, 224),
    "video.swin3d_t": _video(8, 64),
}

_ONCE = (1, 1, 1, 1)
_WINDOWS = {"img_size": 64, "window_size": 4, "depths": (2, 2, 1, 1)}

TIMM = {
    "aimv2_large_patch14_224": _net(56, img_size=56, depth=2),
    "beit_base_patch16_224": _net(img_size=64, depth=2),
    "botnet26t_256": _net(256),
    "caformer_s18": _net(),
    "cait_xxs24_224": _net(img_size=64, depth=2),
    "coat_lite_tiny": _net(img_size=64),
    "coatnet_nano_rw_224": _net(img_size=64),
    "convformer_s18": _net(),
    "convit_tiny": _net(img_size=64, depth=2, local_up_to_layer=1),
    "convmixer_768_32": _net(),
    "convnext_atto": _net(depths=_ONCE),
    "convnext_zepto_rms": _net(depths=_ONCE),
    "convnextv2_atto": _net(depths=_ONCE),
    "cpubone_nano": _net(),
    "crossvit_9_240": _net(240, depth=((1, 1, 0), (1, 1, 0), (1, 1, 0))),
    "cs3darknet_focus_s": _net(),
    "csatv2": _net(),
    "cspnext_tiny": _net(),
    "cspresnet50": _net(),
    "davit_tiny": _net(depths=_ONCE),
    "deit3_small_patch16_224": _net(img_size=64, depth=2),
    "deit_tiny_distilled_patch16_224": _net(img_size=64, depth=2),
    "densenetblur121d": _net(block_config=(2, 2, 2, 2)),
    "dla46x_c": _net(),
    "dpn48b": _net(k_sec=_ONCE),
    "ecaresnet26t": _net(layers=_ONCE),
    "eca_nfnet_l0": _net(),
    "edgenext_xx_small": _net(depths=_ONCE),
    "efficientformer_l1": _net(224, depths=_ONCE),
    "efficientformerv2_s0": _net(224, depths=(1, 1, 1, 2)),
    "efficientnet_blur_b0": _net(),
    "efficientnet_cc_b0_4e": _net(),
    "efficientnet_lite0": _net(),
    "efficientvim_m1": _net(224),
    "efficientvit_b0": _net(),
    "efficientvit_m0": _net(224),
    "ese_vovnet19b_slim_dw": _net(),
    "eva02_tiny_patch14_224": _net(56, img_size=56, depth=2),
    "fasternet_t0": _net(depths=_ONCE),
    "fastvit_t8": _net(layers=_ONCE),
    "flexivit_small": _net(img_size=64, depth=2),
    "focalnet_tiny_srf": _net(),
    "gcresnext26ts": _net(),
    "gcvit_xxtiny": _net(224),
    "gemma4_vit_167m": _net(depth=2),
    "ghostnet_050": _net(),
    "ghostnetv2_100": _net(),
    "gmlp_ti16_224": _net(img_size=64),
    "hardcorenas_a": _net(),
    "hgnetv2_b0": _net(),
    "hiera_tiny_224": _net(224),
    "hrnet_w18_small": _net(),
    "iformer_t": _net(),
    "inception_next_atto": _net(depths=_ONCE),
    "inception_v4": _net(160),
    "lambda_resnet26t": _net(128),
    "lcnet_035": _net(),
    "legacy_seresnet18": _net(),
    "legacy_xception": _net(96),
    "levit_128s": _net(224),
    "lowformer_b0": _net(),
    "mambaout_femto": _net(depths=_ONCE),
    "maxxvit_rmlp_nano_rw_256": _net(img_size=64),
    "mixer_s32_224": _net(img_size=64),
    "mixnet_s": _net(),
    "mnasnet_small": _net(),
    "mobilenetv3_small_050": _net(),
    "mobilenetv4_conv_small_035": _net(),
    "mobilenetv4_hybrid_medium_075": _net(),
    "mobileone_s0": _net(96),
    "mobilevit_xxs": _net(),
    "mobilevitv2_050": _net(),
    "mvitv2_tiny": _net(img_size=64),
    "naflexvit_base_patch16_gap": _net(depth=2),
    "nest_tiny": _net(224),
    "nextvit_small": _net(),
    "nf_regnet_b0": _net(),
    "nf_resnet26": _net(),
    "pit_ti_224": _net(img_size=64, depth=_ONCE[:3]),
    "pnasnet5large": _net(96),
    "poolformer_s12": _net(),
    "poolformerv2_s12": _net(),
    "pvt_v2_b0": _net(depths=_ONCE),
    "qwen3_vit_88m": _net(depth=2),
    "rdnet_tiny": _net(),
    "regnetx_002": _net(),
    "regnety_002": _net(),
    "regnetz_005": _net(),
    "repghostnet_050": _net(),
    "repvgg_a0": _net(),
    "repvit_m0_9": _net(),
    "res2net50_26w_4s": _net(layers=_ONCE),
    "resmlp_12_224": _net(img_size=64),
    "resnest14d": _net(),
    "resnet10t": _net(),
    "resnetv2_18": _net(),
    "resnetv2_50x1_bit": _net(),
    "rexnet_100": _net(),
    "sam2_hiera_tiny": _net(),
    "samvit_base_patch16_224": _net(img_size=64, depth=2),
    "selecsls42b": _net(),
    "sequencer2d_s": _net(layers=_ONCE),
    "shvit_s1": _net(),
    "skresnet18": _net(),
    "starnet_s050": _net(),
    "swiftformer_xs": _net(),
    "swin_tiny_patch4_window7_224": _net(**_WINDOWS),
    "swinv2_cr_tiny_224": _net(**_WINDOWS),
    "swinv2_tiny_window8_256": _net(**_WINDOWS),
    "tiny_vit_5m_224": _net(depths=_ONCE),
    "tinynet_e": _net(),
    "tnt_s_patch16_224": _net(img_size=64, depth=2),
    "tresnet_m": _net(layers=_ONCE),
    "twins_pcpvt_small": _net(img_size=64, depths=_ONCE),
    "twins_svt_small": _net(img_size=64, depths=(1, 1, 2, 1)),
    "visformer_tiny": _net(img_size=64),
    "vit_relpos_small_patch16_224": _net(img_size=64, depth=2),
    "vit_tiny_patch16_224": _net(img_size=64, depth=2),
    "vit_tiny_r_s16_p8_224": _net(img_size=64, depth=2),
    "vitamin_small_224": _net(img_size=64),
    "volo_d1_224": _net(img_size=64),
    "xception41": _net(96),
    "xcit_nano_12_p16_224": _net(img_size=64, depth=2),
}


TORCHVISION = CLASSIFICATION | SEGMENTATION | DETECTION | VIDEO


def _mvit_v2() -> Any:
    """The blocks of the small MViT once each, for small videos; torchvision's own function has one size only."""
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    strides = [([1, 1, 1], [1, 8, 8]), ([1, 2, 2], [1, 4, 4]), ([1, 1, 1], [1, 4, 4]), ([1, 2, 2], [1, 2, 2])]
    channels, heads = (96, 96, 192, 192, 384), (1, 2, 2, 4)
    blocks = [
        MSBlockConfig(heads[i], channels[i], channels[i + 1], [3, 3, 3], [3, 3, 3], *strides[i]) for i in range(4)
    ]
    return MViT(
        (64, 64), 8, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True, proj_after_attn=True
    )  # fmt: skip


def _convmixer() -> Any:
    from timm.models.convmixer import ConvMixer
    from torch.nn import ReLU

    return ConvMixer(dim=768, depth=2, kernel_size=7, patch_size=7, act_layer=ReLU, num_classes=10)


SMALLER: dict[str, Callable[[], Any]] = {"video.mvit_v2_s": _mvit_v2, "convmixer_768_32": _convmixer}
"""Architectures that come in one size only: run eagerly in Keras, the MViT takes 20 GB of memory, and untrained, the 32
blocks of the ConvMixer are 1e-3 in float32 from what they are in float64, in torch alone."""


def torchvision_net(name: str) -> Any:
    """An untrained net of torchvision by its dotted name within `torchvision.models`; of a detector, what is a net."""
    import torch

    torch.manual_seed(0)
    make: Any = torchvision_models()
    for part in name.split("."):
        make = getattr(make, part)
    net = (SMALLER[name]() if name in SMALLER else make(weights=None, **TORCHVISION[name].options)).eval()
    return _before_boxes(net) if name in DETECTION else net


def _before_boxes(detector: Any) -> Any:
    import torch

    class BeforeBoxes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = detector.backbone, detector.head

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            found: dict[str, torch.Tensor] = self.head(list(self.backbone(x).values()))
            return found

    return BeforeBoxes().eval()


def timm_net(name: str) -> Any:
    """An untrained net of timm with ten classes."""
    import torch

    torchvision_models()
    import timm

    torch.manual_seed(0)
    if name in SMALLER:
        return SMALLER[name]().eval()
    return timm.create_model(name, pretrained=False, num_classes=10, **TIMM[name].options).eval()
