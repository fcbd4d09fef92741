"""Character classes and word lists of the Penn Treebank tokenizer: data only, the rules are in `ptb_tokenizer`.

Classes are written as the inside of a regular expression's `[...]`. The official tokenizer knows the letters and digits
of Unicode 6.1 and looks at 16-bit units: what lies beyond the basic plane (emoji) belongs to no class and is dropped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


def _parse(ranges: str) -> list[tuple[int, int]]:
    """`"0041-005A 00AA"` -> [(0x41, 0x5A), (0xAA, 0xAA)]."""
    pairs = (item.partition("-") for item in ranges.split())
    return [(int(first, 16), int(last or first, 16)) for first, _, last in pairs]


def _char_class(ranges: list[tuple[int, int]]) -> str:
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


def _ranges_where(holds: Callable[[str], bool], without: str) -> list[tuple[int, int]]:
    """Ranges of the basic plane's characters for which `holds`, less the ranges `without`."""
    excluded = {code for first, last in _parse(without) for code in range(first, last + 1)}
    ranges: list[tuple[int, int]] = []
    for code in range(0x10000):
        if not holds(chr(code)) or code in excluded:
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = ranges[-1][0], code
        else:
            ranges.append((code, code))
    return ranges


# Letters and digits of the basic plane that Unicode got after version 6.1.
_LATER_LETTERS = """
037F 0528-052F 0560 0588 05EF 0860-086A 0870-0887 0889-088F 08A1 08AD-08C9 0978 0980 09FC 0AF9 0C34 0C5A 0C5C-0C5D 0C80
0CDC-0CDD 0D04 0D54-0D56 0D5F 0E86 0E89 0E8C 0E8E-0E93 0E98 0EA0 0EA8-0EA9 0EAC 13F5 13F8-13FD 16F1-16F8 170D 171F 1878
191D-191E 19B0-19C0 19C8-19C9 1B4C 1C80-1C8A 1C90-1CBA 1CBD-1CBF 1CF2-1CF3 1CFA 2C2F 2C5F 312E-312F 31BB-31BF 4DB6-4DBF
9FCD-9FFF A698-A69D A78F A794-A79F A7AB-A7F7 A8FD-A8FE A9E0-A9E4 A9E6-A9EF A9FA-A9FE AA7E-AA7F AB30-AB5A AB5C-AB69
AB70-ABBF
"""
_LATER_DIGITS = "0DE6-0DEF A9F0-A9F9"
# Marks and modifiers that may be part of a word besides letters.
_WORD_MARKS = """
02C2-02C5 02D2-02DF 02E5-02EB 02ED 02EF-036F 0375 0378-0379 0384-0385 03F6 0483-0487 055A-055F 0591-05BD 05BF 05C1-05C2
05C4-05C5 05C7 0615-061A 064B-065E 0670 06D6-06E4 06E7-06ED 06FD-06FE 070F 0711 0730-074C 07A6-07B0 07EB-07F3 0900-0903
093C 093E-094E 0951-0955 0962-0963 0981-0983 09BC 09BE-09C4 09C7-09C8 09CB-09CD 09D7 09E2-09E3 0A01-0A03 0A3C 0A3E-0A4F
0A81-0A83 0ABC 0ABE-0ACF 0B82 0BBE-0BC2 0BC6-0BC8 0BCA-0BCD 0C01-0C03 0C3E-0C56 0D3E-0D44 0D46-0D48 0E31 0E34-0E3A
0E47-0E4E 0EB1 0EB4-0EBC 0EC8-0ECD
"""
# What stands alone as a token. A character in no class is dropped.
_SYMBOLS = """
0021 0023-002F 003A-003F 005C 005E-0060 007C 007E 00A1 00A5-00A9 00AC 00AE-00B4 00B6-00B9 00BF 00D7 00F7 037E 0387 0589
05BE 05C0 05C3 05C6 05F3-05F4 0600-0603 0606-060C 0614 061B 061E-061F 066A 066D 06D4 0700-070D 07F6-07F8 0964-0965 0E3F
0E4F 1FBD 2016-2017 201A 201E-2023 2030-2038 203B 203E-2042 2044 2070 2074-207E 2080-208E 20A4 2100-2101 2103-2106
2108-2109 2114 2116-2118 211E-2123 2125 2127 2129 212E 213A-213B 2140-2144 214A-214D 214F 2155-215E 2190-2BFF 3001-3002
3012 30FB FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF65 FFE0-FFE1 FFE5-FFE6
"""

# Letters whose general category changed after 6.1 from letter to mark are added by hand.
LETTER = _char_class(_ranges_where(lambda c: unicodedata.category(c)[0] == "L", _LATER_LETTERS)) + "\u1885\u1886"
DIGIT = _char_class(_ranges_where(lambda c: unicodedata.category(c) == "Nd", _LATER_DIGITS))
WORD_MARK = _char_class(_parse(_WORD_MARKS)) + "\u00ad"  # and the soft hyphen, which is removed later
SYMBOL = _char_class(_parse(_SYMBOLS))

# Abbreviations that keep their full stop, in any case: those that may end a sentence, then titles and the like ...
ABBREVIATIONS = """
al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec ed.d esq est etc ext feb fla
fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn ph.d plc ppte
pptes ppty pptys pte ptes pty ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
"""
TITLES = """
a.k.a adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov
govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs pvt rep reps
rev sen sens sfc sgt spc st ste supt supts treas vs wm
"""
# ... with a capital at least, because the word is common in small letters ...
CAPITAL_ABBREVIATIONS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
# ... and before a number only.
NUMBERED_ABBREVIATIONS = "art ca fig figs no nos op pp prop"

# After a single letter and its full stop, one of these words starts a new sentence: the letter is no initial then.
_STARTERS = """
A About According After An As At But Earlier He Her Here If In It Last Many More Mr. Ms. Now Once One Other Our She
Since So Some Such That The Their Then There These They This We What When While Yet You
"""
SENTENCE_STARTERS = _STARTERS + _STARTERS.upper()

# Words that keep an apostrophe, in any case: with every kind of apostrophe, and with the ASCII one only.
APOSTROPHE_WORDS = "'n 'n' d' j' l' dunkin' somethin' ol' 'em 'til 'till 'cause c'est cap'n"
ASCII_APOSTROPHE_WORDS = "cont'd cont'd. nor'easter c'mon e'er s'mores ev'ry li'l nat'l"
FILE_ENDINGS = """
bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql tar
txt wav x xml zip
"""

# Typographic quotes and what they become; the other ones stay as they are.
QUOTES = {
    "`": "`", "\u0091": "`", "\u2018": "`", "\u201b": "`", "\u2039": "`",
    "\u0092": "'", "\u2019": "'", "\u203a": "'",
    "\u0093": "``", "\u201c": "``", "\u00ab": "``",
    "\u0094": "''", "\u201d": "''", "\u00bb": "''",
    "\u201a": "\u201a", "\u201e": "\u201e", "\u201f": "\u201f",
}  # fmt: skip
# Other characters and entities that become something else.
REPLACEMENTS = {
    "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-", '"': "''", "\u2026": "...",
    "\u00a2": "cents", "\u00a3": "#", "\u0080": "$", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$",
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "\u0096": "--", "\u0097": "--", "\u2013": "--", "\u2014": "--", "\u2015": "--",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
    "&md;": "--", "&mdash;": "--", "&ndash;": "--",
}  # fmt: skip
