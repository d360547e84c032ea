"""The one exception that means: the user can mend this."""

from __future__ import annotations


class FairError(ValueError):
    """A user mistake, told in one sentence that names the key, the value and what to do.

    The command line prints the sentence and exits with code 2; Python callers catch it as a ``ValueError``.
    """


class PeerError(FairError):
    """Another process of the run has ended, or has not answered within the time limit."""
