"""int4 weights of a GPT-2-shaped model against ONNX Runtime's own quantizer: size, agreement, ratios of latencies.

Usage: PYTHONPATH=. python benchmarks/compress_weights.py [--layers N] [--steps N] [--weights FILE] [--pairs N]

The model has GPT-2's sizes (50,257 tokens, 768 features, tied head) and fewer layers, and is trained on the reference
texts that Python carries (`pydoc_data`), words as tokens: what GPTQ gains lies in how activations go together, of which
random weights show nothing. The last tenth of the text is not trained on; calibration takes rows of the rest.
`--weights` keeps the trained weights, or reads them where the file is there.

The peer is `MatMulNBitsQuantizer` on its defaults at the same block size, on the same layers: MatMul and Gather. It
takes no tied weight, so its model holds the table twice.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import modelport as mp
from modelport.compression.quantize.files import write_runnable
from modelport.compression.quantize.inference import turn_weights
from modelport.core.report import table
from modelport.graph.normal import normalize
from modelport.verbs.subject import exported
from tests.nets.vision import torchvision_models

LENGTH, BATCH, BLOCK = 64, 4, 32


def _tokens() -> np.ndarray:
    """The text as ranks of its words, the most frequent first."""
    from pydoc_data.topics import topics

    words = re.findall(r"\s?\w+|\s?[^\w\s]|\n", "\n".join(topics.values()))
    rank = {word: place for place, (word, _) in enumerate(Counter(words).most_common())}
    return np.array([rank[word] for word in words])


def _net(layers: int, steps: int, tokens: np.ndarray, weights: Path | None) -> Any:
    import torch

    torchvision_models()  # transformers imports torchvision, whose operators this torch may lack
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(n_layer=layers, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False))
    if weights is not None and weights.exists():
        net.load_state_dict(torch.load(weights))
        return net.eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    rng = np.random.default_rng(0)
    used = int(tokens.max()) + 1
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - step / steps) ** 0.5
        starts = rng.integers(0, len(tokens) - LENGTH - 1, BATCH)
        rows = torch.from_numpy(np.stack([tokens[start : start + LENGTH + 1] for start in starts]))
        hidden = net.transformer(rows[:, :-1]).last_hidden_state
        # Tokens that no text has are left out of the softmax: most of the 50,257.
        logits = hidden @ net.transformer.wte.weight[:used].T
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, used), rows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    if weights is not None:
        torch.save(net.state_dict(), weights)
    return net.eval()


def _logits(net: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.net(ids).logits

    return Logits().eval()


def _peer(model: mp.Model, folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """ONNX Runtime's own result, and its bytes."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    logging.disable(logging.INFO)
    graph = normalize(exported(model).graph)
    turn_weights(graph)
    write_runnable(graph, folder / "float.onnx")
    settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, op_types_to_quantize=("MatMul", "Gather"))
    quantizer = MatMulNBitsQuantizer(onnx.load(folder / "float.onnx"), algo_config=settings)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "peer.onnx"), False)
    session = onnxruntime.InferenceSession(folder / "peer.onnx")
    name = session.get_inputs()[0].name
    return lambda ids: session.run(None, {name: ids})[0], (folder / "peer.onnx").stat().st_size


def _snr(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def _ratios(calls: list[Callable[[np.ndarray], Any]], ids: np.ndarray, pairs: int) -> list[float]:
    times = []
    for turn in range(pairs + 2):
        row = []
        for call in calls:
            started = time.perf_counter()
            call(ids)
            row.append(time.perf_counter() - started)
        if turn > 1:
            times.append(row)
    return [statistics.median(row[place] / row[0] for row in times) for place in range(len(calls))]


def measure(layers: int, steps: int, weights: Path | None, pairs: int) -> list[tuple[object, ...]]:
    """One row of the table for each quantizer."""
    import torch

    tokens = _tokens()
    cut = len(tokens) * 9 // 10
    net = _logits(_net(layers, steps, tokens[:cut], weights))
    fresh = tokens[cut : cut + 16 * LENGTH].reshape(16, LENGTH)
    data = tokens[: 128 * LENGTH].reshape(128, LENGTH)
    model = mp.transfer(net, to="onnx", example=torch.from_numpy(fresh[:2]), dynamic={1: "sequence"})
    gptq = mp.Quantize("int4", block_size=BLOCK, algorithm="gptq", calibration=data)
    steps_ = {"rtn": mp.Quantize("int4", block_size=BLOCK), "gptq": gptq}
    small = {name: mp.compress(model, step, example=fresh[:1]) for name, step in steps_.items()}
    before = small["rtn"].report.before.bytes
    with tempfile.TemporaryDirectory() as folder:
        peer, size = _peer(model, Path(folder))
        calls = [model, peer, *small.values()]
        outputs = [call(fresh) for call in calls]
        by_length = [_ratios(calls, fresh[:1, :length], pairs) for length in (1, LENGTH)]
    sizes = [before, size, *(each.report.after.bytes for each in small.values())]
    labels = ["float32", "MatMulNBitsQuantizer", *(f"modelport, {name}" for name in small)]
    return [
        (
            labels[i],
            f"{sizes[i] / before:.3f}",
            f"{_snr(outputs[0], outputs[i]):.1f}",
            f"{np.mean(outputs[0].argmax(-1) == outputs[i].argmax(-1)):.1%}",
            f"{by_length[0][i]:.2f}",
            f"{by_length[1][i]:.2f}",
        )
        for i in range(1, len(labels))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    rows = measure(options.layers, options.steps, options.weights, options.pairs)
    heads = ("by", "bytes", "SNR, dB", "top-1", "latency, 1 token", f"latency, {LENGTH} tokens")
    print(table(f"int4 weights by blocks of {BLOCK}, {options.layers} layers", heads, rows))


if __name__ == "__main__":
    main()
