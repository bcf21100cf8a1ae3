"""The old name of `redaction_serde.lessons.hexdump`."""
from redaction_serde.lessons.hexdump import *
from redaction_serde.lessons.hexdump import __all__
