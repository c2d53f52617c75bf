"""Try several recipes on one model, and see which are worth taking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.core.progress import showing, tracked
from modelport.core.signature import Signature
from modelport.core.steps import Step
from modelport.core.swept import SweepReport, SweepRow
from modelport.verbs.compress import Evaluate, compress
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.subject import subject

Recipe = Step | list[Step] | tuple[Step, ...]
"""One step, or several in their order."""


def sweep(
    model: Any,
    recipes: Mapping[str, Recipe] | Sequence[Recipe],
    *,
    evaluate: Evaluate | None = None,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    progress: bool = True,
) -> SweepReport:
    """What each of several recipes makes of one model, side by side.

    Every recipe starts from the model that is given, which stays as it is. A recipe that fails becomes a row that says
    why, and the next one is tried. An interruption (KeyboardInterrupt, as Ctrl-C raises it) ends the sweep: what is
    done by then is returned, and the report names what is not. Before any recipe is through it is raised on.

    Args:
        model: a native model, a `Model` or a path.
        recipes: steps, or lists of steps, by name; in a list they are named as they print.
        evaluate: the score of a `Model`, larger where it is better; the given model is scored once, before anything
            else. Without it, results are compared by their agreement with the given model.
        example: as for `compress`.
        signature: as for `compress`.
        dynamic: as for `compress`.
        progress: whether to show progress bars.

    Returns:
        A `SweepReport`: the results by name, a row per recipe, the Pareto front. It holds every result in memory.

    Raises:
        StepError: there is no recipe, one has no step or something that is none, or two have the same name.
        UnsupportedModelError: no backend owns the model.

    Example:
        >>> result = mp.sweep(net, {
        ...     "int8": mp.Quantize("int8", calibration=x),
        ...     "half": mp.Prune(0.5, structured=True),
        ...     "both": [mp.Prune(0.5, structured=True), mp.Quantize("int8", calibration=x)],
        ... }, evaluate=accuracy, example=x)    # doctest: +SKIP
        >>> print(result)                       # doctest: +SKIP
        >>> result.best(loss=0.005).model       # doctest: +SKIP
    """
    named = _named(recipes)
    source = subject(model, example=example, signature=signature, dynamic=dynamic)
    score = None if evaluate is None else _once(evaluate, source)
    rows: list[SweepRow] = []
    try:
        with showing(progress):
            for name in tracked(list(named), "sweep", unit="recipe", told=str):
                rows.append(_row(name, named[name], source, score, progress))
    except KeyboardInterrupt:
        if not rows:
            raise
    return SweepReport(source.backend, tuple(rows), tuple(named)[len(rows) :])


def _named(recipes: Mapping[str, Recipe] | Sequence[Recipe]) -> dict[str, tuple[Step, ...]]:
    if isinstance(recipes, (Step, str)):
        raise StepError(f'sweep takes several recipes, {{"int8": mp.Quantize(...), ...}} or a list, not {recipes!r}.')
    given: list[tuple[str | None, Recipe]] = (
        list(recipes.items()) if isinstance(recipes, Mapping) else [(None, recipe) for recipe in recipes]
    )
    found: dict[str, tuple[Step, ...]] = {}
    for name, recipe in given:
        steps = tuple(recipe) if isinstance(recipe, (list, tuple)) else (recipe,)
        wrong = [step for step in steps if not isinstance(step, Step)]
        if wrong or not steps:
            told = f"{wrong[0]!r} is no step" if wrong else "there is no step in it"
            raise StepError(f"recipe {len(found) if name is None else name!r}: {told}; take mp.Quantize(...), say.")
        key = " -> ".join(map(str, steps)) if name is None else name
        if key in found:
            raise StepError(f"two recipes print as {key}: give them names, as in {{'a': ..., 'b': ...}}.")
        found[key] = steps
    if not found:
        raise StepError('sweep needs a recipe: sweep(model, {"int8": mp.Quantize("int8", calibration=x)}).')
    return found


def _once(evaluate: Evaluate, source: Model) -> Evaluate:
    """The same score, without another look at the model that is given."""
    known = float(evaluate(source))
    return lambda model: known if model.native is source.native else evaluate(model)


def _row(name: str, steps: tuple[Step, ...], source: Model, score: Evaluate | None, progress: bool) -> SweepRow:
    told = tuple(map(str, steps))
    try:
        return SweepRow(name, told, compress(source, *steps, evaluate=score, progress=progress))
    # Whatever one recipe runs into, hours of others are not to be lost; the row says what it was.
    except Exception as error:
        return SweepRow(name, told, problem=f"{type(error).__name__}: {error}")
