"""Store icevision record collections losslessly and safely.

    import redaction_serde as rs
    rs.save(collection, 'pages.json')
    again = rs.load('pages.json')
    assert rs.compare(collection, again)

Importing this package is cheap: a name is fetched from its module when it is first used, and only then
are icevision and torch imported.
"""
__version__ = "0.1.0"

_HOMES = {
    'records': ('dumps', 'loads', 'save', 'load', 'load_record', 'to_document', 'from_document', 'iter_records', 'write_records', 'parse_coco', 'register_component'),
    'fidelity': ('compare', 'round_trip'),
    'schema': ('SerdeError', 'EncodeError', 'DecodeError', 'LimitError', 'VersionError', 'UnknownComponentError', 'Limits'),
    'formats': ('RecoveryWarning', 'check'),
    'detectors': ('save_detector', 'load_detector'),
    'compat': ('prepare_icevision', 'prepare_zenml'),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name):
    if name not in _HOME_OF: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    value = globals()[name] = getattr(import_module(f'{__name__}.{_HOME_OF[name]}'), name)
    return value


def __dir__(): return sorted({*globals(), *__all__})
