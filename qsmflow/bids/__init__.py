"""The BIDS side: datasets to checked series, entities to paths.

``collect`` is the way in, ``derivative_path`` and ``sidecar`` are the way out.
"""

from qsmflow.bids.derivatives import (
    derivative_path,
    sidecar,
    write_dataset_files,
    write_json,
    write_text,
)
from qsmflow.bids.findings import DatasetError, Finding
from qsmflow.bids.plan import plan_as_dict, refusal_as_dict, render_plan
from qsmflow.bids.query import Collection, collect
from qsmflow.bids.series import GRESeries

__all__ = [
    'Collection',
    'DatasetError',
    'Finding',
    'GRESeries',
    'collect',
    'derivative_path',
    'plan_as_dict',
    'refusal_as_dict',
    'render_plan',
    'sidecar',
    'write_dataset_files',
    'write_json',
    'write_text',
]
