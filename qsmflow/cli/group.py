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
    NothingToGroupError
        If the output folder holds no region table.
    """
    from qsmflow.report import build_group

    out_dir = Path(settings.bids.output_dir)
    tables = sorted(out_dir.glob('sub-*/**/anat/*_stats.tsv'))
    if not tables:
        raise NothingToGroupError(
            f'{out_dir} holds no region table (sub-*/**/anat/*_stats.tsv). Run the participant '
            'level on this folder first.'
        )
    participants = Path(settings.bids.bids_dir) / 'participants.tsv'
    written = build_group(out_dir, participants if participants.is_file() else None)
    for path in written:
        _LOGGER.info('wrote %s', path)
    return 0
