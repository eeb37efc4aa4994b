"""Why a conversion ends, with the exit code that says so."""


class ConversionError(Exception):
    """The conversion cannot go on.

    Attributes
    ----------
    exit_code : int
        2 for a wrong request, 65 for DICOM data without what is needed, 73 for a folder that
        cannot be written, 127 for a missing program.
    """

    def __init__(self, message: str, exit_code: int = 65) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.exit_code)
