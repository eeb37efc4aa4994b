"""Write the tables of the documentation that the package itself knows.

    python tools/make_docs_tables.py [--check]

Text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a page is replaced. With
``--check`` nothing is written, and the exit status is 1 if a page is out of date.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from qsmflow.algorithms import method_parameters
from qsmflow.algorithms.catalog import PRESETS, STAGES
from qsmflow.atlas import region_definitions
from qsmflow.bids.catalog import FINDINGS, GROUPS, HANDLED, NOT_CHECKED, group_of
from qsmflow.bids.checks_metadata import PUBLIC_FIELDS
from qsmflow.bids.derivatives import derivative_path, io_spec
from qsmflow.cli.options import STAGE_OPTIONS, build_parser
from qsmflow.cli.run import EXIT_CODES
from qsmflow.tables import data_dictionary
from qsmflow.workflows.outputs import OUTPUTS

DOCS = Path(__file__).parents[1] / 'docs'
BIBLIOGRAPHY = Path(__file__).parents[1] / 'qsmflow' / 'data' / 'boilerplate.bib'
TITLES = {
    'unwrapping': 'Phase unwrapping',
    'field': 'Total field',
    'background': 'Background removal',
    'inversion': 'Dipole inversion',
    'strategy': 'Unreliable voxels and strong sources',
    'relaxometry': 'Relaxometry',
}


def bibliography() -> dict[str, dict[str, str]]:
    """Return the fields of every entry of the bibliography, and its ``kind``, by key."""
    entries = {}
    source = BIBLIOGRAPHY.read_text('utf-8')
    for kind, key, body in re.findall(r'@(\w+)\{(\w+),(.*?)\n\}', source, re.S):
        fields = re.findall(r'(\w+) = \{(.*)\},?\n?', body + '\n')
        entries[key] = {name: re.sub(r"[{}]|\\'|\\\"", '', text) for name, text in fields}
        entries[key]['kind'] = kind
    return entries


def reference(key: str, entries: dict) -> str:
    """Return a citation as a link."""
    entry = entries[key]
    authors = entry['author'].split(' and ')
    name = authors[0].partition(',')[0] + (' et al.' if len(authors) > 1 else '')
    text = f'{name} {entry["year"]}'
    return f'[{text}](https://doi.org/{entry["doi"]})' if 'doi' in entry else text


def methods_table() -> str:
    entries = bibliography()
    parts = []
    for stage, methods in STAGES.items():
        option = STAGE_OPTIONS[stage]
        parts += [
            f'### {TITLES[stage]}: `--{option}`',
            '',
            '| name | method | what it does | parameters and defaults | reference |',
            '|---|---|---|---|---|',
        ]
        for number, method in enumerate(methods.values()):
            parameters = [
                f'`{name}={value!r}`'
                for name, value in method_parameters(stage, method.name).items()
            ]
            cells = [
                f'`{method.name}`' + (' (default)' if number == 0 else ''),
                method.title,
                method.summary,
                ', '.join(parameters) or '–',
                ', '.join(reference(key, entries) for key in method.citations) or '–',
            ]
            parts.append('| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |')
        parts.append('')
    return '\n'.join(parts).rstrip()


def presets_table() -> str:
    rows = []
    for preset in PRESETS.values():
        cells = [f'`--{STAGE_OPTIONS[stage]} {name}`' for stage, name in preset.methods.items()]
        for stage, params in preset.params.items():
            pairs = ' '.join(f'{name}={json.dumps(value)}' for name, value in params.items())
            cells.append(f'`--{STAGE_OPTIONS[stage]}-param {pairs}`')
        rows.append(f'| `{preset.name}` | {", ".join(cells) or "–"} |')
    return '\n'.join(['| preset | stands for |', '|---|---|', *rows])


def preset_names() -> str:
    rows = [f'| `{preset.name}` | {preset.summary} |' for preset in PRESETS.values()]
    return '\n'.join(['| preset | what it is |', '|---|---|', *rows])


def options_table() -> str:
    parts = []
    for group in build_parser()._action_groups:
        actions = [action for action in group._group_actions if action.option_strings]
        if not actions:
            continue
        parts += [f'### {group.title.capitalize()}', '', '| option | meaning |', '|---|---|']
        for action in actions:
            names = [name for name in action.option_strings if '_' not in name]
            value = '' if action.nargs == 0 else f' {value_of(action)}'
            shown = ', '.join(f'`{name}`' for name in names) + (
                f' `{value.strip()}`' * bool(value)
            )
            parts.append(f'| {shown} | {action.help.replace("|", "&#124;")} |')
        parts.append('')
    return '\n'.join(parts).rstrip()


def value_of(action: argparse.Action) -> str:
    value = action.metavar or '{' + ','.join(map(str, action.choices or ())) + '}'
    return f'{value} ...' if action.nargs == '+' else value


def exit_codes() -> str:
    rows = [f'| {code} | {meaning} |' for code, meaning in EXIT_CODES.items()]
    return '\n'.join(['| code | meaning |', '|---|---|', *rows])


def columns_table() -> str:
    rows = []
    for name, entry in data_dictionary().items():
        levels = '; '.join(f'`{level}`: {text}' for level, text in entry.get('Levels', {}).items())
        meaning = f'{entry["Description"]}. {levels}'.rstrip(' .').replace('|', '&#124;')
        rows.append(f'| `{name}` | {meaning} | {entry.get("Units", "")} |')
    return '\n'.join(['| column | meaning | unit |', '|---|---|---|', *rows])


def regions_table() -> str:
    rows = [
        f'| `{entry["name"]}` | {entry["atlas"].replace("*", "any")} '
        f'| {entry["labels"].replace("*", "all").replace(",", ", ")} | {entry["description"]} |'
        for entry in region_definitions()
    ]
    return '\n'.join(
        ['| region | atlas | labels (left) | what it is |', '|---|---|---|---|', *rows]
    )


def copied_fields() -> str:
    names = [f'`{name}`' for name in PUBLIC_FIELDS if name != 'ImageType']  # used, not copied
    return ', '.join(names) + '.'


def maps_table() -> str:
    rows = []
    for output in OUTPUTS:
        path = derivative_path({'sub': 'X'}, suffix=output.suffix, desc=output.desc)
        path = path.removeprefix('sub-X/').replace('sub-X_', '<series>_')
        unit = io_spec()['suffixes'][output.suffix].get('units', '')
        level = 'all' if output.minimal else 'full'
        rows.append(f'| `{path}` | {output.description} | {unit} | {level} |')
    return '\n'.join(['| file | what it holds | unit | `--level` |', '|---|---|---|---|', *rows])


def findings_table() -> str:
    parts = []
    for group in GROUPS:
        parts += [f'### {group}', '', '| code | what was found | levels | meaning |']
        parts.append('|---|---|---|---|')
        for code, kind in FINDINGS.items():
            if group_of(code) == group:
                levels = ', '.join(kind.levels)
                parts.append(f'| {code} | {kind.title} | {levels} | {kind.meaning} |')
        parts.append('')
    return '\n'.join(parts).rstrip()


def unchecked_table() -> str:
    if not NOT_CHECKED:
        return 'Nothing: every row of the catalogue is looked at.'
    rows = [f'| {row} | {title} | {until} |' for row, (title, until) in NOT_CHECKED.items()]
    return '\n'.join(['| row | defect | until then |', '|---|---|---|', *rows])


def handled_table() -> str:
    rows = [f'| {row} | {title} | {how} |' for row, (title, how) in HANDLED.items()]
    return '\n'.join(['| row | what | what is done |', '|---|---|---|', *rows])


TABLES = {
    'findings': ('findings.md', findings_table),
    'handled': ('findings.md', handled_table),
    'not checked': ('findings.md', unchecked_table),
    'maps': ('outputs.md', maps_table),
    'copied fields': ('outputs.md', copied_fields),
    'columns': ('outputs.md', columns_table),
    'regions': ('outputs.md', regions_table),
    'methods': ('methods.md', methods_table),
    'presets': ('methods.md', presets_table),
    'preset names': ('usage.md', preset_names),
    'options': ('usage.md', options_table),
    'exit codes': ('usage.md', exit_codes),
}


def updated(page: str, name: str, table: str) -> str:
    """Return the page with the table between its marks."""
    pattern = rf'(<!-- begin {name} -->\n).*?(<!-- end {name} -->)'
    if not re.search(pattern, page, re.S):
        raise ValueError(f'the page has no marks for the table {name!r}')
    return re.sub(pattern, lambda match: f'{match[1]}\n{table}\n\n{match[2]}', page, flags=re.S)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true')
    options = parser.parse_args(argv)
    stale = []
    for name, (file, make) in TABLES.items():
        path = DOCS / file
        page = path.read_text(encoding='utf-8')
        new = updated(page, name, make())
        if new != page:
            stale.append(f'{file}: {name}')
            if not options.check:
                path.write_text(new, encoding='utf-8')
    print('\n'.join(stale) or 'all tables are up to date')
    return 1 if stale and options.check else 0


if __name__ == '__main__':
    sys.exit(main())
