r"""Brings the many spellings of one formula closer together, as text: Unicode, layout commands, doubled backslashes, thousands.

Nothing here changes what a formula means. All patterns run in time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
CHARACTERS = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2010": "-",
    "\u2011": "-",
    "\uff0d": "-",
    "\u00d7": "\\times ",
    "\u22c5": "\\cdot ",
    "\u00b7": "\\cdot ",
    "\u2217": "*",
    "\u00f7": "/",
    "\u2215": "/",
    "\u2044": "/",
    "\u221a": "\\sqrt ",
    "\u221b": "\\sqrt[3] ",
    "\u221e": "\\infty ",
    "\u2264": "\\le ",
    "\u2a7d": "\\le ",
    "\u2265": "\\ge ",
    "\u2a7e": "\\ge ",
    "\u2260": "\\ne ",
    "\u2248": "\\approx ",
    "\u2245": "\\approx ",
    "\u2208": "\\in ",
    "\u222a": "\\cup ",
    "\u2229": "\\cap ",
    "\u2205": "\\emptyset ",
    "\u211d": "\\mathbb{R} ",
    "\u00b1": "\\pm ",
    "\u2213": "\\mp ",
    "\u00b0": "^\\circ ",
    "\u2220": "\\angle ",
    "\u2032": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2026": "\\ldots ",
    "\u00bd": "\\frac12 ",
    "\u00bc": "\\frac14 ",
    "\u00be": "\\frac34 ",
    "\u2153": "\\frac13 ",
    "\u2154": "\\frac23 ",
    "\u03c0": "\\pi ",
    "\u03b1": "\\alpha ",
    "\u03b2": "\\beta ",
    "\u03b3": "\\gamma ",
    "\u03b4": "\\delta ",
    "\u03b8": "\\theta ",
    "\u03bb": "\\lambda ",
    "\u03bc": "\\mu ",
    "\u03c1": "\\rho ",
    "\u03c3": "\\sigma ",
    "\u03c4": "\\tau ",
    "\u03c6": "\\phi ",
    "\u03c9": "\\omega ",
    "\u0394": "\\Delta ",
    "\u03a3": "\\Sigma ",
    "\u03a9": "\\Omega ",
    "\uff08": "(",
    "\uff09": ")",
    "\uff0c": ",",
    "\uff1a": ":",
    "\uff1b": ";",
    "\uff1d": "=",
    "\uff1c": "<",
    "\uff1e": ">",
    "\uff0b": "+",
    "\u3002": ".",
    "\u20ac": "\\$",
    "\u00a3": "\\$",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u200b": "",
    "\ufeff": "",
}
# Circled numbers name statements of a list: all those that are true, as a rule.
CHARACTERS |= {chr(0x2460 + index): f"{index + 1}, " for index in range(20)}
TRANSLATION = str.maketrans(CHARACTERS)
# Commands that only say how large or where something is drawn.
LAYOUT = re.compile(
    r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|bigg|Bigg|big|Big|displaystyle|textstyle|scriptstyle|limits|nolimits"
    r"|phantom\s?\{[^{}]{0,40}\}|hspace\s?\{[^{}]{0,20}\}|mathstrut|strut|boldsymbol|bm|rm|bf|it|therefore)(?![A-Za-z])"
)
EMPTY_BRACKET = re.compile(r"\\(?:left|right)\s{0,4}\.")
NEXT_EQUATION = re.compile(r"\\q?quad\s{0,9}(?=[A-Za-z][A-Za-z0-9_{}]{0,9}\s{0,9}=)")
SPACES = re.compile(r"(?<!\\)\\(?:[ ;:>]|quad(?![A-Za-z])|qquad(?![A-Za-z])|enspace(?![A-Za-z])|thinspace(?![A-Za-z]))|~")
DELIMITERS = re.compile(r"\\[()\[\]]|(?<!\\)\$+")
FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
DOUBLED_KNOWN = re.compile(r"\\\\(?=(?:frac|dfrac|tfrac|sqrt|pi|text|begin|end|left|right|infty|cdot|times|pm|mathrm|cup|le|ge)(?![a-z]))")
THIN = re.compile(r"(?<=[0-9])\\,(?=[0-9]{3}(?![0-9]))")
THIN_COMMA = re.compile(r",\s*\\!\s*|\{,\}\s*(?=[0-9]{3})")
BLANK_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
REPEATING = re.compile(r"([0-9]{0,30})\.([0-9]{0,30})\\(?:overline|bar|dot|overbar)\s?(?:\{([0-9]{1,30})\}|([0-9]))")
LEADING_SIGN = re.compile(r"\A(?:=|\\approx(?![A-Za-z]))\s*")
TRAILING = " \t\r\n.,;:"
HTML_POWER = re.compile(r"<sup>([^<>]{1,20})</sup>")


def clean(text: str) -> str:
    """Return the formula in plain ASCII LaTeX, without delimiters, layout and final punctuation."""
    if not text.isascii():
        text = SUPERSCRIPT_RUN.sub(lambda run: f"^{{{run[0].translate(SUPERSCRIPTS)}}}", text)
        text = SUBSCRIPT_RUN.sub(lambda run: f"_{{{run[0].translate(SUBSCRIPTS)}}}", text)
        text = unicodedata.normalize("NFC", text.translate(TRANSLATION))
    if "\\" in text or "$" in text or "{" in text or "~" in text or "<" in text:
        text = _clean_latex(text)
    text = LEADING_SIGN.sub("", text.lstrip(" \t\r\n,;:").rstrip(TRAILING))
    if text.endswith("\\"):
        text = text.rstrip("\\" + TRAILING)
    if " " in text:
        text = BLANK_THOUSANDS.sub(lambda run: run[0].replace(" ", ""), text)
    return text


def _clean_latex(text: str) -> str:
    text = HTML_POWER.sub(r"^{\1}", text)
    text = (DOUBLED_KNOWN if "\\begin" in text else DOUBLED).sub(r"\\", text)
    text = THIN.sub(",", THIN_COMMA.sub(",", text))
    text = text.replace("{:}", ":").replace("\\!", "").replace("\\,", " ").replace("\\%", "%").replace("{%}", "%")
    text = SPACES.sub(" ", NEXT_EQUATION.sub(", ", text))
    text = DELIMITERS.sub(" ", text)
    text = LAYOUT.sub(" ", EMPTY_BRACKET.sub(" ", text))
    return REPEATING.sub(_as_fraction, FRACTIONS.sub(r"\\frac", text))


def _as_fraction(decimal: re.Match[str]) -> str:
    """`0.1` with a bar over a final 6 is 15/90."""
    whole, fixed, repeated = decimal[1] or "0", decimal[2], decimal[3] or decimal[4]
    over = int(whole + fixed + repeated) - int(whole + fixed)
    return rf"\frac{{{over}}}{{{10 ** len(fixed) * (10 ** len(repeated) - 1)}}}"


def letters_only(text: str) -> str:
    """Return words in lower case without quotes, articles and punctuation: how two answers in words are compared."""
    text = re.sub(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname|emph)\s*(?=\{)", " ", text)
    text = re.sub(r"[\\{}$\"'`*_.,;:!?()]", " ", text).casefold()
    return " ".join(word for word in text.split() if word not in ("the", "a", "an") or len(text.split()) == 1)
