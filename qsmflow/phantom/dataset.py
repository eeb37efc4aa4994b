"""Phantom scans as a BIDS dataset, with the truth as a derivative beside them."""

import csv
import io as textio
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

import qsmflow
from qsmflow import io
from qsmflow.phantom import tissues, variants
from qsmflow.phantom.acquisition import (
    ECHO_TIMES,
    Acquisition,
    simulate_gre,
    simulate_t1w,
)
from qsmflow.phantom.head import Pose, make_head

BIDS_VERSION = '1.10.0'

#: Folder of the truth inside the dataset.
TRUTH = Path('derivatives') / 'phantom-truth'

#: Phase is stored as integers; this many steps are pi.
PHASE_STEPS = 4096

#: Truth maps: entity part of the name and suffix, key, unit, description.
_TRUTH_MAPS = (
    ('Chimap', 'chi', 'ppm', 'True susceptibility'),
    ('desc-paramagnetic_Chimap', 'chi_para', 'ppm', 'True paramagnetic susceptibility'),
    ('desc-diamagnetic_Chimap', 'chi_dia', 'ppm', 'True diamagnetic susceptibility'),
    ('R2starmap', 'r2star', '1/s', 'True effective transverse relaxation rate'),
    ('S0map', 's0', 'arbitrary', 'True signal at echo time zero'),
)

#: True fields have no BIDS name: they are kept under names that .bidsignore lists.
_TRUTH_FIELDS = (
    ('desc-total_fieldmap', 'total_field', 'ppm', 'True field, relative to the main field'),
    ('desc-local_fieldmap', 'local_field', 'ppm', 'True field of the sources in the brain'),
    ('desc-background_fieldmap', 'background_field', 'ppm', 'True field of all other sources'),
    ('desc-offset_phasemap', 'phase_offset', 'rad', 'True phase at echo time zero'),
)

_README = """\
Simulated gradient-echo scans
=============================

A dataset of simulated heads, made by qsmflow-phantom. No person was scanned.

Every participant is the MNI152NLin2009cAsym template, warped to an anatomy of its own. Each
session has a multi-echo gradient echo (MEGRE) with magnitude and phase, and a T1w image of the
same head in another position. The truth of every stage is under {truth}.

{parameters}
"""


@dataclass(frozen=True)
class Protocol:
    """How the scans of a dataset are made.

    Attributes
    ----------
    voxel_size : tuple of float
        Of the gradient echo, in mm.
    te : tuple of float
        Echo times, in s.
    field_strength : float
        In T.
    snr : float
        White-matter signal-to-noise ratio of the first echo.
    t1w_voxel_size : float
        In mm.
    shape : tuple of int, optional
        Shape of the gradient echo's grid; by default it covers the head.
    dephasing : bool
        Whether the signal dephases within a voxel.
    phase_units : {'rad', 'arbitrary'}
        Phase in radians, or as the integers -4096 to 4094 that some scanners write.
    calcification, haemorrhage, atrophy, nuclei_scale
        What is different about every head: see :func:`qsmflow.phantom.head.make_person`.
    offset_shape, bipolar, bad_voxels
        What is wrong with the phase: see :func:`qsmflow.phantom.simulate_gre`.
    """

    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    te: tuple[float, ...] = ECHO_TIMES
    field_strength: float = 3.0
    snr: float = 60.0
    t1w_voxel_size: float = 1.0
    shape: tuple[int, int, int] | None = None
    dephasing: bool = True
    phase_units: str = 'rad'
    calcification: bool | float = False
    haemorrhage: bool | float = False
    atrophy: float = 0.0
    nuclei_scale: float = 1.0
    offset_shape: str = 'polynomial'
    bipolar: float = 0.0
    bad_voxels: float = 0.0

    def __post_init__(self):
        if self.phase_units not in ('rad', 'arbitrary'):
            raise ValueError(
                f"phase_units must be 'rad' or 'arbitrary'; got {self.phase_units!r}."
            )
        variants.check(**self.anatomy)

    @property
    def anatomy(self) -> dict:
        """Keyword arguments of ``make_head`` for what is different about every head."""
        names = ('calcification', 'haemorrhage', 'atrophy', 'nuclei_scale')
        return {name: getattr(self, name) for name in names}


#: Seconds instead of minutes: a coarse protocol for tests.
SMALL = Protocol(
    voxel_size=(4.0, 4.0, 4.0), t1w_voxel_size=4.0, shape=(48, 56, 48), dephasing=False
)


def write_bids(
    out, *, subjects: int = 2, sessions: tuple[int, ...] | None = None,
    protocol: Protocol | None = None, seed: int = 1, truth: bool = True, progress=None,
) -> Path:  # fmt: skip
    """Write a BIDS dataset of simulated heads.

    Parameters
    ----------
    out : path-like
        Folder to write; it must not exist or be empty.
    subjects : int, optional
        Number of participants, each with an anatomy of its own.
    sessions : tuple of int, optional
        Number of sessions of each participant; by default the first has two and the others
        one. A participant with one session has no session level. From one session to the next
        the head is the same and its position and the noise are not.
    protocol : Protocol, optional
        How to scan; ``SMALL`` is quick.
    seed : int, optional
        The same number gives the same files.
    truth : bool, optional
        Write the truth, under ``derivatives/phantom-truth``.
    progress : callable, optional
        Called with a line of text before each session.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileExistsError
        If the folder holds something already.
    ValueError
        If the numbers of subjects and sessions do not fit each other.
    """
    out = Path(out)
    protocol = protocol or Protocol()
    if sessions is None:
        sessions = (2,) + (1,) * (subjects - 1)
    if subjects < 1 or len(sessions) != subjects or min(sessions) < 1:
        raise ValueError(
            f'each of {subjects} subjects needs a number of sessions; got {sessions}.'
        )
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out} is not empty; name a new folder.')
    _write_dataset_files(out, protocol, subjects, seed, truth)
    for index, count in enumerate(sessions):
        for session in range(count):
            entities = [f'sub-{index + 1:02d}'] + ([f'ses-{session + 1}'] if count > 1 else [])
            if progress:
                progress(f'simulating {" ".join(entities)}')
            _write_session(out, entities, protocol, seed + index, session, truth)
    return out


def _write_session(out, entities, protocol, seed, session, truth):
    random = np.random.default_rng([seed, session, 17])
    head = make_head(voxel_size=16.0, seed=seed, pose=_draw_pose(random), **protocol.anatomy)
    # The second session is oblique, so that both kinds of affine are met.
    rotation = (0.0, 0.0, 0.0) if session == 0 else (-12.0, 4.0, 3.0)
    scan = simulate_gre(
        head, te=protocol.te, field_strength=protocol.field_strength, snr=protocol.snr,
        voxel_size=protocol.voxel_size, shape=protocol.shape, rotation_deg=rotation,
        dephasing=protocol.dephasing, seed=1000 * seed + session,
        offset_shape=protocol.offset_shape, bipolar=protocol.bipolar,
        bad_voxels=protocol.bad_voxels,
    )  # fmt: skip
    folder, stem = out.joinpath(*entities, 'anat'), '_'.join(entities)
    folder.mkdir(parents=True)
    write_gre(scan, folder, stem, phase_units=protocol.phase_units)
    moved = make_head(voxel_size=16.0, seed=seed, pose=_draw_pose(random), **protocol.anatomy)
    t1w = simulate_t1w(
        moved, voxel_size=protocol.t1w_voxel_size, axes='PSR', seed=1000 * seed + session
    )
    _write_integers(t1w.data, t1w.affine, folder / f'{stem}_T1w.nii.gz')
    _write_json(folder / f'{stem}_T1w.json', _scanner(protocol.field_strength) | {
        'EchoTime': 0.003, 'RepetitionTimeExcitation': 0.02, 'FlipAngle': 25,
        'MRAcquisitionType': '3D',
    })  # fmt: skip
    if truth:
        target = out / TRUTH / folder.relative_to(out)
        target.mkdir(parents=True)
        write_truth(scan, target, stem)
        motion = moved.pose.matrix @ np.linalg.inv(head.pose.matrix)
        _write_json(
            target / f'{stem}_from-MEGRE_to-T1w_mode-image_xfm.json',
            {'Description': 'True motion of the head between the two scans: scanner coordinates '
             '(RAS, mm) in the gradient echo to those in the T1w image.',
             'Matrix': motion.round(9).tolist()},
        )  # fmt: skip


def _draw_pose(random) -> Pose:
    turn = tuple(float(v) for v in random.uniform(-7, 7, 3))
    shift = tuple(float(v) for v in random.uniform(-4, 4, 3))
    return Pose(turn, shift)


def write_gre(scan: Acquisition, folder, stem: str, *, phase_units: str = 'rad') -> None:
    """Write magnitude and phase of every echo with their sidecars.

    Parameters
    ----------
    scan : Acquisition
        Simulated series.
    folder : path-like
        Existing ``anat`` folder.
    stem : str
        Entities, such as ``'sub-01_ses-1'``.
    phase_units : {'rad', 'arbitrary'}, optional
        Phase in radians (by the header's slope), or as bare integers.
    """
    folder = Path(folder)
    common = _scanner(scan.field_strength) | {
        'ImagingFrequency': scan.f0,
        'MRAcquisitionType': '3D',
        'RepetitionTimeExcitation': scan.repetition_time,
        'FlipAngle': scan.flip_angle,
    }
    slope = np.pi / PHASE_STEPS if phase_units == 'rad' else 1.0
    for index, time in enumerate(scan.te):
        name = f'{stem}_echo-{index + 1}_part-%s_MEGRE'
        about = common | {'EchoTime': time, 'EchoNumber': index + 1}
        mag, phase = folder / (name % 'mag'), folder / (name % 'phase')
        _write_integers(scan.magnitude[..., index], scan.affine, f'{mag}.nii.gz')
        # Rounding must not reach +pi, which is the same as -pi.
        steps = np.rint(scan.phase[..., index] * (PHASE_STEPS / np.pi))
        steps[steps >= PHASE_STEPS] = -PHASE_STEPS
        _write_integers(steps, scan.affine, f'{phase}.nii.gz', slope)
        _write_json(f'{mag}.json', about)
        _write_json(f'{phase}.json', about | {'Units': phase_units})


def write_truth(scan: Acquisition, folder, stem: str) -> None:
    """Write the truth of every stage: maps, fields, labels, mask and a region table.

    Parameters
    ----------
    scan : Acquisition
        Simulated series.
    folder : path-like
        Existing ``anat`` folder of a derivative dataset.
    stem : str
        Entities, such as ``'sub-01_ses-1'``.
    """
    folder = Path(folder)
    like = io.Volume(scan.truth['mask'], scan.affine)
    for name, key, unit, description in (*_TRUTH_MAPS, *_TRUTH_FIELDS):
        io.save_volume(scan.truth[key], like, folder / f'{stem}_{name}.nii.gz')
        about = {'Description': description, 'Units': unit, 'SkullStripped': 'Chimap' in name}
        _write_json(folder / f'{stem}_{name}.json', about)
    io.save_volume(scan.truth['mask'], like, folder / f'{stem}_desc-brain_mask.nii.gz')
    _write_json(folder / f'{stem}_desc-brain_mask.json', {'Type': 'Brain'})
    io.save_volume(scan.truth['labels'], like, folder / f'{stem}_desc-truth_dseg.nii.gz')
    rows = [{'index': label, 'name': name, 'hemi': hemi or 'n/a'}
            for label, name, hemi in _labels_of(scan)]  # fmt: skip
    _write_tsv(folder / f'{stem}_desc-truth_dseg.tsv', rows)
    _write_tsv(folder / f'{stem}_desc-truth_stats.tsv', region_truth(scan))


def region_truth(scan: Acquisition) -> list[dict]:
    """Return the true values of every region.

    Parameters
    ----------
    scan : Acquisition
        Simulated series.

    Returns
    -------
    list of dict
        One for each label of the truth, with ``index``, ``name``, ``hemi``, ``n_voxels``,
        ``volume_mm3``, ``chi_mean``, ``chi_sd`` and ``chi_median`` (ppm) and ``r2star_mean``
        (1/s). A region without voxels has NaN.
    """
    labels, chi, r2star = (scan.truth[key] for key in ('labels', 'chi', 'r2star'))
    volume = float(np.prod(scan.voxel_size))
    rows = []
    for index, name, hemi in _labels_of(scan):
        where = labels == index
        count = int(where.sum())
        values = chi[where].astype(np.float64) if count else np.array([np.nan])
        rates = r2star[where].astype(np.float64) if count else np.array([np.nan])
        rows.append({
            'index': index,
            'name': name,
            'hemi': hemi,
            'n_voxels': count,
            'volume_mm3': count * volume,
            'chi_mean': float(values.mean()),
            'chi_sd': float(values.std()),
            'chi_median': float(np.median(values)),
            'r2star_mean': float(rates.mean()),
        })  # fmt: skip
    return rows


def _labels_of(scan):
    found = bool((scan.truth['labels'] == tissues.HAEMORRHAGE.label).any())
    return tissues.brain_labels(haemorrhage=found)


# --- files ------------------------------------------------------------------------------------


def _scanner(field_strength):
    return {
        'Manufacturer': 'qsmflow',
        'ManufacturersModelName': 'phantom',
        'SoftwareVersions': qsmflow.__version__,
        'MagneticFieldStrength': field_strength,
    }


def _write_dataset_files(out, protocol, subjects, seed, truth):
    out.mkdir(parents=True, exist_ok=True)
    generated = {'Name': 'qsmflow-phantom', 'Version': qsmflow.__version__}
    _write_json(out / 'dataset_description.json', {
        'Name': 'Simulated gradient-echo scans for quantitative susceptibility mapping',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'raw',
        'License': 'CC0',
        'Authors': ['The qsmflow developers'],
        'GeneratedBy': [generated],
    })  # fmt: skip
    te = ', '.join(f'{1000 * t:g}' for t in protocol.te)
    parameters = (
        f'Echo times {te} ms, {protocol.field_strength:g} T, voxels '
        f'{" x ".join(f"{v:g}" for v in protocol.voxel_size)} mm, white-matter signal-to-noise '
        f'ratio {protocol.snr:g} at the first echo, seed {seed}.'
    )
    text = _README.format(truth=TRUTH.as_posix(), parameters=parameters)
    (out / 'README').write_text(text, encoding='utf-8')
    people = [_participant(index, seed + index) for index in range(subjects)]
    _write_tsv(out / 'participants.tsv', people)
    _write_json(out / 'participants.json', {
        'age': {'Description': 'Age that the values are meant for', 'Units': 'year'},
        'sex': {'Description': 'Sex, drawn at random', 'Levels': {'M': 'male', 'F': 'female'}},
        'group': {'Description': 'Study group', 'Levels': {'phantom': 'simulated head'}},
    })  # fmt: skip
    if truth:
        folder = out / TRUTH
        folder.mkdir(parents=True)
        _write_json(folder / 'dataset_description.json', {
            'Name': 'True values of the simulated scans',
            'BIDSVersion': BIDS_VERSION,
            'DatasetType': 'derivative',
            'License': 'CC0',
            'GeneratedBy': [generated | {'Name': TRUTH.name}],
            'DatasetLinks': {'raw': '../..'},
        })  # fmt: skip
        ignored = ['*_fieldmap.*', '*_phasemap.*', '*_stats.tsv', '*_xfm.json']
        (folder / '.bidsignore').write_text('\n'.join(ignored) + '\n', encoding='utf-8')


def _participant(index, seed):
    random = np.random.default_rng([seed, 19])
    age, sex = int(random.integers(22, 70)), 'FM'[int(random.integers(2))]
    return {'participant_id': f'sub-{index + 1:02d}', 'age': age, 'sex': sex, 'group': 'phantom'}


def _write_integers(data, affine, path, slope: float = 1.0) -> None:
    """Write whole numbers as a scanner does: 16 bits, with the header's slope."""
    stored = np.clip(np.rint(data), -32768, 32767).astype(np.int16)
    image = nib.Nifti1Image(stored, affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)


def _write_json(path, content) -> None:
    Path(path).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def _write_tsv(path, rows) -> None:
    def text(value):
        if isinstance(value, float):
            return 'n/a' if np.isnan(value) else f'{value:.6g}'
        return str(value) or 'n/a'

    stream = textio.StringIO()
    writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
    writer.writerow(rows[0])
    writer.writerows([text(value) for value in row.values()] for row in rows)
    Path(path).write_text(stream.getvalue(), encoding='utf-8')
