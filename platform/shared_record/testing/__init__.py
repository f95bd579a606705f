"""For plugin authors: tests that hold for every plugin of a kind, and what they need.

A test class of a plugin subclasses a contract and fills in what only its author knows. With pytest, nothing else is to
be set up; the core neither starts nor needs a database for it.
"""

from shared_record.testing.exports import ExportFormatContract
from shared_record.testing.stepup import NoWayOut, SentMail, StepUpKit, StepUpMethodContract

__all__ = ["ExportFormatContract", "NoWayOut", "SentMail", "StepUpKit", "StepUpMethodContract"]
