"""Sidecars of one folder that apply to one image together, which BIDS does not allow (``B52``).

pybids merges them in the order of their names. Here the one with more entities wins, as it does
between folders.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qsmflow.bids.checks_dataset import read_json
from qsmflow.bids.findings import Finding
from qsmflow.bids.grouping import Image, applies
from qsmflow.bids.names import parse_name


def resolve_sidecars(
    images: Sequence[Image], root: Path, broken: Iterable[str]
) -> tuple[list[Image], dict[str, list[Finding]]]:
    """Merge the sidecars of images that have several of one folder, the most specific last.

    Parameters
    ----------
    images : sequence of Image
        Gradient-echo images.
    root : pathlib.Path
        Root of the dataset.
    broken : iterable of str
        Sidecars that cannot be read, below the root.

    Returns
    -------
    images : list of Image
        The same, with merged metadata where needed.
    findings : dict of list of Finding
        ``B52`` by path of the image: WARN where they contradict each other, else INFO. Images
        with the same sidecars share one finding, that of the first.
    """
    skipped = set(broken)
    candidates: dict[str, list[str]] = {}
    contents: dict[str, dict[str, Any]] = {}
    resolved, findings = [], {}
    told: set[tuple[str, ...]] = set()
    for image in images:
        chain = _chain(image, root, candidates, skipped)
        crowded = [names for names in chain if len(names) > 1]
        if not crowded:
            resolved.append(image)
            continue
        merged: dict[str, Any] = {}
        for name in (name for names in chain for name in names):
            if name not in contents:
                contents[name] = read_json(root / name, name)[0]
            merged |= contents[name]
        resolved.append(dataclasses.replace(image, metadata=merged))
        for names in crowded:
            if names not in told:
                told.add(names)
                found = _finding(image, names, contents)
                findings.setdefault(image.path, []).append(found)
    return resolved, findings


def _chain(
    image: Image, root: Path, candidates: dict[str, list[str]], skipped: set[str]
) -> list[tuple[str, ...]]:
    """Return the sidecars of an image by folder, from the root down, the most specific last."""
    parts = image.relative.split('/')[:-1]
    folders = ['/'.join(parts[:n]) for n in range(len(parts) + 1)]
    chain = []
    for folder in folders:
        if folder not in candidates:
            paths = sorted((root / folder).glob('*.json'))
            candidates[folder] = [path.relative_to(root).as_posix() for path in paths]
        names = [
            name
            for name in candidates[folder]
            if name not in skipped and applies(name, image.relative)
        ]
        chain.append(tuple(sorted(names, key=lambda name: (_entities(name), name))))
    return chain


def _entities(name: str) -> int:
    return len(parse_name(name.rpartition('/')[2])[0])


def _finding(image: Image, names: tuple[str, ...], contents: dict[str, dict]) -> Finding:
    """Tell which sidecars compete, and in which fields."""
    values: dict[str, list] = defaultdict(list)
    for name in names:
        for key, value in contents[name].items():
            values[key].append(value)
    differing = sorted(key for key, own in values.items() if any(v != own[0] for v in own))
    short = [name.rpartition('/')[2] for name in names]
    message = f'several sidecars of one folder apply; {short[-1]} wins, as the most specific'
    evidence = {'sidecars': short, 'contradict_in': differing}
    remedy = 'Merge them into one: BIDS allows one sidecar for each folder and image.'
    level = 'WARN' if differing else 'INFO'
    return Finding('B52', level, message, image.relative, evidence, remedy)
