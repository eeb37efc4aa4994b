"""What the program must not care about: paths, rights, locale, network, private fields.

They are no defects, and nothing may be told of them. They are made all at once for one run.
"""

from dataclasses import dataclass, field
from pathlib import Path

from .dataset import Dataset
from .registry import defect

#: Spaces, quotes, brackets, what a shell or a pattern reads, letters of no code page, a last dot.
STRANGE = "a b [é]; $x & 'q' {1,2} (東) #%."
SECRETS = ('Sécret^Person', '1999-12-31T23:59:59', 'Hospital of Nowhere', 'ID-4711-X')
NO_NETWORK = """
import socket
plain = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError('the network was used: %r' % (address,))
    return plain(self, address)
socket.socket.connect = socket.socket.connect_ex = connect
def lookup(*a, **k):
    raise OSError('a name was looked up: %r' % (a,))
socket.getaddrinfo = lookup
"""


@dataclass
class Surroundings:
    """Where a run will happen: folder and names, environment, and how Python starts."""

    folder: Path
    dataset: Dataset
    suffix: str = ''
    environ: dict[str, str] = field(default_factory=dict)
    site: str = ''

    def path(self, name: str) -> Path:
        """Return the path of dataset, output or work folder."""
        return self.folder / f'{name}{self.suffix}'


def indifferent(code: str):
    """Register what must make no difference."""
    return defect(code, '', 0, stage='surroundings')


@indifferent('E94')
def strange_paths(place):
    place.folder = place.folder / STRANGE
    place.suffix = f' {STRANGE}'
    place.folder.mkdir()
    place.dataset.root = place.dataset.root.rename(place.path('ds'))


@indifferent('E105')
def no_network(place):
    place.site += NO_NETWORK


@indifferent('E106')
def locale_without_utf8(place):
    place.environ |= {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}


@indifferent('E109')
def private_fields(place):
    names = ('PatientName', 'AcquisitionDateTime', 'InstitutionName', 'PatientID')
    place.dataset.edit_all(**dict(zip(names, SECRETS, strict=True)))
    for path in place.dataset.images():
        place.dataset.rewrite(path, lambda data: data, description=SECRETS[3])


@indifferent('E95')
def read_only_dataset(place):
    """The last one, as nothing can be changed afterwards."""
    root = place.dataset.root
    for path in [root, *root.rglob('*')]:
        path.chmod(0o555 if path.is_dir() else 0o444)
