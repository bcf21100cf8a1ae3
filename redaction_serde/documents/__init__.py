"""The old name of `redaction_serde.lessons.pages`."""
from redaction_serde.lessons.pages import *
from redaction_serde.lessons.pages import __all__
