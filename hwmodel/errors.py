"""What hwmodel raises."""


class BlobError(ValueError):
    """Encoded weights are damaged or hostile; the message is one sentence."""
