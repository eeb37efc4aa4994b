"""Any input ends in a result or a documented finding: never a traceback, a hang or a wrong map.

The fast form draws the same few examples each time; the slow form draws new ones each time
(``pytest -m slow tests/bids/test_fuzz.py``). What it found is kept as explicit examples.
"""

import gzip
import json
import zlib

import numpy as np
import pytest
from fuzz import clean_files, images, settle, sidecars
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FAST = settings(
    derandomize=True, max_examples=6, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)

#: Header fields of NIfTI-1: first byte, number of values and type.
FIELDS = {
    'sizeof_hdr': (0, 1, '<i4'), 'dim_info': (39, 1, 'u1'), 'dim': (40, 8, '<i2'),
    'intent_code': (68, 1, '<i2'), 'datatype': (70, 1, '<i2'), 'bitpix': (72, 1, '<i2'),
    'pixdim': (76, 8, '<f4'), 'vox_offset': (108, 1, '<f4'), 'scl_slope': (112, 1, '<f4'),
    'scl_inter': (116, 1, '<f4'), 'slice_end': (120, 1, '<i2'), 'slice_code': (122, 1, 'u1'),
    'xyzt_units': (123, 1, 'u1'), 'cal_max': (124, 1, '<f4'), 'descrip': (148, 80, 'u1'),
    'qform_code': (252, 1, '<i2'), 'sform_code': (254, 1, '<i2'), 'quatern': (256, 3, '<f4'),
    'qoffset': (268, 3, '<f4'), 'srow': (280, 12, '<f4'), 'magic': (344, 4, 'u1'),
}  # fmt: skip
DTYPES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 1, 0, 7)

NUMBERS = st.one_of(
    st.floats(width=32), st.integers(-5, 5).map(float), st.floats(0, 1), st.floats(1, 1e5),
    st.sampled_from([0.005, 0.01, 5.0, 3.0, 30000.0, 1e-30, 1e30]),
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=8)
    | st.sampled_from(['rad', 'arbitrary', '0.005', ' 5 ms ', 'n/a', '1e400', 'NaN', '2D', '3D']),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ['EchoTime', 'MagneticFieldStrength', 'ImagingFrequency', 'Units', 'ImageType', 'FlipAngle',
     'MRAcquisitionType', 'PartialFourier', 'EchoTrainLength', 'RepetitionTimeExcitation',
     'NonlinearGradientCorrection', 'Manufacturer', 'SoftwareVersions', 'DwellTime', 'EchoNumber',
     'PhilipsRescaleSlope', 'CoilCombinationMethod', 'SliceThickness', 'IntendedFor', 'x']
)  # fmt: skip
LABELS = st.text('0123456789abcXYZ-_.+é ', max_size=5)


def both(strategies, *examples):
    """Make a fast and a slow test of a property; it is called with what is drawn."""

    def make(check):
        def build(kind):
            run = given(**strategies)(lambda **drawn: check(**drawn))
            for one in examples:
                run = example(**one)(run)
            return kind(run)

        fast, slow = build(FAST), build(SLOW)
        fast.__doc__ = slow.__doc__ = check.__doc__
        return pytest.param(fast, id=check.__name__), pytest.param(
            slow, id=f'{check.__name__}-long', marks=pytest.mark.slow
        )

    return make


# ---- Sidecars -------------------------------------------------------------------------------


def sidecar_fields(name, changes):
    content = json.loads(clean_files()[name]) | changes
    settled = settle({name: json.dumps(content).encode()})
    te = changes.get('EchoTime', None)
    for item in settled.series:
        assert settled.told or te is None or any(np.isclose(te, t) for t in item.te)


def sidecar_everywhere(changes):
    files = {
        name: json.dumps(json.loads(clean_files()[name]) | changes).encode() for name in sidecars()
    }
    settle(files)


def sidecar_bytes(name, content):
    settle({name: content})


def inherited(name, changes):
    settle({name: json.dumps(changes).encode()})


# ---- Images ---------------------------------------------------------------------------------


def headers(name, field, data):
    """A field of one header: the others of the series show what does not fit."""
    content = bytearray(gzip.decompress(clean_files()[name]))
    first, count, kind = FIELDS[field]
    size = np.dtype(kind).itemsize
    place = first + size * data.draw(st.integers(0, count - 1))
    if field == 'datatype':
        value = np.array([data.draw(st.sampled_from(DTYPES))], kind)
    elif kind == '<f4':
        value = np.array([data.draw(NUMBERS)], kind)
    else:
        info = np.iinfo(kind)
        numbers = st.integers(info.min, info.max) | st.integers(0, 40).map(
            lambda n: min(n, info.max)
        )
        value = np.array([data.draw(numbers)], kind)
    content[place : place + size] = value.tobytes()
    judge_image(name, bytes(content))


def header_bytes(name, changes):
    content = bytearray(gzip.decompress(clean_files()[name]))
    for place, value in changes:
        content[place] = value
    judge_image(name, bytes(content))


def judge_image(name, content):
    with np.errstate(all='ignore'):
        settled = settle({name: gzip.compress(content, 1, mtime=0)})
    assert settled.honest, [str(f) for f in settled.findings]


def header_everywhere(field, data):
    """The same change in all headers: nothing can contradict it, but nothing may break."""
    files = {}
    first, count, kind = FIELDS[field]
    size = np.dtype(kind).itemsize
    place = first + size * data.draw(st.integers(0, count - 1))
    raw = data.draw(st.binary(min_size=size, max_size=size))
    for name in images():
        content = bytearray(gzip.decompress(clean_files()[name]))
        content[place : place + size] = raw
        files[name] = gzip.compress(bytes(content), 1, mtime=0)
    with np.errstate(all='ignore'):
        settle(files)


def damaged_files(name, cut, flips):
    """Damage on disk or on the way: the checksum finds it, or it does not matter."""
    content = bytearray(clean_files()[name])
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    content = bytes(content[: max(0, len(content) - cut)])
    settled = settle({name: content})
    assert settled.honest, [str(f) for f in settled.findings]


def any_content(name, content):
    settle({name: content})


# ---- Names ----------------------------------------------------------------------------------


def names(pairs, suffix, part, extension):
    """An image with a name that someone made up, in place of one that is right."""
    tokens = [f'{key}-{label}' for key, label in pairs]
    name = '_'.join(['sub-01', *tokens, f'part-{part}', suffix]) + extension
    old = images()[1]
    settled = settle({
        f'sub-01/anat/{name.replace("/", "")}': clean_files()[old],
        old: None,
    })  # fmt: skip
    assert settled.findings
    assert all(len(item.te) in (1, 2) for item in settled.series)


PROPERTIES = [
    *both({'name': st.sampled_from(sidecars()),
           'changes': st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)})(sidecar_fields),
    *both({'changes': st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)},
          {'changes': {'IntendedFor': False}}, {'changes': {'IntendedFor': None}},
          {'changes': {'MRAcquisitionType': []}})(sidecar_everywhere),
    *both({'name': st.sampled_from([*sidecars(), 'dataset_description.json', 'participants.tsv']),
           'content': st.binary(max_size=40) | st.text(max_size=30).map(str.encode)})(
        sidecar_bytes),
    *both({'name': st.sampled_from(['MEGRE.json', 'part-phase_MEGRE.json', 'echo-1_MEGRE.json',
                                    'sub-01/sub-01_MEGRE.json', 'sub-01/anat/sub-01_MEGRE.json']),
           'changes': st.dictionaries(KEYS, VALUES, max_size=2)})(inherited),
    *both({'name': st.sampled_from(images()), 'field': st.sampled_from(list(FIELDS)),
           'data': st.data()})(headers),
    *both({'name': st.sampled_from(images()),
           'changes': st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1,
                               max_size=4)},
          {'name': images()[0], 'changes': [(267, 64)]},
          {'name': images()[0], 'changes': [(42, 255), (43, 255)]},
          {'name': images()[0], 'changes': [(114, 0), (115, 64)]},
          {'name': images()[0], 'changes': [(118, 128), (119, 63)]},
          {'name': images()[0], 'changes': [(283, 127)]},
          {'name': images()[1], 'changes': [(283, 127)]})(header_bytes),
    *both({'field': st.sampled_from(list(FIELDS)), 'data': st.data()})(header_everywhere),
    *both({'name': st.sampled_from(images()), 'cut': st.just(0) | st.integers(0, 60_000),
           'flips': st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 7)), max_size=3)})(
        damaged_files),
    *both({'name': st.sampled_from(images()),
           'content': st.binary(max_size=400) | st.binary(max_size=400).map(zlib.compress)
           | st.binary(max_size=400).map(gzip.compress)},
          {'name': images()[0], 'content': gzip.compress(b'')})(any_content),
    *both({'pairs': st.lists(st.tuples(st.sampled_from(
               ['ses', 'acq', 'run', 'echo', 'flip', 'coil', 'dir', 'rec', 'x']), LABELS),
               max_size=3),
           'suffix': st.sampled_from(['MEGRE', 'megre', 'T2starw', 'GRE', 'T1w', '']),
           'part': st.sampled_from(['mag', 'phase', 'Phase', 'real', '']),
           'extension': st.sampled_from(['.nii.gz', '.nii', '.NII.GZ', ''])})(names),
]  # fmt: skip


@pytest.mark.parametrize('check', PROPERTIES)
def test_every_input_is_settled(check):
    check()
