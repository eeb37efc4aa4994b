"""Heuristic of heudiconv for multi-echo gradient echoes with magnitude and phase.

Adapt ``GRE`` and ``T1W`` to the names of your protocols, then::

    heudiconv --files DICOM_DIR -o BIDS_DIR -f heuristic_qsm.py -s 01 -c dcm2niix -b --minmeta

heudiconv adds the echo, and the part where one series holds both, to the names. Phase sidecars get
the ``Units`` that BIDS requires.
"""

import json
import os
import re
from pathlib import Path

GRE = re.compile(r'qsm|megre|multi.?echo.*gre|gre.*multi.?echo', re.IGNORECASE)
T1W = re.compile(r'mp-?rage|t1w|bravo|t1.?tfe', re.IGNORECASE)
#: Images that the scanner computed from others.
COMPUTED = {'SWI', 'MNIP', 'MIP', 'MPR', 'QSM', 'PROJECTION IMAGE'}
#: Siemens also saves the magnitude with normalised sensitivity; one copy is enough.
COPY = 'NORM'
PARTS = {'M': 'mag', 'P': 'phase', 'R': 'real', 'I': 'imag'}


def create_key(template, outtype=('nii.gz',), annotation_classes=None):
    """Return a name and what is written under it, as heudiconv wants it."""
    return template, outtype, annotation_classes


def infotodict(seqinfo):
    """Return which series becomes what."""
    info = {}
    scans = {}
    for series in seqinfo:
        name = f'{series.protocol_name} {series.series_description}'
        kinds = set(series.image_type)
        if kinds & COMPUTED or series.is_derived:
            continue
        if GRE.search(name):
            parts = _parts(series)
            if parts == {'mag'} and COPY in kinds and _has_plain_twin(series, seqinfo):
                continue
            scans.setdefault((name, frozenset(parts)), []).append(series)
        elif T1W.search(name):
            scans.setdefault(('', frozenset({''})), []).append(series)
    names = sorted({name for name, _ in scans} - {''})
    for (name, parts), members in scans.items():
        for number, series in enumerate(members, 1):
            entities = '{bids_subject_session_prefix}'
            if len(names) > 1 and name:
                entities += '_acq-' + ''.join(re.findall(r'[0-9A-Za-z]+', series.protocol_name))
            if len(members) > 1:
                entities += f'_run-{number}'
            if len(parts) == 1 and name:
                entities += f'_part-{next(iter(parts))}'
            suffix = '_MEGRE' if name else '_T1w'
            info[create_key('{bids_subject_session_dir}/anat/' + entities + suffix)] = [
                series.series_id
            ]
    return info


def custom_seqinfo(wrapper, series_files, **_):
    """Return what else is needed of a series: its manufacturer."""
    return str(wrapper.dcm_data.get('Manufacturer', ''))


def _parts(series):
    """Return the parts that a series holds; the vendors differ."""
    maker = str(series.custom).upper()
    if 'MIXED' in series.image_type or maker.startswith('GE'):
        raise ValueError(
            f'series {series.series_id}: heudiconv tells magnitude and phase apart by M and P in '
            'ImageType, which enhanced Philips and GE DICOM do not have. Convert it with '
            'qsmflow-dicom or dcm2bids.'
        )
    if maker.startswith('PHILIPS'):
        return {'mag', 'phase'}  # in one series: heudiconv names them
    return {PARTS[kind] for kind in series.image_type if kind in PARTS} or {'mag'}


def _has_plain_twin(series, seqinfo):
    return any(
        other.series_id != series.series_id
        and other.protocol_name == series.protocol_name
        and 'M' in other.image_type
        and COPY not in other.image_type
        for other in seqinfo
    )


def custom_callable(prefix, outtypes, dicoms):
    """Write ``Units`` into the sidecars of phase images; heudiconv calls it after each series."""
    import nibabel as nib

    folder, name = os.path.split(prefix)
    stem, suffix = name.rsplit('_', 1)
    for sidecar in sorted(Path(folder).glob(f'{stem.split("_part-")[0]}*_{suffix}.json')):
        if '_part-phase' not in sidecar.name:
            continue
        values = nib.load(str(sidecar).replace('.json', '.nii.gz')).get_fdata()
        full_turn = abs(values.max() - values.min() - 6.2832) < 0.1
        content = json.loads(sidecar.read_text(encoding='utf-8'))
        content['Units'] = 'rad' if full_turn else 'arbitrary'
        mode = sidecar.stat().st_mode
        sidecar.chmod(mode | 0o200)
        sidecar.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
        sidecar.chmod(mode)
