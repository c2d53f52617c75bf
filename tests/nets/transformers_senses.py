"""Hugging Face models of images, sound and series: the settings of their configurations."""

from __future__ import annotations

from typing import Any

from tests.nets.transformers_row import Net
from tests.nets.transformers_text import SEQ2SEQ, SIZES

_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_AUDIO: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 3),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 2]}
_PYRAMID: dict[str, Any] = {
    "num_encoder_blocks": 4,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 16, 32, 32],
    "num_attention_heads": [1, 2, 2, 4],
}
_TOWERS: dict[str, Any] = {
    "text_config": {**SIZES, "projection_dim": 16},
    "vision_config": {**_VISION, "projection_dim": 16},
}
_RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}

SENSES: dict[str, Net] = {
    # sound
    "whisper": Net(
        "WhisperForConditionalGeneration",
        {**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32},
        "speech",
    ),
    "wav2vec2": Net("Wav2Vec2ForCTC", _AUDIO, "sound"),
    "hubert": Net("HubertForCTC", _AUDIO, "sound"),
    "wavlm": Net("WavLMModel", _AUDIO, "sound"),
    "sew": Net("SEWModel", {**_AUDIO, "squeeze_factor": 2}, "sound"),
    "unispeech": Net("UniSpeechModel", _AUDIO, "sound"),
    "data2vec-audio": Net("Data2VecAudioModel", _AUDIO, "sound"),
    "audio_spectrogram_transformer": Net(
        "ASTForAudioClassification", {**_VISION, "patch_size": 8, "max_length": 32, "num_mel_bins": 16}, "spectrogram"
    ),
    # text and images
    "clip": Net("CLIPModel", {**_TOWERS, "projection_dim": 16}, "text+image"),
    "siglip": Net("SiglipModel", _TOWERS, "text+image"),
    # images
    "vit": Net("ViTForImageClassification", _VISION, "image"),
    "vit_mae": Net(
        "ViTMAEForPreTraining",
        {
            **_VISION,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
        "masked image",
    ),
    "deit": Net("DeiTForImageClassificationWithTeacher", _VISION, "image"),
    "swin": Net(
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "image",
    ),
    "swinv2": Net(
        "Swinv2ForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "image",
    ),
    "beit": Net("BeitForImageClassification", {**_VISION, "use_relative_position_bias": True}, "image"),
    "data2vec-vision": Net(
        "Data2VecVisionForImageClassification", {**_VISION, "use_relative_position_bias": True}, "image"
    ),
    "convnext": Net("ConvNextForImageClassification", {**_STAGES, "num_stages": 2}, "image"),
    "convnextv2": Net("ConvNextV2ForImageClassification", {**_STAGES, "num_stages": 2}, "image"),
    "segformer": Net("SegformerForSemanticSegmentation", {**_PYRAMID, "decoder_hidden_size": 16}, "image", 64),
    "detr": Net(
        "DetrForObjectDetection",
        {
            **{k: v for k, v in SEQ2SEQ.items() if k.startswith(("d_", "encoder", "decoder_"))},
            "num_queries": 5,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": _RESNET,
        },
        "image",
        64,
    ),
    "yolos": Net("YolosForObjectDetection", {**_VISION, "image_size": [32, 32], "num_detection_tokens": 4}, "image"),
    "mobilevit": Net(
        "MobileViTForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32],
            "num_attention_heads": 4,
        },
        "image",
        64,
    ),
    "poolformer": Net(
        "PoolFormerForImageClassification", {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}, "image", 64
    ),
    "levit": Net(
        "LevitForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        "image",
        64,
    ),
    "cvt": Net(
        "CvtForImageClassification",
        {"embed_dim": [16, 24, 32], "num_heads": [1, 3, 4], "depth": [1, 2, 3]},
        "image",
        64,
    ),
    "pvt": Net("PvtForImageClassification", {**_PYRAMID, "image_size": 64}, "image", 64),
    "pvt_v2": Net(
        "PvtV2ForImageClassification",
        {**{k: v for k, v in _PYRAMID.items() if k != "num_encoder_blocks"}, "image_size": 64},
        "image",
        64,
    ),
    "dinov2": Net("Dinov2ForImageClassification", {**_VISION, "mlp_ratio": 2}, "image"),
    "regnet": Net(
        "RegNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "groups_width": 8},
        "image",
        64,
    ),
    "resnet": Net(
        "ResNetForImageClassification", {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}, "image"
    ),
    "efficientnet": Net(
        "EfficientNetForImageClassification",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        "image",
        64,
    ),
    "mobilenet_v1": Net("MobileNetV1ForImageClassification", {"image_size": 64, "depth_multiplier": 0.25}, "image", 64),
    "mobilenet_v2": Net("MobileNetV2ForImageClassification", {"image_size": 64, "depth_multiplier": 0.25}, "image", 64),
    "dpt": Net(
        "DPTForDepthEstimation",
        {
            **_VISION,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 16, 16, 16],
            "fusion_hidden_size": 16,
        },
        "image",
    ),
    "glpn": Net("GLPNForDepthEstimation", {**_PYRAMID, "decoder_hidden_size": 16}, "image", 64),
    "focalnet": Net(
        "FocalNetForImageClassification",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [1, 1],
            "focal_windows": [3, 3],
        },
        "image",
    ),
    "bit": Net(
        "BitForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_groups": 4},
        "image",
        64,
    ),
    "swiftformer": Net(
        "SwiftFormerForImageClassification",
        {"depths": [1, 1, 1, 1], "embed_dims": [16, 16, 32, 32], "image_size": 64},
        "image",
        64,
    ),
    "upernet": Net(
        "UperNetForSemanticSegmentation",
        {
            "backbone_config": {
                "model_type": "convnext",
                **_PYRAMID,
                "hidden_sizes": [16, 16, 16, 16],
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
            "hidden_size": 16,
            "auxiliary_in_channels": 16,
            "auxiliary_channels": 8,
            "pool_scales": [1, 2],
        },
        "image",
        64,
    ),
    # series
    "patchtst": Net(
        "PatchTSTForPrediction",
        {
            "num_input_channels": 2,
            "context_length": 16,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 32,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "prediction_length": 4,
        },
        "series",
    ),
    "patchtsmixer": Net(
        "PatchTSMixerForPrediction",
        {
            "num_input_channels": 2,
            "context_length": 16,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 16,
            "num_layers": 2,
            "prediction_length": 4,
        },
        "series",
    ),
}

REFUSED: dict[str, tuple[Net, str]] = {
    "vilt": (Net("ViltModel", {**SIZES, **_VISION}, "text+image"), "nn.functional.interpolate("),
}
"""A model that decides by values, and a piece of the line that does."""
