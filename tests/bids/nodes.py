"""Run the steps of the graph that see a defect of a scan, and return what they say of it."""

import json
import shutil
from pathlib import Path

import numpy as np
from defects import Dataset, write_scan
from defects.scan import Scan, region
from tiny import reconstruct

from qsmflow import io
from qsmflow.algorithms import get_method
from qsmflow.bids import collect
from qsmflow.interfaces.anatomy import BrainExtraction, RegisterToT1w
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.findings import FINDINGS
from qsmflow.interfaces.masking import MaskRefinement
from qsmflow.interfaces.phase import BipolarCorrection
from qsmflow.interfaces.tables import RegionStatistics

#: Steps that a clean scan goes through in a moment.
QUICK = ('chain', 'sign', 'mask', 'field', 'regions')


def findings_of(seen_by: str, scan: Scan, folder: Path, clean_root: Path) -> list[dict]:
    """Return what a step says of a scan."""
    bench = Bench(scan, folder)
    if seen_by == 'chain':
        return bench.chain(clean_root)[1]
    return getattr(bench, seen_by)()


class Bench:
    """A folder in which the files of a scan are written and steps are run."""

    def __init__(self, scan: Scan, folder: Path):
        self.scan, self.folder = scan, folder

    def save(self, name: str, array) -> str:
        """Write an array on the grid of the scan."""
        grid = io.Volume(np.zeros(np.shape(array)[:3]), self.scan.affine)
        return io.save_volume(np.asarray(array), grid, self.folder / f'{name}.nii.gz')

    def run(self, interface):
        """Run a step in a folder of its own."""
        folder = self.folder / type(interface).__name__
        folder.mkdir()
        return interface.run(cwd=str(folder)).outputs

    @property
    def series(self) -> dict:
        """Return the images of the scan."""
        names = ('phase', 'magnitude', 'mask')
        return {name: self.save(name, getattr(self.scan, name)) for name in names}

    def chain(self, clean_root: Path, echoes=None):
        """Reconstruct the scan from a dataset: result, findings of the steps, series."""
        scan, dataset = self.scan, Dataset(self.folder / 'ds')
        shutil.copytree(clean_root, dataset.root)
        write_scan(dataset, scan.magnitude, scan.phase, scan.te, scan.affine)
        (series,) = collect(dataset.root, echoes=echoes).series
        options = {'sign': 'auto', 'bipolar': 'auto', **scan.options}
        result = reconstruct(series, scan.mask, self.folder / 'run', **options)
        parts = ('preparation', 'mask', 'bipolar', 'sign')
        found = [f for part in parts for f in result.facts.get(part, {}).get(FINDINGS, [])]
        return result, found, series

    def sign(self) -> list[dict]:
        first = self.save('first', self.scan.magnitude[..., 0])
        field = self.save('field', self.scan.total_field)
        mask = self.save('mask', self.scan.mask)
        inputs = {'total_field': field, 'first_magnitude': first, 'mask': mask}
        return told(self.run(FieldSign(**inputs, b0_dir=self.scan.b0_dir)).info)

    def bipolar(self) -> list[dict]:
        mode = self.scan.options['bipolar']
        return told(
            self.run(BipolarCorrection(**self.series, te=list(self.scan.te), mode=mode)).info
        )

    def mask(self) -> list[dict]:
        method = 'given' if self.scan.given else 'registration'
        node = MaskRefinement(
            **self.series, te=list(self.scan.te), refine=not self.scan.given,
            info={'method': method},
        )  # fmt: skip
        return told(self.run(node).info)

    def brain(self) -> list[dict]:
        first = self.save('first', self.scan.magnitude[..., 0])
        return told(self.run(BrainExtraction(in_file=first, starts=['center_of_mass'])).info)

    def registration(self) -> list[dict]:
        node = RegisterToT1w(
            in_file=self.save('first', self.scan.magnitude[..., 0]),
            in_mask=self.save('mask', self.scan.mask),
            t1w=self.save('t1w', self.scan.options['t1w']),
            resolution=8.0, starts=['center_of_mass', 'center_of_grid'],
        )  # fmt: skip
        check = self.run(node).check
        assert not check['passed']
        return told(check)

    def regions(self) -> list[dict]:
        labels = self.save('mine_dseg', self.scan.options.get('labels', region(self.scan)))
        (self.folder / 'mine_dseg.tsv').write_text('index\tname\themi\n1\tbox\tL\n')
        files = {
            'mask': self.save('mask', self.scan.mask),
            'chimap': self.save('chi', self.scan.chi),
        }
        out = self.run(RegionStatistics(labels=labels, atlas=labels, **files))
        return json.loads(Path(out.dictionary).read_text(encoding='utf-8')).get('Warnings', [])

    def field(self) -> list[dict]:
        scan = self.scan
        voxel_size = tuple(np.linalg.norm(scan.affine[:3, :3], axis=0))
        unwrapped = get_method('unwrapping', 'romeo')(
            scan.phase, scan.magnitude, scan.mask, voxel_size, te=scan.te
        )
        unwrapped[..., 1] += scan.options.get('offset', 0)
        node = FieldFit(
            unwrapped_phase=self.save('unwrapped', unwrapped),
            magnitude=self.save('magnitude', scan.magnitude), mask=self.save('mask', scan.mask),
            te=list(scan.te), f0=scan.f0,
        )  # fmt: skip
        return told(self.run(node).info)


def told(info: dict) -> list[dict]:
    """Return the findings in what a step gives out."""
    return info.get(FINDINGS, [])
