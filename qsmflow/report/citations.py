"""The methods text and what it cites: pandoc-style keys, a bibliography, and nothing unused.

Methods sentences carry citations as ``[@key]`` or ``[@one; @two]``, with the keys of
``qsmflow/data/boilerplate.bib``. Only entries that the text uses reach the output.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup, escape

from qsmflow.files import write_text

_GROUP = re.compile(r'\[(@[A-Za-z][\w:-]*(?:\s*;\s*@[A-Za-z][\w:-]*)*)\]')
_KEY = re.compile(r'@([A-Za-z][\w:-]*)')
_ENTRY = re.compile(r'^@(\w+)\{([^,\s]+),\n(.*?)\n\}', re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r'^\s*(\w+)\s*=\s*\{(.*)\},?$', re.MULTILINE)
_ACCENTS = {
    '"': '\u0308',
    "'": '\u0301',
    '`': '\u0300',
    '^': '\u0302',
    '~': '\u0303',
    'u': '\u0306',
}


class CitationError(KeyError):
    """A methods text cites a key that the bibliography does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])


def citations(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in order of first use.

    Parameters
    ----------
    text : str
        Markdown with ``[@key]`` citations.

    Returns
    -------
    list of str

    Examples
    --------
    >>> citations('Wraps were removed [@dymerska2021]. Fields [@li2011; @wu2012] [@li2011].')
    ['dymerska2021', 'li2011', 'wu2012']
    """
    groups = _GROUP.findall(text)
    return list(dict.fromkeys(key for group in groups for key in _KEY.findall(group)))


@cache
def bibliography() -> dict[str, dict[str, str]]:
    """Return the package's bibliography: key -> fields, with ``raw``, the BibTeX entry itself.

    Returns
    -------
    dict of str to dict

    Examples
    --------
    >>> bibliography()['shmueli2009']['doi']
    '10.1002/mrm.22135'
    """
    source = (files('qsmflow') / 'data' / 'boilerplate.bib').read_text(encoding='utf-8')
    entries = {}
    for match in _ENTRY.finditer(source):
        kind, key, body = match.groups()
        fields = {name.lower(): _plain(value) for name, value in _FIELD.findall(body)}
        entries[key] = {**fields, 'kind': kind.lower(), 'raw': match.group(0)}
    return entries


def check_keys(text: str) -> list[str]:
    """Return the keys that a text cites, and make sure that each one is known.

    Raises
    ------
    CitationError
        If a key is not in the bibliography.

    Examples
    --------
    >>> check_keys('as in [@nobody1900]')
    Traceback (most recent call last):
    ...
    qsmflow.report.citations.CitationError: no entry for nobody1900 in boilerplate.bib; ...
    """
    keys = citations(text)
    missing = [key for key in keys if key not in bibliography()]
    if missing:
        raise CitationError(
            f'no entry for {", ".join(missing)} in boilerplate.bib; add it there, with its DOI.'
        )
    return keys


def reference(key: str) -> str:
    """Return an entry as one line of plain text, ending in its DOI.

    Examples
    --------
    >>> reference('schofield2003')
    'Schofield MA, Zhu Y. Fast phase unwrapping algorithm for interferometric applications. Optics
    Letters 2003;28(14):1194-1196. doi:10.1364/OL.28.001194'
    """
    entry = bibliography()[key]
    where = entry.get('journal') or entry.get('booktitle', '')
    numbers = entry.get('volume', '')
    if entry.get('number'):
        numbers += f'({entry["number"]})'
    pages = entry.get('pages', '').replace('--', '-')
    numbers = ':'.join(part for part in (numbers, pages) if part)
    place = f'{where} {entry["year"]}' + (f';{numbers}' if numbers else '')
    parts = [_authors(entry['author']), entry['title'].rstrip('?'), place]
    if entry.get('doi'):
        parts.append(f'doi:{entry["doi"]}')
    return '. '.join(parts)


def short_name(key: str) -> str:
    """Return author and year, as they appear in running text.

    Examples
    --------
    >>> short_name('li2011'), short_name('sun2014'), short_name('bilgic2024')
    ('Li et al. 2011', 'Sun and Wilman 2014', 'QSM Consensus Organization Committee et al. 2024')
    """
    entry = bibliography()[key]
    names = [_family(name) for name in entry['author'].split(' and ')]
    who = names[0] if len(names) == 1 else f'{names[0]} and {names[1]}'
    if len(names) > 2 or names[-1] == 'others':
        who = f'{names[0]} et al.'
    return f'{who} {entry["year"]}'


def to_html(text: str) -> tuple[Markup, list[str]]:
    """Render a methods text as safe HTML paragraphs with numbered citations.

    Parameters
    ----------
    text : str
        Paragraphs parted by empty lines; ``**strong**``, ``*emphasis*``, ```code``` and
        ``[@key]`` are understood, everything else is shown as it is.

    Returns
    -------
    html : Markup
        Paragraphs; a key that the bibliography does not hold stays visible as ``[@key]``.
    keys : list of str
        Known keys in the order of their numbers.

    Examples
    --------
    >>> html, keys = to_html('A < B *after* TKD [@shmueli2009].')
    >>> print(html)
    <p>A &lt; B <em>after</em> TKD <span class="cite" title="Shmueli et al. 2009">[1]</span>.</p>
    """
    keys = [key for key in citations(text) if key in bibliography()]
    number = {key: i for i, key in enumerate(keys, 1)}

    def cite(cited: list[str]) -> str:
        names = escape('; '.join(short_name(key) for key in cited))
        marks = ', '.join(str(number[key]) for key in cited)
        return f'<span class="cite" title="{names}">[{marks}]</span>'

    paragraphs = []
    for paragraph in re.split(r'\n\s*\n', text.strip()):
        if not paragraph.strip():
            continue
        html = _inline(_replace(str(escape(paragraph.strip())), cite))
        heading = re.match(r'(#{1,6})\s+(.*)$', html, re.DOTALL)
        paragraphs.append(f'<h4>{heading.group(2)}</h4>' if heading else f'<p>{html}</p>')
    return Markup('\n'.join(paragraphs)), keys


def to_markdown(text: str) -> str:
    """Render a methods text as Markdown with author-year citations and a reference list.

    Parameters
    ----------
    text : str
        Markdown with ``[@key]`` citations.

    Returns
    -------
    str

    Raises
    ------
    CitationError
        If a key is not in the bibliography.
    """
    keys = check_keys(text)
    body = _replace(text.strip(), lambda cited: f'({"; ".join(map(short_name, cited))})')
    items = '\n'.join(f'{i}. {reference(key)}' for i, key in enumerate(keys, 1))
    return f'{body}\n\n## References\n\n{items}\n' if keys else f'{body}\n'


def to_bibtex(keys: Iterable[str]) -> str:
    """Return the BibTeX entries of some keys, sorted by key."""
    return '\n\n'.join(bibliography()[key]['raw'] for key in sorted(set(keys))) + '\n'


def write_citations(text: str, log_dir: str | os.PathLike, *, html: bool = True) -> list[Path]:
    """Write ``CITATION.md``, ``.bib`` and ``.html``: the methods that ran, and only those.

    Parameters
    ----------
    text : str
        Methods text of the run, with ``[@key]`` citations.
    log_dir : path-like
        Folder to write to; made when missing.
    html : bool, optional
        Whether the page is written; without it, one of an earlier run is removed.

    Returns
    -------
    list of Path
        What was written: Markdown, BibTeX, page.

    Raises
    ------
    CitationError
        If a key is not in the bibliography; nothing is written then.
    """
    contents = {
        'CITATION.md': '# Methods\n\n' + to_markdown(text),
        'CITATION.bib': to_bibtex(citations(text)),
    }
    folder = Path(log_dir)
    if html:
        contents['CITATION.html'] = _page(text)
    else:
        (folder / 'CITATION.html').unlink(missing_ok=True)
    return [write_text(folder / name, content) for name, content in contents.items()]


def _page(text: str) -> str:
    """Return a methods text with its references as a page of its own."""
    body, keys = to_html(text)
    items = '\n'.join(f'<li>{escape(reference(key))}</li>' for key in keys)
    references = f'\n<h2>References</h2>\n<ol>\n{items}\n</ol>' if keys else ''
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Methods</title>'
        f'</head>\n<body>\n<h1>Methods</h1>\n{body}{references}\n</body>\n</html>\n'
    )


def _replace(text: str, render: Callable[[list[str]], str]) -> str:
    """Replace each citation group whose keys are all known."""

    def one(match: re.Match) -> str:
        keys = _KEY.findall(match.group(1))
        return render(keys) if all(key in bibliography() for key in keys) else match.group(0)

    return _GROUP.sub(one, text)


def _inline(html: str) -> str:
    html = re.sub(r'`([^`]+)`', r'<code>\1</code>', html)
    html = re.sub(r'\*\*([^*]+)\*\*', r'<strong>\1</strong>', html)
    return re.sub(r'(?<!\*)\*([^*\s][^*]*)\*(?!\*)', r'<em>\1</em>', html)


def _plain(value: str) -> str:
    """Turn a BibTeX value into text: accents composed, braces of protection dropped."""
    value = re.sub(
        r'\\(["\'`^~u])\{?\{?(\w)\}?\}?',
        lambda m: unicodedata.normalize('NFC', m.group(2) + _ACCENTS[m.group(1)]),
        value,
    )
    if value.startswith('{') and value.find('}') > 0:
        # An organisation in braces is one name; its spaces must survive the split into names.
        value = re.sub(r'^\{([^}]*)\}', lambda m: m.group(1).replace(' ', '\u00a0'), value)
    return value.replace('\\&', '&').replace('{', '').replace('}', '')


def _family(name: str) -> str:
    return name.split(',')[0].strip().replace('\u00a0', ' ')


def _authors(names: str) -> str:
    """Return authors as ``Family AB, Family CD``; more than six end in et al."""
    people = []
    for name in names.split(' and '):
        family, _, given = (part.strip() for part in name.partition(','))
        initials = ''.join(part[0] for part in re.split(r'[\s.-]+', given) if part)
        people.append(f'{_family(family)} {initials}'.strip())
    if people[-1] == 'others' or len(people) > 6:
        people = [*[p for p in people if p != 'others'][:6], 'et al']
    return ', '.join(people)
