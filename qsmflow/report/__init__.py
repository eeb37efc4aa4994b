"""One self-contained HTML page for each subject, and one for the group.

A page is built from files alone, so it can be rebuilt at any time without computing anything
again, and a stage that failed costs its own figure and no more. For a series with the name
``<series>`` (``sub-01_ses-1_acq-x_run-1``), the subject's page reads, below the output folder:

``sub-X/[ses-Y/]figures/<series>_desc-summary_report.json``
    What was found, done and measured; the schema is below. Each such file makes one section.
``sub-X/[ses-Y/]figures/<series>[_atlas-..]_desc-<reportlet>_<suffix>.(png|svg)``
    Figures. A file of the same name that ends in ``.json`` may hold ``{"caption": str}``, facts
    on this figure that are added to the caption of its kind. The kinds, their order, titles and
    captions are listed in ``qsmflow/data/report_spec.json``.
``sub-X/[ses-Y/]anat/<series>_atlas-<label>_stats.tsv``
    Region statistics, one row for each region, side and map.

Schema of the summary. Every key but ``series`` may be absent; an absent part is left out of the
page, an unknown key is shown at its end.

================  ==========================================================================
``series``        str: the name of the series
``status``        'complete' | 'partial' | 'failed' (default 'complete')
``sources``       list of str: BIDS URIs or paths of the inputs
``acquisition``   dict: BIDS metadata names -> values (``EchoTime`` in s, a list;
                  ``MagneticFieldStrength`` in T; ``ImagingFrequency`` in MHz), and
                  ``VoxelSize`` (mm, a list), ``MatrixSize`` (a list)
``findings``      list of dict: ``code``, ``level`` ('FATAL' | 'ERROR' | 'FIX' | 'WARN' |
                  'INFO'), ``message``, ``file``, ``remedy`` (all str), ``evidence`` (dict or
                  str)
``warnings``      list of str, or of dicts like findings: what happened while computing
``preparation``   dict: ``SliceChopEvidence`` float, ``SliceChopRemoved`` bool
``sign``          dict: ``Sign`` 1 or -1, ``Source`` str, ``Evidence`` float
``bipolar``       dict: ``Tested`` and ``Corrected`` bool, ``Reason`` str, ``Evidence`` float,
                  ``Gradient`` list in rad/mm, ``Span`` in rad
``unwrapping``    dict: ``Requested`` and ``Method`` str, ``Reason`` and ``Note`` str if it failed,
                  ``Tried``, a list of dict: ``Method``, ``Parameters``, ``Failed``,
                  ``ResidualShare`` and ``TurnShare``, shares of the mask
``mask``          dict: ``method`` str, ``volume_ml`` float, ``removed_fraction`` float,
                  ``passed`` bool, ``reasons`` list of str, ...
``reference``     dict: ``region`` str, ``mean`` and ``sd`` in ppm before referencing, ``n``
                  voxels, and as options ``whole_brain_mean``, ``whole_brain_sd`` in ppm after
``registration``  dict: ``passed`` bool, ``score`` float, ``target`` str, ``dice`` float, ...;
                  ``steps``, a list of such dicts where there are several
``dentate``       dict: ``L`` and ``R`` -> ``method``, ``qc``, ``volume_mm3``, ``reason``
``quality``       dict: name -> number
``methods``       str: Markdown with ``[@key]`` citations
``parameters``    dict: stage -> {name: value}
``versions``      dict: package -> version
================  ==========================================================================

Beside the parameters it shows, where they are known, ``regularisation``, a dict with the weight
``RegWeight`` that was taken from the noise ``FieldNoise`` (float or None, in ppm), and
``background_convergence`` and ``inversion_convergence``, dicts with ``Iterations``,
``LastChange`` and ``Converged``.

Modules: ``planes``, ``canvas`` and ``figures`` draw volumes, ``charts`` draws tables,
``citations`` renders the methods text, ``facts`` puts facts into words, ``html`` builds the
subject's page, ``group`` the group's.
"""

from qsmflow.report.citations import CitationError, check_keys, write_citations
from qsmflow.report.group import build_group
from qsmflow.report.html import build_report

__all__ = ['CitationError', 'build_group', 'build_report', 'check_keys', 'write_citations']
