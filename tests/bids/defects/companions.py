"""Groups D and E of the catalogue: companions, request, folders."""

import numpy as np

from .dataset import affine, phantom, write_image, write_series, write_t1w
from .registry import defect


def head():
    """Return where the phantom shows an object."""
    return phantom()[0][..., 0] > 200


def write_mask(ds, data, grid=None, **header):
    """Write a brain mask into a derivative dataset, which is given with the dataset."""
    root = ds.root.parent / 'derived'
    ds.options['derivatives'] = {'derived': root}
    path = root / 'sub-01' / 'anat' / 'sub-01_desc-brain_mask.nii.gz'
    write_image(path, data, grid, **header)
    return path


def coarse_mask():
    """Return the mask in voxels of 2 mm and their affine: every second voxel."""
    grid = affine((2.0, 2.0, 2.0))
    return head()[::2, ::2, ::2].astype(np.uint8), grid


@defect('D77', 'WARN', file='derived:sub-01/anat/sub-01_desc-brain_mask.nii.gz')
def mask_on_another_grid(ds):
    write_mask(ds, *coarse_mask())


@defect('D77', 'INFO', file='derived:sub-01/anat/sub-01_desc-brain_mask.nii.gz')
def mask_that_fits(ds):
    write_mask(ds, head().astype(np.uint8))


@defect('D77', 'ERROR', file='desc-brain_mask')
def mask_elsewhere(ds):
    grid = affine()
    grid[0, 3] += 60
    write_mask(ds, head().astype(np.uint8), grid)


@defect('D77', 'ERROR', file='desc-brain_mask')
def mask_of_a_template(ds):
    write_mask(ds, *coarse_mask(), sform=4, qform=0)


@defect('D78', 'FIX', file='desc-brain_mask')
def mask_of_probabilities(ds):
    write_mask(ds, np.where(head(), 0.9, np.float32(0.2)).astype(np.float32))


@defect('D78', 'FIX', file='desc-brain_mask')
def mask_of_labels(ds):
    half = np.indices(head().shape)[0] > 11
    write_mask(ds, (head() * (1 + half)).astype(np.uint8))


@defect('D78', 'FIX', file='desc-brain_mask')
def mask_with_nan(ds):
    write_mask(ds, np.where(head(), np.float32(1), np.float32(np.nan)))


@defect('D78', 'ERROR', file='desc-brain_mask')
def image_in_place_of_a_mask(ds):
    write_mask(ds, phantom()[0][..., 0])


@defect('D78', 'ERROR', file='desc-brain_mask')
def mask_with_two_volumes(ds):
    write_mask(ds, np.stack([head(), head()], -1).astype(np.uint8))


@defect('D79', 'ERROR', file='desc-brain_mask')
def mask_empty(ds):
    write_mask(ds, np.zeros(head().shape, np.uint8))


@defect('D79', 'WARN', file='desc-brain_mask')
def mask_of_no_brain_size(ds):
    ds.regrid(affine((4, 4, 4)))
    small = np.zeros(head().shape, np.uint8)
    small[10:14, 10:14, 8:12] = 1
    write_mask(ds, small, affine((4, 4, 4)))


@defect('D83', 'WARN', file='T1w')
def t1w_without_head(ds):
    path = next(ds.anat().glob('*T1w.nii.gz'))
    write_image(path, phantom()[0][..., 0] * head(), affine((5, 5, 5)))


@defect('D83', 'WARN', file='T1w')
def t1w_without_face(ds):
    def deface(data):
        data = data.copy()
        data[:, 20:, :8] = 0
        return data

    ds.rewrite(next(ds.anat().glob('*T1w.nii.gz')), deface)


@defect('D85', 'FIX', file='sub-01_label-lesion_mask.nii.gz')
def lesion(ds):
    data = np.zeros(head().shape, np.uint8)
    data[8:12, 8:12, 8:12] = 1
    write_image(ds.anat() / 'sub-01_label-lesion_mask.nii.gz', data)


@defect('D85', 'FIX', file='sub-01_T1w_label-lesion_roi.nii.gz')
def lesion_in_its_older_name(ds):
    lesion(ds)
    path = ds.anat() / 'sub-01_label-lesion_mask.nii.gz'
    path.rename(ds.anat() / 'sub-01_T1w_label-lesion_roi.nii.gz')


@defect('D85', 'WARN', file='label-lesion')
def lesion_empty(ds):
    data = np.zeros(head().shape, np.uint8)
    write_image(ds.anat() / 'sub-01_label-lesion_mask.nii.gz', data)


@defect('D88', 'WARN', file='echo-3_part-mag')
def moved_between_echoes(ds):
    for part in ('mag', 'phase'):
        ds.rewrite(ds.image(3, part), lambda data: np.roll(data, 3, axis=1))


@defect('E92', 'WARN', file='participants.tsv')
def participant_not_listed(ds):
    (ds.root / 'participants.tsv').write_text('participant_id\tage\nsub-02\t40\n')


@defect('E92', 'WARN', file='participants.tsv')
def participants_without_ids(ds):
    (ds.root / 'participants.tsv').write_text('subject\tage\n01\t40\n')


@defect('D81', 'WARN')
def no_t1w(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()


@defect('D82', 'WARN')
def t1w_of_other_session(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()
    write_t1w(ds, ses='late')


@defect('D82', 'INFO', file='acq-a_T1w')
def two_t1w(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()
    for label in 'ab':
        write_t1w(ds, extra=f'_acq-{label}')


@defect('D82', 'WARN')
def t1w_damaged(ds):
    path = next(ds.anat().glob('*T1w.nii.gz'))
    path.write_bytes(path.read_bytes()[:1000])


@defect('E90', 'FATAL', 65)
def no_subjects(ds):
    (ds.root / 'sub-01').rename(ds.root / 'subject1')


@defect('E90', 'FATAL', 65)
def wrong_path(ds):
    ds.root = ds.root / 'nowhere'


@defect('E90', 'FATAL', 65)
def no_gre(ds):
    for path in ds.anat().glob('*MEGRE*'):
        path.unlink()


@defect('E91', 'FATAL', 2)
def participant_typo(ds):
    ds.options['participant_label'] = ['O1']


@defect('E91', 'FATAL', 2)
def session_typo(ds):
    ds.options['session_label'] = ['baseline']


@defect('E91', 'FATAL', 2)
def acquisition_typo(ds):
    ds.options['acq_label'] = ['hires']


@defect('E91', 'WARN')
def filter_that_leaves_no_t1w(ds):
    ds.options['bids_filter'] = {'t1w': {'acquisition': 'none'}}


@defect('E91', 'ERROR', file='sub-01')
def named_participant_without_the_session(ds):
    write_series(ds, '02', ses='b')
    for path in ds.anat('02', 'b').glob('*part-phase*'):
        path.unlink()
    ds.options |= {'participant_label': ['01', '02'], 'session_label': ['b']}


@defect('E91', 'INFO', file='sub-02')
def participant_without_what_was_asked_for(ds):
    write_series(ds, '02')
    ds.options['bids_filter'] = {'megre': {'subject': '01'}}


@defect('E91', 'FATAL', 2)
def unknown_query(ds):
    ds.options['bids_filter'] = {'bold': {}}


@defect('E91', 'FATAL', 2)
def unknown_entity_in_filter(ds):
    ds.options['bids_filter'] = {'megre': {'aquisition': 'x'}}
