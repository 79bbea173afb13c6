"""The answer no, with its reason."""


class NotPrunable(Exception):  # noqa: N818 - an answer, not an error: it carries a reason
    """Why a constant is not a weight that can be pruned, in one clause."""
