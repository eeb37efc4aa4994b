"""A tiny dataset in memory, damaged in any way, and what must be true of whatever comes of it.

The promise: every input ends in a result or in a documented finding with a documented exit code.
Nothing raises anything else, nothing hangs, and no series is taken with other values than those of
the clean dataset unless that is told.
"""

import gzip
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from defects import SIDECAR, affine, phantom

from qsmflow import io
from qsmflow.bids import DatasetError, collect, plan_as_dict, refusal_as_dict, render_plan
from qsmflow.bids.catalog import FINDINGS
from qsmflow.cli.run import EXIT_CODES
from qsmflow.interfaces.phase import PhasePreparation

SHAPE, TE = (18, 20, 16), (0.005, 0.010)
#: Longest time of one example, in s; a hang is longer by far, a busy machine is not.
PATIENCE = 60.0
#: Findings of the clean dataset.
USUAL = {'ECHON', 'TELAST', 'D81', 'A10'}


@cache
def clean_files() -> dict[str, bytes]:
    """Return the files of the clean dataset by their paths."""
    magnitude, phase = phantom(SHAPE, TE)
    description = {'Name': 'x', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'}
    files = {'dataset_description.json': json.dumps(description).encode()}
    for i, te in enumerate(TE):
        for part, data in (('mag', magnitude), ('phase', phase)):
            image = nib.Nifti1Image(data[..., i], affine())
            image.header.set_xyzt_units('mm', 'sec')
            image.set_qform(affine(), code=1)
            image.set_sform(affine(), code=1)
            stem = f'sub-01/anat/sub-01_echo-{i + 1}_part-{part}_MEGRE'
            files[f'{stem}.nii.gz'] = gzip.compress(image.to_bytes(), mtime=0)
            content = SIDECAR | {'EchoTime': te} | ({'Units': 'rad'} if part == 'phase' else {})
            files[f'{stem}.json'] = json.dumps(content).encode()
    return files


def images() -> list[str]:
    return [path for path in clean_files() if path.endswith('.nii.gz')]


def sidecars() -> list[str]:
    return [path for path in clean_files() if path.startswith('sub-') and path.endswith('.json')]


def read_series(series) -> tuple[np.ndarray, io.Volume]:
    """Return magnitude and phase (rad) of a series, as the graph reads them."""
    prepare = PhasePreparation(
        scaling=asdict(series.scaling) if series.scaling else {},
        echoes=list(series.volumes) if series.volumes else [],
        magnitude_files=list(series.magnitude),
        phase_files=list(series.phase),
        real_files=list(series.real),
        imaginary_files=list(series.imag),
    )
    return prepare._read()


@dataclass(frozen=True)
class Settled:
    """What came of a dataset: accepted series, all findings, and which series are as before."""

    series: list
    findings: list
    unchanged: list[bool]

    @property
    def honest(self) -> bool:
        """Whether every accepted series is that of the clean dataset, or something was told."""
        return all(self.unchanged) or bool(self.told)

    @property
    def told(self) -> set[str]:
        """Codes that say that something is not as it should be."""
        return {f.code for f in self.findings if f.level != 'INFO'} - USUAL


def settle(files: dict[str, bytes | None], **options) -> Settled:
    """Check a dataset with some files replaced or, where None, left out."""
    root = Path(tempfile.mkdtemp(prefix='fuzz-'))
    try:
        for name, content in (clean_files() | files).items():
            if content is not None:
                path = root / 'ds' / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return _collect(root / 'ds', options)
    finally:
        shutil.rmtree(root)


def _collect(root: Path, options: dict) -> Settled:
    started = time.monotonic()
    try:
        found = collect(root, **options)
    except DatasetError as error:
        return _refused(error, root)
    findings = list(found.findings)
    for item in found.series:
        findings += item.findings
        check_series(item)
    for _, own in found.failed:
        assert any(finding.stops for finding in own)
        findings += own
    check_findings(findings)
    assert found.exit_code in EXIT_CODES
    assert render_plan(found)
    plan = json.loads(json.dumps(plan_as_dict(found), allow_nan=False))
    assert len(plan['series']) == len(found.series)
    assert time.monotonic() - started < PATIENCE
    return Settled(list(found.series), findings, [same_as_clean(s) for s in found.series])


def _refused(error: DatasetError, root: Path) -> Settled:
    """Check what is said when nothing can start."""
    check_findings(error.findings)
    assert error.exit_code in (2, 65)
    assert json.dumps(refusal_as_dict(error, str(root)), allow_nan=False)
    return Settled([], list(error.findings), [])


def check_findings(findings) -> None:
    for finding in findings:
        assert finding.level in FINDINGS[finding.code].levels, str(finding)
        assert finding.message
        assert not finding.stops or finding.remedy


def check_series(series) -> None:
    """Check that what goes into the graph is usable."""
    assert all(0 < a < 0.3 for a in series.te)
    assert list(series.te) == sorted(set(series.te))
    assert 0.01 < series.field_strength < 25
    assert np.isfinite(series.f0)
    assert series.f0 > 0
    assert np.isfinite(series.affine).all()
    assert np.isclose(np.linalg.norm(series.b0_dir), 1)
    magnitude, phase = read_series(series)
    assert magnitude.shape == phase.data.shape == (*series.shape, len(series.te))
    assert np.isfinite(magnitude).all()
    assert np.isfinite(phase.data).all()
    assert np.abs(phase.data).max() <= np.pi + 1e-3


@cache
def clean_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Return magnitude and phase of the clean dataset as they are read."""
    magnitude, phase = phantom(SHAPE, TE)
    return magnitude, phase


def _fitted(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return an image with the scale and offset, by least squares, of another."""
    image, wanted = image.astype(np.float64), clean.astype(np.float64)
    centred = image - image.mean()
    spread = np.mean(centred**2)
    slope = np.mean(centred * wanted) / spread if spread else 0
    return wanted.mean() + max(slope, 0) * centred


def same_as_clean(series) -> bool:
    """Tell whether a series is read with the values of the clean dataset.

    The magnitude of an echo may have another scale or offset: with two echoes, any ratio is a
    decay.
    """
    magnitude, phase = read_series(series)
    clean_magnitude, clean_phase = clean_arrays()
    if magnitude.shape == clean_magnitude.shape:
        magnitude = np.stack([
            _fitted(one, clean) for one, clean in zip(
                np.moveaxis(magnitude, -1, 0), np.moveaxis(clean_magnitude, -1, 0), strict=True
            )
        ], axis=-1)  # fmt: skip
    turned = np.angle(np.exp(1j * (phase.data - clean_phase)))
    return (
        magnitude.shape == clean_magnitude.shape
        and bool(np.allclose(turned, 0, atol=2e-3))
        and bool(np.allclose(magnitude, clean_magnitude, rtol=1e-3, atol=1e-2))
        and bool(np.allclose(series.affine, affine(), atol=2e-3))
        and bool(np.allclose(series.te, TE))
    )
