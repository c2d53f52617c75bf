"""Train in PyTorch, open without PyTorch as Keras and ONNX, fine-tune in Keras, take the weights back.

Run it with `make demo`; it writes `demo.png`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from model import DigitsNet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import modelport as mp

EPOCHS = 12


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images (n, 1, 8, 8) in [0, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype("float32").reshape(-1, 1, 8, 8)
    return train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)


def train(net: DigitsNet, images: np.ndarray, labels: np.ndarray) -> None:
    """Ordinary PyTorch: Adam, cross entropy, one progress bar."""
    loader = DataLoader(TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)), 64, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    net.train()
    bar = tqdm(range(EPOCHS), desc="training in PyTorch", unit="epoch")
    for _ in bar:
        for batch, target in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(batch), target)
            loss.backward()
            optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    net.eval()


def predict(net: DigitsNet, images: np.ndarray) -> np.ndarray:
    """The classes that the PyTorch net sees."""
    with torch.inference_mode():
        return net(torch.from_numpy(images)).argmax(1).numpy()


def draw(images: np.ndarray, labels: np.ndarray, predictions: dict[str, np.ndarray], path: Path) -> None:
    """Sixteen test digits with what each backend sees in them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 8, figsize=(13, 5.2))
    figure.suptitle("One model, three frameworks: what each sees in the same test digits")
    for index, axis in enumerate(axes.flat):
        axis.imshow(images[index, 0], cmap="gray_r")
        axis.axis("off")
        right = all(seen[index] == labels[index] for seen in predictions.values())
        seen = "\n".join(f"{name}: {values[index]}" for name, values in predictions.items())
        axis.set_title(seen, fontsize=9, color="tab:green" if right else "tab:red", loc="left")
    figure.tight_layout(h_pad=2.5)
    figure.savefig(path, dpi=110)


def main(picture: Path) -> None:
    torch.manual_seed(0)
    images, test_images, labels, test_labels = digits()
    net = DigitsNet()
    train(net, images, labels)
    seen = {"PyTorch": predict(net, test_images)}

    with tempfile.TemporaryDirectory() as folder:
        bundle, tuned, results = Path(folder, "digits.mport"), Path(folder, "tuned.mport"), Path(folder, "results.npz")
        mp.save(net, bundle, example=test_images[:2])
        print(f"\nsaved {bundle.name}: {', '.join(sorted(p.name for p in bundle.iterdir()))}")
        print(mp.compare(net, bundle, test_images), "\n", flush=True)

        data = Path(folder, "data.npz")
        np.savez(data, images=images, labels=labels, test_images=test_images, test_labels=test_labels)
        script = Path(__file__).with_name("without_torch.py")
        subprocess.run([sys.executable, script, bundle, data, tuned, results], check=True)
        with np.load(results) as found:
            seen |= {"Keras": found["keras"], "ONNX": found["onnx"]}
            tuned_in_keras = float((found["tuned"] == test_labels).mean())

        home = DigitsNet()
        mp.load(tuned, into=home)

    print("\ntest accuracy")
    for name, classes in seen.items():
        print(f"  {name:<28} {(classes == test_labels).mean():.2%}")
    print(f"  {'Keras, one more epoch':<28} {tuned_in_keras:.2%}")
    print(f"  {'those weights in PyTorch':<28} {(predict(home.eval(), test_images) == test_labels).mean():.2%}")
    draw(test_images, test_labels, seen, picture)
    print(f"\nwrote {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png"))
