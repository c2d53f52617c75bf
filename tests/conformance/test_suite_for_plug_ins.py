"""A plug-in author runs the shipped suite by one command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _suite(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "modelport.testing.plugin", "-p", "no:cacheprovider", "-q"]
    arguments = ["--pyargs", "modelport.testing", *options]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_suite_runs_on_the_backend_that_is_named(tmp_path: Path) -> None:
    done = _suite(tmp_path, "--backend=onnx", "-k", "perceptron and any_batch_size")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_backend_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = _suite(tmp_path, "--backend=nothing", "-k", "perceptron and any_batch_size")
    assert done.returncode == 1
    assert "no backend is called 'nothing'" in done.stdout


def test_other_projects_keep_their_own_backend_option(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser):\n    parser.addoption('--backend')\n")
    (tmp_path / "test_one.py").write_text("def test_one(request):\n    assert request.config.option.backend == 'x'\n")
    command = [sys.executable, "-m", "pytest", "-p", "modelport.testing.plugin", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run([*command, "--backend=x"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
