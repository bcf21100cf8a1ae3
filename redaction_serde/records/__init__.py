"""Collections to bytes and back. What stood in the module `records` of the first version is importable from here."""
from redaction_serde.article.names import (  # noqa: F401
    COCOMaterializerParser,
    detection_json_str_to_record_collection,
    detection_record_collection_to_json,
)
from redaction_serde.compat import gc_paused  # noqa: F401
from redaction_serde.records.build import RecordTemplate  # noqa: F401
from redaction_serde.records.classes import metadata_class, register_component  # noqa: F401
from redaction_serde.records.pack import to_document  # noqa: F401
from redaction_serde.records.parse import parse_coco  # noqa: F401
from redaction_serde.records.verbs import (  # noqa: F401
    dumps,
    from_document,
    iter_records,
    load,
    load_record,
    loads,
    save,
    write_records,
)
