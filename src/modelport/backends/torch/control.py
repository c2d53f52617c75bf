"""Branches and loops that only the run decides, as modules around the modules of their graphs.

In eager mode they are Python's own control flow, so that gradients go through them. On the way home each is the node
that it was built from (see `whole`). While torch exports a model otherwise they become `torch.cond` and `while_loop`
where those can say it: tensors only, of shapes that do not change. A Scan is then written out over its length, which
has to be static.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelport.backends.torch.whole import Whole, kept


class If(nn.Module):
    """ONNX's If.

    Args:
        then_branch: takes the first values after the condition.
        else_branch: takes the rest.
        taken: how many values `then_branch` takes.

    Attributes:
        whole: the node that it was built from, where that can take its place on the way home. Who changes a branch
            has to set it to `None`.
    """

    whole: Whole | None = None

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module, taken: int) -> None:
        super().__init__()
        self.then_branch = then_branch
        self.else_branch = else_branch
        self.taken = taken

    def forward(self, condition: Any, *values: Any) -> tuple[Any, ...]:
        """The outputs of the branch that the condition, one boolean, chooses."""
        if (kept_whole := kept(self.whole, (condition, *values))) is not None:
            return kept_whole
        if torch.compiler.is_exporting() and _tensors(values):
            return torch.cond(torch.reshape(condition, []), self._then, self._else, values)
        return self._then(*values) if bool(condition) else self._else(*values)

    def _then(self, *values: Any) -> tuple[Any, ...]:
        return tuple(self.then_branch(*values[: self.taken]))

    def _else(self, *values: Any) -> tuple[Any, ...]:
        return tuple(self.else_branch(*values[self.taken :]))


@dataclass(frozen=True)
class Empty:
    """What a stack of results is when there was no round: its sizes less the first, and its dtype."""

    sizes: tuple[int, ...]
    dtype: torch.dtype

    def make(self, device: torch.device, axis: int = 0) -> torch.Tensor:
        """The stack, with a size of 0 on its axis."""
        sizes = list(self.sizes)
        sizes.insert(axis if axis >= 0 else axis + len(sizes) + 1, 0)
        return torch.zeros(sizes, dtype=self.dtype, device=device)


class Loop(nn.Module):
    """ONNX's Loop.

    Args:
        body: takes the number of the round, the condition, the states and what it uses from around it; gives the
            condition, the states and what is stacked.
        states: how many states there are.
        stacks: what each stack is without a round.

    Attributes:
        whole: as in `If`.
    """

    whole: Whole | None = None

    def __init__(self, body: nn.Module, states: int, stacks: Sequence[Empty]) -> None:
        super().__init__()
        self.body = body
        self.states = states
        self.stacks = tuple(stacks)

    def forward(self, trips: Any, condition: Any, *values: Any) -> tuple[Any, ...]:
        """The last states, then the stacks.

        Args:
            trips: how many rounds at most; `None` without a limit.
            condition: whether there is a first round; `None` where there is.
            values: the first states, then what the body uses from around it.
        """
        if (kept_whole := kept(self.whole, (trips, condition, *values))) is not None:
            return kept_whole
        states, around = list(values[: self.states]), values[self.states :]
        device = _device((condition, *values))
        flag = torch.tensor(True, device=device) if condition is None else torch.reshape(condition, [])
        if torch.compiler.is_exporting() and not self.stacks and _tensors(values):
            return self._exported(trips, flag, states, around)
        limit = None if trips is None else int(trips)
        rows: list[list[torch.Tensor]] = [[] for _ in self.stacks]
        index = 0
        while (limit is None or index < limit) and bool(flag):
            flag, *results = self.body(torch.tensor(index, device=device), flag, *states, *around)
            states = results[: self.states]
            for row, item in zip(rows, results[self.states :], strict=True):
                row.append(item)
            index += 1
        stacked = (torch.stack(r) if r else e.make(device) for r, e in zip(rows, self.stacks, strict=True))
        return (*states, *stacked)

    def _exported(self, trips: Any, flag: Any, states: Sequence[Any], around: Sequence[Any]) -> tuple[Any, ...]:
        limit = torch.full_like(flag, 2**62, dtype=torch.int64) if trips is None else trips
        limit = (
            torch.reshape(limit, [])
            if isinstance(limit, torch.Tensor)
            else torch.full_like(flag, limit, dtype=torch.int64)
        )

        def goes_on(index: Any, flag: Any, *states: Any) -> Any:
            return torch.logical_and(flag, index < limit)

        def step(index: Any, flag: Any, *states: Any) -> tuple[Any, ...]:
            flag, *results = self.body(index.clone(), flag.clone(), *states, *around)
            return (index + 1, torch.reshape(flag, []).clone(), *(result.clone() for result in results))

        start = (torch.zeros_like(limit), flag.clone(), *(state.clone() for state in states))
        return tuple(torch._higher_order_ops.while_loop(goes_on, step, start)[2:])


@dataclass(frozen=True)
class Scanned:
    """How a Scan goes along one value: on which axis, and whether backwards."""

    axis: int
    reverse: bool

    def part(self, value: torch.Tensor, index: int, length: int) -> torch.Tensor:
        """What one round takes."""
        return torch.select(value, self.axis, length - 1 - index if self.reverse else index)

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """What all rounds gave, in the order of the rounds."""
        return torch.stack(list(parts)[::-1] if self.reverse else list(parts), self.axis)


class Scan(nn.Module):
    """ONNX's Scan.

    Args:
        body: takes the states, a part of every scanned value and what it uses from around it; gives the states and a
            part of every result.
        states: how many states there are.
        inputs: how it goes along the scanned values.
        outputs: how it goes along the results.
        stacks: what each result is without a round.

    Attributes:
        whole: as in `If`.
    """

    whole: Whole | None = None

    def __init__(
        self,
        body: nn.Module,
        states: int,
        inputs: Sequence[Scanned],
        outputs: Sequence[Scanned],
        stacks: Sequence[Empty],
    ) -> None:
        super().__init__()
        self.body = body
        self.states = states
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.stacks = tuple(stacks)

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """The last states, then the results; `values` are the first states, the scanned values, and what is around."""
        if (kept_whole := kept(self.whole, values)) is not None:
            return kept_whole
        end = self.states + len(self.inputs)
        states, scanned, around = list(values[: self.states]), values[self.states : end], values[end:]
        length = scanned[0].shape[self.inputs[0].axis]
        rows: list[list[torch.Tensor]] = [[] for _ in self.outputs]
        for index in range(length):
            parts = [how.part(value, index, length) for how, value in zip(self.inputs, scanned, strict=True)]
            results = self.body(*states, *parts, *around)
            states = list(results[: self.states])
            for row, item in zip(rows, results[self.states :], strict=True):
                row.append(item)
        found = zip(rows, self.outputs, self.stacks, strict=True)
        joined = (how.joined(row) if row else e.make(scanned[0].device, how.axis) for row, how, e in found)
        return (*states, *joined)


def _tensors(values: Sequence[Any]) -> bool:
    return all(isinstance(value, torch.Tensor) for value in values)


def _device(values: Sequence[Any]) -> torch.device:
    return next((value.device for value in values if isinstance(value, torch.Tensor)), torch.device("cpu"))
