"""The dentate nucleus on a model of it: an open shell beside a vein, with and without contrast."""

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms import nuclei
from qsmflow.algorithms.nuclei import segment_dentate
from qsmflow.algorithms.quality import dice

SHAPE = (64, 40, 36)


def ellipsoid(centre, radii, voxel_size=(1, 1, 1), shape=SHAPE):
    grid = np.indices(shape).astype(float)
    return (
        sum(
            ((axis * size - c) / r) ** 2
            for axis, c, r, size in zip(grid, centre, radii, voxel_size, strict=True)
        )
        <= 1
    )


class Cerebellum:
    """Two dentate nuclei: thick open shells, 0.15 ppm and 34 1/s in white matter with noise."""

    def __init__(self, noise=0.02, chi=0.15, vein=True, seed=0, shift=2.0):
        rng = np.random.default_rng(seed)
        self.sides, self.search, self.core = [], [], []
        for sign, x in ((1, 17), (-1, 46)):
            whole = ellipsoid((x, 20, 18), (6, 9, 7))
            hilum = ellipsoid((x + 4 * sign, 20, 18), (4.5, 6, 4.5))
            self.sides.append(whole & ~hilum)
            self.search.append(ellipsoid((x, 20, 18), (13, 16, 14)))
            prior = ellipsoid((x + shift, 20 - shift, 18), (5, 8, 6)) & ~hilum
            self.core.append(ndimage.binary_erosion(prior))
        self.truth = self.sides[0] + 2 * self.sides[1].astype(np.uint8)
        nucleus = self.truth > 0
        self.vein = np.zeros(SHAPE, bool)
        if vein:
            self.vein[24:26, 5:35, 14:16] = (
                True  # beside the left nucleus, across the search region
            )
        self.chi = np.where(nucleus, chi, -0.02) + rng.normal(0, noise, SHAPE)
        self.r2star = np.where(nucleus, 20 + 100 * chi, 20.0) + rng.normal(0, 3, SHAPE)
        self.late = np.where(nucleus, 60.0, 80.0) + rng.normal(0, 4, SHAPE)
        self.chi[self.vein], self.r2star[self.vein], self.late[self.vein] = 0.35, 60, 30
        self.mask = np.ones(SHAPE, bool)

    def segment(self, voxel_size=(1.0, 1.0, 1.0), **options):
        maps = (self.chi, self.r2star, self.late)
        return segment_dentate(*maps, *self.search, *self.core, self.mask, voxel_size, **options)


@pytest.fixture(scope='module')
def clear():
    model = Cerebellum()
    return model, model.segment()


def test_both_sides_are_found_by_contrast(clear):
    model, result = clear
    for index, side in enumerate((result.left, result.right), 1):
        assert side.method == 'contrast'
        assert side.reason == ''
        assert side.qc > 0.5
        assert dice(result.labels == index, model.truth == index) > 0.85
        assert side.volume_mm3 == (result.labels == index).sum()
    assert result.labels.dtype == np.uint8


def test_veins_are_left_out(clear):
    model, result = clear
    assert (result.labels[model.vein] > 0).mean() < 0.02


def test_found_region_beats_the_prior(clear):
    model, result = clear
    for index in (1, 2):
        found = dice(result.labels == index, model.truth == index)
        assert found > dice(model.core[index - 1], model.truth == index) + 0.1


def test_inputs_are_not_modified():
    model = Cerebellum()
    before = [a.copy() for a in (model.chi, model.r2star, *model.search, *model.core)]
    model.segment()
    for old, new in zip(
        before, (model.chi, model.r2star, *model.search, *model.core), strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_susceptibility_alone_suffices():
    model = Cerebellum()
    result = segment_dentate(
        model.chi, None, None, *model.search, *model.core, model.mask, (1, 1, 1)
    )
    assert result.left.method == result.right.method == 'contrast'
    assert dice(result.labels > 0, model.truth > 0) > 0.8


@pytest.mark.parametrize('chi', [-0.02, -0.15])
def test_without_contrast_the_prior_is_used_and_said(chi):
    """A child's nucleus has no iron yet; a diamagnetic one is no nucleus."""
    model = Cerebellum(chi=chi, vein=False)
    model.late = np.full(SHAPE, 80.0) + np.random.default_rng(1).normal(0, 4, SHAPE)
    result = model.segment()
    for index, side in enumerate((result.left, result.right), 1):
        assert side.method == 'prior'
        assert side.reason
        assert side.qc <= nuclei.PRIOR_QC
        np.testing.assert_array_equal(result.labels == index, model.core[index - 1])


def test_one_side_may_fail_alone():
    model = Cerebellum(vein=False)
    model.chi[:32] = np.random.default_rng(2).normal(0, 0.02, (32, *SHAPE[1:]))
    model.r2star[:32] = 20
    model.late[:32] = 80
    result = model.segment()
    assert (result.left.method, result.right.method) == ('prior', 'contrast')


@pytest.mark.parametrize('seed', range(3))
def test_noise_of_a_fast_scan_is_tolerated(seed):
    model = Cerebellum(noise=0.05, seed=seed)
    result = model.segment()
    assert result.left.method == result.right.method == 'contrast'
    assert dice(result.labels > 0, model.truth > 0) > 0.75


def test_confidence_falls_with_noise():
    qc = [Cerebellum(noise=n).segment().right.qc for n in (0.01, 0.03, 0.06)]
    assert qc[0] > qc[1] > qc[2]


def test_side_outside_the_field_of_view():
    model = Cerebellum()
    model.mask[:34] = False
    result = model.segment()
    assert not (result.labels == 1).any()
    assert (result.left.method, result.left.qc, result.left.volume_mm3) == ('prior', 0.0, 0.0)
    assert 'outside the mask' in result.left.reason
    assert result.right.method == 'contrast'


def test_sides_are_not_mixed_and_stay_in_the_search_region(clear):
    model, result = clear
    assert not (result.labels == 1)[~(model.search[0] | model.core[0])].any()
    assert not (result.labels == 2)[~(model.search[1] | model.core[1])].any()
    swapped = segment_dentate(
        model.chi, model.r2star, model.late, *model.search[::-1], *model.core[::-1],
        model.mask, (1, 1, 1),
    )  # fmt: skip
    np.testing.assert_array_equal(swapped.labels == 1, result.labels == 2)


def test_axes_do_not_matter(clear):
    model, result = clear
    order = (2, 0, 1)
    arrays = (model.chi, model.r2star, model.late, *model.search, *model.core, model.mask)
    turned = segment_dentate(*(a.transpose(order) for a in arrays), (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(turned.labels, result.labels.transpose(order))


def test_volume_is_in_cubic_millimetres():
    """The same voxels at 2 mm are eight times as large, far beyond any dentate nucleus."""
    result = Cerebellum(vein=False).segment(voxel_size=(2.0, 2.0, 2.0))
    assert result.left.method == 'prior'
    assert 'implausible volume' in result.left.reason


def test_sides_of_unlike_size_are_not_both_trusted():
    small = np.zeros((40, 20, 20), bool)
    large = small.copy()
    small[:10, :10, :3] = True
    large[20:, :10, :10] = True
    found = nuclei._compare_sides([nuclei._Found(small, 0.5), nuclei._Found(large, 0.8)])
    assert found[0].reason
    assert not found[1].reason
    fine = nuclei._compare_sides([nuclei._Found(large, 0.5), nuclei._Found(large, 0.8)])
    assert not any(side.reason for side in fine)


def test_cut_is_the_minimum_of_all_segmentations():
    """Against brute force over the 2^12 segmentations of a small block."""
    rng = np.random.default_rng(0)
    shape, size, smooth = (3, 2, 2), (1.0, 1.5, 2.0), 0.4
    contrast = rng.random(shape)
    cost = 0.5 - contrast
    found = nuclei._minimum_cut(cost, contrast, np.ones(shape, bool), size, smooth)

    def energy(x):
        total = cost[x].sum()
        for axis in range(3):
            edge = (
                np.exp(-(np.diff(contrast, axis=axis) ** 2) / (2 * 0.3**2)) * smooth / size[axis]
            )
            total += (edge * (np.diff(x.astype(int), axis=axis) != 0)).sum()
        return total

    every = ((np.arange(2**12)[:, None] >> np.arange(12)) & 1).astype(bool)
    best = min(energy(x.reshape(shape)) for x in every)
    assert 0 < found.sum() < 12
    assert energy(found) == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize('shift', [(4, 3, -3), (-3, -4, 2)])
def test_prior_misplaced_by_registration_is_moved(shift):
    """The prior lies 5 mm or more off, so that its core holds little of the nucleus."""
    model = Cerebellum(vein=False)
    model.core = [np.roll(core, shift, (0, 1, 2)) for core in model.core]
    model.search = [np.roll(search, shift, (0, 1, 2)) for search in model.search]
    result = model.segment()
    for index, side in enumerate((result.left, result.right), 1):
        assert side.method == 'contrast'
        assert dice(result.labels == index, model.truth == index) > 0.85


def test_prior_far_away_is_not_believed():
    """Beyond the reach of the shift there is no nucleus, whatever lies there."""
    model = Cerebellum(vein=False)
    model.core = [np.roll(core, 15, 2) for core in model.core]
    model.search = [ndimage.binary_dilation(core, iterations=3) for core in model.core]
    result = model.segment()
    assert result.left.method == result.right.method == 'prior'


def test_structure_on_a_bridge_is_cut_off():
    """Another bright structure at the edge of the search region touches the nucleus."""
    model = Cerebellum(vein=False)
    other = np.zeros(SHAPE, bool)
    other[13:21, 32:40, 14:24] = True
    other[16:18, 27:32, 17:19] = True
    model.chi[other & (model.truth == 0)] += 0.17
    model.r2star[other & (model.truth == 0)] += 15
    model.late[other & (model.truth == 0)] -= 20
    result = model.segment()
    extra = other & (model.truth == 0)
    assert (result.labels[extra] == 1).mean() < 0.3
    assert (result.labels == 1)[model.truth == 1].mean() > 0.7


def test_thick_slices():
    """Slices of 3 mm: every third plane of the model, averaged."""
    model = Cerebellum(noise=0.02, vein=False)

    def thick(volume):
        return volume.reshape(*SHAPE[:2], -1, 3).mean(-1)

    maps = (thick(model.chi), thick(model.r2star), thick(model.late))
    regions = [thick(r) >= 0.5 for r in (*model.search, *model.core)]
    result = segment_dentate(*maps, *regions, thick(model.mask) > 0, (1.0, 1.0, 3.0))
    assert result.left.method == result.right.method == 'contrast'
    assert dice(result.labels > 0, thick(model.truth > 0) >= 0.5) > 0.75


def test_maps_with_holes_do_not_spread():
    model = Cerebellum(vein=False)
    model.chi[17, 20, 18] = model.chi[10, 20, 18] = model.r2star[12, 20, 18] = np.nan
    result = model.segment()
    assert result.left.method == 'contrast'
    assert dice(result.labels == 1, model.truth == 1) > 0.85


@pytest.mark.parametrize('seed', [3, 19])
def test_phantom_heads_with_the_shipped_prior(seed):
    """The prior at the template's place, wrong by the head's own warp of several millimetres."""
    from qsmflow import atlas, io
    from qsmflow.phantom import head, tissues

    person = head.make_person(seed)
    shape, affine = (84, 62, 54), np.eye(4)
    affine[:3, 3] = -42, -93, -62
    scan = head.rasterise(person, head.Pose(), shape, affine)
    prior = io.load_volume(atlas.load_atlas('dentate').dseg)
    points = np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    centre, scale = (np.reshape(v, (3, 1)) for v in (head.CENTRE, person.scale))
    points = (points - centre) / scale + centre
    voxels = (points - prior.affine[:3, 3:]) / np.diag(prior.affine)[:3, None]
    labels = ndimage.map_coordinates(prior.data, voxels, order=0).reshape(shape).astype(int)
    noise = np.random.default_rng(seed).normal(0, 0.012, shape)
    chi = (ndimage.gaussian_filter(scan.chi, 0.5) + noise) * scan.brain_mask
    regions = [np.isin(labels, which) for side in 'LR' for which in (atlas.DENTATE_SEARCH[side],)]
    regions += [np.isin(labels, atlas.DENTATE_CORE[side]) for side in 'LR']
    result = segment_dentate(chi, scan.r2star, None, *regions, scan.brain_mask, (1, 1, 1))
    truth = [
        next(i for i, name, hemi in tissues.brain_labels() if (name, hemi) == ('dentate', side))
        for side in 'LR'
    ]
    for index, label, side in zip((1, 2), truth, (result.left, result.right), strict=True):
        assert side.method == 'contrast'
        assert dice(result.labels == index, scan.labels == label) > 0.85


def test_side_without_any_value_is_the_prior():
    model = Cerebellum(vein=False)
    model.chi[:32] = np.nan
    result = model.segment()
    assert result.left.method == 'prior'
    assert 'no susceptibility' in result.left.reason
    assert result.right.method == 'contrast'
