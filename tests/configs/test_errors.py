"""Every error has the documented exit code."""

import re

from configs import errors
from configs.errors import Stage2Error


def test_exit_codes_are_the_documented_ones() -> None:
    codes = {name: getattr(errors, name).exit_code for name in dir(errors) if name.endswith("Error")}
    assert codes == {
        "Stage2Error": 1,
        "ConfigError": 2,
        "DataError": 1,
        "SplitError": 1,
        "TooManySkippedError": 1,
        "WeightsError": 1,
        "DeviceError": 1,
        "ExportError": 1,
        "StorageError": 74,
        "CheckpointError": 4,
        "StoreError": 4,
        "IntegrityError": 4,
        "MismatchError": 4,
        "OtherDataError": 4,
        "IncompleteError": 4,
        "AccessError": 74,
        "LockedError": 75,
    }
    assert all(issubclass(getattr(errors, name), Stage2Error) for name in codes)
    diagram = dict(re.findall(r"(\w+Error) +(\d+)", str(errors.__doc__)))
    assert {name: int(code) for name, code in diagram.items()} == codes


def test_exit_codes_without_an_error() -> None:
    assert (errors.EXIT_SKIPPED, errors.EXIT_FAULTY, errors.EXIT_INTERRUPTED) == (3, 4, 130)
