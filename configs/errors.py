"""Exit codes, and every error that a user can cause or meet, with its exit code.

Stage2Error                 1
├── ConfigError             2   a setting is unknown, has the wrong type or is out of range
├── DataError               1   annotations, images or a split are unusable
│   ├── SplitError          1   a split shares a scene or is empty
│   └── TooManySkippedError 1   more was skipped than --max_skipped allows
├── WeightsError            1   backbone weights are missing or do not fit
├── DeviceError             1   the device is missing or out of memory
├── ExportError             1   an exported model's output differs from the live model's
├── StorageError           74   the disk is full or fails
├── CheckpointError         4   a checkpoint is damaged or of another kind
└── StoreError              4   a store is damaged or does not fit
    ├── IntegrityError      4   bytes do not match their checksum
    ├── MismatchError       4   recipe or data differ; the message names the field
    │   └── OtherDataError  4   a store was made from other data
    ├── IncompleteError     4   the extraction is not finished
    ├── AccessError        74   a file of a store may not be read; it may be intact
    └── LockedError        75   another job is writing this store

Without an error, a command exits with 0, EXIT_SKIPPED or EXIT_FAULTY; after Ctrl-C with EXIT_INTERRUPTED, after SIGTERM
with EXIT_TERMINATED. A wrong command line exits with 2, another OSError with 74, a full memory or an unexpected error
with 1 (see `configs/process/failures.py`).
"""

from configs.printable import printable

EXIT_SKIPPED = 3  # finished, but damaged items were skipped
EXIT_FAULTY = 4  # `store verify` found damage
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM


class Stage2Error(Exception):
    """Base of all errors that are printed as one sentence; `exit_code` is the exit code of the process."""

    exit_code = 1

    def __str__(self) -> str:
        """The sentence; names in it that come from data cannot change the terminal or add lines."""
        return printable(super().__str__())


class ConfigError(Stage2Error):
    """A setting is unknown, has the wrong type or is out of range."""

    exit_code = 2


class DataError(Stage2Error):
    """Annotations or images are missing or unusable."""


class SplitError(DataError):
    """Two splits share a scene, or a split is empty."""


class TooManySkippedError(DataError):
    """A larger share of the planned items was skipped than the limit allows."""


class WeightsError(Stage2Error):
    """Backbone weights cannot be loaded or do not fit the backbone."""


class DeviceError(Stage2Error):
    """The requested device is missing or out of memory."""


class ExportError(Stage2Error):
    """An exported model's output differs from the live model's, or a file is not an exported model of stage2."""


class StorageError(Stage2Error):
    """The file system refused a write: full, over quota, or failing."""

    exit_code = 74


class CheckpointError(Stage2Error):
    """A checkpoint is damaged, of another kind, or does not fit the model."""

    exit_code = 4


class StoreError(Stage2Error):
    """A feature store is damaged or does not fit the request."""

    exit_code = 4


class IntegrityError(StoreError):
    """Stored bytes do not match their checksum or their description."""


class MismatchError(StoreError):
    """A store has another recipe or other data; the message names the differences."""


class OtherDataError(MismatchError):
    """A store was made from other data; `difference` says so without a remedy, which depends on the command."""

    def __init__(self, difference: str, remedy: str = ""):
        update = "give --update to compute only what is missing or has changed, or another --store"
        super().__init__(f"{difference}; {remedy or update}")
        self.difference = difference


class IncompleteError(StoreError):
    """The extraction of a store is not finished."""


class AccessError(StoreError):
    """A file of a store may not be read, or not now; it may be intact, so it is neither damaged nor replaced."""

    exit_code = 74


class LockedError(StoreError):
    """Another job has locked the store; try again later."""

    exit_code = 75
