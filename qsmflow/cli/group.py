"""The group level: one table and one page over all subjects."""

import logging
from pathlib import Path

from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')


class NothingToGroupError(RuntimeError):
    """There are no region tables to put together."""

    exit_code = 65


def run(settings: Settings) -> int:
    """Put the region tables of all subjects together.

    Parameters
    ----------
    settings : Settings
        Input and output folder.

    Returns
    -------
    int
        0.

    Raises
    ------
    DatasetError
        If the output folder is that of another program; exit code 2.
    NothingToGroupError
        If the output folder holds no region table.
    """
    from qsmflow.cli.history import mixture, require_own
    from qsmflow.report import build_group

    out_dir = Path(settings.bids.output_dir)
    require_own(out_dir)
    tables = sorted(out_dir.glob('sub-*/**/anat/*_stats.tsv'))
    if not tables:
        raise NothingToGroupError(
            f'{out_dir} holds no region table (sub-*/**/anat/*_stats.tsv). Run the participant '
            'level on this folder first.'
        )
    mixed = [str(finding) for finding in mixture(out_dir, settings.bids.bids_dir)]
    for text in mixed:
        _LOGGER.warning('%s', text)
    participants = Path(settings.bids.bids_dir) / 'participants.tsv'
    info = {'warning': ' '.join(mixed)} if mixed else None
    written = build_group(out_dir, participants if participants.is_file() else None, info)
    for path in written:
        _LOGGER.info('wrote %s', path)
    return 0
