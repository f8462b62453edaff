"""The words of mathematical notation that the parser knows."""

from __future__ import annotations

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth ln log lg exp sqrt abs gcd lcm max min "
    "floor ceil det arcsinh arccosh arctanh sgn cis".split()
)
ALIASES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "cosec": "csc",
    "tg": "tan",
    "ctg": "cot",
    "arctg": "arctan",
    "sign": "sgn",
}
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
INVERSES |= {"sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau upsilon phi varphi "
    "chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar partial nabla aleph".split()
)
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "=<": "<=", "!=": "!=", "<>": "!=",
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "cong": "~", "sim": "~", "doteq": "~", "thickapprox": "~",
    "in": "in", "equiv": "===", "subset": "subset", "subseteq": "subset", "mid": "|", "to": "->", "rightarrow": "->",
    "implies": "->", "Rightarrow": "->", "iff": "->", "notin": "notin", "perp": "perp", "parallel": "parallel",
}  # fmt: skip
CLAUSES = ("where", "for all", "for every", "for any", "for each", "for some integer", "for positive", "for integer")
SEPARATORS = frozenset({"and", "or", "&", "and/or", "or else"})
LEADING_WORDS = frozenset({"only", "where", "either", "both", "if", "for", "answer", "length", "area"})
CONSTANT_WORDS = {"pi": "pi", "infty": "infinity", "infinity": "infinity", "inf": "infinity", "oo": "infinity", "i": "i", "e": "e"}
MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"})
ENVIRONMENTS_OF_SYSTEMS = frozenset({"begin array", "begin aligned", "begin matrix", "begin cases"})
CLOSERS = {"(": ")]", "[": ")]"}
ORDINALS = ("th", "st", "nd", "rd")
UNKNOWN_FUNCTIONS = frozenset("fgh")
OTHER_SYMBOLS = frozenset("forall exists neg star square odot oplus otimes dagger bot top Re Im ldots cdots dots checkmark bigcirc".split())
