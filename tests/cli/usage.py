"""What a command line is refused with."""

import pytest

from qsmflow.cli.parser import parse_args


def refuse(capsys, argv) -> str:
    """Parse what must be refused as wrong usage; return the message."""
    with pytest.raises(SystemExit) as caught:
        parse_args(argv)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.rstrip().endswith('exit code 2 (usage error).')
    return message
