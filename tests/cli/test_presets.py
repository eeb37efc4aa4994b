"""Presets on the command line, in settings files, and in files that repeat a run."""

import pytest

from qsmflow.algorithms.catalog import PRESETS, Preset, default
from qsmflow.cli.parser import check_methods, parse_args


@pytest.fixture
def quick(monkeypatch):
    """A preset with another inversion than the default one."""
    params = {'inversion': {'threshold': 0.1}, 'background': {'max_iter': 7}}
    preset = Preset('quick', 'for this test', methods={'inversion': 'tkd'}, params=params)
    monkeypatch.setitem(PRESETS, 'quick', preset)
    return preset


def repeated(folders, tmp_path, options, again):
    """Run with options, then with the settings file of that run and further options."""
    config = tmp_path / 'effective.toml'
    config.write_text(parse_args([*folders, *options]).to_toml(), encoding='utf-8')
    return parse_args([*folders, '--config-file', str(config), *again]).reconstruction


def test_options_win_over_the_preset(folders, quick):
    options = ['--preset', 'quick', '--inversion-param', 'correct=true', '--bgfr', 'vsharp']
    recon = parse_args([*folders, *options]).reconstruction
    assert recon.inversion == 'tkd'
    assert recon.background == 'vsharp'
    assert recon.params == {'inversion': {'threshold': 0.1, 'correct': True}}


def test_file_wins_over_the_preset(folders, tmp_path, quick):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\nbackground = "resharp"\n'
        '[reconstruction.params.inversion]\nthreshold = 0.2\n'
    )
    options = ['--config-file', str(config), '--preset', 'quick']
    recon = parse_args([*folders, *options]).reconstruction
    assert recon.preset == 'quick'
    assert recon.background == 'resharp'
    assert recon.params == {'inversion': {'threshold': 0.2}}


def test_option_wins_over_the_preset_of_the_file(folders, tmp_path, quick):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\npreset = "quick"\n[reconstruction.params.background]\nmax_iter = 9\n'
    )
    recon = parse_args([*folders, '--config-file', str(config), '--preset', 'default'])
    assert recon.reconstruction.inversion == default('inversion')
    assert recon.reconstruction.params == {'background': {'max_iter': 9}}


@pytest.mark.parametrize('preset', ['quick', *PRESETS])
def test_effective_file_repeats_a_preset(folders, tmp_path, quick, preset):
    options = ['--preset', preset, '--inversion-param', 'pad=8']
    first = parse_args([*folders, *options]).reconstruction
    assert repeated(folders, tmp_path, options, []) == first


def test_effective_file_with_another_preset(folders, tmp_path, quick):
    options = ['--preset', 'quick', '--inversion-param', 'pad=8']
    recon = repeated(folders, tmp_path, options, ['--preset', 'default'])
    assert recon == parse_args(folders).reconstruction, 'the parameter was one of tkd'
    recon = repeated(folders, tmp_path, [], ['--preset', 'quick'])
    assert recon == parse_args([*folders, '--preset', 'quick']).reconstruction


def test_effective_file_with_another_method(folders, tmp_path, quick):
    recon = repeated(folders, tmp_path, ['--preset', 'quick'], ['--inversion', 'rts'])
    assert recon.inversion == 'rts'
    assert recon.params == {'background': {'max_iter': 7}}


@pytest.mark.parametrize('preset', PRESETS)
def test_presets_pass_the_check_of_methods(folders, preset):
    check_methods(parse_args([*folders, '--preset', preset]))
