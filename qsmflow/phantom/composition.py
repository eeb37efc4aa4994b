"""The tissues at any place of a head, and their properties."""

import numpy as np

from qsmflow.phantom import anatomy, tissues, variants

#: Relative texture (SD) of the susceptibilities, of M0, and of R2 and T1.
TEXTURE = {'chi': 0.12, 'm0': 0.03, 'relaxation': 0.05}

#: Properties of every place; ``r2prime`` in 1/s at 3 T.
MAPS = ('chi_para', 'chi_dia', 'r2', 'r2prime', 'm0', 't1')


def tissue_at(person, points: np.ndarray):
    """Return what a head is made of at given points.

    Parameters
    ----------
    person : Person
        Anatomy.
    points : ndarray of float32, shape (3, N)
        Head coordinates, in mm.

    Returns
    -------
    values : dict of str to ndarray of float32, shape (N,)
        The maps of ``MAPS``.
    labels : ndarray of uint8, shape (N,)
        See ``tissues``.
    inside : ndarray of bool, shape (N,)
        Brain with its CSF.
    """
    template = anatomy.load_template()
    place = person.to_template(points)
    inside = template.brain.at(place) > 0.5
    values = {name: np.empty(inside.size, np.float32) for name in MAPS}
    labels = np.empty(inside.size, np.uint8)
    outer, outer_labels = _outside_brain(template, place[:, ~inside])
    inner, inner_labels = _inside_brain(template, person, place[:, inside], points[:, inside])
    for name in MAPS:
        values[name][~inside] = outer[name]
        values[name][inside] = inner[name]
    labels[~inside], labels[inside] = outer_labels, inner_labels
    return values, labels, inside


def _properties(tissue):
    return {
        'chi_para': tissue.chi_para,
        'chi_dia': tissue.chi_dia,
        'r2': 1 / tissue.t2,
        'r2prime': tissue.r2prime,
        'm0': tissue.m0,
        't1': tissue.t1,
    }


def _mix(parts):
    """Mix tissues by their fractions; ``r2prime`` is here the factor of ``Tissue``."""
    tables = [(_properties(tissue), fraction) for tissue, fraction in parts]
    return {
        name: sum(np.float32(table[name]) * fraction for table, fraction in tables)
        for name in MAPS
    }


def _paint(values, labels, tissue, fraction, label):
    """Lay a tissue over what is there, by the fraction of it in each voxel."""
    touched = fraction > 0
    part = fraction[touched]
    for name, value in _properties(tissue).items():
        values[name][touched] += part * (np.float32(value) - values[name][touched])
    where = fraction > 0.5
    labels[where] = label[where] if isinstance(label, np.ndarray) else label


def _finish(values):
    strength = values['chi_para'] - values['chi_dia']
    values['r2prime'] = values['r2prime'] * strength * np.float32(tissues.R2PRIME_PER_PPM)
    return values


def _smoothstep(value, low, high):
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _outside_brain(template, place):
    intensity = template.head_t1.at(place)
    head = template.head.at(place) > 0.5
    distance = template.brain_distance.at(place)
    fat = _smoothstep(intensity, anatomy.BRIGHT - 10, anatomy.BRIGHT + 10)
    values = _mix([(tissues.MUSCLE, 1 - fat), (tissues.FAT, fat)])
    labels = np.where(fat > 0.5, tissues.FAT.label, tissues.MUSCLE.label).astype(np.uint8)
    # Below the template's last slice there is its repetition: a neck without a skull.
    bone = (intensity < anatomy.DARK) & (distance < anatomy.BONE_REACH)
    bone &= place[2] > -76
    _paint(values, labels, tissues.BONE, bone.astype(np.float32), tissues.BONE.label)
    cavity = anatomy.in_air_spaces(place) & (distance > anatomy.AIR_MARGIN)
    air = (cavity | ~head).astype(np.float32)
    _paint(values, labels, tissues.AIR, air, tissues.AIR.label)
    labels[~head] = 0
    return _finish(values), labels


def _inside_brain(template, person, place, points):
    place = variants.recede(place, person.atrophy)
    intensity = template.brain_t1.at(place)
    white = _smoothstep(intensity, anatomy.GREY_TO_WHITE - 5, anatomy.GREY_TO_WHITE + 5)
    csf = 1 - _smoothstep(intensity, anatomy.CSF_TO_GREY - 7, anatomy.CSF_TO_GREY + 7)
    grey = 1 - white - csf
    values = _mix([(tissues.WHITE, white), (tissues.GREY, grey), (tissues.CSF, csf)])
    # Brighter white matter holds more myelin: this follows the template's own structure.
    values['chi_dia'] *= 1 + white * np.clip((intensity - 83) * 0.02, -0.3, 0.3)
    labels = np.full(intensity.size, tissues.GREY.label, np.uint8)
    labels[white > 0.5] = tissues.WHITE.label
    labels[csf > 0.5] = tissues.CSF.label
    right = place[0] > 0
    _paint_nuclei(person, place, values, labels, right, csf)
    veins = np.clip(0.5 - template.veins.at(place) / 0.6, 0, 1)
    _paint(values, labels, tissues.VEIN, veins, tissues.VEIN.label)
    for lesion, wanted in (
        (variants.CALCIFICATION, person.calcification),
        (variants.HAEMORRHAGE, person.haemorrhage),
    ):
        if wanted:
            part = lesion.inside(place).astype(np.float32)
            _paint(values, labels, lesion.of_strength(wanted), part, lesion.tissue.label)
    _add_texture(person, points, values, labels)
    return _finish(values), labels


def _paint_nuclei(person, place, values, labels, right, csf):
    scale = person.nuclei_scale
    by_label = {tissue.label: tissue for tissue in tissues.NUCLEI}
    sided = np.where(right, tissues.RIGHT, 0).astype(np.uint8)
    thalamus, dentate = by_label[20], by_label[21]
    level = anatomy.thalamus_level(place, scale)
    part = np.clip(0.5 + level / 2, 0, 1) * (csf < 0.5)
    _paint(values, labels, thalamus, part.astype(np.float32), sided + np.uint8(20))
    nuclei = np.rint(variants.scaled_nuclei(scale).at(place, order=0)).astype(np.uint8)
    for index in np.unique(nuclei[nuclei > 0]):
        here = (nuclei == index).astype(np.float32)
        _paint(values, labels, by_label[int(index) % tissues.RIGHT], here, int(index))
    near = (np.abs(place[2] + 34) < 14) & (np.abs(place[1] + 60) < 18)
    part = np.zeros(near.size, np.float32)
    part[near] = np.clip(0.5 + anatomy.dentate_level(place[:, near], scale) / 0.6, 0, 1)
    _paint(values, labels, dentate, part, sided + np.uint8(21))


def _add_texture(person, points, values, labels):
    """Vary the properties smoothly from place to place; fluid and blood stay uniform."""
    solid = ~np.isin(labels, (tissues.CSF.label, tissues.VEIN.label))
    first, second = (level.at(points) * solid for level in person.texture)
    values['chi_para'] *= 1 + np.float32(TEXTURE['chi']) * np.clip(first, -3, 3)
    values['chi_dia'] *= 1 + np.float32(TEXTURE['chi']) * np.clip(second, -3, 3)
    values['m0'] *= 1 + np.float32(TEXTURE['m0']) * first
    values['r2'] *= 1 + np.float32(TEXTURE['relaxation']) * second
    values['t1'] *= 1 - np.float32(TEXTURE['relaxation']) * second
