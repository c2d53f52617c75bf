"""What a newcomer pastes from the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.xdist_group("journeys")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    code = "\n".join(_blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(4, 10)" in done.stdout
    assert "parity: torch -> keras" in done.stdout
    assert "FAIL" not in done.stdout
    assert "compress: Quantize" in done.stdout
    assert "in epoch 2" in done.stdout
    assert "sweep: 3 recipes on onnx" in done.stdout
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    assert (tmp_path / "small.mport").exists()


def test_the_readme_promises_exactly_two_commands_and_the_makefile_has_them() -> None:
    promised = re.findall(r"^make (\w+)", "\n".join(_blocks("sh")), re.MULTILINE)
    assert promised == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in promised)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_demo_reaches_its_accuracy_and_draws_its_picture(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    script = ROOT / "examples" / "digits" / "demo.py"
    done = subprocess.run([sys.executable, script, picture], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracies = [float(value) for value in re.findall(r"([\d.]+)%$", done.stdout, re.MULTILINE)]
    assert len(accuracies) == 5
    assert min(accuracies) >= 97.0
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert picture.stat().st_size > 10_000
