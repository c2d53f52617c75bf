"""Reports as pictures."""

from __future__ import annotations

import itertools
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

import modelport as mp
from modelport.core.compressed import Agreement, CompressReport, Measured
from modelport.core.costs import LayerCost, ProfileReport
from modelport.core.model import Model

LONG = "Prune(ratio=0.5, structured=True) -> Quantize(calibration=…)"
NAMES = ("int8", "int8, entropy", "half, structured", "half + int8", LONG, "float16")


def _report(size: int, ratio: float, score: float | None, *snrs: float) -> CompressReport:
    before = Measured(1_000_000, 10.0, 12.0, None if score is None else 0.9312)
    rows = tuple(Agreement(f"output_{i}", snr, None if i else 0.99) for i, snr in enumerate(snrs))
    return CompressReport("onnx", ("Prune(ratio=0.5)",), before, Measured(size, 10 * ratio, 12.0, score), ratio, rows)


def _sweep(seed: int, *, scored: bool = True) -> mp.SweepReport:
    """Six results that are crowded: of few sizes, and alike in quality."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in NAMES:
        score = 0.9312 + rng.uniform(-0.02, 0.002) if scored else None
        size, snr = int(1e6 * rng.choice([0.25, 0.26, 0.5, 0.51, 1.0])), rng.choice([20.0, 31.0, 50.0, np.inf])
        report = _report(size, float(rng.uniform(0.4, 1.2)), score, float(snr))
        rows.append(mp.SweepRow(name, (name,), Model(None, None, None, report=report)))  # type: ignore[arg-type]
    return mp.SweepReport("onnx", tuple(rows))


def _texts(figure: Figure) -> list[str]:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + [axes.get_title() for axes in figure.axes]


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_compress_is_drawn_before_and_after() -> None:
    figure = _report(270_000, 1.3, 0.93, 41.25, np.inf).plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["bytes: 0.270 x", "latency: 1.30 x (slower)", "score: -0.0012", "agreement of the outputs (SNR)"]
    sizes, times, scores, agreement = ([bar.get_height() for bar in axes.patches] for axes in figure.axes)
    assert sizes == [1_000_000, 270_000]
    assert times == [10.0, 13.0]
    assert scores == [0.9312, 0.93]
    assert agreement == [41.25, 0.0]
    assert {"1 MB", "270 kB", "the same", "41.2 dB\ntop-1 99.0%"} <= set(_texts(figure))
    assert _png(figure).startswith(b"\x89PNG")


def test_what_was_not_measured_has_no_panel() -> None:
    assert len(_report(270_000, 0.7, None).plot().axes) == 2
    assert len(_report(270_000, 0.7, None, -np.inf).plot().axes) == 3
    _png(_report(270_000, 0.7, np.nan, -3.0).plot())


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_no_label_of_a_sweep_lies_on_another_or_leaves_the_picture(seed: int, scored: bool) -> None:
    report = _sweep(seed, scored=scored)
    figure = report.plot()
    _png(figure)
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
    told = " ".join("\n".join(_texts(figure)).split())
    assert all(name in told for name in ("as given", *NAMES))


def test_the_front_is_marked_and_the_line_is_the_best_at_every_size() -> None:
    report = _sweep(2)
    (axes,) = report.plot().axes
    drawn = {group.get_label(): {tuple(point) for point in group.get_offsets()} for group in axes.collections}
    places = {row.name: (row.report.after.bytes, row.report.after.score) for row in report.done}
    assert drawn["on the front of quality, bytes and latency"] == {places[name] for name in report.front}
    assert drawn["as given"] == {(1_000_000, 0.9312)}
    (line,) = (line for line in axes.lines if line.get_label() == "best at this size")
    every = [*places.values(), (1_000_000, 0.9312)]
    for size, height in zip(*line.get_data(), strict=True):
        assert height <= max(score for other, score in every if other <= size)
    assert line.get_ydata()[-1] == max(score for _, score in every)


def test_a_sweep_without_results_is_not_drawn() -> None:
    with pytest.raises(mp.StepError, match="there is nothing to draw"):
        mp.SweepReport("onnx", (mp.SweepRow("a", ("a",), problem="DataError: no data"),)).plot()


def test_a_profile_is_drawn_by_layer() -> None:
    layers = tuple(LayerCost(f"layer{i}", ("Conv",), None, 10, 40 * i, i, 1000 * i) for i in range(25))
    report = ProfileReport("torch", {}, layers, 0, "", 1.25, 1.5, 30)
    figure = report.plot()
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [1000 * i for i in range(5, 25)]
    assert [bar.get_width() for bar in right.patches] == [40 * i for i in range(5, 25)]
    assert "5 more layers not shown" in figure.get_suptitle()
    _png(figure)


def test_matplotlib_is_imported_when_a_picture_is_asked_for() -> None:
    rooms = "modelport.core.swept, modelport.core.costs, modelport.core.plots.swept, modelport.core.plots.compressed"
    code = f"import sys, {rooms}, modelport.core.plots.costs; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_drawing_leaves_pyplot_and_the_backend_alone() -> None:
    code = (
        "import sys\n"
        "from tests.compression.test_plots import _report, _sweep, _png\n"
        "_png(_sweep(0).plot()), _png(_report(5, 0.5, 0.9, 30.0).plot())\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_matplotlib_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for report in (_sweep(0), _report(5, 0.5, 0.9, 30.0), ProfileReport("torch", {}, (), 0, "", 1.0, 1.0, 30)):
        with pytest.raises(mp.MissingBackendError, match=r'pip install "modelport\[plot\]"'):
            report.plot()


def test_an_output_with_more_noise_than_signal_has_no_bar_and_says_so_below_the_title() -> None:
    figure = _report(270_000, 1.3, 0.93, -36.1).plot()
    axes = figure.axes[-1]
    assert [bar.get_height() for bar in axes.patches] == [0.0]
    assert axes.get_ylim()[0] == 0
    assert any(text.get_text().startswith("-36.1 dB") for text in axes.texts)
