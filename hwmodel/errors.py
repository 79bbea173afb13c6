"""What hwmodel raises."""


class BlobError(ValueError):
    """Encoded weights are damaged or hostile; the message is one sentence."""


class MemoryFileError(ValueError):
    """A memory specification cannot be used; the message is one sentence."""
