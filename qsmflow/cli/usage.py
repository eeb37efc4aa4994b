"""How the command line shows help, and how it ends a usage error."""

import argparse
import sys
from collections.abc import Mapping

POSITIONALS_FIRST = 'BIDS_DIR, OUTPUT_DIR and {participant,group} come before all options'


def refusal(
    code: str, message: str, remedy: str, where: object = '', evidence: Mapping | None = None
) -> str:
    """Write why nothing is run, in the words of a finding of level FATAL.

    :class:`qsmflow.bids.findings.Finding` itself comes with libraries, which must not be loaded
    before their environment is set.

    Parameters
    ----------
    code : str
        Of :data:`qsmflow.bids.catalog.FINDINGS`.
    message : str
        What is wrong, without a full stop.
    remedy : str
        What to do: a sentence.
    where : path-like, optional
        File or folder.
    evidence : mapping, optional
        Values that it rests on.

    Examples
    --------
    >>> refusal('E96', 'OUTPUT_DIR is a file', 'Give a folder.', '/out', {'BIDS_DIR': '/raw'})
    '[FATAL E96] /out: OUTPUT_DIR is a file (BIDS_DIR=/raw). Give a folder.'
    """
    place = f'{where}: ' if str(where) else ''
    facts = ', '.join(f'{key}={value}' for key, value in (evidence or {}).items())
    return f'[FATAL {code}] {place}{message}{f" ({facts})" if facts else ""}. {remedy}'


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Show one spelling of each option, and its value once."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=30, width=100)

    def _format_action_invocation(self, action):
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = [name for name in action.option_strings if '_' not in name]
        shown = [name for name in names if not name.startswith('--')][:1]
        shown += [name for name in names if name.startswith('--')][:1]
        if action.nargs == 0:
            return ', '.join(shown)
        default = self._get_default_metavar_for_optional(action)
        return f'{", ".join(shown)} {self._format_args(action, default)}'


class Parser(argparse.ArgumentParser):
    """A parser that ends a usage error by naming the exit code."""

    def error(self, message):
        """Print the message and leave with exit code 2."""
        if 'are required' in message:
            # Options with several values swallow what follows them.
            message += f' ({POSITIONALS_FIRST})'
        self.print_usage(sys.stderr)
        self.exit(
            2,
            f'{self.prog}: error: {message}\n'
            f'{self.prog}: nothing was run; exit code 2 (usage error).\n',
        )
