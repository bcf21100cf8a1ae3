"""ZenML materializers. Their names under this one stand in ZenML's stores, so each stays importable from here.

Importing this registers them with ZenML, for the types that they store.
"""
from redaction_serde.boxes import box_lists, records_of  # noqa: F401
from redaction_serde.boxes import class_name as name_of  # noqa: F401
from redaction_serde.boxes import image_size as size_of  # noqa: F401
from redaction_serde.document import Document
from redaction_serde.errors import Limits
from redaction_serde.materializers.base import REMEDY, StoredMaterializer, read_at_most, sha256_of  # noqa: F401
from redaction_serde.materializers.collections import (  # noqa: F401
    FILES,
    RECORDS_FILE,
    REPORT_FILE,
    SHEET_FILE,
    COCOBBoxRecordCollectionMaterializer,
    RecordCollection,
    RecordCollectionMaterializer,
    item_stream,
    items_of,
)
from redaction_serde.materializers.datasets import DatasetMaterializer  # noqa: F401
from redaction_serde.materializers.detectors import DetectorMaterializer  # noqa: F401
from redaction_serde.materializers.predictions import PredictionsMaterializer  # noqa: F401
from redaction_serde.materializers.shards import (  # noqa: F401
    MANIFEST_FILE,
    Manifest,
    Shard,
    Sharded,
    read_manifest,
    shard_files,
    shard_name,
    split_document,
)
from redaction_serde.materializers.summaries import (  # noqa: F401
    BOXES_SEEN,
    FAULTS,
    PAGES_SHOWN,
    RECORDS_SEEN,
    ROWS_SHOWN,
    VISUALISATION_BYTES,
    Sample,
    Summary,
    bar_table,
    boxes_per_class,
    judge_boxes,
    most_frequent,
    report_html,
    sample_boxes,
    sheet_png,
    size_histogram,
    spread,
    summarise,
    worst_table,
)


def labelled_boxes(
    record,  # an icevision record
) -> list[tuple]:
    "For each list of boxes of a record: boxes, class ids (None where one is missing), class map. Use `boxes.box_lists`."
    return [(found.boxes, found.label_ids, found.class_map) for found in box_lists(record) if len(found.boxes)]


def rows_at(
    data: bytes,  # a document, in any format
    i: int,  # position of an item, from 0
    limits: Limits = Limits(),  # what to accept
) -> Document:
    "A document of one record or prediction. Use `item_stream`."
    stream = item_stream(data, i, limits)
    return Document(stream.header, [row for block in stream.blocks for row in block.rows])
