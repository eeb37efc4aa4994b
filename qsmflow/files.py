"""Files that appear under their name only when they are complete."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def completed(path: str | os.PathLike) -> Iterator[Path]:
    """Give a place to write to, and move what was written to its name at the end.

    A run that is killed, or a disk that is full, leaves no half file under the final name; two
    runs that write one file leave the whole of either. Folders are made.

    Parameters
    ----------
    path : path-like
        Final name.

    Yields
    ------
    Path
        Hidden file beside it, with the same extension.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with completed(Path(folder) / 'table.tsv') as partial:
    ...         _ = partial.write_text('a')
    ...     [entry.name for entry in Path(folder).iterdir()]
    ['table.tsv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.part-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}')
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
    r"""Write a text file in UTF-8 with ``\n`` line ends; it appears complete or not at all.

    Returns
    -------
    Path
        The file, absolute.
    """
    with completed(path) as partial:
        partial.write_text(text, encoding='utf-8', newline='\n')
    return Path(os.path.abspath(path))


def remove_partial(folder: str | os.PathLike) -> None:
    """Remove what a killed run was writing below a folder that this run has for itself."""
    for path in Path(folder).glob('**/.part-*'):
        path.unlink(missing_ok=True)
