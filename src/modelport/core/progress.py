"""Progress bars of long calls: a verb says whether they are shown, a loop in it says what it goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

_Item = TypeVar("_Item")

_SHOWN: ContextVar[bool] = ContextVar("modelport_progress", default=False)


@contextmanager
def showing(shown: bool) -> Iterator[None]:
    """While it is open, what is `tracked` in this thread has a bar, or has none.

    Args:
        shown: whether bars are shown.
    """
    token = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def tracked(
    items: Iterable[_Item],
    what: str,
    total: int | None = None,
    *,
    unit: str = "step",
    told: Callable[[_Item], object] | None = None,
) -> Iterator[_Item]:
    """The same items, with a bar on the error stream where `showing(True)` is open; without, they pass as they are.

    A bar inside another one goes when it is done.

    Args:
        items: what the loop goes through.
        what: what the loop does, before the bar (`"calibration"`).
        total: how many items there are, where they do not know it themselves.
        unit: what an item is, for the rate (`"batch"`).
        told: what stands behind the bar while an item is worked on.

    Example:
        >>> with showing(False):
        ...     list(tracked("ab", "letters"))
        ['a', 'b']
    """
    if not _SHOWN.get():
        return iter(items)
    from tqdm.auto import tqdm

    return _told(tqdm(items, desc=what, total=total, unit=unit, leave=None), told)


def _told(bar: Any, told: Callable[[_Item], object] | None) -> Iterator[_Item]:
    # Closed by hand: an exception in the loop's body leaves the bar on the screen until the loop is collected.
    try:
        for item in bar:
            if told is not None:
                bar.set_postfix_str(str(told(item)))
            yield item
    finally:
        bar.close()
