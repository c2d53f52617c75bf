"""The other team's side of the demo: it has the bundle, Keras and ONNX Runtime, and no PyTorch.

Usage: without_torch.py BUNDLE DATA.npz TUNED_BUNDLE RESULTS.npz
"""

from __future__ import annotations

import sys


class NoTorch:
    """An import hook that makes `import torch` raise, as on a machine that does not have it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not installed here")


sys.meta_path.insert(0, NoTorch())

import keras  # noqa: E402
import numpy as np  # noqa: E402

import modelport as mp  # noqa: E402


def main(bundle: str, data: str, tuned: str, results: str) -> None:
    with np.load(data) as file:
        images, labels, test_images = file["images"], file["labels"], file["test_images"]
    in_onnx = mp.load(bundle, backend="onnx")
    in_keras = mp.load(bundle, backend="keras")
    print("in a process without PyTorch:")
    print(mp.compare(in_onnx, in_keras, test_images))
    classes = {model.backend: model.predict(test_images).argmax(1) for model in (in_onnx, in_keras)}

    net = in_keras.native
    net.compile(keras.optimizers.Adam(5e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    print("\nfine-tuning one epoch in plain Keras:")
    net.fit(images, labels, batch_size=64, epochs=1)
    mp.save(net, tuned)
    np.savez(results, tuned=in_keras.predict(test_images).argmax(1), **classes)


if __name__ == "__main__":
    main(*sys.argv[1:])
