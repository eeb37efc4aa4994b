"""Interfaces from maps and labels to region tables."""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from qsmflow import atlas as atlases
from qsmflow import io
from qsmflow.algorithms.nuclei import segment_dentate
from qsmflow.algorithms.regions import region_statistics
from qsmflow.interfaces.base import VolumeInterface, optional_volume
from qsmflow.interfaces.findings import FINDINGS, coverage_findings, with_findings
from qsmflow.tables import write_stats


class _DentateSegmentationInputSpec(BaseInterfaceInputSpec):
    chimap = File(exists=True, mandatory=True, desc='susceptibility, ppm')
    prior = File(exists=True, mandatory=True, desc='labels of the dentate prior on its grid')
    mask = File(exists=True, mandatory=True, desc='where the susceptibility is valid')
    r2star = File(exists=True, desc='R2*, 1/s')
    magnitude = File(exists=True, desc='magnitude, echo last')


class _DentateSegmentationOutputSpec(TraitedSpec):
    labels = File(desc='1 left, 2 right')
    info = traits.Dict(desc='method, confidence and volume of each side')


class DentateSegmentation(VolumeInterface):
    """Find the dentate nuclei by their own contrast, inside a search region of the atlas."""

    input_spec = _DentateSegmentationInputSpec
    output_spec = _DentateSegmentationOutputSpec

    def _run_interface(self, runtime):
        chi = io.load_volume(self.inputs.chimap)
        prior = np.rint(optional_volume(self.inputs.prior, chi)).astype(int)
        magnitude = optional_volume(self.inputs.magnitude, chi)
        found = segment_dentate(
            chi.data,
            optional_volume(self.inputs.r2star, chi),
            None if magnitude is None else magnitude.reshape(*chi.shape, -1)[..., -1],
            *(np.isin(prior, atlases.DENTATE_SEARCH[side]) for side in 'LR'),
            *(np.isin(prior, atlases.DENTATE_CORE[side]) for side in 'LR'),
            io.load_mask(self.inputs.mask, like=chi),
            chi.voxel_size,
        )
        self._results['info'] = {
            side: {
                'method': result.method,
                'qc': float(result.qc),
                'volume_mm3': float(result.volume_mm3),
                'reason': result.reason,
            }
            for side, result in (('L', found.left), ('R', found.right))
        }
        self._write(runtime, chi, labels=found.labels)
        return runtime


class _RegionStatisticsInputSpec(BaseInterfaceInputSpec):
    labels = File(exists=True, mandatory=True, desc='labels of the atlas on the grid of the maps')
    atlas = traits.Str(mandatory=True, desc='name or path of the atlas')
    table = traits.Str(desc='of a segmentation: name of a table of labels, or its path')
    mask = File(exists=True, mandatory=True, desc='where the maps are valid')
    chimap = File(exists=True, mandatory=True, desc='susceptibility, ppm')
    r2star = File(exists=True, desc='R2*, 1/s')
    t2star = File(exists=True, desc='T2*, s')
    dentate = File(exists=True, desc='dentate nuclei, 1 left, 2 right; adds their rows')
    dentate_info = traits.Dict(desc='how each side was found')
    reference = traits.Dict(desc='of the susceptibility')
    registration = traits.Dict(desc='check of the registration to the atlas')
    fov_fraction = traits.Dict(desc='part of each label that lies in the field of view')


class _RegionStatisticsOutputSpec(TraitedSpec):
    stats = File(desc='region table')
    dictionary = File(desc='what its columns mean')
    info = traits.Dict(desc='findings on the regions, if there are any')


class RegionStatistics(SimpleInterface):
    """Summarise susceptibility, R2* and T2* over the regions of an atlas."""

    input_spec = _RegionStatisticsInputSpec
    output_spec = _RegionStatisticsOutputSpec

    #: The dentate nuclei join the labels of another atlas above all of its own.
    dentate_offset = 100_000

    def _run_interface(self, runtime):
        chi = io.load_volume(self.inputs.chimap)
        maps = {'chi': chi.data}
        for name, path in (('R2star', self.inputs.r2star), ('T2star', self.inputs.t2star)):
            image = optional_volume(path, chi)
            if image is not None:
                maps[name] = image
        labels, rows, notes = self._regions(chi)
        table = region_statistics(
            maps,
            labels,
            rows,
            io.load_mask(self.inputs.mask, like=chi),
            chi.voxel_size,
            reference=self._defined('reference').get('region', ''),
            fov_fraction={int(k): v for k, v in self._defined('fov_fraction').items()} or None,
            notes=notes,
        )
        info = with_findings({}, coverage_findings(table), runtime.cwd)
        given = ('registration', 'reference')
        told = [f for name in given for f in self._defined(name).get(FINDINGS, [])]
        told += info.get(FINDINGS, [])
        path = write_stats(
            table,
            Path(runtime.cwd) / 'regions_stats.tsv',
            warnings=told,
            regions=atlases.descriptions(self._atlas()),
        )
        self._results['info'] = info
        self._results['stats'] = str(path)
        self._results['dictionary'] = str(path.with_suffix('.json'))
        return runtime

    def _regions(self, chi: io.Volume) -> tuple[np.ndarray, list, dict]:
        """Return labels, rows and quality notes, with the dentate nuclei if there are any."""
        labels = np.rint(optional_volume(self.inputs.labels, chi)).astype(np.int32)
        rows = list(atlases.rows(self._atlas()))
        notes = {}
        if not self._defined('registration').get('passed', True):
            notes = {(row.name, row.hemi): 'registration' for row in rows}
        if isdefined(self.inputs.dentate):
            found = np.rint(optional_volume(self.inputs.dentate, chi)).astype(np.int32)
            labels = np.where(found > 0, found + self.dentate_offset, labels)
            own = [
                atlases.RegionRow(
                    row.name,
                    row.hemi,
                    tuple(n + self.dentate_offset for n in row.labels),
                    row.kind,
                )
                for row in atlases.rows(atlases.load_atlas('dentate'))
            ]
            for row in own:
                notes[row.name, row.hemi] = self._dentate_note(row.hemi)
            rows += own
        return labels, [*rows, atlases.whole_brain_row()], notes

    def _atlas(self) -> atlases.Atlas:
        """Return the atlas, or the segmentation with its table, whose name is not needed."""
        if isdefined(self.inputs.table):
            return atlases.load_segmentation(self.inputs.atlas, 'own', self.inputs.table)
        return atlases.load_atlas(self.inputs.atlas)

    def _dentate_note(self, hemi: str) -> str:
        """Return flags for the dentate nucleus of one side, or of both."""
        info = self._defined('dentate_info')
        sides = [hemi] if hemi else ['L', 'R']
        flags = ['prior'] if any(info.get(s, {}).get('method') == 'prior' for s in sides) else []
        if not self._defined('registration').get('passed', True):
            flags.append('registration')
        return ';'.join(flags)

    def _defined(self, name: str) -> dict:
        value = getattr(self.inputs, name)
        return value if isdefined(value) else {}


class _WriteTextInputSpec(BaseInterfaceInputSpec):
    text = traits.Str(mandatory=True, desc='what to write')
    file_name = traits.Str('text.txt', usedefault=True, desc='name of the file')


class _WriteTextOutputSpec(TraitedSpec):
    out_file = File(desc='the file')


class WriteText(SimpleInterface):
    """Write a text that is known when the graph is built."""

    input_spec = _WriteTextInputSpec
    output_spec = _WriteTextOutputSpec

    def _run_interface(self, runtime):
        path = Path(runtime.cwd) / self.inputs.file_name
        path.write_text(self.inputs.text, encoding='utf-8')
        self._results['out_file'] = str(path)
        return runtime
