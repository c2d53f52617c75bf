"""Hugging Face model types, two small random layers of each, and example inputs of every size."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.nets import transformers_senses, transformers_text
from tests.nets.transformers_row import VOCABULARY, Net
from tests.nets.vision import torchvision_models

REFUSED = transformers_text.REFUSED | transformers_senses.REFUSED
NETS: dict[str, Net] = (
    transformers_text.TEXT | transformers_senses.SENSES | {name: refused for name, (refused, _) in REFUSED.items()}
)


def net(name: str) -> Any:
    """The model with random weights, large enough for attention to be far from a plain mean."""
    import torch

    torchvision_models()
    import transformers

    row = NETS[name]
    torch.manual_seed(0)
    kind = getattr(transformers, row.model)
    built = kind(kind.config_class(**row.settings)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(max(1.0, 0.15 / float(parameter.std().clamp(min=0.01))))
    return _settled(built, name)


def _settled(built: Any, name: str) -> Any:
    """The statistics of its BatchNorms as those of a batch: with others, nothing is left of an image in the end."""
    import torch

    norms = [m for m in built.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        with torch.no_grad():
            built(**{key: torch.from_numpy(value) for key, value in example(name, 4).items()})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    return built


def dynamic(name: str) -> dict[Any, Any]:
    """The axes that may have any size, beside the batch."""
    takes = NETS[name].takes
    if takes == "seq2seq":
        source = {1: "source"}
        return {"input_ids": source, "attention_mask": source, "decoder_input_ids": {1: "target"}}
    if takes == "text+image":
        return {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
    if takes == "speech":
        return {"decoder_input_ids": {1: "target"}}
    return {1: "samples" if takes == "sound" else "sequence"} if takes in ("text", "ids", "layout", "sound") else {}


def example(name: str, batch: int = 2, more: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name: `more` is added to every dynamic length. The first rows of text are padded."""
    row = NETS[name]
    rng = np.random.default_rng(batch)
    length = 12 if row.takes.startswith("fixed") else 12 + more

    def tokens(size: int) -> np.ndarray:
        return rng.integers(3, VOCABULARY, (batch, size))

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal((batch, *shape)).astype("float32")

    mask = np.ones((batch, length), "int64")
    mask[0, -2:] = 0
    text = {"input_ids": tokens(length), "attention_mask": mask}
    image = {"pixel_values": floats(3, row.image, row.image)}
    kinds: dict[str, Any] = {
        "text": lambda: text,
        "fixed text": lambda: text,
        "fixed ids": lambda: {"input_ids": text["input_ids"]},
        "ids": lambda: {"input_ids": text["input_ids"]},
        "layout": lambda: {**text, "bbox": np.sort(rng.integers(0, 60, (batch, length, 4)), -1)},
        "seq2seq": lambda: {**text, "decoder_input_ids": tokens(7 + more)},
        "fixed seq2seq": lambda: {**text, "decoder_input_ids": tokens(7)},
        "image": lambda: image,
        "masked image": lambda: {**image, "noise": rng.random((batch, 16)).astype("float32")},
        "text+image": lambda: {**text, **image},
        "sound": lambda: {"input_values": floats(400 + 40 * more)},
        "speech": lambda: {"input_features": floats(8, 40), "decoder_input_ids": tokens(7 + more)},
        "spectrogram": lambda: {"input_values": floats(32, 16)},
        "series": lambda: {"past_values": floats(16, 2)},
    }
    found: dict[str, np.ndarray] = kinds[row.takes]()
    return found
