"""Sizes as expressions over named dimensions: polynomials with rational coefficients, floors, minima and maxima.

A size is an `int` where it is known and an `Expr` where it is not. An `Expr` is kept in one canonical form, so two
sizes that are the same polynomial compare equal. Dimensions are taken to be at least 1; a symbol whose name begins
with `?` stands for an element of an integer tensor and may have any sign.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple, TypeGuard

Number = int | Fraction


class Call(NamedTuple):
    """A function of sizes that is no polynomial: `floor`, `//`, `min` or `max`."""

    function: str
    args: tuple[Size, ...]

    def __str__(self) -> str:
        if self.function == "floor":
            return _floor_str(self.args[0])
        if self.function == "//":
            return "(({})//({}))".format(*self.args)
        return f"{self.function}({', '.join(map(str, self.args))})"


Atom = str | Call
Monomial = tuple[tuple[Atom, int], ...]
"""Atoms with their powers, sorted by how they print; `()` is 1."""


class Expr:
    """An integer that is known only when the model runs; immutable, hashable, never a plain number.

    Arithmetic with `+`, `-`, `*`, `//` and `%` gives an `int` where everything cancels.

    Example:
        >>> b, s = symbol("batch"), symbol("seq")
        >>> (b * s * 12) // (b * 4)
        Expr('3*seq')
        >>> (s + 1) // 2 * 2 == s
        False
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, Number]) -> None:
        self.terms = dict(terms)
        self._hash = hash(frozenset(self.terms.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._hash == other._hash and self.terms == other.terms

    def __repr__(self) -> str:
        return f"Expr({str(self)!r})"

    def __str__(self) -> str:
        first, *more = sorted(self.terms.items(), key=_print_order)
        text = ("-" if first[1] < 0 else "") + _term_str(*first)
        return text + "".join(f" {'-' if item[1] < 0 else '+'} {_term_str(*item)}" for item in more)

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _size(terms)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return _size({monomial: -coefficient for monomial, coefficient in self.terms.items()})

    def __sub__(self, other: Size) -> Size:
        return self + (-other)

    def __rsub__(self, other: Size) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, Number] = {}
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                monomial = _times(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _size(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return self - other * floordiv(self, other)

    def __rmod__(self, other: Size) -> Size:
        return other - self * floordiv(other, self)

    def symbols(self) -> frozenset[str]:
        """The names of the dimensions in it."""
        found: set[str] = set()
        for monomial in self.terms:
            for atom, _ in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found.update(*(arg.symbols() for arg in atom.args if isinstance(arg, Expr)))
        return frozenset(found)

    def is_polynomial(self) -> bool:
        """Whether it is made of dimensions by sums and products alone."""
        return all(isinstance(atom, str) for monomial in self.terms for atom, _ in monomial)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The number for given sizes of all its symbols.

        Raises:
            KeyError: a symbol has no size.
        """
        total = self.compute(lambda name: sizes[name])
        return int(total)

    def compute(self, of: Callable[[str], int]) -> Number:
        """The value where `of` gives each symbol's."""
        total: Number = 0
        for monomial, coefficient in self.terms.items():
            for atom, power in monomial:
                coefficient *= (of(atom) if isinstance(atom, str) else _call(atom, of)) ** power
            total += coefficient
        return total


Size = int | Fraction | Expr
"""A number or an expression; dims are never fractions, what leads to them may be."""


def symbol(name: str) -> Expr:
    """A dimension by name."""
    return Expr({((name, 1),): 1})


def is_known(sizes: Iterable[object]) -> TypeGuard[Iterable[int]]:
    """Whether all sizes are plain integers."""
    return all(isinstance(size, int) for size in sizes)


def product(sizes: Iterable[Size]) -> Size:
    """The product; 1 of none."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def exact_div(a: Size, b: Size) -> Size | None:
    """The quotient where b divides a as a polynomial (over the rationals), else `None`."""
    if not isinstance(b, Expr):
        return None if b == 0 else a * Fraction(1, b) if isinstance(a, Expr) else _number(Fraction(a) / b)
    rest: Size = a
    quotient: Size = 0
    lead = max(b.terms, key=_division_order)
    while isinstance(rest, Expr) or rest != 0:
        terms = _terms(rest)
        top = max(terms, key=_division_order)
        monomial = _over(top, lead)
        if monomial is None:
            return None
        part = _size({monomial: Fraction(terms[top]) / b.terms[lead]})
        quotient, rest = quotient + part, rest - part * b
    return quotient


def floor(a: Size) -> Size:
    """The largest integer that is not above it."""
    if not isinstance(a, Expr):
        return math.floor(a)
    whole = {monomial: math.floor(coefficient) for monomial, coefficient in a.terms.items()}
    rest = _size({monomial: coefficient - whole[monomial] for monomial, coefficient in a.terms.items()})
    inner = math.floor(rest) if not isinstance(rest, Expr) else Expr({((Call("floor", (rest,)), 1),): 1})
    return _size(whole) + inner


def ceil(a: Size) -> Size:
    """The smallest integer that is not below it."""
    return -floor(-a)


def floordiv(a: Size, b: Size) -> Size:
    """`a // b`; whole multiples of b are taken out of the floor.

    Raises:
        ZeroDivisionError: b is 0.
    """
    if not isinstance(b, Expr):
        return floor(a * Fraction(1, b))
    whole: Size = 0
    rest: Size = 0
    exact = exact_div(a, b)
    if exact is not None:
        return floor(exact)
    for monomial, coefficient in _terms(a).items():
        part = _size({monomial: coefficient})
        quotient = exact_div(part, b)
        if quotient is not None and floor(quotient) == quotient:
            whole = whole + quotient
        else:
            rest = rest + part
    return whole + (0 if rest == 0 else Expr({((Call("//", (rest, b)), 1),): 1}))


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    return _extreme("min", a, b)


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes."""
    return _extreme("max", a, b)


def lower_bound(a: Size) -> Number | None:
    """A number that it never falls below, given that every dimension is at least 1; `None` where none is seen."""
    total: Number = 0
    for monomial, coefficient in _terms(a).items():
        if not monomial:
            total += coefficient
            continue
        bound = _monomial_top(monomial) if coefficient < 0 else _monomial_bound(monomial)
        if bound is None:
            return None
        total += coefficient * bound
    return total


def is_at_least(a: Size, b: Size) -> bool | None:
    """Whether a >= b for all sizes of the dimensions; `None` where it depends or is not seen."""
    low = lower_bound(a - b)
    if low is not None and low >= 0:
        return True
    low = lower_bound(b - a)
    return False if low is not None and low > 0 else None


def parse(text: str) -> Size | None:
    """The size that a text like `"2*seq + 1"` or `"floor(h/2)"` says; `None` where it is no such formula."""
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _from_ast(node: ast.expr) -> Size:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_from_ast(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_from_ast(left), _from_ast(right))
        case ast.Call(func=ast.Name(id="floor"), args=[arg]):
            return floor(_from_ast(arg))
        case ast.Call(func=ast.Name(id="min" | "Min" | "max" | "Max" as name), args=[first, *more]):
            total = _from_ast(first)
            for arg in more:
                total = _extreme(name.lower(), total, _from_ast(arg))
            return total
    raise ValueError(ast.dump(node))


def _divide(a: Size, b: Size) -> Size:
    quotient = exact_div(a, b)
    if quotient is None:
        raise ValueError(f"{b} does not divide {a}")
    return quotient


def _power(a: Size, b: Size) -> Size:
    if not isinstance(b, int) or not 0 <= b <= 8:
        raise ValueError(f"power {b}")
    return product([a] * b)


_OPERATORS: dict[type[ast.operator], Callable[[Size, Size], Size]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divide,
    ast.FloorDiv: floordiv,
    ast.Mod: lambda a, b: a - b * floordiv(a, b),
    ast.Pow: _power,
}


def _extreme(function: str, a: Size, b: Size) -> Size:
    kept: list[Size] = []
    for arg in sorted({*_flat(function, a), *_flat(function, b)}, key=str):
        if not any(_beats(function, other, arg) for other in kept):
            kept = [other for other in kept if not _beats(function, arg, other)] + [arg]
    return kept[0] if len(kept) == 1 else Expr({((Call(function, tuple(kept)), 1),): 1})


def _beats(function: str, a: Size, b: Size) -> bool:
    """Whether b adds nothing to a minimum or maximum that has a."""
    return bool(is_at_least(a, b) if function == "max" else is_at_least(b, a))


def _flat(function: str, a: Size) -> tuple[Size, ...]:
    """The arguments of a nested minimum or maximum."""
    if isinstance(a, Expr) and len(a.terms) == 1:
        ((monomial, coefficient),) = a.terms.items()
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            atom = monomial[0][0]
            if isinstance(atom, Call) and atom.function == function:
                return atom.args
    return (a,)


def _monomial_bound(monomial: Monomial) -> Number | None:
    low: Number = 1
    for atom, _ in monomial:
        bound = _atom_bound(atom)
        if bound is None or bound < 0:
            return None
        low *= min(bound, 1)
    return low


def _monomial_top(monomial: Monomial) -> Number | None:
    """A number that a minimum, or the floor of one, never exceeds; `None` for everything else."""
    (atom, power), *more = monomial
    if more or power != 1 or not isinstance(atom, Call) or atom.function not in ("min", "floor"):
        return None
    tops = [-low for arg in atom.args if (low := lower_bound(-arg)) is not None]
    return math.floor(min(tops)) if tops else None


def _atom_bound(atom: Atom) -> Number | None:
    if isinstance(atom, str):
        return None if atom.startswith("?") else 1
    if atom.function == "//":
        return 0 if all(is_at_least(arg, 0) for arg in atom.args) else None
    bounds = [lower_bound(arg) for arg in atom.args]
    if atom.function == "max":
        return max((bound for bound in bounds if bound is not None), default=None)
    if any(bound is None for bound in bounds):
        return None
    lowest = min(bound for bound in bounds if bound is not None)
    return math.floor(lowest) if atom.function == "floor" else lowest


def _call(atom: Call, of: Callable[[str], int]) -> Number:
    args = [arg.compute(of) if isinstance(arg, Expr) else arg for arg in atom.args]
    match atom.function:
        case "floor":
            return math.floor(args[0])
        case "//":
            return args[0] // args[1]
        case "min":
            return min(args)
    return max(args)


def _terms(a: Size) -> Mapping[Monomial, Number]:
    return a.terms if isinstance(a, Expr) else {(): a} if a else {}


def _number(a: Number) -> Number:
    return int(a) if a.denominator == 1 else a


def _size(terms: Mapping[Monomial, Number]) -> Size:
    kept = {monomial: _number(coefficient) for monomial, coefficient in terms.items() if coefficient}
    if not kept:
        return 0
    return kept[()] if len(kept) == 1 and () in kept else Expr(kept)


def _times(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _over(left: Monomial, right: Monomial) -> Monomial | None:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) - power
    if any(power < 0 for power in powers.values()):
        return None
    return tuple((atom, power) for atom, power in powers.items() if power)


def _division_order(monomial: Monomial) -> tuple[tuple[str, int], ...]:
    # Lexicographic with the alphabetically last atom as the main variable: a monomial order, so division terminates.
    return tuple(sorted(((str(atom), power) for atom, power in monomial), reverse=True))


def _print_order(term: tuple[Monomial, Number]) -> tuple[int, str]:
    return -sum(power for _, power in term[0]), str([str(atom) for atom, _ in term[0]])


def _term_str(monomial: Monomial, coefficient: Number) -> str:
    size = -coefficient if coefficient < 0 else coefficient
    factors = [str(atom) if power == 1 else f"{atom}**{power}" for atom, power in monomial]
    if size.numerator != 1 or not factors:
        factors.insert(0, str(size.numerator))
    text = "*".join(factors)
    return text if size.denominator == 1 else f"{text}/{size.denominator}"


def _floor_str(a: Size) -> str:
    terms = _terms(a)
    bottom = math.lcm(*(coefficient.denominator for coefficient in terms.values()))
    return f"(({a * bottom})//{bottom})"
