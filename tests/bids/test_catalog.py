"""The documented list of findings is the list of findings that the source can report."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import qsmflow
from qsmflow.bids import catalog
from qsmflow.bids.findings import LEVELS

PACKAGE = Path(qsmflow.__file__).parent
ROW = re.compile(r'[A-E]\d\d')


def scan(source: str) -> dict[str, set[str]]:
    """Return the codes that a module can report, with the levels written beside them.

    Codes are the first arguments of ``Finding`` and ``ProtocolRule``, and, as some are chosen
    from a table or a variable, every other text that has the form of a row.
    """
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if ROW.fullmatch(node.value):
                found.setdefault(node.value, set())
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') in (
            'Finding',
            'ProtocolRule',
        ):
            code, level = texts(node)[:2]
            if code:
                found.setdefault(code, set()).update({level} & set(LEVELS))
    return found


def texts(call: ast.Call) -> list[str]:
    """Return the positional arguments of a call: their text, or nothing where it is computed."""
    arguments = []
    for argument in call.args:
        starred = isinstance(argument, ast.Starred)
        arguments += argument.value.elts if starred else [argument]
    return [a.value if isinstance(a, ast.Constant) else '' for a in arguments] + ['', '']


@cache
def emitted() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in ('bids', 'cli', 'workflows', 'interfaces'):
        for path in (PACKAGE / folder).glob('*.py'):
            if path.name != 'catalog.py':
                for code, levels in scan(path.read_text('utf-8')).items():
                    found.setdefault(code, set()).update(levels)
    return found


def test_scan_sees_calls_starred_calls_and_tables():
    source = "Finding('X', 'WARN', 'm'); Finding(*('Y', 'FIX', 'm')); T = {'k': 'A01'}"
    assert scan(source) == {'X': {'WARN'}, 'Y': {'FIX'}, 'A01': set()}


def test_every_code_of_the_source_is_documented_and_no_other():
    assert set(emitted()) == set(catalog.FINDINGS)


@pytest.mark.parametrize('code', catalog.FINDINGS)
def test_entries_are_complete(code):
    kind = catalog.FINDINGS[code]
    assert kind.title
    assert kind.meaning
    assert kind.levels == tuple(level for level in LEVELS if level in kind.levels)
    assert emitted()[code] <= set(kind.levels)
    assert catalog.group_of(code) in catalog.GROUPS


def test_what_is_checked_is_not_listed_as_unchecked():
    assert not set(catalog.FINDINGS) & set(catalog.NOT_CHECKED)


def test_every_row_of_the_catalogue_is_somewhere():
    """The catalogue has 110 rows: A to 27, B to 54, C to 76, D to 89, E to 110."""
    rows = set()
    for first, last, letter in ((1, 27, 'A'), (28, 54, 'B'), (55, 76, 'C'), (77, 89, 'D'),
                                (90, 110, 'E')):  # fmt: skip
        rows |= {f'{letter}{number:02d}' for number in range(first, last + 1)}
    assert len(rows) == 110
    known = set(catalog.FINDINGS) | set(catalog.HANDLED) | set(catalog.NOT_CHECKED)
    assert not rows - known
    assert not set(catalog.HANDLED) & set(catalog.FINDINGS)
    assert not set(catalog.HANDLED) - rows
