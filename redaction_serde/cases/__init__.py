"""The old name of `redaction_serde.lessons.cases`."""
from redaction_serde.lessons.cases import *
from redaction_serde.lessons.cases import __all__
