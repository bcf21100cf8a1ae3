"""Store icevision record collections losslessly and safely.

    import redaction_serde as rs
    rs.save(collection, 'pages.json')
    again = rs.load('pages.json')
    assert rs.compare(collection, again)

Importing this package is cheap: a name is fetched from its room when it is first used, and only then
are icevision and torch imported, if that room needs them.
"""
__version__ = "0.2.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redaction_serde.autofix import FixReport, autofixed
    from redaction_serde.checks import check
    from redaction_serde.coco.losses import LossyError
    from redaction_serde.coco.read import CocoWarning, read_coco
    from redaction_serde.coco.write import write_coco
    from redaction_serde.compat import prepare_icevision, prepare_zenml
    from redaction_serde.datasets import OpenedDataset, Part, open_dataset, write_dataset
    from redaction_serde.detectors import load_detector, save_detector
    from redaction_serde.editing import filter_objects
    from redaction_serde.errors import (
        DecodeError,
        EncodeError,
        LimitError,
        Limits,
        Problem,
        SerdeError,
        UnknownComponentError,
        VersionError,
    )
    from redaction_serde.fidelity import compare, round_trip
    from redaction_serde.merging import merge
    from redaction_serde.opened import OpenedCollection, open_collection, open_collection as open
    from redaction_serde.records.build import ImagesWarning
    from redaction_serde.records.classes import register_component
    from redaction_serde.records.pack import to_document
    from redaction_serde.records.parse import parse_coco
    from redaction_serde.records.verbs import (
        dumps,
        from_document,
        iter_records,
        load,
        load_record,
        loads,
        save,
        write_records,
    )
    from redaction_serde.shards import map_shards, reduce_shards
    from redaction_serde.wire.jsonl import RecoveryWarning

_ROOMS = {  # the same as above, for those who run; a test compares the two
    'autofix': ('FixReport', 'autofixed'),
    'checks': ('check',),
    'coco.losses': ('LossyError',),
    'coco.read': ('CocoWarning', 'read_coco'),
    'coco.write': ('write_coco',),
    'compat': ('prepare_icevision', 'prepare_zenml'),
    'datasets': ('OpenedDataset', 'Part', 'open_dataset', 'write_dataset'),
    'detectors': ('load_detector', 'save_detector'),
    'editing': ('filter_objects',),
    'errors': (
        'DecodeError',
        'EncodeError',
        'LimitError',
        'Limits',
        'Problem',
        'SerdeError',
        'UnknownComponentError',
        'VersionError',
    ),
    'fidelity': ('compare', 'round_trip'),
    'merging': ('merge',),
    'opened': ('OpenedCollection', 'open_collection'),
    'records.build': ('ImagesWarning',),
    'records.classes': ('register_component',),
    'records.pack': ('to_document',),
    'records.parse': ('parse_coco',),
    'records.verbs': (
        'dumps',
        'from_document',
        'iter_records',
        'load',
        'load_record',
        'loads',
        'save',
        'write_records',
    ),
    'shards': ('map_shards', 'reduce_shards'),
    'wire.jsonl': ('RecoveryWarning',),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_OTHER_NAMES = {'open': 'open_collection'}  # not in __all__: no star import takes Python's own `open` away
__all__ = sorted(_ROOM_OF)  # noqa: PLE0605

if not TYPE_CHECKING:  # or a type checker would find any name at all

    def __getattr__(name: str) -> Any:
        "A name of the front door, from its room."
        in_room = _OTHER_NAMES.get(name, name)
        if in_room not in _ROOM_OF:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        value = getattr(import_module(f'{__name__}.{_ROOM_OF[in_room]}'), in_room)
        globals()[name] = value
        return value


def __dir__() -> list:
    "Names that are there, and those that come when they are asked for."
    return sorted({*globals(), *__all__, *_OTHER_NAMES})
