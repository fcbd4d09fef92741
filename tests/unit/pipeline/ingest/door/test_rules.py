"""Every reason that sources and door can give stands in the table, and the table has none that nobody gives."""

from __future__ import annotations

import ast
from pathlib import Path

from contracts.raw import Problem
from pipeline.ingest.door.rules import FIXES, PROBLEMS, RULES, in_words


def _trees(root: Path) -> list[ast.AST]:
    files = [
        *sorted((root / "pipeline/ingest/sources").glob("*.py")),
        *sorted((root / "pipeline/ingest/door").glob("*.py")),
    ]
    return [ast.parse(file.read_text()) for file in files if file.name != "rules.py"]


def _text(node: ast.AST | None) -> set[str]:
    """String constants of an expression, those of both branches of a condition."""
    if isinstance(node, ast.IfExp):
        return _text(node.body) | _text(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value else set()


def _reasons(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "Refused":
                found |= _text(node.args[0])
            elif name == "Problem":
                found |= set().union(*(_text(k.value) for k in node.keywords if k.arg == "reason"))
            elif name == "append" and getattr(getattr(node.func, "value", None), "id", "") == "fixes":
                found |= _text(node.args[0])
            elif name == "read_bytes" and len(node.args) == 2:
                found |= _text(node.args[1])
        elif isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "fixes":
            found |= _text(node.slice)
        elif isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "reason" for t in node.targets):
            found |= _text(node.value)
    return found


def test_every_reason_in_the_code_has_a_rule(root: Path) -> None:
    reasons = set().union(*(_reasons(tree) for tree in _trees(root)))
    assert len(reasons) > 45  # the search itself works
    assert reasons <= RULES.keys()


def test_every_rule_is_used(root: Path) -> None:
    constants = {
        node.value for tree in _trees(root) for node in ast.walk(tree) if isinstance(node, ast.Constant)
    }  # some reasons travel through helpers, so any mention counts
    assert RULES.keys() - constants == set()


def test_rules_are_one_sentence_and_never_both_problem_and_fix() -> None:
    assert not PROBLEMS.keys() & FIXES.keys()
    for reason, rule in RULES.items():
        assert reason.isidentifier()
        assert reason == reason.lower()
        assert rule.endswith("."), rule
        assert ". " not in rule, rule


def test_problems_are_told_by_rule_with_the_first_three() -> None:
    many = [
        Problem(reason="zero_area_box", kind="object", file="a.json", item_id=str(i), detail="(1)") for i in range(9)
    ]
    one = Problem(reason="missing_image", kind="record", file="b.jpg", item_id="7", detail="b.jpg")
    assert in_words([one, *many]).splitlines() == [
        "  - 9 x zero_area_box: A box without area is dropped.",
        *(f"      a.json: object {i} ((1))" for i in range(3)),
        "  - 1 x missing_image: An image file that is absent or not a plain file is refused.",
        "      b.jpg: record 7",
    ]
