"""A second run on the work folder of the first, shared by the tests of the program."""

import shutil

import pytest

from tests.app.helpers import on_terminal


@pytest.fixture(scope='session')
def second_run(app, phantom, base_run):
    """Return a run on the same work folder and a copy of the output that lost some files.

    Its standard error is a terminal.
    """
    out = app.root / 'out2'

    def action():
        shutil.copytree(base_run.out, out, ignore=shutil.ignore_patterns('logs', 'group*'))
        for lost in ('anat/sub-01_Chimap.nii.gz', 'anat/sub-01_atlas-CIT168_stats.tsv'):
            (out / 'sub-01' / lost).unlink()
        shutil.rmtree(out / 'sub-01/figures')
        return on_terminal(app, phantom, out, base_run.work)

    return app.once('second', action)
