"""Sums, multiples and products of matrices, entry by entry, as expressions."""

from __future__ import annotations

from collections.abc import Callable

from verifiers.math.nodes import Node

MAX_ENTRIES = 400


def matrix_value(node: Node) -> Node | None:
    """Return the matrix an expression of matrices makes, None where sizes do not fit or an operation is not known."""
    if node.kind == "matrix":
        return node
    if node.kind == "negate":
        inner = matrix_value(node.args[0])
        return None if inner is None else _each(inner, lambda entry: Node("negate", (entry,)))
    if node.kind == "add":
        return _sum([matrix_value(argument) for argument in node.args])
    if node.kind == "divide":
        inner = matrix_value(node.args[0])
        return None if inner is None else _each(inner, lambda entry: Node("divide", (entry, node.args[1])))
    if node.kind == "multiply":
        first, second = node.args
        one, two = (matrix_value(argument) if _has_matrix(argument) else None for argument in (first, second))
        if one is not None and two is not None:
            return _product(one, two)
        if two is not None and not _has_matrix(first):
            return _each(two, lambda entry: Node("multiply", (first, entry)))
        if one is not None and not _has_matrix(second):
            return _each(one, lambda entry: Node("multiply", (entry, second)))
    return None


def _has_matrix(node: Node) -> bool:
    return any(inner.kind == "matrix" for inner in node.walk())


def _each(matrix: Node, change: Callable[[Node], Node]) -> Node:
    return Node("matrix", tuple(Node("row", tuple(change(entry) for entry in row.args)) for row in matrix.args))


def _sum(matrices: list[Node | None]) -> Node | None:
    shapes = {(len(matrix.args), len(matrix.args[0].args)) if matrix is not None else None for matrix in matrices}
    if None in shapes or len(shapes) != 1:
        return None
    rows = zip(*(matrix.args for matrix in matrices if matrix is not None), strict=True)
    return Node(
        "matrix", tuple(Node("row", tuple(Node("add", entries) for entries in zip(*(r.args for r in row), strict=True))) for row in rows)
    )


def _product(one: Node, two: Node) -> Node | None:
    if len(one.args[0].args) != len(two.args) or len(one.args) * len(two.args[0].args) * len(two.args) > MAX_ENTRIES:
        return None
    columns = list(zip(*(row.args for row in two.args), strict=True))
    rows = []
    for row in one.args:
        rows.append(Node("row", tuple(_dot(row.args, column) for column in columns)))
    return Node("matrix", tuple(rows))


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    return Node("add", tuple(Node("multiply", pair) for pair in zip(row, column, strict=True)))
