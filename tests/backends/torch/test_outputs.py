"""What a model returns beside tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import modelport as mp

torch = pytest.importorskip("torch")


class Cache:
    """State of a model, as of a decoder: an object with tensors inside."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys


@dataclass
class Result:
    logits: Any
    cache: Any = None
    loss: Any = None


class Decoder(torch.nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.wrap = wrap

    def forward(self, x: Any) -> Any:
        logits = self.linear(x)
        return self.wrap(logits, Cache(logits))


@pytest.mark.parametrize("wrap", [Result, lambda logits, cache: {"logits": logits, "cache": cache}])
def test_a_cache_that_has_a_name_is_left_out_with_a_note(wrap: Any) -> None:
    moved = mp.transfer(Decoder(wrap), to="onnx", example=torch.zeros(2, 3))
    assert list(moved(np.zeros((2, 3), "float32"))) == ["logits"]
    (note,) = [note for note in moved.report.notes if note.kind == "dropped"]
    assert note.where == "cache"
    assert "Cache here, which is no tensor" in note.message


def test_a_cache_further_inside_is_told_by_its_path() -> None:
    def wrap(logits: Any, cache: Any) -> Any:
        return logits, {"decoder": {"cache": cache, "last": logits}}

    moved = mp.transfer(Decoder(wrap), to="onnx", example=torch.zeros(2, 3))
    assert [note.where for note in moved.report.notes if note.kind == "dropped"] == ["1.decoder.cache"]
    assert moved.signature.returns == ("output_0", {"decoder": {"last": "last"}})


@pytest.mark.parametrize("wrap", [lambda logits, cache: (logits, cache), lambda logits, cache: {"cache": cache}])
def test_a_cache_without_a_name_or_alone_is_an_error(wrap: Any) -> None:
    with pytest.raises(mp.UnsupportedModelError, match="which is no tensor"):
        mp.transfer(Decoder(wrap), to="onnx", example=torch.zeros(2, 3))
