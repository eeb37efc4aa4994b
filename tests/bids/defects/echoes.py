"""Group B of the catalogue: echoes and what the sidecars say of them."""

import gzip

import numpy as np

from .dataset import FIELD, SIDECAR, TE, phantom, write_image, write_json, write_series
from .registry import defect

UNEVEN = (0.005, 0.010, 0.018)


@defect('B28', 'ERROR', file='MEGRE')
def no_phase(ds):
    for path in ds.anat().glob('*part-phase*'):
        path.unlink()


@defect('B28', 'WARN', file='part-mag')
def no_phase_but_r2star(ds):
    no_phase(ds)
    ds.options['force'] = ['r2star-only']


@defect('B28', 'ERROR', file='part-mag')
def one_magnitude_but_r2star(ds):
    no_phase_but_r2star(ds)
    for echo in (2, 3):
        ds.image(echo, 'mag').unlink()


@defect('B28', 'WARN', file='sub-01_T2starw.nii.gz')
def plain_t2star_image(ds):
    write_image(ds.anat() / 'sub-01_T2starw.nii.gz', phantom()[0][..., 0])


@defect('B29', 'FIX', file='part-phase')
def no_magnitude(ds):
    for path in ds.anat().glob('*part-mag*'):
        path.unlink()


@defect('B30', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.nii.gz')
def phase_echo_missing(ds):
    ds.image(2).unlink()


@defect('B30', 'ERROR', file='sub-01_echo-3_part-mag_MEGRE.nii.gz')
def magnitude_echo_missing(ds):
    ds.image(3, 'mag').unlink()


@defect('B30', 'ERROR')
def requested_echo_missing(ds):
    ds.options['echoes'] = [1, 7]


@defect('B31', 'ERROR', file='echo-2')
def echo_time_missing(ds):
    ds.edit(ds.sidecar(2), EchoTime=None)
    ds.edit(ds.sidecar(2, 'mag'), EchoTime=None)


@defect('B31', 'FIX', file='echo-2')
def echo_time_in_header(ds):
    echo_time_missing(ds)
    ds.rewrite(ds.image(2), lambda data: data, description='TE=10.0;Time=120000.000')


@defect('B31', 'FIX', file='echo-2_part-phase')
def echo_time_of_magnitude(ds):
    ds.edit(ds.sidecar(2), EchoTime=None)


@defect('B32', 'FIX')
def echo_time_in_ms(ds):
    for echo, t in enumerate(TE, 1):
        for part in ('mag', 'phase'):
            ds.edit(ds.sidecar(echo, part), EchoTime=1000 * t)


@defect('B32', 'ERROR')
def echo_time_units_mixed(ds):
    for part in ('mag', 'phase'):
        ds.edit(ds.sidecar(2, part), EchoTime=10.0)


@defect('B33', 'FIX', file='echo-1_part-phase')
def echo_time_text(ds):
    ds.edit(ds.sidecar(1), EchoTime='0.005')


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_nan(ds):
    ds.edit(ds.sidecar(1), EchoTime=float('nan'))


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_negative(ds):
    ds.edit(ds.sidecar(1), EchoTime=-0.005)


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_array(ds):
    ds.edit(ds.sidecar(1), EchoTime=list(TE))


@defect('B34', 'FIX', file='echo-1_part-phase')
def echoes_unsorted(ds):
    """The numbers of the first echo and the last are exchanged, in all their files."""
    for old, new in ((1, 9), (3, 1), (9, 3)):
        ds.rename(f'_echo-{old}_', f'_echo-{new}_')


@defect('B35', 'ERROR')
def one_echo_time_for_all(ds):
    ds.edit_all(EchoTime=0.005)


@defect('B35', 'ERROR')
def inherited_echo_time(ds):
    for path in ds.anat().glob('*MEGRE.json'):
        ds.edit(path, EchoTime=None)
    write_json(ds.root / 'MEGRE.json', {'EchoTime': 0.005})


@defect('B35', 'ERROR', file='echo-1')
def parts_disagree(ds):
    ds.edit(ds.sidecar(1, 'mag'), EchoTime=0.004)


@defect('B36', 'FIX', file='echo-1_part-phase')
def uneven_spacing(ds):
    write_series(ds, te=UNEVEN)


@defect('B37', 'WARN')
def echo_gap(ds):
    ds.rename('echo-3', 'echo-4')


@defect('B37', 'INFO')
def echo_from_zero(ds):
    for echo in (1, 2, 3):
        ds.rename(f'echo-{echo}', f'echo-{echo - 1}')


@defect('B38', 'WARN')
def single_echo(ds):
    for echo in (2, 3):
        for path in ds.anat().glob(f'*echo-{echo}*'):
            path.unlink()


def write_4d(ds, echo_time, suffix='T2starw', order=(0, 1, 2)):
    for path in ds.anat().glob('*MEGRE*'):
        path.unlink()
    magnitude, phase = phantom()
    for part, data in (('mag', magnitude), ('phase', phase)):
        stem = f'sub-01_part-{part}_{suffix}'
        write_image(ds.anat() / f'{stem}.nii.gz', data[..., list(order)])
        content = {**SIDECAR, 'EchoTime': echo_time}
        write_json(ds.anat() / f'{stem}.json', {**content, 'Units': 'rad'})


@defect('B39', 'FIX', file='part-phase')
def echoes_in_4d(ds):
    write_4d(ds, list(TE))


@defect('B39', 'FIX', file='part-phase_MEGRE')
def echoes_in_4d_megre(ds):
    write_4d(ds, list(TE), 'MEGRE')


@defect('B39', 'ERROR', file='part-phase')
def too_few_times_for_4d(ds):
    write_4d(ds, list(TE[:2]))


@defect('B40', 'ERROR', file='part-phase')
def repeats_in_4d(ds):
    write_4d(ds, 0.005)


@defect('B40', 'ERROR')
def repeats_of_one_echo(ds):
    ds.rewrite(ds.image(1), lambda p: np.stack([p, p], -1))


@defect('B40', 'ERROR', file='echo-1_part-phase')
def five_dimensions(ds):
    ds.rewrite(ds.image(1), lambda p: np.stack([p, p], -1)[..., np.newaxis, :])


@defect('B40', 'FIX', file='echo-1_part')
def repeats_with_index(ds):
    """The requested repetition is the clean one; the other is noise."""
    rng = np.random.default_rng(0)
    for path in ds.images():
        ds.rewrite(path, lambda p: np.stack([rng.permuted(p, axis=0), p], -1))
    ds.options['volume_index'] = 1


@defect('B40', 'FIX', file='part-phase')
def repeats_of_a_single_echo_with_index(ds):
    write_4d(ds, 0.005)
    ds.options['volume_index'] = 0


@defect('B40', 'ERROR', file='echo-1_part')
def repeats_with_index_too_high(ds):
    repeats_with_index(ds)
    ds.options['volume_index'] = 2


@defect('B42', 'INFO', file='echo-1')
def even_echo_left_out(ds):
    ds.options['echoes'] = [1, 3]


@defect('B43', 'FIX')
def field_from_frequency(ds):
    ds.edit_all(MagneticFieldStrength=None, ImagingFrequency=123.2)


@defect('B43', 'FIX')
def field_from_option(ds):
    ds.edit_all(MagneticFieldStrength=None)
    ds.options['field_strength'] = 3.0


@defect('B43', 'ERROR')
def field_missing(ds):
    ds.edit_all(MagneticFieldStrength=None)


@defect('B43', 'WARN')
def field_contradicts_option(ds):
    ds.options['field_strength'] = 7.0


@defect('B43', 'WARN')
def frequency_contradicts_field(ds):
    ds.edit_all(ImagingFrequency=63.9)


@defect('B44', 'FIX')
def field_in_millitesla(ds):
    ds.edit_all(MagneticFieldStrength=3000)


@defect('B44', 'FIX')
def field_in_gauss(ds):
    ds.edit_all(MagneticFieldStrength=30000)


@defect('B44', 'ERROR')
def field_impossible(ds):
    ds.edit_all(MagneticFieldStrength=127.7)


@defect('B45', 'ERROR')
def too_few_slices(ds):
    for path in ds.images():
        ds.rewrite(path, lambda data: data[..., :5])


@defect('B46', 'ERROR', file='sub-01_part-phase_echo-1_MEGRE.nii.gz')
def part_before_echo(ds):
    for echo in (1, 2, 3):
        ds.rename(f'_echo-{echo}_part-phase', f'_part-phase_echo-{echo}')


@defect('B46', 'ERROR', file='dir-AP')
def direction_entity(ds):
    ds.rename('sub-01_echo', 'sub-01_dir-AP_echo')


@defect('B46', 'ERROR', file='part-Phase')
def part_upper_case(ds):
    ds.rename('part-phase', 'part-Phase')


@defect('B46', 'ERROR', file='_GRE')
def wrong_suffix(ds):
    ds.rename('_MEGRE', '_GRE')


@defect('B46', 'WARN', file='dir-AP')
def direction_entity_beside_a_complete_series(ds):
    path = ds.image(1, extra='_dir-AP')
    path.write_bytes(ds.image(1).read_bytes())


@defect('B45', 'ERROR')
def single_slice(ds):
    for path in ds.images():
        ds.rewrite(path, lambda data: data[..., :1])


@defect('B47', 'ERROR', file='echo-1_part-phase')
def two_formats(ds):
    ds.image(1, ext='.nii').write_bytes(gzip.decompress(ds.image(1).read_bytes()))


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_corrupt(ds):
    ds.sidecar(2).write_text('{"EchoTime": 0.01,\n  "Units": }')


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_latin1(ds):
    ds.sidecar(2).write_bytes('{"Note": "é"}'.encode('latin-1'))


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_with_bom(ds):
    ds.sidecar(2).write_bytes(b'\xef\xbb\xbf' + ds.sidecar(2).read_bytes())


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_array(ds):
    ds.sidecar(2).write_text('[1, 2]')


@defect('B50', 'WARN', file='sub-01_T1w.json')
def json_of_another_image_corrupt(ds):
    (ds.anat() / 'sub-01_T1w.json').write_text('{')


@defect('B50', 'FATAL', 65, 'dataset_description.json')
def description_corrupt(ds):
    (ds.root / 'dataset_description.json').write_text('{"Name": "x",}')


@defect('B48', '')
def two_runs(ds):
    """No defect: the second run has the same values, under its own name."""
    for path in sorted(ds.anat().glob('*MEGRE*')):
        for run in (1, 2):
            twin = path.name.replace('sub-01_', f'sub-01_run-{run}_')
            path.with_name(twin).write_bytes(path.read_bytes())
        path.unlink()


@defect('B51', '')
def sidecars_at_the_top_alone(ds):
    """No defect, though no image has a sidecar beside it."""
    for path in sorted(ds.anat().glob('*MEGRE.json')):
        path.rename(ds.root / path.name.removeprefix('sub-01_'))


@defect('B49', 'WARN', file='acq-nd')
def exported_twice(ds):
    for path in sorted(ds.anat().glob('*MEGRE*')):
        twin = path.name.replace('sub-01_', 'sub-01_acq-norm_')
        path.with_name(twin).write_bytes(path.read_bytes())
        path.rename(path.with_name(path.name.replace('sub-01_', 'sub-01_acq-nd_')))


@defect('B52', 'WARN', file='part-phase')
def two_sidecars_contradict(ds):
    ds.edit_all(MagneticFieldStrength=None)
    write_json(ds.root / 'MEGRE.json', {'MagneticFieldStrength': 7.0})
    write_json(ds.root / 'part-phase_MEGRE.json', {'MagneticFieldStrength': 3.0})
    write_json(ds.root / 'part-mag_MEGRE.json', {'MagneticFieldStrength': 3.0})


@defect('B52', 'INFO', file='echo-1')
def two_sidecars_agree(ds):
    write_json(ds.root / 'MEGRE.json', {'MagneticFieldStrength': FIELD})
    write_json(ds.root / 'part-phase_MEGRE.json', {'Units': 'rad'})


@defect('B53', 'WARN', file='dataset_description.json')
def description_missing_but_not_needed(ds):
    description_missing(ds)
    ds.options['need_description'] = False


@defect('B53', 'FATAL', 65, 'dataset_description.json')
def description_missing(ds):
    (ds.root / 'dataset_description.json').unlink()


@defect('B53', 'FATAL', 65, 'dataset_description.json')
def description_incomplete(ds):
    write_json(ds.root / 'dataset_description.json', {'Name': 'x'})


@defect('B54', 'FATAL', 65, 'dataset_description.json')
def derivative_dataset(ds):
    ds.edit(ds.root / 'dataset_description.json', DatasetType='derivative')
