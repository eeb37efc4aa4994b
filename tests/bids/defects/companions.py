"""Groups D and E of the catalogue: companions, request, folders."""

from .dataset import write_t1w
from .registry import defect


@defect('D81', 'WARN')
def no_t1w(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()


@defect('D82', 'WARN')
def t1w_of_other_session(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()
    write_t1w(ds, ses='late')


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


@defect('E91', 'FATAL', 2)
def unknown_query(ds):
    ds.options['bids_filter'] = {'bold': {}}


@defect('E91', 'FATAL', 2)
def unknown_entity_in_filter(ds):
    ds.options['bids_filter'] = {'megre': {'aquisition': 'x'}}
