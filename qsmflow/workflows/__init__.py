"""Builders of nipype graphs: plain functions of their arguments.

Import them into a pipeline of your own. None of them reads a dataset or a global setting; those
of :mod:`qsmflow.workflows.base`, which assemble the BIDS App, alone take its settings.
"""

from qsmflow.workflows.anatomy import init_anatomy_wf, init_spaces_wf, init_t1w_wf
from qsmflow.workflows.base import init_qsmflow_wf, init_series_wf, init_subject_wf
from qsmflow.workflows.contrasts import init_relaxometry_wf
from qsmflow.workflows.cosmos import init_cosmos_wf
from qsmflow.workflows.field import init_field_mapping_wf
from qsmflow.workflows.outputs import init_outputs_wf
from qsmflow.workflows.preparation import init_brain_mask_wf, init_preparation_wf
from qsmflow.workflows.reconstruction import init_reconstruction_wf
from qsmflow.workflows.regions import (
    init_atlas_labels_wf,
    init_atlas_table_wf,
    init_dentate_wf,
    init_regions_wf,
)
from qsmflow.workflows.reportlets import init_reportlets_wf
from qsmflow.workflows.susceptibility import (
    init_background_removal_wf,
    init_dipole_inversion_wf,
    init_susceptibility_wf,
)

__all__ = [
    'init_anatomy_wf',
    'init_atlas_labels_wf',
    'init_atlas_table_wf',
    'init_background_removal_wf',
    'init_brain_mask_wf',
    'init_cosmos_wf',
    'init_dentate_wf',
    'init_dipole_inversion_wf',
    'init_field_mapping_wf',
    'init_outputs_wf',
    'init_preparation_wf',
    'init_qsmflow_wf',
    'init_reconstruction_wf',
    'init_regions_wf',
    'init_relaxometry_wf',
    'init_reportlets_wf',
    'init_series_wf',
    'init_spaces_wf',
    'init_subject_wf',
    'init_susceptibility_wf',
    'init_t1w_wf',
]
