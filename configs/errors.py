"""Every error that a user can cause or meet, each with the exit code that the command line gives it.

Stage2Error                 1
├── ConfigError             2   a setting is unknown, of the wrong type or out of range
├── DataError               1   annotations, images or a split are unusable
│   ├── SplitError          1   a split shares a scene or is empty
│   └── TooManySkippedError 1   more was skipped than --max_skipped allows
├── WeightsError            1   backbone weights cannot be had or do not fit
├── DeviceError             1   the device is missing or out of memory
├── ExportError             1   an exported model does not answer as the live one does
├── StorageError           74   the disk is full or fails
├── CheckpointError         4   a checkpoint is damaged or of another kind
└── StoreError              4   a store is damaged or not what was asked for
    ├── IntegrityError      4   bytes do not match their checksum
    ├── MismatchError       4   recipe or data differ; the differing field is named
    ├── IncompleteError     4   the extraction has not finished
    └── LockedError        75   another job is writing this store
"""


class Stage2Error(Exception):
    """Base of all errors that are reported in one sentence; `exit_code` is the process's exit status."""

    exit_code = 1


class ConfigError(Stage2Error):
    """A setting is unknown, has the wrong type or lies out of range."""

    exit_code = 2


class DataError(Stage2Error):
    """Annotations or images are missing or unusable."""


class SplitError(DataError):
    """A split shares a scene between its parts, or a part of it is empty."""


class TooManySkippedError(DataError):
    """A larger share of the planned items was skipped than the limit allows."""


class WeightsError(Stage2Error):
    """Backbone weights cannot be had, or do not fit the backbone."""


class DeviceError(Stage2Error):
    """The device that was asked for is missing or out of memory."""


class ExportError(Stage2Error):
    """An exported model does not answer as the live one does, or holds no model of this product."""


class StorageError(Stage2Error):
    """The file system refused a write: full, over quota, or failing."""

    exit_code = 74


class CheckpointError(Stage2Error):
    """A checkpoint is damaged, of another kind, or does not fit the model."""

    exit_code = 4


class StoreError(Stage2Error):
    """A feature store is damaged or not what was asked for."""

    exit_code = 4


class IntegrityError(StoreError):
    """Stored bytes do not match their checksum or their own description."""


class MismatchError(StoreError):
    """A store was made by another recipe or from other data; the message names what differs."""


class IncompleteError(StoreError):
    """A store's extraction has not finished."""


class LockedError(StoreError):
    """Another job holds the store's lock; try again later."""

    exit_code = 75
