"""A series, what may be given with it, and a look into the graphs that are made of it."""

from dataclasses import replace

from nipype.interfaces.utility import IdentityInterface

from qsmflow.algorithms.phase import parse_scaling
from qsmflow.bids.precomputed import Precomputed, Segmentation
from qsmflow.bids.series import GRESeries
from qsmflow.settings import OutputSettings, ReconstructionSettings, Settings

TE = [0.005, 0.010, 0.015]
RAW = '/nowhere/raw'
STEM = f'{RAW}/sub-01/anat/sub-01_echo'
SERIES = GRESeries(
    subject='01',
    session=None,
    entities=(('sub', '01'),),
    suffix='MEGRE',
    magnitude=tuple(f'{STEM}-{n}_part-mag_MEGRE.nii.gz' for n in (1, 2, 3)),
    phase=tuple(f'{STEM}-{n}_part-phase_MEGRE.nii.gz' for n in (1, 2, 3)),
    real=(),
    imag=(),
    te=tuple(TE),
    echo_numbers=(1, 2, 3),
    volumes=None,
    field_strength=3.0,
    f0=127.7,
    shape=(64, 64, 40),
    affine=((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)),
    voxel_size=(1.0, 1.0, 2.0),
    b0_dir=(0.0, 0.0, 1.0),
    scaling=parse_scaling('rad'),
    bids_dir=RAW,
    t1w=f'{RAW}/sub-01/anat/sub-01_T1w.nii.gz',
)
RUNS = [replace(SERIES, entities=(('sub', '01'), ('run', str(n)))) for n in (1, 2, 3)]
WITH_COSMOS = Settings(reconstruction=ReconstructionSettings(cosmos=True))
OUT = {'series': SERIES, 'out_dir': '/nowhere/out'}
# Any file that is there: a graph does not read it.
ASEG = Segmentation(__file__, 'bids:fs:sub-01/mri/aseg.mgz', 'aseg', 'aseg')
MASK_ONLY = Precomputed('fMRIPrep 1 (dataset x)', mask=__file__, mask_uri='bids:x:mask')
READY = replace(MASK_ONLY, to_template=__file__, from_template=__file__, segmentations=(ASEG,))
NO_MASK = replace(READY, mask=None)


def real_nodes(workflow):
    """Return the nodes that do something, at any depth."""
    flat = workflow._create_flat_graph()
    return flat, [n for n in flat.nodes() if not isinstance(n.interface, IdentityInterface)]


def settings(**options):
    return Settings(
        reconstruction=ReconstructionSettings(**options.pop('recon', {})),
        outputs=OutputSettings(**options),
    )
