"""The tokenizer against what the official Java program gave, and that its shortcut for plain text changes nothing."""

import importlib.util
import json
import shutil
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_modules.metrics.ptb_tokenizer import PUNCTUATION, _tokenize_line, tokenize, tokenize_all

# What PTBTokenizer 3.4.1 gives, less the punctuation; one text for each kind of rule.
OFFICIAL = {
    "a walk to bat., 5., a-b.; A&B.,": "a walk to bat. 5. a-b. a&b.",
    "plan b. The man and plan c. the man": "plan b the man and plan c. the man",
    "no. 5 no.  5 no. five pp. 3-4": "no. 5 no 5 no five pp. 3-4",
    "MASS. mASS. FIG. 5 b.  THE b. </a> x": "mass. mass fig. 5 b the b </a> x",
    "etc.a etc.ab Wash. wash. Mr.": "etc. a etc.ab wash. wash mr.",
    "'tis 'tisn't 'twas gonna GIMME cannots": "'t is 't is n't 't was gon na gim me cannots",
    "it's IT'S it’s it`s don’t don`t I'd": "it 's it 's it 's it s do n't do n`t i 'd",
    "y'all ma'am d'oh rock'n'roll n' ol' '95 '955": "y' all ma'am d'oh rock 'n' roll n ol' '95 955",
    "'sa ’sa 'em 'emb": "sa 's a 'em 'em b",
    "$5 US$5 us$5 £5 5¢ #5 #ab_c @a_b": "$ 5 us$ 5 us $ 5 # 5 5 cents # 5 #ab _ c @a_b",
    "3 1/2 in. ½ 1/22/2014 10:30am -5 +5 5+5": "3\u00a01/2 in 1/2 1/22/2014 10:30 am -5 +5 5 +5",
    "(555) 123-4567 or 555.123.4567": "-lrb-555-rrb-\u00a0123-4567 or 555.123.4567",
    'see http://a.b/c. and foo.com/xy, me@a.b "www.x.org"': "see http://a.b/c and foo.com/xy me@a.b www.x.org",
    "a-b.com 5.com 5b.txt a.doc b_c.pdf": "a-b com 5 com 5b.txt a.doc b_c pdf",
    '<b>x</b> <a b="c d"> <5> x<y &lt; &amp; &#39; caf&eacute;': "<b> x </b> <a\u00a0b=\"c\u00a0d\"> < 5 > x < y < & "
    "&#39; caf&eacute;",
    ":) :-( :D :Da ^_^ (^_^) x_x": ":-rrb- :--lrb- :d da ^_^ -lrb-^_^-rrb- x_x",
    "a--b a - b ----- a…b . . . ....... !? ???": "a b a b ----- a b !? ???",
    "““a”” ‘’ ’‘ «b» ‚c‘": "```` a '''' `' '` b ‚ c",
    "so\u00adft \u00ad AT&T AT&amp;T a&b C++ C# F# J++": "soft at&t at&t a & b c++ c# f# j + +",
    "U.S.-based 5,000-foot a/b/c/d U.S. A.B.C x.1": "u.s.-based 5,000-foot a/b/c / d u.s. a.b.c x. 1",
    "naïve 北京 e\u0301 H₂O x² 10\u2044 5°C": "naïve 北京 e\u0301 h ₂ o x ² 10 \u2044 5 ° c",
    "dog\U0001f436 a\U0001f436b \x00 \u20b9 \ufeffa": "dog a b a",
}  # fmt: skip


@pytest.fixture(scope="module")
def golden(shared_dir):
    path = shared_dir / "golden/official/captions/ptb_tokens.json"
    if not path.is_file():
        pytest.skip(f"no golden tokens: {path}")
    return json.loads(path.read_text())


def test_every_golden_line_is_exact(golden):
    assert len(golden) == 6145
    # Tokens are separated by plain spaces only: U+00A0 lies inside some.
    expected = [case["out"].split(" ") if case["out"] else [] for case in golden]
    wrong = [case["in"] for case, tokens in zip(golden, expected, strict=True) if tokenize(case["in"]) != tokens]
    assert wrong == []
    assert tokenize_all(case["in"] for case in golden) == expected


@pytest.mark.parametrize("text", OFFICIAL)
def test_each_kind_of_token(text):
    assert " ".join(tokenize(text)) == OFFICIAL[text]


def test_the_slow_way_gives_the_golden_tokens_too(golden):
    for case in golden[::7]:
        if case["in"] != "'re":
            assert " ".join(_tokenize_line(case["in"])) == case["out"]


_PIECES = st.sampled_from(["a", "B", "dog", "Rd", "no", "U", "can't", "gonna", "o'clock", "'tis", "e", "A", "The"])
_PLAIN = st.text(string.ascii_letters + " ',;:!?-") | st.lists(_PIECES | st.sampled_from(" ',;:!?-")).map("".join)


@given(_PLAIN, st.sampled_from(["", ".", " ", ". ", ".  ", ".\n"]))
@settings(max_examples=400)
@example("a :D b", "")
@example("so it's etc", ". ")
def test_the_shortcut_for_plain_text_changes_nothing(text, end):
    if text not in ("'re", "'ve", "'ll"):
        assert tokenize(text + end) == _tokenize_line((text + end).replace("\n", " "))


@given(st.text())
@settings(max_examples=300)
@example("<a" + " " * 2000)
@example("a@" * 1000)
@example("\U0001f600\ud800")
def test_any_text_has_tokens_that_can_be_joined(text):
    for token in tokenize(text):
        assert token and token not in PUNCTUATION
        assert not set(token) & set(" \r\n\v\f\x85\u2028\u2029")


@given(st.text() | _PLAIN, st.sampled_from("\n\r\v\f\x85\u2028\u2029"))
def test_line_ends_are_spaces(text, line_end):
    assert tokenize(text.replace(" ", line_end)) == tokenize(text)
    assert tokenize(f"{text}{line_end}x") == tokenize(f"{text} x")


@given(st.lists(st.text(string.ascii_letters + "'-,", min_size=1)))
def test_the_number_of_spaces_between_words_does_not_matter(words):
    assert tokenize("  " + "   ".join(words) + "  ") == tokenize(" ".join(words))


def test_tokens_do_not_depend_on_the_texts_around_them():
    texts = ["the letter b.", "A man", "no.", "5 men", "you're"]
    assert tokenize_all(texts) == [tokenize(text) for text in texts]
    assert tokenize_all(texts)[0] == ["the", "letter", "b."]


def test_equals_the_java_program(tmp_path):
    spec = importlib.util.find_spec("pycocoevalcap")
    if shutil.which("java") is None or spec is None or not spec.submodule_search_locations:
        pytest.skip("the comparison needs a Java runtime and the package pycocoevalcap")
    jar = Path(next(iter(spec.submodule_search_locations)), "tokenizer", "stanford-corenlp-3.4.1.jar")
    # A line without a word between any two: some rules look at the next line.
    (tmp_path / "texts").write_text("".join(f"{text}\n-\n" for text in OFFICIAL), encoding="utf-8")
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    output = subprocess.run([*command, str(tmp_path / "texts")], capture_output=True, check=True).stdout
    lines = output.decode("utf-8").split("\n")[: 2 * len(OFFICIAL) : 2]
    kept = [[token for token in line.split(" ") if token and token not in PUNCTUATION] for line in lines]
    assert kept == [tokenize(text) for text in OFFICIAL]
