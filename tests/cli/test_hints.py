"""An option that does not exist leads to the one that is meant."""

import pytest

from qsmflow.cli.hints import ELSEWHERE, option_hint
from qsmflow.cli.options import STAGE_OPTIONS, build_parser
from qsmflow.cli.parser import parse_args
from tests.cli.usage import refuse

OPTIONS = {name for action in build_parser()._actions for name in action.option_strings}
WORDS = [(word, option) for option, words in ELSEWHERE.items() for word in words.split()]


@pytest.mark.parametrize(
    ('typed', 'meant'),
    [
        (['--background', 'pdf'], '--bgfr'),
        (['--bg', 'pdf'], '--bgfr'),
        (['--bf-algorithm', 'pdf'], '--bgfr'),
        (['--bf_algorithm=pdf'], '--bgfr'),
        (['--background-param', 'x=1'], '--bgfr-param'),
        (['--unwrapping-algorithm', 'romeo'], '--unwrap'),
        (['--qsm-algorithm', 'rts'], '--inversion'),
        (['--qsm_algoritm', 'rts'], '--inversion'),
        (['--masking-algorithm', 'bet'], '--mask-method'),
        (['--use_existing_masks'], '--mask derivatives'),
        (['--qsm-reference', 'mean'], '--reference-region'),
        (['--premade', 'fast'], '--preset'),
        (['--two-pass'], '--strategy two_pass'),
        (['--n-procs', '4'], '--nprocs'),
        (['--mem-limit-gb', '8'], '--mem-gb'),
        (['--Subjects', '01'], '--participant-label'),
        (['--labels', '01'], '--participant-label'),
        (['--sessions', 'pre'], '--session-label'),
        (['--readout', 'bipolar'], '--bipolar'),
        (['--registration-quality', 'low'], '--sloppy'),
        (['--resample', '1'], '--output-spaces'),
    ],
)
def test_what_it_is_called_elsewhere(folders, capsys, typed, meant):
    message = refuse(capsys, [*folders, *typed])
    assert f'there is no option {typed[0].partition("=")[0]}' in message
    assert f'Did you mean {meant!r}?' in message


@pytest.mark.parametrize('typed', ['--inversoin', '--bgfrr', '--particpant-label', '--echos'])
def test_typing_errors_of_our_own_options_come_first(typed):
    meant = option_hint(typed, OPTIONS).split("'")[1]
    assert meant in ('--inversion', '--bgfr', '--participant-label', '--echoes')


@pytest.mark.parametrize('typed', ['--quiet', '--do-swi', '--longitudinal', '--task-id', '--foo'])
def test_what_is_like_nothing_leads_to_the_help(typed):
    assert option_hint(typed, OPTIONS) == ' qsmflow --help lists all options.'


def test_nothing_has_to_be_forced_to_replace_results(folders, capsys):
    message = refuse(capsys, [*folders, '--force', 'overwrite'])
    for word in ('--force', "'overwrite' is not needed", '--allow-mixed-settings'):
        assert word in message


@pytest.mark.parametrize('option', ELSEWHERE)
def test_what_is_proposed_can_be_given(folders, option):
    name, *value = option.split()
    assert name in OPTIONS
    if value:
        parse_args([*folders, name, *value])


def test_each_word_has_one_meaning_and_is_no_option_itself():
    words = [word for word, _ in WORDS]
    assert len(words) == len(set(words))
    assert not {f'--{word}' for word in words} & OPTIONS
    for word, option in WORDS:
        assert option_hint(f'--{word}', OPTIONS) == f' Did you mean {option!r}?'


def test_every_stage_has_other_names():
    assert set(STAGE_OPTIONS.values()) <= {option.split()[0].lstrip('-') for option in ELSEWHERE}
