"""Operators on strings that onnx's evaluator computes otherwise than the standard says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx.reference.op_run import OpRun


class StringNormalizer(OpRun):
    """Case and stopwords. onnx's own also drops what is empty and no stopword."""

    def _run(
        self,
        x: np.ndarray,
        case_change_action: str | None = None,
        is_case_sensitive: int | None = None,
        locale: str | None = None,
        stopwords: Sequence[str] | None = None,
    ) -> tuple[np.ndarray]:
        same = str if is_case_sensitive else str.lower
        stops = {same(word) for word in stopwords or ()}
        change = {"LOWER": str.lower, "UPPER": str.upper}.get(case_change_action or "NONE", str)
        kept = [change(word) for word in x.ravel().tolist() if same(word) not in stops]
        words = np.asarray(kept or [""], object)
        return (words.reshape(1, -1) if x.ndim == 2 else words,)
