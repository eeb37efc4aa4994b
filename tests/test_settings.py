import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qsmflow import settings as module
from qsmflow.algorithms import catalog
from qsmflow.settings import (
    BIDSSettings,
    ExecutionSettings,
    OutputSettings,
    ReconstructionSettings,
    ResourceSettings,
    Settings,
    SettingsError,
    parse_b0_dir,
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
            echoes=st.lists(st.integers(1, 20)).map(tuple),
            field_strength=st.none() | st.floats(0.1, 20),
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


# --- errors say what, where and what next ---


@pytest.mark.parametrize(
    ('toml', 'words'),
    [
        ('[reconstruction]\ninversoin = "tv"', ["'inversoin'", "Did you mean 'inversion'"]),
        ('[reconstrution]\ninversion = "tv"', ["'reconstrution'", "'reconstruction'"]),
        ('[reconstruction]\ninversion = "tvv"', ['reconstruction.inversion', "'tv'"]),
        ('[reconstruction]\nbackground = 3', ['reconstruction.background', 'str', '3']),
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
