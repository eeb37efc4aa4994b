"""What the tests of the whole program share: reading its outputs and comparing them."""

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

VALIDATOR = Path(sys.executable).with_name('bids-validator-deno')
GROUP_FILES = {
    *('group.html', 'group_atlas-CIT168_stats.tsv', 'group_atlas-CIT168_stats.json'),
}
STAMP = r'\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] '


def rows(path):
    with open(path, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def truth(phantom, name):
    anat = phantom / 'derivatives/phantom-truth/sub-01/anat'
    return anat / f'sub-01_{name}'


def load(path):
    return np.asanyarray(nib.load(path).dataobj)


def status(run):
    return {row['name']: (row['status'], row['reason']) for row in rows(run.logs / 'status.tsv')}


def agreement(chimap, mask, phantom, rim=0):
    """Return correlation and slope of a susceptibility map against the truth.

    A ``rim`` of so many voxels is left out.
    """
    inside = load(mask) > 0
    inside = ndimage.binary_erosion(inside, iterations=rim) if rim else inside
    true, found = load(truth(phantom, 'Chimap.nii.gz'))[inside], load(chimap)[inside]
    return np.corrcoef(true, found)[0, 1], np.polyfit(true, found, 1)[0]


def results(folder):
    """Return the bytes of all results; run names and folders in the pages are left out."""
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(('logs/', 'group')):
            content = path.read_bytes()
            if path.suffix == '.html':
                content = re.sub(rb'\d{8}-\d{6}_[0-9a-f-]{36}', b'RUN', content)
                content = content.replace(f'output_dir = &#34;{folder}&#34;'.encode(), b'OUT')
            found[name] = content
    return found


def on_terminal(app, raw, out, work):
    import pty

    ours, theirs = pty.openpty()
    command = app.command(raw, out, 'participant', work=work)
    started = time.time()
    environment = {**os.environ, 'TERM': 'xterm-256color', 'COLUMNS': '120', 'LINES': '40'}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, cwd=app.root, env=environment
    ) as process:
        os.close(theirs)
        shown = b''
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            shown += part
        stdout = process.stdout.read().decode()
    os.close(ours)
    text = shown.decode(errors='replace').replace('\r\n', '\n')
    seconds = time.time() - started
    kind = type(app.once('base', None))
    return kind(process.returncode, stdout, text, started, seconds, str(out), str(work))
