"""Texts around the boundary of every constraint of the verifier `instruction`, for `bench.eval_crosscheck`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A text put to one constraint; `kind` names what is particular about it."""

    constraint: str
    kind: str
    arguments: Mapping[str, Any]
    text: str


NEED_TRAINED_MODEL = ("abbreviation", "ellipsis", "numbered list", "initials")
"""Kinds of sentences that an untrained Punkt splits otherwise than the trained one."""

SENTENCES = (
    "The river bends twice before it meets the old stone bridge.",
    "Children run along the bank and throw small pebbles into the water.",
    "A baker opens his shop while the streets are still dark.",
    "Every morning the same grey cat waits near the door.",
    "Nobody knows where it spends the rest of the day.",
    "The mayor wants to plant forty trees beside the market.",
    "Rain fell for a week and the fields turned into a lake.",
    "My sister reads three books a month and forgets most of them.",
    "Trains to the coast leave at noon and return after sunset.",
    "Few visitors stay longer than one night in the valley.",
)


def prose(num_sentences: int, start: int = 0) -> str:
    return " ".join(SENTENCES[(start + index) % len(SENTENCES)] for index in range(num_sentences))


def all_cases() -> Iterator[Case]:
    """Every case as it stands, and with a line before it, a line after it, and both: what the loose reading is for."""
    makers = (words, sentences, paragraphs, first_words, keywords, letters, languages, content, lists, layouts, pairs, ends, capitals)
    for make in makers:
        for case in make():
            yield case
            for text in (f"Sure, here it is:\n{case.text}", f"{case.text}\nI hope this helps.", f"Sure:\n{case.text}\nI hope this helps."):
                yield replace(case, text=text)


def around(constraint: str, key: str, relation_key: str, kind: str, text: str, counts: Sequence[int]) -> Iterator[Case]:
    """The text against bounds around the counts it may be said to have, in both relations."""
    for bound in sorted({bound for count in counts for bound in (count - 1, count, count + 1) if bound > 0}):
        for relation in ("less than", "at least"):
            yield Case(constraint, kind, {relation_key: relation, key: bound}, text)


def words() -> Iterator[Case]:
    kinds = {
        "plain": lambda text: text,
        "apostrophe inside": lambda text: text.replace("the", "it's").replace("Every", "Don't"),
        "curly apostrophe inside": lambda text: text.replace("the", "it\u2019s"),
        "hyphen inside": lambda text: text.replace("old", "well-known").replace("grey", "dark-grey").replace("small", "rose-red"),
        "decimal number": lambda text: text.replace("twice", "1.5 times").replace("forty", "1,000"),
        "accents": lambda text: text.replace("cat", "café").replace("river", "naïve über"),
        "Markdown": lambda text: "# Title\n\n" + text.replace("the", "**the**"),
        "dash between words": lambda text: text.replace(" and ", " — and ").replace(" the ", " - the "),
        "underscore": lambda text: text.replace("the", "snake_case_name"),
        "slash": lambda text: text.replace("the", "and/or"),
    }
    for kind, change in kinds.items():
        for size in (1, 3, 6, 10):
            text = change(prose(size))
            counts = (len(re.findall(r"\w+", text)), len(text.split()))
            yield from around("length_constraints:number_words", "num_words", "relation", kind, text, counts)


def sentences() -> Iterator[Case]:
    kinds: dict[str, tuple[str, int]] = {
        "plain": (prose(4), 4),
        "question and exclamation": ("Is it late? It is! Go home.", 3),
        "?! together": ("Is it late?! It is!! Go home.", 3),
        "no stop at the end": (prose(3) + " And then nothing", 4),
        "one line without a stop": ("A title\n" + prose(3), 4),
        "lines without stops": ("one line\nanother line\na third line", 1),
        "decimal number": ("It weighs 1.5 pounds. It costs 2.75 dollars.", 2),
        "quotation": ('He said "Go." Then he left. "Why?" she asked.', 3),
        "stop before a closing bracket": ("It rained (a lot.) We left.", 2),
        "whole sentence in brackets": ("It rained. (We left.) It stopped.", 3),
        "small letter after the stop": ("It rained. we left. it stopped.", 3),
        "no space after the stop": ("It rained.We left.It stopped.", 1),
        "web address": ("See www.example.com for more. It is short.", 2),
        "bullets": ("* It rained.\n* We left.\n* It stopped.", 3),
        "bold sentence": ("**It rained.** We left. **It stopped.**", 3),
        "emoji between sentences": ("It rained. 😀 We left. 😀", 3),
        "blank lines": (prose(2) + "\n\n" + prose(2, 3), 4),
        "stop alone": ("It rained. . We left.", 2),
        "curly quotation": ("He said \u201cGo.\u201d Then he left.", 2),
        "other script": ("雨が降った。私たちは帰った。", 2),
        "colon and semicolon": ("It rained; we left: all of us. It stopped.", 2),
        "abbreviation": ("Dr. Smith met Mr. Jones. They spoke, e.g. about rain.", 2),
        "initials": ("J. R. R. Tolkien wrote it. It is long.", 2),
        "ellipsis": ("It rained... and it rained. Then... It stopped.", 3),
        "numbered list": ("1. It rained.\n2. We left.\n3. It stopped.", 3),
    }
    for kind, (text, count) in kinds.items():
        yield from around("length_constraints:number_sentences", "num_sentences", "relation", kind, text, (count, count + 2))


def paragraphs() -> Iterator[Case]:
    separators = {
        "divider on its own line": "\n***\n",
        "divider between blank lines": "\n\n***\n\n",
        "divider inside a line": " *** ",
        "divider without space": "***",
        "spaced asterisks": "\n* * *\n",
        "hyphens": "\n---\n",
        "four asterisks": "\n****\n",
        "six asterisks": "\n******\n",
        "blank line only": "\n\n",
    }
    for size in (1, 2, 3, 5):
        pieces = [prose(2, start) for start in range(size)]
        for kind, separator in separators.items():
            joined = separator.join(pieces)
            variants = {
                kind: joined,
                f"{kind}, one before the first": separator.strip(" ") + joined,
                f"{kind}, one after the last": joined + separator.strip(" "),
                f"{kind}, two in a row": joined.replace(separator, separator + separator, 1),
            }
            variants["***bold italic*** inside"] = joined.replace("river", "***river***")
            for name, text in variants.items():
                for count in (size - 1, size, size + 1, size + 2):
                    if count > 0:
                        yield Case("length_constraints:number_paragraphs", name, {"num_paragraphs": count}, text)


def first_words() -> Iterator[Case]:
    beginnings = {
        "plain": ("then", "Then"),
        "upper case": ("then", "THEN"),
        "comma after it": ("then", "Then,"),
        "colon after it": ("then", "Then:"),
        "in double quotes": ("then", '"Then"'),
        "in single quotes": ("then", "'Then'"),
        "bold": ("then", "**Then**"),
        "in brackets": ("then", "(Then)"),
        "heading": ("then", "# Then"),
        "numbered": ("then", "1. Then"),
        "bullet": ("then", "* Then"),
        "possessive": ("then", "Then's"),
        "hyphen after it": ("then", "Then-and"),
        "dash after it": ("then", "Then—and"),
        "dots after it": ("then", "Then... and"),
        "longer word": ("then", "Thence"),
        "argument with apostrophe": ("don't", "Don't"),
        "argument with hyphen": ("well-known", "Well-known"),
    }
    for kind, (word, beginning) in beginnings.items():
        for size, nth in ((1, 1), (2, 1), (2, 2), (4, 3)):
            pieces = [prose(2, start) for start in range(size)]
            pieces[nth - 1] = f"{beginning} it was over."
            texts = {kind: "\n\n".join(pieces)}
            if kind == "plain":
                texts |= {
                    "blank lines before the first": "\n\n" + "\n\n".join(pieces),
                    "three line breaks": "\n\n\n".join(pieces),
                    "four line breaks": "\n\n\n\n".join(pieces),
                    "blank line with a space": "\n \n".join(pieces),
                    "single line breaks": "\n".join(pieces),
                    "line breaks at the end": "\n\n".join(pieces) + "\n\n",
                }
            for name, text in texts.items():
                for count in {size, size + 1}:
                    arguments = {"num_paragraphs": count, "nth_paragraph": nth, "first_word": word}
                    yield Case("length_constraints:nth_paragraph_first_word", name, arguments, text)


def keywords() -> Iterator[Case]:
    texts: dict[str, tuple[str, str, int]] = {
        "plain": ("tree", "A tree is a tree.", 2),
        "case": ("tree", "Tree and TREE.", 2),
        "longer word": ("tree", "Many trees stand near the street. A tree.", 3),
        "hyphenated": ("tree", "A tree-lined path and a tree.", 2),
        "possessive": ("tree", "The tree's leaves.", 1),
        "bold": ("tree", "A **tree** and a *tree*.", 2),
        "between underscores": ("tree", "A _tree_ here.", 1),
        "absent": ("tree", "A bush.", 0),
        "phrase": ("old tree", "An old tree.", 1),
        "phrase over a line break": ("old tree", "An old\ntree.", 1),
        "phrase with two spaces": ("old tree", "An old  tree.", 1),
        "stop in the keyword": ("St. Ives", "St. Ives, or StX Ives.", 2),
        "sign at the end of the keyword": ("C++", "I write C++ and C.", 1),
        "bracket in the keyword": ("(a)", "Item (a) and a.", 1),
        "accents": ("café", "Café or cafés.", 2),
        "digit after it": ("tree", "tree2 is no tree.", 2),
    }
    for kind, (word, text, count) in texts.items():
        yield Case("keywords:existence", kind, {"keywords": [word]}, text)
        yield Case("keywords:existence", kind, {"keywords": [word, "river"]}, f"{text} {SENTENCES[0]}")
        yield Case(
            "keywords:existence", f"{kind}: no whole word", {"keywords": [word]}, re.sub(rf"\b{re.escape(word)}\b", f"{word}s", text)
        )
        yield Case("keywords:forbidden_words", kind, {"forbidden_words": [word]}, text)
        yield Case("keywords:forbidden_words", kind, {"forbidden_words": ["pear", word]}, text)
        for case in around("keywords:frequency", "frequency", "relation", kind, text, (count, count + 2)):
            yield replace(case, arguments={"keyword": word, **case.arguments})


def letters() -> Iterator[Case]:
    for size in (1, 3, 6):
        text = prose(size)
        for letter in "aeqzT":
            count = text.lower().count(letter.lower())
            for case in around("keywords:letter_frequency", "let_frequency", "let_relation", "letter", text, (count,)):
                yield replace(case, arguments={"letter": letter, **case.arguments})
        for letter in ("#", "!", "é"):
            marked = text.replace("the", f"{letter} the")
            for case in around(
                "keywords:letter_frequency", "let_frequency", "let_relation", f"argument is {letter!r}", marked, (marked.count(letter),)
            ):
                yield replace(case, arguments={"letter": letter, **case.arguments})
        accented = text.replace("e", "é")
        for case in around(
            "keywords:letter_frequency", "let_frequency", "let_relation", "accents", accented, (accented.lower().count("e"),)
        ):
            yield replace(case, arguments={"letter": "e", **case.arguments})


LANGUAGES = {
    "en": prose(3),
    "de": "Der Fluss macht zwei Biegungen, bevor er die alte Brücke erreicht. Niemand weiß, wohin die Katze am Tage geht.",
    "fr": "La rivière fait deux détours avant de rejoindre le vieux pont. Personne ne sait où le chat passe la journée.",
    "es": "El río da dos vueltas antes de llegar al viejo puente. Nadie sabe dónde pasa el gato el resto del día.",
    "it": "Il fiume fa due curve prima di incontrare il vecchio ponte. Nessuno sa dove il gatto passi la giornata.",
    "pt": "O rio faz duas curvas antes de chegar à velha ponte. Ninguém sabe onde o gato passa o resto do dia.",
    "ru": "Река дважды поворачивает, прежде чем дойти до старого моста. Никто не знает, где кошка проводит день.",
    "ja": "川は古い石の橋に着く前に二度曲がります。猫が昼間どこにいるのか誰も知りません。",
    "hi": "नदी पुराने पुल तक पहुँचने से पहले दो बार मुड़ती है। कोई नहीं जानता कि बिल्ली दिन कहाँ बिताती है।",
    "ar": "ينعطف النهر مرتين قبل أن يصل إلى الجسر القديم. لا أحد يعرف أين تقضي القطة يومها.",
    "ko": "강은 오래된 돌다리를 만나기 전에 두 번 굽이친다. 고양이가 낮에 어디에 있는지 아무도 모른다.",
}


def languages() -> Iterator[Case]:
    texts = {f"text in {code}": text for code, text in LANGUAGES.items()}
    texts |= {"no letters": "12345 67890 !!!", "emoji only": "😀 😀", "two languages": f"{LANGUAGES['en']} {LANGUAGES['de']}"}
    for kind, text in texts.items():
        for code in LANGUAGES:
            yield Case("language:response_language", kind, {"language": code}, text)


def content() -> Iterator[Case]:
    placeholders = {
        "plain": ("Dear [name], write to [address].", 2),
        "empty brackets": ("Dear [] and [name].", 2),
        "space in brackets": ("[ ] done, [x] open", 2),
        "nested": ("[[name]] and [a [b] c]", 2),
        "over a line break": ("[first\nlast] and [name]", 2),
        "Markdown link": ("[text](page) and [name]", 2),
        "never closed": ("[name and [address]", 1),
        "none": ("Dear name.", 0),
    }
    for kind, (text, count) in placeholders.items():
        for bound in range(1, count + 2):
            yield Case("detectable_content:number_placeholders", kind, {"num_placeholders": bound}, text)
    for marker in ("P.S.", "P.P.S"):
        written = marker if marker.endswith(".") else f"{marker}."
        texts = {
            "on its own line": f"Bye.\n\n{written} Write soon.",
            "after one line break": f"Bye.\n{written} Write soon.",
            "inside a line": f"Bye. {written} Write soon.",
            "bold": f"Bye.\n\n**{written}** Write soon.",
            "italic": f"Bye.\n\n*{written} Write soon.*",
            "bullet": f"Bye.\n\n- {written} Write soon.",
            "quoted line": f"Bye.\n\n> {written} Write soon.",
            "in quotes": f'"Bye.\n\n"{written} Write soon."',
            "in brackets": f"Bye.\n\n({written} Write soon.)",
            "heading": f"Bye.\n\n## {written}\nWrite soon.",
            "small letters": f"Bye.\n\n{written.lower()} write soon.",
            "spaces inside": f"Bye.\n\n{' '.join(written.replace('.', '. ').split())} Write soon.",
            "colon": f"Bye.\n\n{written}: Write soon.",
            "no stops": f"Bye.\n\n{written.replace('.', '')} Write soon.",
            "no last stop": f"Bye.\n\n{written[:-1]} Write soon.",
            "indented": f"Bye.\n\n    {written} Write soon.",
            "at the very start": f"{written} Write soon.",
            "the other marker": f"Bye.\n\n{'P.P.S.' if marker == 'P.S.' else 'P.S.'} Write soon.",
            "absent": "Bye. Write soon.",
        }
        for kind, text in texts.items():
            yield Case("detectable_content:postscript", f"{marker} {kind}", {"postscript_marker": marker}, text)
    custom = {"on its own line": "Bye.\nPS: Write soon.", "inside a line": "Bye. PS: Write soon.", "bold": "Bye.\n**PS:** Write soon."}
    for kind, text in custom.items():
        yield Case("detectable_content:postscript", f"PS: {kind}", {"postscript_marker": "PS:"}, text)


def lists() -> Iterator[Case]:
    marks = {
        "asterisk": "* {}",
        "hyphen": "- {}",
        "indented": "    * {}",
        "tab after it": "-\t{}",
        "no space after it": "-{}",
        "asterisk, no space": "*{}",
        "plus": "+ {}",
        "round bullet": "• {}",
        "number": "1. {}",
        "bold item": "* **{}**",
        "italic line": "*{}*",
        "bold line": "**{}**",
        "dash": "– {}",
    }
    for size in (1, 2, 3, 5):
        for kind, mark in marks.items():
            items = "\n".join(mark.format(f"point {index}") for index in range(size))
            texts = {kind: items}
            if kind in ("asterisk", "hyphen"):
                texts |= {
                    f"{kind}, blank lines between": items.replace("\n", "\n\n"),
                    f"{kind}, prose around": f"{prose(1)}\n\n{items}\n\n{prose(1, 2)}",
                    f"{kind}, nested": f"{items}\n    {mark.format('inner')}",
                    "empty bullet": f"{items}\n{mark.format('').strip()} \nend",
                    "bullet and nothing after it": f"{items}\n{mark.format('').strip()}",
                    "rule of hyphens": f"{items}\n\n---\n\n{prose(1)}",
                    "rule of asterisks": f"{items}\n\n***\n\n{prose(1)}",
                    "negative number on a line": f"{items}\n-5 degrees",
                    "line of dialogue with a dash": f"{items}\n--verbose",
                }
            for name, text in texts.items():
                for count in (size - 1, size, size + 1):
                    if count > 0:
                        yield Case("detectable_format:number_bullet_lists", name, {"num_bullets": count}, text)
    marked = {
        "single": "An *old* and a *new* bridge.",
        "double": "An **old** and a **new** bridge.",
        "triple": "An ***old*** and a ***new*** bridge.",
        "single and double": "An *old* and a **new** bridge.",
        "next to each other": "An *old**new* bridge, **a****b**.",
        "empty": "An ** and **** bridge.",
        "only a space": "An * * and ** ** bridge.",
        "over a line break": "An *old\nnew* bridge.",
        "nested": "An **old *and* new** bridge.",
        "bullets": "* old\n* new",
        "bullets with highlights": "* *old*\n* **new**",
        "never closed": "An *old bridge.",
        "multiplication": "2 * 3 and 4 * 5",
        "underscores": "An _old_ bridge.",
        "bold heading": "**Title:**\n\n*text*",
        "divider": "one\n***\ntwo\n***\nthree",
    }
    for kind, text in marked.items():
        for bound in (1, 2, 3, 4, 5):
            yield Case("detectable_format:number_highlighted_sections", kind, {"num_highlights": bound}, text)


def layouts() -> Iterator[Case]:
    for splitter in ("SECTION", "Section", "Part", "Day"):
        beginnings = {
            "plain": f"{splitter} {{}}\n",
            "colon": f"{splitter} {{}}: ",
            "bold": f"**{splitter} {{}}**\n",
            "heading": f"## {splitter} {{}}\n",
            "bullet": f"- {splitter} {{}}\n",
            "in brackets": f"({splitter} {{}})\n",
            "numbered": f"1. {splitter} {{}}\n",
            "no space": f"{splitter}{{}}\n",
            "two spaces": f"{splitter}  {{}}\n",
            "line break inside": f"{splitter}\n{{}}\n",
            "colon before the number": f"{splitter}: {{}}\n",
            "bold name only": f"**{splitter}** {{}}\n",
            "other case": f"{splitter.swapcase()} {{}}\n",
            "inside a line": f"This is {splitter} {{}} of it. ",
            "part of a longer word": f"Sub{splitter} {{}}\n",
            "Roman": f"{splitter} {{}}\n",
        }
        for kind, beginning in beginnings.items():
            for size in (1, 2, 3):
                names = ["I", "II", "III"] if kind == "Roman" else [str(index + 1) for index in range(size)]
                text = "\n".join(beginning.format(names[index]) + prose(1, index) for index in range(size))
                for bound in (size, size + 1):
                    yield Case("detectable_format:multiple_sections", kind, {"section_spliter": splitter, "num_sections": bound}, text)
    value = '{"name": "river", "bends": [1, 2], "old": true}'
    written = {
        "object": value,
        "list": "[1, 2]",
        "number": "42",
        "string": '"river"',
        "null": "null",
        "NaN": "NaN",
        "fence with json": f"```json\n{value}\n```",
        "fence with JSON": f"```JSON\n{value}\n```",
        "fence with Json": f"```Json\n{value}\n```",
        "fence with jSON": f"```jSON\n{value}\n```",
        "fence with json5": f"```json5\n{value}\n```",
        "bare fence": f"```\n{value}\n```",
        "fence in one line": f"```{value}```",
        "fence with python": f"```python\n{value}\n```",
        "fence opened only": f"```json\n{value}",
        "fence closed only": f"{value}\n```",
        "text before": f"Here: {value}",
        "text after": f"{value} done",
        "two values": f"{value}\n{value}",
        "comma at the end": '{"a": 1,}',
        "single quotes": "{'a': 1}",
        "line break in a string": '{"a": "b\nc"}',
        "same key twice": '{"a": 1, "a": 2}',
        "wide space around": f"\n\n  {value}  \n",
        "byte order mark": f"\ufeff{value}",
    }
    for kind, text in written.items():
        yield Case("detectable_format:json_format", kind, {}, text)
    titles = {
        "plain": "<<The river>>\n",
        "inside a line": "My <<The river>> title. ",
        "only spaces": "<<  >>\n",
        "empty": "<<>>\n",
        "three brackets": "<<<The river>>>\n",
        "bracket inside": "<<a < b>>\n",
        "bracket inside, other": "<<a > b>>\n",
        "over a line break": "<<The\nriver>>\n",
        "single brackets": "<The river>\n",
        "never closed": "<<The river\n",
        "bold": "**<<The river>>**\n",
        "two": "<<one>> <<two>>\n",
        "quotation marks": "«The river»\n",
        "bit shifts": "a << b and c >> d\n",
    }
    for kind, title in titles.items():
        yield Case("detectable_format:title", kind, {}, title + prose(2))
    for option in ("yes", "no", "maybe"):
        answers = {
            "plain": f"My answer is {option}.",
            "with prose": f"{prose(1)} My answer is {option}. {prose(1, 2)}",
            "small letters": f"my answer is {option}.",
            "capitals": f"MY ANSWER IS {option.upper()}.",
            "no stop": f"My answer is {option}",
            "exclamation": f"My answer is {option}!",
            "in quotes": f'"My answer is {option}."',
            "bold": f"**My answer is {option}.**",
            "bold inside": f"My answer is **{option}.**",
            "comma": f"My answer is {option}, of course.",
            "two spaces": f"My answer  is {option}.",
            "capital option": f"My answer is {option.capitalize()}.",
            "the word alone": f"{option.capitalize()}.",
        }
        for kind, text in answers.items():
            yield Case("detectable_format:constrained_response", kind, {}, text)


def pairs() -> Iterator[Case]:
    first, second = prose(2), prose(2, 3)
    texts = {
        "plain": f"{first}\n******\n{second}",
        "in one line": f"{first}******{second}",
        "same twice": f"{first}\n******\n{first}",
        "same but for spaces": f"{first}\n******\n\n{first} ",
        "same but for case": f"{first}\n******\n{first.upper()}",
        "separator before": f"******\n{first}\n******\n{second}",
        "separator after": f"{first}\n******\n{second}\n******",
        "separators around": f"******\n{first}\n******\n{second}\n******",
        "three responses": f"{first}\n******\n{second}\n******\n{prose(1, 5)}",
        "two separators together": f"{first}\n******\n******\n{second}",
        "seven asterisks": f"{first}\n*******\n{second}",
        "twelve asterisks": f"{first}\n************\n{second}",
        "three asterisks": f"{first}\n***\n{second}",
        "spaced asterisks": f"{first}\n* * * * * *\n{second}",
        "one response": first,
        "nothing after": f"{first}\n******\n",
        "nothing before": f"******\n{second}",
        "labels": f"Response 1:\n{first}\n******\nResponse 2:\n{first}",
    }
    for kind, text in texts.items():
        yield Case("combination:two_responses", kind, {}, text)
    for prompt in ("Write a poem about rain.", "Name  three rivers,\nand say why.", "What is 2 + 2?"):
        repeated = {
            "plain": f"{prompt} {first}",
            "alone": prompt,
            "other case": f"{prompt.upper()} {first}",
            "space before": f"\n  {prompt} {first}",
            "in quotes": f'"{prompt}" {first}',
            "bold": f"**{prompt}** {first}",
            "last sign missing": f"{prompt[:-1]} {first}",
            "word changed": f"{prompt.replace('e', 'a', 1)} {first}",
            "spaces changed": f"{' '.join(prompt.split())} {first}",
            "text before": f"You asked: {prompt} {first}",
            "no space after": f"{prompt}{first}",
        }
        for kind, text in repeated.items():
            yield Case("combination:repeat_prompt", kind, {"prompt_to_repeat": prompt}, text)


def ends() -> Iterator[Case]:
    for phrase in ("Any other questions?", "Is there anything else I can help with?", "That is all."):
        texts = {
            "plain": f"{prose(2)} {phrase}",
            "other case": f"{prose(2)} {phrase.upper()}",
            "space after": f"{prose(2)} {phrase}  \n\n",
            "quote after": f'"{prose(2)} {phrase}"',
            "curly quote after": f"\u201c{prose(2)} {phrase}\u201d",
            "single quote after": f"'{prose(2)} {phrase}'",
            "stop after": f"{prose(2)} {phrase}.",
            "bold": f"{prose(2)} **{phrase}**",
            "sign missing": f"{prose(2)} {phrase[:-1]}",
            "text after": f"{prose(2)} {phrase} Bye.",
            "inside a word": f"{prose(2)} x{phrase}",
            "line before": f"{prose(2)}\n{phrase}",
            "phrase in quotes, space inside": f'{prose(2)} "{phrase} "',
            "absent": prose(2),
        }
        for kind, text in texts.items():
            yield Case("startend:end_checker", kind, {"end_phrase": phrase}, text)
    text = prose(2)
    quoted = {
        "plain": f'"{text}"',
        "space around": f'\n "{text}" \n',
        "open only": f'"{text}',
        "closed only": f'{text}"',
        "single quotes": f"'{text}'",
        "curly quotes": f"\u201c{text}\u201d",
        "two quotations": f'"{text}" and "{text}"',
        "bold quotation": f'**"{text}"**',
        "empty": '""',
        "one mark": '"',
        "no quotes": text,
        "backticks": f"`{text}`",
    }
    for kind, written in quoted.items():
        yield Case("startend:quotation", kind, {}, written)
    commas = {
        "none": "one two",
        "plain": "one, two",
        "in a number": "1,000",
        "full width": "one，two",
        "ideographic": "一、二",
        "Arabic": "a، b",
    }
    for kind, written in (commas | {"semicolon": "one; two", "prose": prose(8), "apostrophe": "it's"}).items():
        yield Case("punctuation:no_comma", kind, {}, written)


def capitals() -> Iterator[Case]:
    shouted = {
        "plain": ("NOW or NEVER, he said.", 2),
        "contraction in capitals": ("DON'T go, I CAN'T.", 3),
        "I and its contractions": ("I know I'm late and I'll run.", 1),
        "abbreviation with stops": ("The U.S.A. and the U.K. met.", 2),
        "slash": ("Use JSON/XML or TCP/IP.", 2),
        "hyphen": ("A WELL-KNOWN and X-RAY thing.", 3),
        "hyphen, half in capitals": ("A non-GMO and UK-based firm.", 1),
        "digits": ("COVID-19 and 3D and H2O and MP3.", 4),
        "possessive": ("NASA's plan and the BBC's.", 0),
        "ampersand": ("AT&T and R&D.", 2),
        "exclamation": ("STOP! GO! (WAIT)", 3),
        "quotes": ("He said \"STOP\" and 'GO'.", 2),
        "underscore": ("MAX_VALUE and MIN.", 2),
        "bold": ("**STOP** and *GO*.", 2),
        "accents": ("ÉTÉ and ÜBER.", 2),
        "number with unit": ("It has 5GB and 10KM.", 2),
        "CANNOT and GONNA": ("I CANNOT. GONNA go.", 3),
        "formula": ("x = A + B", 2),
        "whole text in capitals": (prose(2).upper(), 20),
        "none": ("nothing here.", 0),
        "web address": ("See HTTP://EXAMPLE.COM now.", 1),
        "ellipsis inside": ("WAIT...WHAT now", 2),
    }
    for kind, (text, count) in shouted.items():
        counts = (count, count + 2)
        yield from around("change_case:capital_word_frequency", "capital_frequency", "capital_relation", kind, text, counts)
    texts = {f"text in {code}": text for code, text in LANGUAGES.items()}
    texts |= {
        "long": prose(8),
        "with digits": f"{prose(3)} 1 2 3",
        "Markdown": f"# Title\n\n* **{prose(3)}**",
        "two words": "good day",
        "one word": "yes",
        "no letters": "12345 67890",
        "short list": "* tea\n* milk\n* jam",
        "names": "Berlin Madrid Roma Paris Lima",
    }
    for kind, text in texts.items():
        for constraint, change in (("change_case:english_capital", str.upper), ("change_case:english_lowercase", str.lower)):
            yield Case(constraint, kind, {}, change(text))
            yield Case(constraint, f"{kind}, one letter otherwise", {}, f"{change(text)} aB")
            yield Case(constraint, f"{kind}, as written", {}, text)


def real_cases(text: str) -> Iterator[Case]:
    """One response against arguments of the size that IFEval asks for."""
    kind = "response of a model"
    for relation, bound in (("at least", 50), ("at least", 100), ("less than", 100), ("less than", 200)):
        yield Case("length_constraints:number_words", kind, {"relation": relation, "num_words": bound}, text)
    for relation, bound in (("at least", 3), ("less than", 6), ("at least", 2), ("less than", 10)):
        yield Case("change_case:capital_word_frequency", kind, {"capital_relation": relation, "capital_frequency": bound}, text)
        yield Case("keywords:letter_frequency", kind, {"letter": "e", "let_relation": relation, "let_frequency": bound * 10}, text)
        yield Case("keywords:frequency", kind, {"keyword": "total", "relation": relation, "frequency": bound}, text)
    for word in ("total", "number", "answer", "so", "one"):
        yield Case("keywords:existence", kind, {"keywords": [word]}, text)
        yield Case("keywords:forbidden_words", kind, {"forbidden_words": [word]}, text)
    for count in (1, 2, 3):
        yield Case("detectable_format:number_bullet_lists", kind, {"num_bullets": count}, text)
        yield Case("detectable_format:number_highlighted_sections", kind, {"num_highlights": count}, text)
        yield Case("detectable_content:number_placeholders", kind, {"num_placeholders": count}, text)
        yield Case("detectable_format:multiple_sections", kind, {"section_spliter": "Step", "num_sections": count}, text)
        yield Case("length_constraints:number_paragraphs", kind, {"num_paragraphs": count}, text)
        yield Case(
            "length_constraints:nth_paragraph_first_word", kind, {"num_paragraphs": count, "nth_paragraph": 1, "first_word": "first"}, text
        )
    yield Case("language:response_language", kind, {"language": "en"}, text)
    yield Case("detectable_content:postscript", kind, {"postscript_marker": "P.S."}, text)
    yield Case("startend:end_checker", kind, {"end_phrase": "the answer."}, text)
    for name in ("punctuation:no_comma", "startend:quotation", "detectable_format:title", "detectable_format:json_format"):
        yield Case(name, kind, {}, text)
    yield Case("change_case:english_lowercase", kind, {}, text.lower())
    yield Case("change_case:english_capital", kind, {}, text.upper())
