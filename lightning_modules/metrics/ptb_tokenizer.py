"""Tokens of captions as coco-caption makes them: Penn Treebank tokens, in small letters, without punctuation.

Gives what edu.stanford.nlp.process.PTBTokenizer 3.4.1 gives with `-preserveLines -lowerCase`, less the 17 punctuation
tokens that coco-caption removes. The rules follow the official lexer's, written anew and held to the program's output.

At each place the rule with the longest match wins, the first of equally long ones. What must follow a token (its
context) counts for the length, as in the lexer generator that the official tokenizer was made with. A character that no
rule matches (emoji, control characters) is dropped.

Two things differ on purpose from the official wrapper, which writes all captions into one file:
- every white space inside a text is a space; the wrapper cuts a caption at CR, VT, FF or U+2028, and each later caption
  then gets its neighbour's tokens;
- a text's tokens do not depend on the text after it; officially "plan b." ends in "b" if the next caption begins with
  "A", and in "b." if it begins with "Two".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from contracts.text import spaced
from lightning_modules.metrics import ptb_tables as tables

# coco-caption compares after the change to small letters, so "-lrb-" and its like stay.
PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
_LINE_ENDS = str.maketrans(dict.fromkeys("\r\n\v\f\x85\u2028\u2029", " "))
_PLAIN_MARKS = str.maketrans({"(": "-LRB-", ")": "-RRB-", "\u00ad": None})
_QUOTE_MARKS = str.maketrans(tables.QUOTES)
# At the end of its input the official tokenizer takes a long clitic that stands alone for a quote and a word.
_LONE_CLITICS = {"'re": ["re"], "'ve": ["ve"], "'ll": ["ll"]}
# No rule reaches over a space between such characters, and none can tell a space from the end of the text.
_PLAIN_TEXT = re.compile(r"[A-Za-z ',;:!?-]*\.?[ \n]*")

_L, _D = tables.LETTER, tables.DIGIT  # insides of character classes
_W = _L + tables.WORD_MARK
_AZ = "[A-Za-z]"
_SP = r"[ \t\u00a0\u2000-\u200a\u3000]"
_END = rf"(?:{_SP}|\n)"
_APOS = r"(?:['\u0092\u2019]|(?i:&apos;))"
_APOS_OR_TICK = r"(?:['\u0092\u2019`\u0091\u2018\u201b]|(?i:&apos;))"
_ACCENTED = "(?i:&[aeiou](?:acute|grave|uml);)"
_WORD_PART = rf"(?:[{_W}]|{_ACCENTED})[{_W}{_D}]*+(?:{_ACCENTED}[{_W}{_D}]*+)*+"
_WORD = rf"{_WORD_PART}(?:[.!?]{_WORD_PART})*+"
_CLITIC = rf"{_APOS}(?:[msdMSD]|(?i:re|ve|ll))"  # he's, I'm, they'd, you're, we've, it'll
_NOT = rf"(?i:n{_APOS_OR_TICK}t)"
_ELISION = rf"[dolDOL]{_APOS_OR_TICK}[{_L}{_D}]"  # d'oh, o'clock, l'eau
_COMPOUND_PART = rf"(?:{_ELISION})?[{_L}{_D}]+"
_COMPOUND = rf"{_COMPOUND_PART}(?:[-_\u058a\u2010\u2011]{_COMPOUND_PART})*"
_JOINED = r"[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+"  # AT&T
_DOTTED_COMPOUND = rf"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:{_AZ}(?:\.{_AZ})+\.|[A-Za-z0-9\u00ad]+))+"  # U.S.-based
_NUMBER_MARK = r"[.:,\u00ad\u066b\u066c]"
_NUMBER = rf"[-+]?(?:[{_D}]+(?:{_NUMBER_MARK}[{_D}]+)*|(?:{_NUMBER_MARK}[{_D}]+)+)"
_FRACTION = rf"(?:[{_D}]{{1,4}}[- \u00a0])?[{_D}]{{1,4}}(?:\\?/|\u2044)[{_D}]{{1,4}}"
_PHONE_PREFIX = r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
_PHONE = _PHONE_PREFIX + r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}"
_DOTTED_PHONE = r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
_TAG_NAME = r"[A-Za-z][A-Za-z0-9:._-]*+"
_ATTRIBUTE = rf""" ++{_TAG_NAME}(?: *+= *+(?:"[^"\n]*+"|'[^'\n]*+'))?"""
_TAG = rf"<(?:[!?][A-Za-z-][^>\n]*+|{_TAG_NAME}(?:{_ATTRIBUTE})*+ *+/?|/{_TAG_NAME}) *+>"
_URL_LAST = r"""[^ \t\n"<>|.!?(){},-]"""
_URL = rf"""(?i:https?)://[^ \t\n"<>|(){{}}]+{_URL_LAST}"""
_WWW_SITE = r"""(?i:www)\.(?:[^ \t\n"<>|.!?(){},]+\.)+[A-Za-z]{2,4}"""
# Officially meant as "neither comma, hyphen nor underscore", `,-_` is a range: digits and capitals are in it.
_BARE_SITE = r"""(?:[^ \t\n"`'<>|.!?(){},-_$]+\.)+(?i:com|net|org|edu)"""
_SITE = rf"(?:{_WWW_SITE}|{_BARE_SITE})"
_MAIL_CHAR = r"""[^ \t\n"<>|().\u00a0{}]"""
_MAIL = rf"""(?i:&lt;|<)?[a-zA-Z0-9][^ \t\n"<>|()\u00a0{{}}]*@(?:{_MAIL_CHAR}+\.)*{_MAIL_CHAR}+(?i:&gt;|>)?"""
_FACE = "[-^x=~<>']"
_HEADLESS_FACE = r"[\^x=~<>']"


def _any_case(pattern: str) -> str:
    return f"(?i:{pattern})"


def _one_of(words: Iterable[str]) -> str:
    """Alternation of literal texts, the longest first."""
    return f"(?:{'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True))})"


def _words(words: str) -> str:
    return _one_of(words.split())


def _as_is(text: str) -> str:
    return text


def _plain_marks(text: str) -> str:
    return text.translate(_PLAIN_MARKS) or "-"  # soft hyphens alone are one hyphen


def _plain_quotes(text: str) -> str:
    return text.replace("&apos;", "'").replace("&quot;", "''").translate(_QUOTE_MARKS)


def _plain_ampersand(text: str) -> str:
    return re.sub("&amp;", "&", text, flags=re.I)


def _replacement(text: str) -> str:
    return tables.REPLACEMENTS[text.lower()]


def _dashes(text: str) -> str:
    return "--" if 2 <= len(text) <= 4 else text


@dataclass(frozen=True, slots=True)
class _Rule:
    """Group 1 of the pattern is the token, the rest its context; `rewrite` gives what the token becomes."""

    pattern: re.Pattern[str]
    rewrite: Callable[[str], str]


def _rule(token: str, context: str = "", rewrite: Callable[[str], str] = _plain_marks) -> _Rule:
    return _Rule(re.compile(f"({token})(?:{context})"), rewrite)


_CAPITALISED = "|".join(f"{word[0]}{_any_case(word[1:])}" for word in tables.CAPITAL_ABBREVIATIONS.split())
_RULES = (
    # Words that are two.
    _rule(_any_case("can"), _any_case("not")),
    _rule(_any_case("gon|wan"), _any_case("na")),
    _rule(_any_case("got"), _any_case("ta")),
    _rule(_any_case("gim|lem"), _any_case("me")),
    _rule(_any_case("'t"), _any_case("is|was")),
    # Markup.
    _rule(_TAG, rewrite=_as_is),
    _rule(_any_case(_one_of(tables.REPLACEMENTS)), rewrite=_replacement),
    _rule(_any_case("&(?:quot|apos);"), rewrite=_plain_quotes),
    _rule(_any_case("&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);")),
    # Words, with what may follow them.
    _rule(_WORD, _CLITIC),
    _rule(r"[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*", _NOT),
    _rule(_WORD),
    *(_rule(rf"{word}\.", r"[,;:\u3001]") for word in (_WORD, _COMPOUND, _JOINED, _DOTTED_COMPOUND)),
    _rule(_any_case(_words(tables.APOSTROPHE_WORDS).replace("'", _APOS) + f"|{_APOS}[2-9]0s")),
    _rule(_any_case(_words(tables.ASCII_APOSTROPHE_WORDS))),
    _rule(rf"[A-HJ-XZn]{_APOS_OR_TICK}[{_L}]{{2,}}|[oO]{_APOS_OR_TICK}[oO]"),
    _rule(rf"[{_L}]+[aeiouyAEIOUY]{_APOS_OR_TICK}[aeiouA-Z][{_L}]*"),
    _rule(rf"[yY]{_APOS}", f"[{_L}]"),
    # Addresses.
    _rule(_URL, rewrite=_as_is),
    _rule(_SITE, rewrite=_as_is),
    _rule(rf"""{_SITE}/[^ \t\n"<>|()]+{_URL_LAST}""", rewrite=_as_is),
    _rule(_MAIL, rewrite=_as_is),
    _rule(rf"@[A-Za-z_][A-Za-z_0-9]*|#(?:[{_W}]|{_ACCENTED})+", rewrite=_as_is),
    # What is left of a contraction.
    _rule(_CLITIC, "[^A-Za-z]", _plain_quotes),
    _rule(_NOT, "[^A-Za-z]", _plain_quotes),
    # Numbers.
    _rule(rf"[{_D}]{{1,2}}[-/][{_D}]{{1,2}}[-/][{_D}]{{2,4}}"),
    _rule(_NUMBER),
    _rule(r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)"),
    _rule(_FRACTION),
    _rule(_any_case(r"-(?:[LR][RCS]B)-|C\.D\.s|pro-|anti-|S&(?:amp;)?P-500|S&(?:amp;)?Ls"), rewrite=_plain_ampersand),
    _rule(r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"),
    _rule(r"[A-Z]*\$"),
    # Abbreviations.
    _rule(rf"(?:{_any_case(_words(tables.ABBREVIATIONS))}|{_CAPITALISED})\.", "(?s:..)?"),
    _rule(_DOTTED_COMPOUND),
    _rule(_any_case(_words(tables.TITLES)) + r"\."),
    _rule(rf"{_AZ}(?:\.{_AZ})*\."),
    _rule(_any_case(r"(?:Canada|Sino|Korean|EU|Japan|non)-U\.S\.?|U\.S\.-U\.(?:K|S\.S\.R)\.?"), _END),
    _rule(_AZ, rf"\.{_SP}+(?:{_words(tables.SENTENCE_STARTERS)}|{_TAG}){_END}"),
    _rule(_any_case(_words(tables.NUMBERED_ABBREVIATIONS)) + r"\.", rf"{_SP}?[{_D}]"),
    _rule(rf"{_APOS}[0-9]{{2}}", _END),
    _rule(f"{_PHONE}|{_DOTTED_PHONE}"),
    # A quote before a word, unless a contraction was longer.
    _rule("'", rf"{_AZ}[^ \t\n\u00a0]"),
    _rule(_CLITIC, rewrite=_plain_quotes),
    _rule("-+", rewrite=_dashes),
    _rule(_COMPOUND),
    _rule(_JOINED, rewrite=_plain_ampersand),
    _rule(r"[cC]\+\+|[cCfF]#"),
    # Smileys, ellipses, file names, signs.
    _rule(r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]"),
    _rule(rf"{_FACE}_{_FACE}|\({_FACE}[_.]?{_FACE}\)|\({_HEADLESS_FACE}-(?:{_HEADLESS_FACE}|`)\)"),
    _rule(r"\.{3,5}|(?:\.[ \u00a0]){2,4}\.", rewrite=lambda text: "..."),
    _rule(rf"[{_W}{_D}]+(?:\.[{_W}{_D}]+)*\.{_any_case(_words(tables.FILE_ENDINGS))}", rf"{_END}|[.,?!]", _as_is),
    _rule(r"@+|#+|_+|\*+|(?:\\\*){1,3}|<<|>>|''?|[?!]+"),
    _rule(f"[{''.join(tables.QUOTES)}]{{1,2}}", rewrite=_plain_quotes),
    _rule("(?i:&nbsp;)", rewrite=lambda text: ""),
    _rule(f"[{tables.SYMBOL}]"),
)


def _lex(line: str) -> list[str]:
    """Tokens of a line that ends with a line feed."""
    tokens: list[str] = []
    place = 0
    while place < len(line):
        longest, end, winner = place, place + 1, None
        for rule in _RULES if line[place] != " " else ():  # no token begins with a space
            match = rule.pattern.match(line, place)
            if match and match.end() > longest:
                longest, end, winner = match.end(), match.end(1), rule
        if winner:
            tokens.append(winner.rewrite(line[place:end]).replace(" ", "\u00a0").lower())
        place = end
    return tokens


def _tokenize_line(line: str) -> list[str]:
    tokens = _lex(line + "\n")
    if tokens:
        tokens[-1] = tokens[-1].rstrip()  # an address may end with U+00A0, which the wrapper strips as a blank
    return [token for token in tokens if token and token not in PUNCTUATION]


@lru_cache(maxsize=1 << 17)  # captions repeat their words
def _tokenize_chunk(chunk: str) -> tuple[str, ...]:
    return tuple(_tokenize_line(chunk))


def tokenize(text: str) -> list[str]:
    """Tokens of one caption; may be empty."""
    if text in _LONE_CLITICS:
        return list(_LONE_CLITICS[text])
    if not _PLAIN_TEXT.fullmatch(text):
        return _tokenize_line(text.translate(_LINE_ENDS))
    return [token for chunk in text.split() for token in _tokenize_chunk(chunk)]


def tokenize_all(texts: Iterable[str]) -> list[list[str]]:
    """Tokens of every caption."""
    return [tokenize(text) for text in texts]


def comparable_tokens(texts: Iterable[str]) -> list[list[str]]:
    """The same, and every character of scripts without blanks, where officially a whole sentence is one token."""
    return tokenize_all(map(spaced, texts))
