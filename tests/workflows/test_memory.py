"""The memory that the steps of a reconstruction claim is what they take."""

import inspect
import math
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from nipype.interfaces.utility import IdentityInterface

from qsmflow import io, workflows
from qsmflow.algorithms.catalog import STAGES
from qsmflow.bids.series import GRESeries
from qsmflow.phantom import small_acquisition
from qsmflow.settings import ReconstructionSettings, ResourceSettings, Settings
from qsmflow.workflows import base, memory
from qsmflow.workflows.memory import step_memory

SHAPE, VOXEL = (128, 152, 128), (1.5, 1.5, 1.5)
TE = (0.004, 0.010, 0.016, 0.022)
#: The step of each node of a reconstruction, by the end of its name.
NODES = {
    'preparation_wf.prepare': 'preparation',
    'brain_mask_wf.extract': 'brain_mask',
    'brain_mask_wf.refine': 'mask_refinement',
    'field_mapping_wf.bipolar': 'bipolar',
    'field_mapping_wf.offset': 'offset',
    'field_mapping_wf.unwrap': 'unwrapping',
    'field_mapping_wf.fit': 'field',
    'field_mapping_wf.orient': 'sign',
    'background_removal_wf.remove': 'background',
    'dipole_inversion_wf.invert': 'inversion',
    'susceptibility_wf.refer': 'reference',
    'relaxometry_wf.fit': 'relaxometry',
}


def series(affine=None, shape=SHAPE, **options):
    affine = np.diag([*VOXEL, 1.0]) if affine is None else affine
    grid = io.Volume(np.broadcast_to(np.float32(0), shape), affine)
    given = dict.fromkeys(inspect.signature(GRESeries).parameters)
    return GRESeries(**given | {
        'subject': '01', 'entities': (('sub', '01'),), 'suffix': 'MEGRE', 'real': (), 'imag': (),
        'magnitude': ('/nowhere/m.nii',), 'phase': ('/nowhere/p.nii',), 'volumes': (0, 1, 2, 3),
        'te': TE, 'echo_numbers': (1, 2, 3, 4), 'f0': 127.7, 'shape': shape,
        'affine': tuple(map(tuple, grid.affine.tolist())), 'voxel_size': grid.voxel_size,
        'b0_dir': grid.b0_dir, 'metadata': {}, 'findings': (),
    } | options)  # fmt: skip


def claims(workflow) -> dict[str, float]:
    """Return what the nodes of a reconstruction claim, by step."""
    found = {}
    for name in workflow.list_node_names():
        ends = [step for end, step in NODES.items() if f'.{name}'.endswith(f'.{end}')]
        if ends:
            found[ends[0]] = workflow.get_node(name).mem_gb
    return found


# --- the graph uses the estimates -------------------------------------------------------------


def test_each_node_claims_the_memory_of_its_step():
    each = {step: 1 + number / 8 for number, step in enumerate(memory.STEPS)}
    workflow = workflows.init_reconstruction_wf(te=list(TE), f0=127.7, mem_gb=each)
    assert claims(workflow) == each
    computed = [
        workflow.get_node(name)
        for name in workflow.list_node_names()
        if not isinstance(workflow.get_node(name).interface, IdentityInterface)
    ]
    assert len(computed) == len(each)


def test_step_that_is_left_out_claims_the_default():
    workflow = workflows.init_reconstruction_wf(te=list(TE), f0=127.7, mem_gb={'field': 1.0})
    assert claims(workflow) == {
        step: 1.0 if step == 'field' else memory.DEFAULT_GB for step in memory.STEPS
    }


def test_series_claims_what_is_estimated_for_its_grid_and_methods():
    settings = Settings(reconstruction=ReconstructionSettings(inversion='tkd', background='lbv'))
    expected = step_memory(SHAPE, VOXEL, 4, {'inversion': 'tkd', 'background': 'lbv'})
    assert claims(base._init_reconstruction(series(), settings)) == expected


def test_low_mem_claims_everything():
    settings = Settings(resources=ResourceSettings(nprocs=2, mem_gb=7.5, low_mem=True))
    assert set(claims(base._init_reconstruction(series(), settings)).values()) == {7.5}


def test_order_of_the_axes_does_not_matter():
    sagittal = np.zeros((4, 4))
    sagittal[1, 0], sagittal[2, 1], sagittal[0, 2], sagittal[3, 3] = 1.0, -1.0, 1.6, 1
    turned = series(sagittal, (256, 240, 112))
    assert base.series_memory(turned, Settings()) == step_memory(
        (112, 256, 240), (1.6, 1.0, 1.0), 4, {}
    )


def test_phase_alone_counts_with_a_mask_as_large_as_the_image():
    estimate = base.series_memory(series(magnitude=()), Settings())
    assert estimate == step_memory(SHAPE, VOXEL, 4, {}, mask_method='quality')


# --- the estimates ----------------------------------------------------------------------------


@pytest.mark.parametrize('step', memory.STEPS)
def test_estimates_are_linear_in_voxels(step):
    """Padding alone, here to 320 and 800 slices, does not grow with the image."""
    small, large = (
        step_memory((400, 400, n), (0.5, 0.5, 0.5), 5, {}, mask_method='quality')[step]
        - memory.WORKER_GB
        for n in (288, 768)
    )
    least = 800 / 320 if step in ('background', 'inversion') else 768 / 288
    assert 0.99 * least < large / small < 1.01 * 768 / 288


def test_field_of_view_beyond_the_brain_counts_for_images_alone():
    near, far = (step_memory(shape, (1, 1, 1), 3, {}) for shape in ((160, 200, 170),
                                                                  (256, 256, 256)))  # fmt: skip
    more = 4 * (256**3 - 160 * 200 * 170) / 1024**3
    for step, (volumes, per_echo) in memory.HELD.items():
        cells = memory.CELLS.get(step, 0) / 8
        extras = 1 if step == 'inversion' else 0  # the field's noise, for the default method
        expected = more * (volumes + cells + extras + 3 * per_echo)
        assert far[step] - near[step] == pytest.approx(expected, abs=0.011), step


def test_small_image_is_not_padded_to_a_brain():
    whole = step_memory((40, 40, 20), (1, 1, 1), 3, {})
    assert whole == step_memory((40, 40, 20), (1, 1, 1), 3, {}, mask_method='registration')
    quality = step_memory((40, 40, 20), (1, 1, 1), 3, {}, mask_method='quality')
    assert whole.items() - quality.items() <= {('brain_mask', whole['brain_mask'])}


def test_series_count_by_their_echoes_and_single_maps_do_not():
    few, many = (step_memory(SHAPE, VOXEL, n, {}) for n in (2, 8))
    single = {'sign', 'background', 'inversion', 'reference'}
    assert {step for step in few if few[step] == many[step]} == single | {'brain_mask'}
    assert all(few[step] <= many[step] for step in few)


def test_inversion_of_phase_holds_two_series():
    few, many = (
        step_memory(SHAPE, VOXEL, n, {'inversion': 'tgv_phase'})['inversion'] for n in (2, 8)
    )
    volume = 4 * math.prod(SHAPE) / 1024**3
    assert many - few == pytest.approx(6 * 4 * volume, abs=0.011)


def test_strategy_counts_what_it_runs_and_holds():
    once = step_memory(SHAPE, VOXEL, 3, {'inversion': 'tkd'})['inversion']
    twice = step_memory(SHAPE, VOXEL, 3, {'inversion': 'tkd', 'strategy': 'two_pass'})['inversion']
    strong = step_memory(SHAPE, VOXEL, 3, {'inversion': 'tkd', 'strategy': 'superposed'})
    plain = step_memory(SHAPE, VOXEL, 3, {'inversion': 'tv'})['inversion']
    assert once < twice < once + 0.05
    assert strong['inversion'] >= plain


def test_fine_voxels_are_unwrapped_on_coarser_cells():
    coarse, fine = (step_memory(SHAPE, (v, v, v), 3, {}) for v in (1.5, 0.5))
    for step, volumes in memory.CELLS.items():
        saved = volumes * (1 - 1 / 64) * 4 * math.prod(SHAPE) / 1024**3
        assert coarse[step] - fine[step] == pytest.approx(saved, abs=0.011)


# --- and they are true ------------------------------------------------------------------------

_RUN_NODE = """
import pickle, re, sys
import qsmflow.cli.execution, qsmflow.workflows  # as in a worker that has run other steps
with open(sys.argv[1], 'rb') as stream:
    node = pickle.load(stream)
node.run()
with open('/proc/self/status') as stream:
    print('PEAK', re.search(r'VmHWM:\\s+(\\d+) kB', stream.read())[1])
"""


@dataclass
class FreshProcessPlugin:
    """A plugin that runs each node in a process of its own.

    Attributes
    ----------
    folder : Path
        Where nodes wait to be run.
    only : str
        End of the name of the one node to run so, the last that is run; those before it run here.
    peaks : dict of str to (float, float)
        What each node claims, and its largest resident memory, in GB.
    plugin_args : dict
        As nipype asks for.
    """

    folder: Path
    only: str = ''
    peaks: dict = field(default_factory=dict)
    plugin_args: dict = field(default_factory=dict)

    def run(self, graph, config, updatehash=False):
        for number, node in enumerate(nx.topological_sort(graph)):
            measured = node.fullname.endswith(self.only)
            if isinstance(node.interface, IdentityInterface) or not measured:
                node.run()
                continue
            path = self.folder / f'{number}.pkl'
            path.write_bytes(pickle.dumps(node))
            done = subprocess.run(
                [sys.executable, '-c', _RUN_NODE, path],
                capture_output=True, text=True, check=False, env=os.environ | {
                    'OMP_NUM_THREADS': '1', 'MALLOC_MMAP_THRESHOLD_': str(1 << 20)},
            )  # fmt: skip
            assert done.returncode == 0, f'{node.fullname}: {done.stderr[-2000:]}'
            kilobytes = int(re.search(r'^PEAK (\d+)$', done.stdout, re.MULTILINE)[1])
            self.peaks[node.fullname] = (node.mem_gb, kilobytes / 1024**2)
            if self.only:
                return


def reconstruct(scan, folder, only='', methods=None, **options):
    """Run a reconstruction, and return claim and peak of each node, or of one."""
    folder.mkdir(exist_ok=True)
    like = io.Volume(scan.truth['mask'], scan.affine)
    workflow = workflows.init_reconstruction_wf(
        te=list(scan.te),
        f0=scan.f0,
        mem_gb=step_memory(like.shape, like.voxel_size, len(scan.te), methods or {}),
        methods=methods,
        **options,
    )
    door = workflow.inputs.inputnode
    for part in ('magnitude', 'phase'):
        paths = [
            io.save_volume(getattr(scan, part)[..., echo], like, folder / f'{part}{echo}.nii.gz')
            for echo in range(len(scan.te))
        ]
        setattr(door, f'{part}_files', paths)
    workflow.base_dir = str(folder)
    plugin = FreshProcessPlugin(folder, only)
    workflow.run(plugin=plugin)
    return plugin.peaks


def wrong_claims(peaks):
    """Return what is wrong with each claim that is not within 20 % of the peak."""
    return {
        name: f'claims {claimed:.2f} GB, takes {peak:.2f} GB'
        for name, (claimed, peak) in peaks.items()
        if abs(claimed - peak) > 0.2 * peak
    }


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='peaks are read from /proc')
def test_every_node_takes_what_it_claims(tmp_path):
    tiny = small_acquisition(shape=(32, 38, 32), voxel_size=6.0, te=TE, snr=100)
    mask = io.save_volume(
        tiny.truth['mask'], io.Volume(tiny.truth['mask'], tiny.affine), tmp_path / 'mask.nii'
    )
    # Compiling takes memory of its own, once for each machine.
    reconstruct(tiny, tmp_path / 'tiny', mask_file=mask)
    scan = small_acquisition(shape=SHAPE, voxel_size=1.5, te=TE, snr=100)
    peaks = reconstruct(scan, tmp_path / 'scan')
    assert len(peaks) == len(NODES)
    assert not wrong_claims(peaks)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='peaks are read from /proc')
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('stage', [name for name in STAGES if name != 'strategy'])
def test_every_method_takes_what_its_node_claims(stage, tmp_path):
    node = next(end for end, step in NODES.items() if step == stage)
    scans = {
        # Compiling takes memory of its own, once for each machine.
        'tiny': small_acquisition(shape=(32, 38, 32), voxel_size=6.0, te=TE, snr=100),
        'scan': small_acquisition(shape=SHAPE, voxel_size=1.5, te=TE, snr=100),
    }
    wrong = {}
    for method in STAGES[stage]:
        for name, scan in scans.items():
            mask = io.Volume(scan.truth['mask'], scan.affine)
            mask = io.save_volume(mask.data, mask, tmp_path / f'{name}.nii')
            peaks = reconstruct(
                scan, tmp_path / name, only=node, methods={stage: method}, mask_file=mask
            )
        wrong[method] = wrong_claims(peaks)
    assert not {method: told for method, told in wrong.items() if told}
