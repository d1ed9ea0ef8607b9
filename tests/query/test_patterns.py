"""What patterns say about a text that matches them; that they never say too much is tested in test_texts.py."""

from __future__ import annotations

from itertools import product

import pytest

from strongroom.query.holdings.conditions import Condition, Contains, Every, Some
from strongroom.query.process import patterns


def said(condition: Condition | None) -> str:
    """A condition in brief: pieces with + between them, alternatives in brackets."""
    if condition is None:
        return ""
    if isinstance(condition, Contains):
        return "+".join(condition.pieces)
    assert isinstance(condition, Every | Some)
    parts = [said(part) for part in condition.parts]
    return "+".join(parts) if isinstance(condition, Every) else f"[{'|'.join(parts)}]"


@pytest.mark.parametrize(
    ("pattern", "escape", "ignoring_case", "expected"),
    [
        ("%word%", "", False, "word"),
        ("some_thing%else", "", False, "some+thing+else"),
        ("100!%%!!%", "!", False, "100%+!"),
        ("%a\\%b%", "", False, "a\\+b"),
        ("%grün%kalt", "", False, "grün+kalt"),
        ("%grün%kalt", "", True, "gr+n+kalt"),
        ("%%_%", "", False, ""),
        ("twice%twice", "", False, "twice"),
    ],
)
def test_like(pattern: str, escape: str, ignoring_case: bool, expected: str) -> None:
    assert said(patterns.like("raw", pattern, escape, ignoring_case=ignoring_case)) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("word", "word"),
        (r"\"eventName\":\"(Stop|Delete)Trail\"", '[Stop|Delete]+"eventName":"+Trail"'),
        ("(?i)^kali.*linux$", "kali+linux"),
        ("colou?r", "colo+r"),
        ("ab+c{2}d*e", "ab+c+e"),
        ("(?:one)?two(three){0,5}four+?", "two+four"),
        ("(?P<who>mallory|trudy)", "[mallory|trudy]"),
        ("((inner))+", "inner"),
        ("one|two", "[one|two]"),
        ("one|.*", ""),
        ("one|", ""),
        (r"10\.0\.0\.[0-9]+:443", "10.0.0.+:443"),
        ("before[]x]after[^]]end[[:alpha:]]z", "before+after+end+z"),
        ('{"a":{', '{"a":{'),
        (r"tab\tnext\d+\.", "tab\tnext+."),
        ("naïve", "na+ve"),
        *(
            (text, "")
            for text in ("a**", r"\pN", r"\x41", r"\Qa.b\E", "(", "a)", "[a", "*a", "(?x)a b", "a\\", "(?=a)")
        ),
    ],
)
def test_regular_expressions(pattern: str, expected: str) -> None:
    assert said(patterns.expression("raw", pattern)) == expected


def test_what_options_and_sizes_are_known() -> None:
    assert said(patterns.expression("raw", "word", "i")) == "word"
    assert patterns.expression("raw", "a.b", "l") is None, "a plain text, not an expression"
    assert patterns.expression("raw", "word" * patterns.MAX_LENGTH) is None
    deep = "(" * 40 + "word" + ")" * 40
    assert patterns.expression("raw", deep) is None
    assert all(patterns.expression("raw", "".join(text)) is None for text in product("?*|)", repeat=3))
