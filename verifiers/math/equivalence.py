r"""Whether an answer says what the gold answer says: lists against lists, sets against sets, equations, units, and values in the end.

The conventions (docs/math-verifier.md has them in full): units, the degree sign, currency, a percent sign and `x =` are no part of the
answer unless both sides have one and they contradict; lists without brackets are unordered; brackets are ordered and typed, and open is not
closed; an unsimplified exact form is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from verifiers.math.clock import check_time
from verifiers.math.digits import approximate
from verifiers.math.equations import COLLECTIONS, difference, is_equation, is_name, names_a_value, renamed_value, value_of
from verifiers.math.matrices import matrix_value
from verifiers.math.nodes import Node
from verifiers.math.quantities import Rules, compare_quantities, compare_texts
from verifiers.math.scalars import Match, proportional, same_value
from verifiers.math.sets import NoSet, equal_sets, real_set

EQUAL, DIFFERENT, UNKNOWN = Match.EQUAL, Match.DIFFERENT, Match.UNKNOWN
ARITHMETIC = frozenset({"number", "decimal", "constant", "add", "multiply", "divide", "negate", "power", "function"})
MAX_ITEMS = 200


def equivalent(gold: Node, answer: Node, rules: Rules) -> Match:
    """Compare an answer with the gold answer. Not symmetric: what the gold leaves out, such as a unit, the answer may add."""
    check_time()
    if gold == answer and gold.kind in ("text", "reals", "empty"):
        return EQUAL
    gold, answer = _spelled_out(gold), _spelled_out(answer)
    equations = _compare_equations(gold, answer, rules)
    if equations is not None:
        return equations
    if _describes_set(gold) or _describes_set(answer):
        return _compare_sets(gold, answer, rules)
    if gold.kind in COLLECTIONS or answer.kind in COLLECTIONS:
        return _compare_collections(gold, answer, rules)
    if gold.kind == "relation" or answer.kind == "relation":
        return _compare_relations(gold, answer, rules)
    if gold.kind == "ratio" or answer.kind == "ratio":
        return _compare_ratios(gold, answer, rules)
    if gold.kind == "text" or answer.kind == "text":
        return compare_texts(gold, answer)
    return compare_quantities(gold, answer, rules)


# --- spelling out


def _spelled_out(node: Node) -> Node:
    """Write both readings of a plus-minus sign as a list, open a list of one, and merge lists within lists."""
    if node.kind == "list" and any(_is_qualifier(item) for item in node.args):
        kept = [item for item in node.args if not _is_qualifier(item)]
        node = kept[0] if len(kept) == 1 else Node("list", tuple(kept)) if kept else node
    if node.kind in ("list", "group") and not (node.kind == "group" and node.value != "{}"):
        items: list[Node] = []
        for item in node.args:
            spelled = _spelled_out(item)
            items.extend(spelled.args if spelled.kind == "list" else [spelled])
        return Node(node.kind, tuple(items), node.value)
    if (
        node.kind == "relation"
        and is_equation(node)
        and is_name(node.args[0])
        and any(n.kind == "plus_minus" for n in node.args[-1].walk())
    ):
        node = node.args[-1]
    if node.kind in ("add", "multiply", "negate", "divide") and any(inner.kind == "matrix" for inner in node.walk()):
        return matrix_value(node) or node
    is_tuple = node.kind == "group" and node.value != "{}"
    if (node.kind not in COLLECTIONS or is_tuple) and node.kind != "relation" and any(inner.kind == "plus_minus" for inner in node.walk()):
        return Node("list", (_with_sign(node, True), _with_sign(node, False)))
    return node


def _is_qualifier(node: Node) -> bool:
    r"""`k \in \mathbb{Z}`: says what a parameter is, and nothing of the answer."""
    if node.kind != "relation" or node.value != ("in",) or node.args[0].kind not in ("symbol", "list"):
        return False
    return str(node.args[1].value) in ("set Z", "set N", "Z", "N", "set Q")


def _with_sign(node: Node, upper: bool) -> Node:
    if not node.args:
        return node
    args = tuple(_with_sign(argument, upper) for argument in node.args)
    if node.kind == "plus_minus":
        return args[0] if (node.value == "+") == upper else Node("negate", args)
    return Node(node.kind, args, node.value)


# --- equations


def _compare_equations(gold: Node, answer: Node, rules: Rules) -> Match | None:
    """Compare where at least one side is an equation; None where that does not settle it."""
    if is_equation(gold) and is_equation(answer):
        return _compare_two_equations(gold, answer, rules)
    if is_equation(answer):
        value = value_of(answer)
        if value is None:
            return None if _describes_set(gold) else DIFFERENT
        return equivalent(gold, value, rules)
    if is_equation(gold):
        # `x+y=1` as gold states an equation, which is not answered by 1.
        value = value_of(gold) if names_a_value(gold) else None
        if value is None:
            return None if _describes_set(answer) and not answer.kind == "group" else DIFFERENT
        return equivalent(value, answer, rules)
    return None


def _compare_two_equations(gold: Node, answer: Node, rules: Rules) -> Match:
    gold_value, answer_value = value_of(gold), value_of(answer)
    if gold_value is not None and answer_value is not None:
        first, second = gold.args[0], answer.args[0]
        renamed = renamed_value(first, second, answer_value)
        if renamed is not None:
            result = equivalent(gold_value, renamed, rules)
            if result is not DIFFERENT:
                return result
        elif is_name(first) and is_name(second):
            return DIFFERENT
    if len(gold.args) == len(answer.args) == 2 and not any(side.kind in COLLECTIONS for side in (*gold.args, *answer.args)):
        return proportional(difference(gold), difference(answer))
    return DIFFERENT


# --- sets of real numbers


def _describes_set(node: Node) -> bool:
    if node.kind in ("reals", "empty", "builder", "union", "intersection", "difference"):
        return True
    if node.kind == "relation":
        return bool({"<", ">", "<=", ">=", "!=", "in", "notin"} & set(node.value))  # type: ignore[arg-type]
    if node.kind == "list":
        return any(_describes_set(item) for item in node.args)
    return node.kind == "group" and len(node.args) == 2 and str(node.value) in ("(]", "[)")


def _compare_sets(gold: Node, answer: Node, rules: Rules) -> Match:
    if gold.kind == answer.kind == "relation" and {n.lower() for n in gold.symbols()} ^ {n.lower() for n in answer.symbols()}:
        return DIFFERENT  # Of another variable: `y<2` for `x<2`.
    gold, answer = _set_behind_in(gold), _set_behind_in(answer)
    try:
        one, two = real_set(gold), real_set(answer)
    except NoSet:
        return _compare_symbolic_sets(gold, answer, rules)
    return EQUAL if equal_sets(one, two) else DIFFERENT


def _set_behind_in(node: Node) -> Node:
    if node.kind == "relation" and node.value in (("in",), ("=",), ("subset",)):
        return node.args[1]
    return node


def _compare_symbolic_sets(gold: Node, answer: Node, rules: Rules) -> Match:
    """Sets whose ends are no numbers: compared end by end, and inequalities link by link."""
    one, two = _as_interval(gold), _as_interval(answer)
    if one is not None and two is not None and "group" in (gold.kind, answer.kind):
        if one.value != two.value:
            return DIFFERENT
        return _all(equivalent(first, second, rules) for first, second in zip(one.args, two.args, strict=True))
    if gold.kind == answer.kind == "relation":
        return _compare_inequalities(gold, answer)
    if gold.kind == answer.kind and gold.kind in ("union", "intersection"):
        return _unordered(_parts(gold), _parts(answer), rules)
    if gold.kind == answer.kind == "difference":
        return _all(equivalent(first, second, rules) for first, second in zip(gold.args, answer.args, strict=True))
    if gold.kind == answer.kind == "builder":
        return equivalent(gold.args[1], answer.args[1], rules)
    if gold.kind == "list" and answer.kind == "list":
        return _unordered(gold.args, answer.args, rules)
    return DIFFERENT


def _parts(node: Node) -> list[Node]:
    return [part for argument in node.args for part in (_parts(argument) if argument.kind == node.kind else [argument])]


def _as_interval(node: Node) -> Node | None:
    if node.kind == "group" and len(node.args) == 2 and node.value != "{}":
        return node
    if node.kind != "relation":
        return None
    operators = tuple(node.value)
    if len(operators) == 2 and set(operators) <= {"<", "<="}:
        return Node("group", (node.args[0], node.args[2]), ("[" if operators[0] == "<=" else "(") + ("]" if operators[1] == "<=" else ")"))
    if len(operators) == 2 and set(operators) <= {">", ">="}:
        return Node("group", (node.args[2], node.args[0]), ("[" if operators[1] == ">=" else "(") + ("]" if operators[0] == ">=" else ")"))
    return None


def _compare_inequalities(gold: Node, answer: Node) -> Match:
    """Each link of one chain must be a positive multiple of a link of the other."""
    one, two = _links(gold), _links(answer)
    if one is None or two is None or len(one) != len(two):
        return DIFFERENT
    remaining = list(two)
    for operator, gap in one:
        for index, (other_operator, other) in enumerate(remaining):
            if operator == other_operator and _positive_multiple(gap, other, either_sign=operator in ("!=", "=")):
                del remaining[index]
                break
        else:
            return DIFFERENT
    return EQUAL


def _links(relation: Node) -> list[tuple[str, Node]] | None:
    links = []
    for left, operator, right in zip(relation.args, relation.value, relation.args[1:], strict=False):
        if operator not in ("<", "<=", ">", ">=", "!=", "="):
            return None
        if operator in (">", ">="):
            left, right, operator = right, left, operator.replace(">", "<")
        links.append((str(operator), Node("add", (left, Node("negate", (right,))))))
    return links


def _positive_multiple(first: Node, second: Node, *, either_sign: bool) -> bool:
    if same_value(first, second) is EQUAL:
        return True
    if proportional(first, second) is not EQUAL:
        return False
    if either_sign:
        return True
    values = {name: Fraction(7 + 3 * index, 5) for index, name in enumerate(sorted(first.symbols() | second.symbols()))}
    one, two = approximate(first, values), approximate(second, values)
    return one is not None and two is not None and one * two > 0


# --- lists, tuples, matrices


def _compare_collections(gold: Node, answer: Node, rules: Rules) -> Match:
    gold, answer = _as_tuple(gold), _as_tuple(answer)
    if gold.kind == "matrix" or answer.kind == "matrix":
        return _compare_matrices(gold, answer, rules)
    if gold.kind == "group" and answer.kind == "group":
        return _compare_groups(gold, answer, rules)
    one, two = _items(gold), _items(answer)
    if len(one) > MAX_ITEMS or len(two) > MAX_ITEMS:
        return UNKNOWN
    if gold.kind == "group" and gold.value != "{}" and answer.kind == "list":
        # A tuple whose brackets were left out, or whose entries were named.
        return _in_order(gold.args, answer.args, rules) if gold.value == "()" and _may_be_tuple(answer) else DIFFERENT
    if answer.kind == "group" and answer.value != "{}" and len(one) > 1:
        return _in_order(gold.args, answer.args, rules) if answer.value == "()" and _may_be_tuple(gold) else DIFFERENT
    if (gold.kind == "group" and gold.value != "{}") or (answer.kind == "group" and answer.value != "{}"):
        return DIFFERENT
    if gold.kind == "group" or answer.kind == "group":
        one, two = _distinct(one, rules), _distinct(two, rules)
    return _unordered(one, two, rules)


def _may_be_tuple(items: Node) -> bool:
    """Whether a list without brackets may be one point: not alternatives, and no name twice."""
    names = [item.args[0] for item in items.args if is_equation(item)]
    return items.value != "or" and len(names) == len(set(names))


def _as_tuple(node: Node) -> Node:
    """A point with its name, `A(1,2)`, is the point."""
    return Node("group", node.args, "()") if node.kind == "apply" and len(node.args) > 1 else node


def _items(node: Node) -> Sequence[Node]:
    return node.args if node.kind in ("list", "group") else (node,)


def _compare_groups(gold: Node, answer: Node, rules: Rules) -> Match:
    if gold.value == "{}" and answer.value == "{}":
        return _unordered(_distinct(gold.args, rules), _distinct(answer.args, rules), rules)
    if gold.value != answer.value and (len(gold.args) < 3 or not {gold.value, answer.value} <= {"()", "[]"}):
        return DIFFERENT
    return _in_order(gold.args, answer.args, rules)


def _compare_matrices(gold: Node, answer: Node, rules: Rules) -> Match:
    one, two = _rows(gold), _rows(answer)
    if one is None or two is None or len(one) != len(two):
        return DIFFERENT
    return _all(_in_order(first, second, rules) for first, second in zip(one, two, strict=True))


def _rows(node: Node) -> list[tuple[Node, ...]] | None:
    """The rows of a matrix; a tuple is a column, as vectors are written both ways."""
    if node.kind == "matrix":
        return [row.args for row in node.args]
    if node.kind == "group" and node.value in ("()", "[]"):
        if all(item.kind == "group" and item.value in ("()", "[]") for item in node.args):
            return [item.args for item in node.args]
        return [(item,) for item in node.args]
    return None


def _in_order(one: Sequence[Node], two: Sequence[Node], rules: Rules) -> Match:
    if len(one) != len(two):
        return DIFFERENT
    return _all(equivalent(first, second, rules) for first, second in zip(one, two, strict=True))


def _unordered(one: Sequence[Node], two: Sequence[Node], rules: Rules) -> Match:
    """Match every item of one list to its own item of the other."""
    if len(one) != len(two):
        return DIFFERENT
    remaining = [(other, _size(other)) for other in two]
    undecided = False
    for item in one:
        size = _size(item)
        for index, (other, other_size) in enumerate(remaining):
            if size is not None and other_size is not None and abs(size - other_size) > 1e-2 * abs(size) + rules.tolerance * abs(size):
                continue
            result = equivalent(item, other, rules)
            if result is EQUAL:
                del remaining[index]
                break
            undecided |= result is UNKNOWN
        else:
            return UNKNOWN if undecided else DIFFERENT
    return EQUAL


def _size(node: Node) -> float | None:
    """A number's value in floating point, None of anything else: so that long lists are not compared number by number."""
    if any(inner.kind not in ARITHMETIC for inner in node.walk()):
        return None
    value = approximate(node, {})
    return float(value) if value is not None and abs(value) < 1e300 else None


def _distinct(items: Sequence[Node], rules: Rules) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if not any(equivalent(other, item, rules) is EQUAL for other in kept):
            kept.append(item)
    return kept


def _all(results: object) -> Match:
    undecided = False
    for result in results:  # type: ignore[attr-defined]
        if result is DIFFERENT:
            return DIFFERENT
        undecided |= result is UNKNOWN
    return UNKNOWN if undecided else EQUAL


# --- other relations, ratios, words


def _compare_relations(gold: Node, answer: Node, rules: Rules) -> Match:
    if gold.kind == answer.kind == "relation" and gold.value == answer.value:
        return _in_order(_with_moduli(gold.args), _with_moduli(answer.args), rules)
    return DIFFERENT


def _with_moduli(operands: Sequence[Node]) -> list[Node]:
    r"""In a congruence `1 \pmod 4` is a remainder with its modulus, not the number 1."""
    return [Node("group", node.args, "()") if node.kind == "apply" and node.value == "mod" else node for node in operands]


def _compare_ratios(gold: Node, answer: Node, rules: Rules) -> Match:
    if gold.kind == answer.kind == "ratio" and len(gold.args) == len(answer.args) > 2:
        factor = [Node("divide", (one, two)) for one, two in zip(gold.args, answer.args, strict=True)]
        return _all(same_value(factor[0], other) for other in factor[1:])
    if any(node.kind == "ratio" and len(node.args) > 2 for node in (gold, answer)):
        return DIFFERENT
    return compare_quantities(gold, answer, rules)
