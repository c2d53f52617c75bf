"""Architectures of torchvision and transformers cross into the portable graph."""

from __future__ import annotations

import pytest
import torch

from modelport.backends.torch import BACKEND
from tests.backends.torch.test_export import differences, exported, operators
from tests.nets.vision import torchvision_models


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny", "vit_b_16"])
def test_a_torchvision_net_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    options = {"image_size": 64} if name.startswith("vit") else {}
    net = getattr(torchvision_models(), name)(weights=None, **options).eval()
    if name.startswith("vit"):
        torch.nn.init.normal_(net.heads.head.weight)
    assert max(differences(net, torch.randn(1, 3, 64, 64))) < 1e-5


def test_a_bert_computes_the_same_at_any_length() -> None:
    torchvision_models()
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    net = BertModel(BertConfig(vocab_size=100, max_position_embeddings=40, **sizes)).eval()
    example = {"attention_mask": torch.ones(2, 8, dtype=torch.int64), "input_ids": torch.randint(0, 100, (2, 8))}
    signature = BACKEND.signature(net, example)
    assert [spec.name for spec in signature.inputs] == ["input_ids", "attention_mask"]
    assert signature.returns == {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"}
    signature = signature.with_dims(dict.fromkeys(example, ("batch", "length")))
    graph = exported(net, example, signature).graph
    assert max(differences(net, example, signature, graph, length=11)) < 1e-5
    assert len(operators(graph, "Dropout")) == 7
