import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qsmflow import settings as module
from qsmflow.algorithms import catalog, method_parameters
from qsmflow.algorithms.catalog import PRESETS, Preset
from qsmflow.settings import (
    BIDSSettings,
    ExecutionSettings,
    OutputSettings,
    ReconstructionSettings,
    ResourceSettings,
    Settings,
    SettingsError,
    parse_b0_dir,
    without_preset,
)


def test_defaults_are_the_first_methods():
    recon = ReconstructionSettings()
    for stage in catalog.STAGES:
        assert getattr(recon, stage) == catalog.default(stage)


def test_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().execution.random_seed = 1


def test_importing_is_light():
    code = 'import sys, qsmflow.settings; print(*sys.modules)'
    modules = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {'numpy', 'scipy', 'nipype', 'nibabel', 'pandas', 'ants', 'rich'} & set(modules)


# --- round trip ---

labels = st.lists(st.text('abcXYZ019', min_size=1, max_size=5), max_size=3).map(tuple)
text = st.text(st.characters(codec='utf-8', exclude_categories=['Cs']), max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
value = st.one_of(st.integers(-(2**62), 2**62), number, st.booleans(), text)
choice = {stage: st.sampled_from(catalog.names(stage)) for stage in catalog.STAGES}
#: 'superposed' does not go with every inversion.
choice['strategy'] = st.sampled_from([n for n in catalog.names('strategy') if n != 'superposed'])
params = st.dictionaries(
    st.sampled_from(list(catalog.STAGES)),
    st.dictionaries(
        st.text('abc_', min_size=1), st.one_of(value, st.lists(value, max_size=3).map(tuple))
    ),
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Settings,
        bids=st.builds(
            BIDSSettings,
            bids_dir=text,
            analysis_level=st.sampled_from(module.ANALYSIS_LEVELS),
            participant_label=labels,
            run_label=labels,
            derivatives=st.dictionaries(text, text, max_size=2),
            skip_bids_validation=st.booleans(),
        ),
        reconstruction=st.builds(
            ReconstructionSettings,
            phase_scale=text,
            phase_sign=st.sampled_from(module.PHASE_SIGNS),
            bipolar=st.sampled_from(['auto', 'off']),
            echoes=st.lists(st.integers(1, 20)).map(tuple),
            unwrapping_fallback=st.booleans(),
            field_strength=st.none() | st.floats(0.1, 20),
            preset=st.sampled_from(list(PRESETS)),
            params=params,
            **choice,
        ),
        outputs=st.builds(
            OutputSettings,
            atlas=labels,
            output_spaces=st.lists(st.sampled_from(module.OUTPUT_SPACES)).map(tuple),
        ),
        resources=st.builds(
            ResourceSettings, nprocs=st.integers(1, 64), mem_gb=st.floats(0.1, 1e4)
        ),
        execution=st.builds(
            ExecutionSettings,
            random_seed=st.integers(1, 2**31 - 1),
            plugin_file=st.none() | text,
            verbosity=st.integers(0, 3),
        ),
    )
)
def test_round_trip(settings):
    assert Settings.from_toml(settings.to_toml()) == settings


def test_round_trip_keeps_types():
    settings = Settings(
        reconstruction=ReconstructionSettings(echoes=(1, 2), field_strength=3.0),
        resources=ResourceSettings(nprocs=2, mem_gb=8.0),
    )
    again = Settings.from_toml(settings.to_toml())
    assert isinstance(again.reconstruction.echoes, tuple)
    assert isinstance(again.reconstruction.field_strength, float)
    assert isinstance(again.resources.mem_gb, float)


def test_whole_number_for_a_float():
    settings = Settings.from_toml('[reconstruction]\nfield_strength = 7\n')
    assert settings.reconstruction.field_strength == 7.0
    assert isinstance(settings.reconstruction.field_strength, float)


# --- presets ---

INVERSION = {'inversion': {'threshold': 0.1, 'sizes': (6, 4)}}


@pytest.fixture
def quick(monkeypatch):
    """A preset with another inversion than the default one, and parameters of two stages."""
    params = {**INVERSION, 'background': {'max_iter': 7}}
    preset = Preset('quick', 'for this test', methods={'inversion': 'tkd'}, params=params)
    monkeypatch.setitem(PRESETS, 'quick', preset)
    return preset


@pytest.mark.parametrize('preset', PRESETS.values(), ids=lambda preset: preset.name)
def test_preset_names_what_there_is(preset):
    assert PRESETS[preset.name] is preset
    assert preset.summary
    assert set(preset.methods) | set(preset.params) <= set(catalog.STAGES)
    for stage in catalog.STAGES:
        assert preset.method(stage) in catalog.names(stage)
        known = method_parameters(stage, preset.method(stage))
        assert set(preset.params.get(stage, {})) <= set(known)
    recon = ReconstructionSettings(preset=preset.name)
    assert {stage: getattr(recon, stage) for stage in catalog.STAGES} == {
        stage: preset.method(stage) for stage in catalog.STAGES
    }
    assert recon.params == preset.params


def test_preset_by_default():
    assert ReconstructionSettings() == ReconstructionSettings(preset='default')


def test_preset_gives_methods_and_parameters(quick):
    recon = ReconstructionSettings(preset='quick')
    assert recon.inversion == 'tkd'
    assert recon.background == catalog.default('background')
    assert recon.params == quick.params


def test_given_parameters_win_over_the_preset(quick):
    given_params = {'inversion': {'threshold': 0.3}, 'field': {'sigma': 2.0}}
    recon = ReconstructionSettings(preset='quick', params=given_params)
    assert recon.params == {
        'inversion': {'threshold': 0.3, 'sizes': (6, 4)},
        'background': {'max_iter': 7},
        'field': {'sigma': 2.0},
    }
    assert quick.params['inversion']['threshold'] == 0.1, 'the table itself must stay as it is'


def test_another_method_takes_no_parameters_of_the_preset(quick):
    recon = ReconstructionSettings(
        preset='quick', inversion='tv', params={'inversion': {'max_iter': 3}}
    )
    assert recon.inversion == 'tv'
    assert recon.params == {'inversion': {'max_iter': 3}, 'background': {'max_iter': 7}}


def test_the_method_of_the_preset_may_be_named(quick):
    named = ReconstructionSettings(preset='quick', inversion='tkd')
    assert named == ReconstructionSettings(preset='quick')


def test_effective_settings_hold_what_the_preset_gave(quick):
    content = Settings(reconstruction=ReconstructionSettings(preset='quick')).to_dict()
    assert content['reconstruction']['preset'] == 'quick'
    assert content['reconstruction']['inversion'] == 'tkd'
    assert content['reconstruction']['params']['inversion'] == {'threshold': 0.1, 'sizes': [6, 4]}


def test_without_preset_leaves_what_was_given(quick):
    given_params = {'inversion': {'threshold': 0.3}, 'field': {'sigma': 2.0}}
    recon = ReconstructionSettings(preset='quick', relaxometry='loglinear', params=given_params)
    effective = Settings(reconstruction=recon).to_dict()['reconstruction']
    rest = without_preset(effective)
    assert not set(catalog.STAGES) & set(rest) - {'relaxometry'}
    assert rest['relaxometry'] == 'loglinear'
    assert {stage: own for stage, own in rest['params'].items() if own} == given_params
    assert Settings.from_dict({'reconstruction': rest}).reconstruction == recon


def test_without_preset_keeps_parameters_of_another_method(quick):
    table = {'preset': 'quick', 'inversion': 'tv', 'params': INVERSION}
    assert without_preset(table) == table


def test_without_preset_needs_a_preset():
    table = {'inversion': 'tv', 'background': 'pdf'}
    assert without_preset(table) == table


# --- errors say what, where and what next ---


@pytest.mark.parametrize(
    ('toml', 'words'),
    [
        ('[reconstruction]\ninversoin = "tv"', ["'inversoin'", "Did you mean 'inversion'"]),
        ('[reconstrution]\ninversion = "tv"', ["'reconstrution'", "'reconstruction'"]),
        ('[reconstruction]\ninversion = "tvv"', ['reconstruction.inversion', "'tv'"]),
        ('[reconstruction]\npreset = "quick"', ['reconstruction.preset', "'quick'", 'thorough']),
        ('[reconstruction]\nbackground = 3', ['reconstruction.background', 'str', '3']),
        ('[reconstruction]\nbipolar = "of"', ['reconstruction.bipolar', "'off'"]),
        ('[reconstruction]\nbipolar = true', ['reconstruction.bipolar', 'str', 'True']),
        ('[reconstruction]\nunwrapping_fallback = "no"', ['unwrapping_fallback', 'bool']),
        ('[reconstruction]\nechoes = [0, 1]', ['reconstruction.echoes', 'from 1']),
        ('[reconstruction]\nechoes = 2', ['reconstruction.echoes', 'list']),
        ('[reconstruction]\nfield_strength = 3000', ['field_strength', 'tesla', '3000']),
        ('[reconstruction]\nb0_dir = "up"', ['affine', "'up'"]),
        ('[reconstruction.params.inversoin]\na = 1', ["'inversoin'", "'inversion'"]),
        ('[reconstruction.params]\ninversion = 1', ['params.inversion', 'table']),
        ('[bids]\nanalysis_level = "subject"', ['bids.analysis_level', "'subject'"]),
        ('[bids]\nskip_bids_validation = "no"', ['skip_bids_validation', 'bool']),
        ('[bids]\nparticipant_label = [1]', ['participant_label', 'str']),
        ('[resources]\nnprocs = 0', ['resources.nprocs', '0']),
        ('[resources]\nnprocs = true', ['resources.nprocs', 'int']),
        ('[resources]\nnprocs = 2\nomp_nthreads = 3', ['omp_nthreads is 3', 'which is 2']),
        ('[resources]\nmem_gb = -1', ['resources.mem_gb', '-1']),
        ('[execution]\nrandom_seed = 0', ['random_seed', '0']),
        ('[outputs]\noutput_spaces = ["MNI"]', ['outputs.output_spaces', "'MNI'"]),
        ('[outputs]\nlevel = "ful"', ['outputs.level', "'full'"]),
        ('resources = 3', ['resources', '[resources]']),
        ('[bids\na = 1', ['not valid TOML', 'line 1']),
    ],
)
def test_errors(toml, words):
    with pytest.raises(SettingsError) as caught:
        Settings.from_toml(toml)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('echoes', [(1,), (1, 2), (1, 3, 5), (2, 4, 6)])
def test_bipolar_correction_needs_odd_and_even_echoes(echoes):
    with pytest.raises(SettingsError, match='three echoes or more') as caught:
        ReconstructionSettings(bipolar='on', echoes=echoes)
    assert str(list(echoes)) in str(caught.value)
    for mode in ('auto', 'off'):
        assert ReconstructionSettings(bipolar=mode, echoes=echoes).bipolar == mode
    for enough in ((), (1, 2, 4)):
        assert ReconstructionSettings(bipolar='on', echoes=enough).bipolar == 'on'


def test_strong_sources_are_not_looked_for_in_a_total_field(monkeypatch):
    whole = catalog.Method('whole', 'x:y', 'X', 'x', takes='total_field')
    monkeypatch.setitem(catalog.STAGES['inversion'], 'whole', whole)
    with pytest.raises(SettingsError) as caught:
        ReconstructionSettings(inversion='whole', strategy='superposed')
    for word in ("'superposed'", "'whole'", 'total field', "'single'", "'tv'"):
        assert word in str(caught.value)
    assert ReconstructionSettings(inversion='whole', strategy='single').inversion == 'whole'
    assert ReconstructionSettings(inversion='tv', strategy='superposed').strategy == 'superposed'


def test_threads_follow_processors():
    assert ResourceSettings(nprocs=1).omp_nthreads == 1
    assert ResourceSettings(nprocs=6).omp_nthreads == 3
    assert ResourceSettings(nprocs=64).omp_nthreads == module.MAX_OMP_NTHREADS


@pytest.mark.parametrize(
    ('given_text', 'vector'),
    [('affine', None), ('y', (0, 1, 0)), ('0,-3,4', (0, -0.6, 0.8))],
)
def test_b0_dir(given_text, vector):
    assert ReconstructionSettings(b0_dir=given_text).b0_vector == vector


@pytest.mark.parametrize('bad', ['', 'w', '1,0', '0,0,0', 'nan,0,0', 'inf,0,0', '1,2,3,4'])
def test_b0_dir_refused(bad):
    with pytest.raises(SettingsError, match='three numbers'):
        parse_b0_dir(bad)
