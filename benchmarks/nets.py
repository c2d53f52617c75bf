"""One architecture, written twice: as a good user of torch writes it, and as a good user of Keras does.

The torch nets are those of torchvision and transformers. Each Keras net has the same layers with the same sizes, so
that the two take the same number of floating-point operations, in Keras' own layout (channels last).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TOKENS, STEPS, FEATURES, HIDDEN = 128, 64, 128, 256
VOCABULARY = 30522


@dataclass(frozen=True)
class Net:
    """One architecture in both frameworks.

    Attributes:
        torch: makes it as a `torch.nn.Module`.
        keras: makes it as a `keras.Model`.
        inputs: example inputs for torch, of a batch size.
        images: whether the inputs are images, whose channels are the last axis in Keras.
    """

    torch: Callable[[], Any]
    keras: Callable[[], Any]
    inputs: Callable[[int], tuple[np.ndarray, ...]]
    images: bool = False

    def keras_inputs(self, batch: int) -> tuple[np.ndarray, ...]:
        """The same inputs as Keras takes them."""
        inputs = self.inputs(batch)
        return tuple(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in inputs) if self.images else inputs


def nets(depth: int = 12) -> dict[str, Net]:
    """The architectures by name; `depth` is the number of layers of the two transformers."""
    return {
        "resnet50": Net(lambda: _torchvision("resnet50"), resnet50, _image, True),
        "mobilenet_v2": Net(lambda: _torchvision("mobilenet_v2"), mobilenet_v2, _image, True),
        "convnext_tiny": Net(lambda: _torchvision("convnext_tiny"), convnext_tiny, _image, True),
        "vit_b_16": Net(lambda: _torch_vit(depth), lambda: vit_b_16(depth), _image, True),
        "lstm": Net(_torch_lstm, lstm, _sequence),
        "bert": Net(lambda: _torch_bert(depth), lambda: bert(depth), _text),
    }


def _image(batch: int) -> tuple[np.ndarray, ...]:
    return (np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype("float32"),)


def _sequence(batch: int) -> tuple[np.ndarray, ...]:
    return (np.random.default_rng(0).standard_normal((batch, STEPS, FEATURES)).astype("float32"),)


def _text(batch: int) -> tuple[np.ndarray, ...]:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (batch, TOKENS))
    mask = np.ones((batch, TOKENS), np.int64)
    mask[:, TOKENS - TOKENS // 8 :] = 0
    return ids, mask


# torch


def _torchvision(name: str, **options: Any) -> Any:
    from tests.nets.vision import torchvision_models

    return getattr(torchvision_models(), name)(weights=None, **options).eval()


def _torch_vit(depth: int) -> Any:
    from tests.nets.vision import torchvision_models

    sizes = {"image_size": 224, "patch_size": 16, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    net = torchvision_models().VisionTransformer(num_layers=depth, **sizes).eval()
    import torch

    torch.nn.init.normal_(net.heads.head.weight, std=0.02)
    return net


def _torch_lstm() -> Any:
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(FEATURES, HIDDEN, num_layers=2, batch_first=True)
            self.head = torch.nn.Linear(HIDDEN, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    return Classifier().eval()


def _torch_bert(depth: int) -> Any:
    import torch

    from tests.nets.vision import torchvision_models

    torchvision_models()  # transformers imports it
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        """BERT by its two tensors: the tokens' states and the pooled one."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(BertConfig(num_hidden_layers=depth, vocab_size=VOCABULARY))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.bert(input_ids=ids, attention_mask=mask)
            return found.last_hidden_state, found.pooler_output

    return Encoder().eval()


# Keras


def _norm(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str, **options: Any) -> Any:
    """A convolution without bias, padded as torch pads it."""
    from keras import layers

    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D((kernel - 1) // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    return layers.Conv2D(filters, kernel, stride, padding, use_bias=False, name=name, **options)(x)


def resnet50() -> Any:
    """torchvision's ResNet-50: the stride is in the 3x3 convolution."""
    import keras
    from keras import layers

    image = keras.Input((224, 224, 3))
    x = layers.ReLU()(_norm(_conv(image, 64, 7, 2, "conv1"), "bn1"))
    x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1)(x))
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            stride, name = 2 if block == 0 and stage > 1 else 1, f"layer{stage}_{block}"
            y = layers.ReLU()(_norm(_conv(x, width, 1, 1, f"{name}_conv1"), f"{name}_bn1"))
            y = layers.ReLU()(_norm(_conv(y, width, 3, stride, f"{name}_conv2"), f"{name}_bn2"))
            y = _norm(_conv(y, 4 * width, 1, 1, f"{name}_conv3"), f"{name}_bn3")
            if block == 0:
                x = _norm(_conv(x, 4 * width, 1, stride, f"{name}_conv4"), f"{name}_bn4")
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(1000, name="fc")(layers.GlobalAveragePooling2D()(x)))


def mobilenet_v2() -> Any:
    """torchvision's MobileNetV2."""
    import keras
    from keras import layers

    def depthwise(x: Any, stride: int, name: str) -> Any:
        x = x if stride == 1 else layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "same" if stride == 1 else "valid"
        return layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=name)(x)

    image = keras.Input((224, 224, 3))
    x = layers.ReLU(6)(_norm(_conv(image, 32, 3, 2, "stem"), "stem_bn"))
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (ratio, width, blocks, first) in enumerate(plan):
        for block in range(blocks):
            stride, name, y = first if block == 0 else 1, f"block{stage}_{block}", x
            if ratio > 1:
                y = layers.ReLU(6)(_norm(_conv(y, ratio * x.shape[-1], 1, 1, f"{name}_expand"), f"{name}_expand_bn"))
            y = layers.ReLU(6)(_norm(depthwise(y, stride, f"{name}_depthwise"), f"{name}_depthwise_bn"))
            y = _norm(_conv(y, width, 1, 1, f"{name}_project"), f"{name}_project_bn")
            x = layers.Add()([x, y]) if stride == 1 and x.shape[-1] == width else y
    x = layers.ReLU(6)(_norm(_conv(x, 1280, 1, 1, "top"), "top_bn"))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(1000, name="classifier")(x))


def _scale(name: str, **options: Any) -> Any:
    """A layer that multiplies by one number per channel."""
    import keras

    class LayerScale(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

        def call(self, x: Any) -> Any:
            return x * self.gamma

    return LayerScale(name=name, **options)


def convnext_tiny() -> Any:
    """torchvision's ConvNeXt-Tiny, less its stochastic depth."""
    import keras
    from keras import layers

    image = keras.Input((224, 224, 3))
    x = layers.LayerNormalization(epsilon=1e-6, name="stem_norm")(layers.Conv2D(96, 4, 4, name="stem")(image))
    for stage, (width, blocks) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        if stage:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"down{stage}_norm")(x)
            x = layers.Conv2D(width, 2, 2, name=f"down{stage}")(x)
        for block in range(blocks):
            name = f"stage{stage}_{block}"
            y = layers.DepthwiseConv2D(7, padding="same", name=f"{name}_depthwise")(x)
            y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(y)
            y = layers.Dense(4 * width, activation="gelu", name=f"{name}_expand")(y)
            y = layers.Dense(width, name=f"{name}_project")(y)
            x = layers.Add()([x, _scale(f"{name}_scale")(y)])
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(1000, name="classifier")(x))


def _encoder(x: Any, name: str, *, before: bool, epsilon: float, mask: Any = None) -> Any:
    """A transformer's layer of base size, normalised before each part or after it."""
    from keras import layers

    first = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm1")
    second = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm2")
    attention = layers.MultiHeadAttention(12, 64, name=f"{name}_attention")
    inner, outer = (
        layers.Dense(3072, activation="gelu", name=f"{name}_mlp1"),
        layers.Dense(768, name=f"{name}_mlp2"),
    )
    if before:
        y = first(x)
        x = layers.Add()([x, attention(y, y)])
        return layers.Add()([x, outer(inner(second(x)))])
    x = first(layers.Add()([x, attention(x, x, attention_mask=mask)]))
    return second(layers.Add()([x, outer(inner(x))]))


def vit_b_16(depth: int = 12) -> Any:
    """torchvision's ViT-B/16."""
    import keras
    from keras import layers

    class Tokens(layers.Layer):
        """Puts the class token in front and adds the positions."""

        def build(self, shape: Any) -> None:
            self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
            self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="positions")

        def call(self, x: Any) -> Any:
            token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
            return keras.ops.concatenate([token, x], axis=1) + self.positions

    image = keras.Input((224, 224, 3))
    x = Tokens(name="tokens")(layers.Reshape((196, 768))(layers.Conv2D(768, 16, 16, name="patches")(image)))
    for layer in range(depth):
        x = _encoder(x, f"layer{layer}", before=True, epsilon=1e-6)
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    return keras.Model(image, layers.Dense(1000, name="head")(x[:, 0]))


def lstm() -> Any:
    """Two LSTM layers and a classifier on the last step."""
    import keras
    from keras import layers

    x = keras.Input((STEPS, FEATURES))
    y = layers.LSTM(HIDDEN, name="lstm1")(layers.LSTM(HIDDEN, return_sequences=True, name="lstm0")(x))
    return keras.Model(x, layers.Dense(10, name="head")(y))


def bert(depth: int = 12) -> Any:
    """BERT-base's encoder: the tokens' states and the pooled one."""
    import keras
    from keras import layers

    class Embeddings(layers.Layer):
        """Words, positions and the one segment, added."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.words = layers.Embedding(VOCABULARY, 768, name="words")
            self.positions = layers.Embedding(512, 768, name="positions")
            self.segments = layers.Embedding(2, 768, name="segments")

        def build(self, shape: Any) -> None:
            for part in (self.words, self.positions, self.segments):
                part.build(shape)

        def call(self, ids: Any) -> Any:
            places = keras.ops.arange(ids.shape[1])
            return self.words(ids) + self.positions(places) + self.segments(keras.ops.zeros_like(ids))

    ids, mask = keras.Input((TOKENS,), dtype="int64"), keras.Input((TOKENS,), dtype="int64")
    x = layers.LayerNormalization(epsilon=1e-12, name="norm")(Embeddings(name="embeddings")(ids))
    seen = keras.ops.expand_dims(keras.ops.cast(mask, "bool"), 1)
    for layer in range(depth):
        x = _encoder(x, f"layer{layer}", before=False, epsilon=1e-12, mask=seen)
    return keras.Model([ids, mask], [x, layers.Dense(768, activation="tanh", name="pooler")(x[:, 0])])
