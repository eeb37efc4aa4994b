"""Interface that aligns an atlas with the nuclei that the susceptibility map shows."""

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)

from qsmflow import atlas as atlases
from qsmflow import io, registration
from qsmflow.interfaces.base import VolumeInterface


class _NucleiRefinementInputSpec(BaseInterfaceInputSpec):
    labels = File(exists=True, mandatory=True, desc='labels as the registration places them')
    atlas = traits.Str(mandatory=True, desc='name or path of the atlas')
    chimap = File(exists=True, mandatory=True, desc='susceptibility, ppm')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='where the susceptibility is valid')
    transforms = InputMultiObject(
        File(exists=True), desc="template to the grid of the map, ITK files in ANTs' order"
    )


class _NucleiRefinementOutputSpec(TraitedSpec):
    labels = File(desc='labels, refined where that was believed')
    warp = File(desc='displacement field that goes before the transforms; zero if not believed')
    info = traits.Dict(desc='accepted, reason, similarity before and after, shift in mm')


class NucleiRefinement(VolumeInterface):
    """Align the labels of iron-rich nuclei with the susceptibility map."""

    input_spec = _NucleiRefinementInputSpec
    output_spec = _NucleiRefinementOutputSpec

    def _run_interface(self, runtime):
        chi = io.load_volume(self.inputs.chimap)
        labels = io.load_volume(self.inputs.labels)
        labels = io.Volume(np.rint(labels.data).astype(np.int32), labels.affine, labels.path)
        entry = atlases.load_atlas(self.inputs.atlas)
        chain = list(self.inputs.transforms) if isdefined(self.inputs.transforms) else []
        magnitude = io.load_echoes([self.inputs.magnitude]).data[..., 0]
        template = io.load_volume(atlases.template('T1w_brain_res-1'))
        warp, info = registration.refine_alignment(
            labels,
            chi,
            {label.index: label.chi for label in entry.table if label.chi is not None},
            mask=io.load_mask(self.inputs.mask, like=chi),
            anatomy=(
                io.Volume(magnitude, chi.affine),
                registration.resample(template, chi, chain),
            ),
            out_dir=runtime.cwd,
        )
        self._results['warp'] = warp or registration.unmoved(chi, runtime.cwd)
        if warp is not None:
            labels = registration.warp_labels(io.load_volume(entry.dseg), chi, [warp, *chain])
        self._results['info'] = info
        self._write(runtime, chi, labels=labels.data)
        return runtime
