"""The files of one acquisition, sorted into echoes and parts."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from qsmflow.bids import checks_metadata
from qsmflow.bids.checks_files import ImageFacts
from qsmflow.bids.checks_metadata import Echo, SourceFile
from qsmflow.bids.findings import Finding, stopping
from qsmflow.bids.names import join_name, split_extension


def pair_echoes(
    files: Sequence[SourceFile],
    suffix: str,
    selection: Sequence[int] | None = None,
    *,
    r2star_only: bool = False,
) -> tuple[list[Echo], list[Finding]]:
    """Sort the files of a group into echoes and parts, and check that none is missing.

    Parameters
    ----------
    files : sequence of SourceFile
        Files of the group.
    suffix : str
        Their suffix, for the names of files that are missing.
    selection : sequence of int, optional
        Echo numbers to use.
    r2star_only : bool, optional
        Accept a series without phase.

    Returns
    -------
    echoes : list of Echo
        In the order of their numbers.
    findings : list of Finding
        ``A17`` real and imaginary, ``A21`` several files for one echo, ``B28`` no phase, ``B29``
        no magnitude, ``B30`` a file missing, ``B37`` numbers, ``B38`` one echo, ``B47`` one
        image in two files.
    """
    findings = _check_unique(files)
    if findings:
        return [], findings
    numbered = any(source.echo is not None for source in files)
    if selection is not None and numbered:
        missing = sorted(set(selection) - {source.echo for source in files})
        if missing:
            message, remedy = 'a requested echo is not there', 'Correct --echoes.'
            evidence = {'missing': missing, 'echo': sorted({s.echo for s in files if s.echo})}
            name = files[0].relative
            return [], [Finding('B30', 'ERROR', message, name, evidence, remedy)]
        files = [source for source in files if source.echo in selection]
    by_part: dict[str, dict[int, SourceFile]] = defaultdict(dict)
    for source in files:
        by_part[source.part][1 if source.echo is None else source.echo] = source
    needed, findings = _needed_parts(by_part, files[0].relative, r2star_only)
    if stopping(findings):
        return [], findings
    numbers = sorted(set().union(*(by_part[part] for part in needed)))
    for part in needed:
        findings += [
            _missing_file(by_part, part, number, suffix)
            for number in numbers
            if number not in by_part[part]
        ]
    if stopping(findings):
        return [], findings
    echoes = [Echo(n, {part: by_part[part][n] for part in needed}) for n in numbers]
    if selection is None and numbered:
        findings += checks_metadata.check_echo_numbers(echoes)
    return echoes, findings


def _check_unique(files: Sequence[SourceFile]) -> list[Finding]:
    """Check that each echo and part has one file."""
    seen: dict[tuple, list[SourceFile]] = defaultdict(list)
    for source in files:
        seen[source.echo, source.part].append(source)
    findings = []
    for group in seen.values():
        if len(group) == 1:
            continue
        names = [source.relative.rpartition('/')[2] for source in group]
        if len({split_extension(name)[0] for name in names}) == 1:
            code, message = 'B47', 'one image is there in two formats'
            remedy = 'Remove one of them.'
        else:
            code, message = 'A21', 'several files hold the same echo and part'
            remedy = 'Combine the coils before (for example with MCPC-3D-S), or rename the files.'
        evidence = {'files': names}
        findings.append(Finding(code, 'ERROR', message, group[0].relative, evidence, remedy))
    return findings


def _needed_parts(
    by_part: Mapping[str, Mapping[int, SourceFile]], name: str, r2star_only: bool
) -> tuple[tuple[str, ...], list[Finding]]:
    """Decide which parts a group is made of."""
    has = set(by_part)
    if 'complex' in has:
        message = 'complex images are split into magnitude and phase'
        evidence = {'echoes': len(by_part['complex'])}
        return ('complex',), [Finding('C61', 'FIX', message, name, evidence)]
    if 'phase' in has:
        if 'mag' in has:
            return ('phase', 'mag'), []
        message = 'has no magnitude: all voxels get the same weight; no R2*, no regions'
        remedy = 'Add the magnitude if the scanner can export it.'
        evidence = {'echoes': len(by_part['phase'])}
        return ('phase',), [Finding('B29', 'FIX', message, name, evidence, remedy)]
    if {'real', 'imag'} <= has:
        message = 'real and imaginary images are combined'
        evidence = {'real': len(by_part['real']), 'imag': len(by_part['imag'])}
        return ('real', 'imag'), [Finding('A17', 'FIX', message, name, evidence)]
    if has & {'real', 'imag'}:
        message = 'of real and imaginary images, only one is there'
        evidence = {'files': {part: len(by_part[part]) for part in sorted(has)}}
        remedy = 'Add the other, or magnitude and phase.'
        return (), [Finding('A17', 'ERROR', message, name, evidence, remedy)]
    if r2star_only:
        message = 'has no phase: only R2* is mapped, as asked for'
        remedy = 'Export the phase images for a susceptibility map.'
        evidence = {'parts': sorted(has)}
        return ('mag',), [Finding('B28', 'WARN', message, name, evidence, remedy)]
    message = 'has no phase: R2* would be possible, susceptibility is not'
    remedy = (
        'Export the phase images (or real and imaginary) from the scanner, and name them '
        'part-phase. If they are there, check their names. --force r2star-only maps R2* of two '
        'echoes or more.'
    )
    return (), [Finding('B28', 'ERROR', message, name, {'parts': sorted(has)}, remedy)]


def _missing_file(by_part: Mapping, part: str, number: int, suffix: str) -> Finding:
    """Say which file of an echo is not there."""
    other = next(sources[number] for sources in by_part.values() if number in sources)
    folder, _, name = other.relative.rpartition('/')
    extension = split_extension(name)[1]
    entities = {key: value for key, value in other.entities.items() if key != 'part'}
    if part != 'mag' or any(s.entities.get('part') == 'mag' for s in by_part[part].values()):
        entities['part'] = part
    absent = f'{folder}/{join_name(entities, suffix, extension)}'
    message = f'is missing, while {name} is there'
    remedy = 'Copy the file, or choose the echoes to use with --echoes.'
    return Finding('B30', 'ERROR', message, absent, {'echo': number, 'part': part}, remedy)


def order_by_time(
    echoes: list[Echo],
    facts: Mapping[str, ImageFacts],
    selection: Sequence[int] | None,
    volume_index: int | None = None,
) -> tuple[list[Echo], tuple[float, ...], tuple[int, ...] | None, list[Finding]]:
    """Find the echo times and return the echoes in their order.

    Parameters
    ----------
    echoes : list of Echo
        Echoes in the order of their numbers.
    facts : mapping of ImageFacts
        Measured numbers by relative path.
    selection : sequence of int or None
        Echo numbers to use, for a 4-D image positions counted from 1.
    volume_index : int, optional
        Repetition to use, counted from 0, of images that hold several.

    Returns
    -------
    echoes : list of Echo
        In the order of their times; those of a 4-D image share its files.
    te : tuple of float
        Their times, in s.
    volumes : tuple of int or None
        Index of each along the last axis of its images; None if these are 3-D.
    findings : list of Finding
        ``B30`` to ``B40``, ``C64``. If one of them is an error, there are no echoes.
    """
    counts = {s.relative: facts[s.relative].n_volumes for e in echoes for s in e.files.values()}
    several = {name: count for name, count in counts.items() if count > 1}
    descriptions = {name: fact.description for name, fact in facts.items()}
    leader = echoes[0].leader
    repeated = len(echoes) > 1 or not isinstance(leader.metadata.get('EchoTime'), (list, tuple))
    volumes = None
    if not several:
        te, findings = checks_metadata.echo_times(echoes, descriptions)
    elif repeated and volume_index is not None:
        findings = _choose_repetition(several, volume_index)
        te = None
        if not stopping(findings):
            te, found = checks_metadata.echo_times(echoes, descriptions)
            findings += found
            volumes = (volume_index,) * len(echoes)
    elif len(echoes) > 1:
        name = next(iter(several))
        message = 'one of several echo files has several volumes: repetitions'
        remedy = (
            'Store each repetition as its own file with a run entity, or choose one with '
            '--volume-index; phase is never averaged.'
        )
        evidence = {'volumes': several[name]}
        return [], (), None, [Finding('B40', 'ERROR', message, name, evidence, remedy)]
    elif len(set(counts.values())) > 1:
        name = min(counts, key=counts.get)
        evidence, remedy = {'volumes': counts}, 'Convert the complete series again.'
        message = 'magnitude and phase have different numbers of volumes'
        return [], (), None, [Finding('C64', 'ERROR', message, name, evidence, remedy)]
    else:
        n_volumes = counts[leader.relative]
        te, findings = checks_metadata.volume_times(leader, n_volumes)
        echoes = [Echo(n + 1, echoes[0].files) for n in range(n_volumes)]
        if te is not None and selection is not None:
            chosen = [n for n in range(n_volumes) if n + 1 in selection]
            if len(chosen) != len(set(selection)):
                evidence = {'requested': list(selection), 'volumes': n_volumes}
                message, remedy = 'a requested echo is not there', 'Correct --echoes.'
                findings.append(
                    Finding('B30', 'ERROR', message, leader.relative, evidence, remedy)
                )
            echoes, te = [echoes[n] for n in chosen], tuple(te[n] for n in chosen)
        volumes = tuple(echo.index - 1 for echo in echoes)
    if te is None or stopping(findings):
        return [], (), None, findings
    order = sorted(range(len(te)), key=te.__getitem__)
    if len(te) == 1:
        message = 'one echo: the phase offset of the coils cannot be removed, and there is no R2*'
        evidence = {'te_s': list(te)}
        remedy = 'Measure several echoes, if that is possible.'
        name = echoes[0].leader.relative
        findings.append(Finding('B38', 'WARN', message, name, evidence, remedy))
    ordered = [echoes[i] for i in order]
    volumes = None if volumes is None else tuple(volumes[i] for i in order)
    return ordered, tuple(te[i] for i in order), volumes, findings


def _choose_repetition(several: Mapping[str, int], volume_index: int) -> list[Finding]:
    """Check that all images with repetitions have the requested one (``B40``)."""
    name, fewest = min(several.items(), key=lambda item: item[1])
    evidence = {'volume_index': volume_index, 'volumes': fewest}
    if volume_index >= fewest:
        message = 'has no volume of the requested index'
        remedy = f'Give --volume-index from 0 to {fewest - 1}.'
        return [Finding('B40', 'ERROR', message, name, evidence, remedy)]
    message = 'holds repetitions, of which one is used, as asked for'
    return [Finding('B40', 'FIX', message, name, evidence)]


def check_polarity(echoes: Sequence[Echo], te: Sequence[float]) -> list[Finding]:
    """Tell that echoes are left out, so that odd and even ones do not alternate (``B42``).

    Parameters
    ----------
    echoes : sequence of Echo
        Echoes in the order of their times.
    te : sequence of float
        Their times, in s.

    Returns
    -------
    list of Finding
        One INFO, or nothing where readouts of a bipolar scan would alternate.
    """
    numbers = [echo.index for echo in echoes]
    if len(te) < 2 or all((b - a) % 2 for a, b in itertools.pairwise(numbers)):
        return []
    message = (
        'echoes are left out; should the readout be bipolar, its direction follows their numbers'
    )
    evidence = {'echo': numbers, 'odd': [n for n in numbers if n % 2]}
    return [Finding('B42', 'INFO', message, echoes[0].leader.relative, evidence)]
