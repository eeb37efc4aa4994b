"""The Boutiques descriptor of the command line, made from the parser.

Boutiques gives platforms a form for each option; see https://boutiques.github.io. The file at the
top of the source is written by::

    python -m qsmflow.cli.descriptor > descriptor.json
"""

import argparse
import json

from qsmflow import __version__
from qsmflow.cli.options import build_parser
from qsmflow.cli.run import EXIT_CODES
from qsmflow.cli.values import Number

_POSITIONAL = ('bids.bids_dir', 'bids.output_dir', 'bids.analysis_level')
#: Not offered: they run nothing.
_LEFT_OUT = ('help', 'version')
_FILES = ('config_file', 'execution.plugin_file', 'bids.bids_filter_file')


def make_descriptor() -> dict:
    """Build the descriptor.

    Returns
    -------
    dict
        Descriptor by schema 0.5, in the shape that ``bosh validate --bids`` asks for.
    """
    parser = build_parser()
    options = [
        action
        for action in parser._actions
        if action.option_strings and action.dest not in _LEFT_OUT
    ]
    inputs = [_option_input(action) for action in options]
    keys = ' '.join(entry['value-key'] for entry in inputs)
    exclusive = [_exclusive(group) for group in parser._mutually_exclusive_groups]
    return {
        'name': 'qsmflow',
        'description': 'BIDS App for quantitative susceptibility mapping: from raw '
        'gradient-echo data to susceptibility maps, region tables and a report.',
        'tool-version': __version__,
        'schema-version': '0.5',
        'author': 'The qsmflow developers',
        'command-line': 'mkdir -p [OUTPUT_DIR]; '
        f'qsmflow [BIDS_DIR] [OUTPUT_DIR] [ANALYSIS_LEVEL] {keys}',
        'container-image': {
            'type': 'docker',
            'image': f'qsmflow:{__version__}',
            'index': 'docker://',
            'entrypoint': False,
        },
        'inputs': [*_positional_inputs(parser), *inputs],
        'groups': [
            {
                'id': 'output_directory',
                'name': 'Output folder',
                'description': 'A new folder for the participant level, that of the participant '
                'level for the group level.',
                'members': ['output_dir_name', 'participant_level_analysis_dir'],
                'mutually-exclusive': True,
                'one-is-required': True,
            },
            *exclusive,
        ],
        'output-files': [
            {
                'id': 'output_dir',
                'name': 'Results',
                'description': 'BIDS derivative dataset with maps, tables and reports.',
                'path-template': '[OUTPUT_DIR]',
                'optional': False,
            }
        ],
        'error-codes': [
            {'code': code, 'description': meaning} for code, meaning in EXIT_CODES.items() if code
        ],
        'suggested-resources': {'cpu-cores': 4, 'ram': 8, 'walltime-estimate': 3600},
        'tests': [
            {
                'name': 'participant level',
                'invocation': {
                    'bids_dir': 'dataset',
                    'output_dir_name': 'results',
                    'analysis_level': 'participant',
                    'participant_label': ['01'],
                },
                'assertions': {'exit-code': 0, 'output-files': [{'id': 'output_dir'}]},
            }
        ],
        'tags': {'domain': ['neuroinformatics', 'mri', 'qsm', 'bids-app']},
    }


def _positional_inputs(parser: argparse.ArgumentParser) -> list[dict]:
    """Return the inputs of the positional arguments; the output folder is there twice."""
    bids_dir, output_dir, level = (
        next(action for action in parser._actions if action.dest == dest) for dest in _POSITIONAL
    )
    return [
        {
            'id': 'bids_dir',
            'name': 'BIDS dataset',
            'description': _sentence(bids_dir),
            'type': 'File',
            'value-key': '[BIDS_DIR]',
            'optional': False,
        },
        {
            'id': 'output_dir_name',
            'name': 'Output folder',
            'description': _sentence(output_dir),
            'type': 'String',
            'value-key': '[OUTPUT_DIR]',
            'optional': True,
        },
        {
            'id': 'participant_level_analysis_dir',
            'name': 'Results of the participant level',
            'description': 'Folder of the results that the group level merges.',
            'type': 'File',
            'value-key': '[OUTPUT_DIR]',
            'optional': True,
        },
        {
            'id': 'analysis_level',
            'name': 'Analysis level',
            'description': _sentence(level),
            'type': 'String',
            'value-key': '[ANALYSIS_LEVEL]',
            'value-choices': list(level.choices),
            'optional': False,
        },
    ]


def option_flag(action: argparse.Action) -> str:
    """Return the spelling of an option that documentation and descriptor use."""
    return next(name for name in action.option_strings if name.startswith('--'))


def _option_input(action: argparse.Action) -> dict:
    flag = option_flag(action)
    name = flag.removeprefix('--').replace('-', '_')
    entry = {
        'id': name,
        'name': name.replace('_', ' '),
        'description': _sentence(action),
        'value-key': f'[{name.upper()}]',
        'command-line-flag': flag,
        'optional': True,
    }
    if action.nargs == 0:
        return {**entry, 'type': 'Flag'}
    if isinstance(action.type, Number):
        entry.update(_number(action.type))
    else:
        entry['type'] = 'File' if action.dest in _FILES else 'String'
    if action.choices:
        entry['value-choices'] = list(action.choices)
    if action.nargs == '+':
        return {**entry, 'list': True}
    # With the equals sign, a value may start with a dash, as the direction of the field may.
    return {**entry, 'command-line-flag-separator': '='}


def _number(number: Number) -> dict:
    limits = {'minimum': number.minimum, 'maximum': number.maximum}
    return {
        'type': 'Number',
        'integer': number.kind is int,
        **{name: limit for name, limit in limits.items() if limit is not None},
    }


def _exclusive(group) -> dict:
    members = [
        option_flag(action).removeprefix('--').replace('-', '_') for action in group._group_actions
    ]
    return {
        'id': '_or_'.join(members),
        'name': ' or '.join(members),
        'members': members,
        'mutually-exclusive': True,
    }


def _sentence(action: argparse.Action) -> str:
    """Return the help of an option as a sentence; a literal at its start stays as it is typed."""
    text = action.help % {} if '%%' in action.help else action.help
    first = text.split()[0]
    literal = not first.isalpha() or first in (action.choices or ())
    start = text[0] if literal else text[0].upper()
    return f'{start}{text[1:].rstrip(".")}.'


def dump() -> str:
    """Return the descriptor as the text of ``descriptor.json``."""
    return json.dumps(make_descriptor(), indent=2, ensure_ascii=False) + '\n'


if __name__ == '__main__':
    print(dump(), end='')
