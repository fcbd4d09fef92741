"""The words of the world `pairs` in English, French and German. Nouns, adjectives, verbs, months and years are drawn
evenly, so that each tells about four bits; "the", "was" and the like tell none."""

from __future__ import annotations

from typing import NamedTuple

Gender = str  # m, f, n


class Noun(NamedTuple):
    """`french_begins` "v": with a vowel, before which the article is "l'"."""

    english: str
    french: str
    french_gender: Gender
    french_begins: str
    german: str
    german_gender: Gender


class Adjective(NamedTuple):
    """French in both genders; the German stem, which takes -e or -en."""

    english: str
    french_m: str
    french_f: str
    german: str


class Verb(NamedTuple):
    """The participle; French takes -e beside a feminine subject."""

    english: str
    french: str
    german: str


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(Noun(*line.split()) for line in text.strip().splitlines())


NOUNS = _nouns("""
    agreement accord m v Abkommen n
    area zone f c Zone f
    law loi f c Gesetz n
    treaty traité m c Vertrag m
    bank banque f c Bank f
    market marché m c Markt m
    council conseil m c Rat m
    commission commission f c Kommission f
    report rapport m c Bericht m
    school école f v Schule f
    company société f c Firma f
    city ville f c Stadt f
    program programme m c Programm n
    project projet m c Projekt n
    plan plan m c Plan m
    budget budget m c Haushalt m
    tax taxe f c Steuer f
    court tribunal m c Gericht n
    union union f v Union f
    office bureau m c Büro n
    right droit m c Recht n
    price prix m c Preis m
    industry industrie f v Industrie f
    government gouvernement m c Regierung f
""")
ADJECTIVES = tuple(
    Adjective(*line.split())
    for line in """
    European européen européenne europäisch
    economic économique économique wirtschaftlich
    political politique politique politisch
    social social sociale sozial
    public public publique öffentlich
    private privé privée privat
    national national nationale national
    local local locale lokal
    legal légal légale rechtlich
    military militaire militaire militärisch
    industrial industriel industrielle industriell
    financial financier financière finanziell
    secret secret secrète geheim
    common commun commune gemeinsam
    French français française französisch
    German allemand allemande deutsch
    Italian italien italienne italienisch
    modern moderne moderne modern
    important important importante wichtig
    difficult difficile difficile schwierig
""".strip().splitlines()
)
VERBS = tuple(
    Verb(*line.split())
    for line in """
    signed signé unterzeichnet
    rejected rejeté abgelehnt
    accepted accepté angenommen
    changed changé geändert
    published publié veröffentlicht
    presented présenté vorgestellt
    created créé geschaffen
    closed fermé geschlossen
    approved approuvé gebilligt
    defended défendu verteidigt
    forgotten oublié vergessen
    sold vendu verkauft
    found trouvé gefunden
    discussed discuté besprochen
""".strip().splitlines()
)
PREPOSITIONS = (
    ("on", "sur", "über"), ("for", "pour", "für"), ("against", "contre", "gegen"),
    ("without", "sans", "ohne"), ("through", "par", "durch"),
)  # fmt: skip
MONTHS = (
    ("January", "janvier", "Januar"), ("February", "février", "Februar"), ("March", "mars", "März"),
    ("April", "avril", "April"), ("May", "mai", "Mai"), ("June", "juin", "Juni"), ("July", "juillet", "Juli"),
    ("August", "août", "August"), ("September", "septembre", "September"), ("October", "octobre", "Oktober"),
    ("November", "novembre", "November"), ("December", "décembre", "Dezember"),
)  # fmt: skip
YEARS = tuple(str(year) for year in range(1985, 1997))
