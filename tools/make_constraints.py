"""Write constraints.txt: the versions of everything that ``qsmflow[test]`` needs.

Run it in an environment where the package and its tests work::

    python tools/make_constraints.py > constraints.txt
"""

import re
import sys
from importlib import metadata

from packaging.requirements import Requirement

PACKAGE = 'qsmflow'
EXTRAS = ('test',)


def normalise(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def closure(name: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of a package and of all it needs, by normalised name."""
    found: dict[str, str] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo = [(name, extras)]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        try:
            distribution = metadata.distribution(current[0])
        except metadata.PackageNotFoundError:
            sys.exit(f'{current[0]} is not installed here')
        found[normalise(current[0])] = distribution.version
        for line in distribution.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(
                marker.evaluate({'extra': extra}) for extra in ('', *current[1])
            ):
                todo.append((normalise(requirement.name), tuple(sorted(requirement.extras))))
    return found


def main() -> None:
    versions = closure(PACKAGE, EXTRAS)
    del versions[PACKAGE]
    print('# Versions that are tested together; made by tools/make_constraints.py.')
    for name, version in sorted(versions.items()):
        print(f'{name}=={version}')


if __name__ == '__main__':
    main()
