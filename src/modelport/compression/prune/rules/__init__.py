"""What becomes of channels in each operator: one short function per operator, one room per kind."""

from __future__ import annotations

from modelport.compression.prune.rules.attention import ATTENTION
from modelport.compression.prune.rules.elementwise import ELEMENTWISE
from modelport.compression.prune.rules.indexing import INDEXING
from modelport.compression.prune.rules.linear import LINEAR
from modelport.compression.prune.rules.norms import NORMS
from modelport.compression.prune.rules.recurrent import RECURRENT
from modelport.compression.prune.rules.reduce import REDUCE
from modelport.compression.prune.rules.shape import SHAPE
from modelport.compression.prune.rules.windows import WINDOWS
from modelport.compression.prune.trace import Rule

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    **ATTENTION,
    **ELEMENTWISE,
    **INDEXING,
    **LINEAR,
    **NORMS,
    **RECURRENT,
    **REDUCE,
    **SHAPE,
    **WINDOWS,
}
