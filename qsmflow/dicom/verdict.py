"""What the BIDS validator and the app's own checks say about what was written."""

from collections.abc import Sequence
from pathlib import Path

from qsmflow.bids import DatasetError, Finding, collect, render_plan
from qsmflow.bids.names import parse_name
from qsmflow.bids.series import series_name
from qsmflow.cli.validation import validated
from qsmflow.dicom.naming import Target


def check_written(
    root: Path,
    participant: str,
    session: str | None,
    targets: Sequence[Target],
    *,
    validate: bool = True,
) -> bool:
    """Check a participant as ``qsmflow --dry-run`` does, and print the result.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    participant, session : str
        Labels.
    targets : sequence of Target
        What was written.
    validate : bool, optional
        Also run the BIDS validator.

    Returns
    -------
    bool
        Whether every acquisition can be processed and the validator, if it ran, has no error
        in files in use.
    """
    print('What qsmflow says about it:\n')
    try:
        collection = collect(
            root, participant_label=[participant], session_label=session and [session]
        )
    except DatasetError as error:
        print('\n'.join(map(str, error.findings)))
        return not any(target.part for target in targets)  # a T1w image before its gradient echo
    if validate:
        collection = validated(collection)
    print(render_plan(collection), flush=True)
    # Only what was written now counts: earlier files of the session may have their own faults.
    written = {target.relative for target in targets}
    series = {_series_name(path) for path in written}
    failed = [name for name, _ in collection.failed if name in series]
    invalid = [item for item in collection.findings if _invalid(item, written)]
    return not failed and not invalid


def _series_name(relative: str) -> str:
    """Return the name that checks give to the series of an image."""
    return series_name(parse_name(relative.rpartition('/')[2])[0])


def _invalid(finding: Finding, written: set[str]) -> bool:
    """Tell whether a finding is an error of the validator that concerns what was written."""
    if finding.code != 'E93' or finding.level != 'WARN':
        return False
    own = {path.removesuffix('.nii.gz') + '.json' for path in written} | written
    return finding.file in own or '/' not in finding.file
