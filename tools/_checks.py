"""What the scripts share that run the program as users do: a report, and states of folders."""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Report:
    """Prints what was found as it is found, and remembers what failed."""

    def __init__(self):
        self.failed: list[str] = []

    def check(self, holds: bool, what: str, found='') -> None:
        """Print one line for something that was promised."""
        print(f'{"ok  " if holds else "FAIL"}  {what}{f": {found}" if found != "" else ""}')
        sys.stdout.flush()
        if not holds:
            self.failed.append(what)

    def end(self) -> int:
        """Print what failed once more, and return the exit status."""
        for what in self.failed:
            print(f'FAIL  {what}', file=sys.stderr)
        return 1 if self.failed else 0


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Return time of change and content of every file, and the time of every folder."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else '',
        )
        for path in [folder, *sorted(folder.rglob('*'))]
    }


def outputs(folder: Path) -> set[str]:
    """Return the files below a folder, the name of a run's log folder replaced by ``RUN``."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
    return {re.sub(r'^logs/[^/]+/', 'logs/RUN/', name) for name in names}


def version() -> str:
    """Return the version of the package in the source."""
    source = (ROOT / 'qsmflow/__init__.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", source)[1]
