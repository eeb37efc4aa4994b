"""Take the time stamps out of HDF5 files, so that the same transform gives the same bytes.

ITK writes composite transforms as HDF5, whose object headers of version 2 hold four times and end
in a checksum of their own. Times are set to zero and the checksums are made anew; nothing else is
touched. The layout is that of the HDF5 File Format Specification, version 3.0, section IV.A.1.b.
"""

import os
from pathlib import Path

_SIGNATURE = b'OHDR'
_HAS_TIMES, _HAS_PHASES = 0x20, 0x10
_MASK = 0xFFFFFFFF


def remove_times(path: str | os.PathLike) -> int:
    """Set the times in the object headers of an HDF5 file to zero.

    Parameters
    ----------
    path : path-like
        File with object headers of version 2; it is changed in place. Bytes that look like a
        header but have no valid checksum are left alone.

    Returns
    -------
    int
        Number of headers that had times.
    """
    content = bytearray(Path(path).read_bytes())
    changed, start = 0, content.find(_SIGNATURE)
    while start >= 0:
        changed += _clear(content, start)
        start = content.find(_SIGNATURE, start + 4)
    if changed:
        Path(path).write_bytes(content)
    return changed


def _clear(content: bytearray, start: int) -> bool:
    """Clear the times of the header at ``start``; False if there is none with times."""
    if len(content) < start + 6:
        return False
    version, flags = content[start + 4 : start + 6]
    if version != 2 or not flags & _HAS_TIMES:
        return False
    place = start + 6 + 16 + (4 if flags & _HAS_PHASES else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(content[place : place + width], 'little')
    end = place + width + size
    if end + 4 > len(content):
        return False
    stored = int.from_bytes(content[end : end + 4], 'little')
    if lookup3(bytes(content[start:end])) != stored:
        return False
    content[start + 6 : start + 22] = bytes(16)
    content[end : end + 4] = lookup3(bytes(content[start:end])).to_bytes(4, 'little')
    return True


def lookup3(data: bytes) -> int:
    """Return the checksum of HDF5 metadata.

    Parameters
    ----------
    data : bytes
        What it covers.

    Returns
    -------
    int
        32 bits.

    References
    ----------
    Jenkins B. lookup3.c, function ``hashlittle``, 2006, in the public domain.

    Examples
    --------
    >>> f'{lookup3(b"Four score and seven years ago"):08x}'
    '17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    words = data + bytes(-len(data) % 12)
    for start in range(0, len(words), 12):
        a = (a + int.from_bytes(words[start : start + 4], 'little')) & _MASK
        b = (b + int.from_bytes(words[start + 4 : start + 8], 'little')) & _MASK
        c = (c + int.from_bytes(words[start + 8 : start + 12], 'little')) & _MASK
        a, b, c = (_mix if start + 12 < len(words) else _final)(a, b, c)
    return c


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _rotate(c, bits)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, bits)) & _MASK
        a, b, c = b, c, a
    return c, a, b
