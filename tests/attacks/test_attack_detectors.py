"""Cards of detectors: what is no whole number, out of its range or far too large is refused with its place, before anything is built."""

import hashlib
import json
import tracemalloc

import pytest
import torch

from redaction_serde import detectors as d
from redaction_serde.errors import DecodeError, LimitError, SerdeError, VersionError
from icevision.core import ClassMap


@pytest.fixture(scope='module')
def files():
    return d.dumps_detector(d.make_detector(ClassMap(['a']), image_size=(64, 64)))


def changed(card, **changes):
    "A card with something changed, by the path of keys."
    plain = json.loads(card)
    for path, value in changes.items():
        *keys, last = path.split('__')
        inner = plain
        for key in keys:
            inner = inner[key]
        inner[last] = value
    return json.dumps(plain).encode()


def build(**changes):
    return {f'build__{name}': value for name, value in changes.items()}


def anchors(size, ratio):
    return build(anchors=dict(sizes=[[size]] * 5, aspect_ratios=[[ratio]] * 5))


CARDS = {
    'no classes': (build(class_map=dict(classes=[])), '$.build.class_map'),
    'half a point': (build(model_type='keypoint_rcnn', args=dict(num_keypoints=1.5)), '$.build.args.num_keypoints'),
    'points as a float': (
        build(model_type='keypoint_rcnn', args=dict(num_keypoints=1e6)),
        '$.build.args.num_keypoints',
    ),
    'a million points': (
        build(model_type='keypoint_rcnn', args=dict(num_keypoints=1_000_000)),
        '$.build.args.num_keypoints',
    ),
    'no points': (build(model_type='keypoint_rcnn', args=dict(num_keypoints=0)), '$.build.args.num_keypoints'),
    'half a detection': (build(args=dict(detections_per_img=0.5)), '$.build.args.detections_per_img'),
    'half a candidate': (build(args=dict(topk_candidates=0.5)), '$.build.args.topk_candidates'),
    'a threshold of a million': (build(args=dict(nms_thresh=1_000_000)), '$.build.args.nms_thresh'),
    'a threshold that is no number': (build(args=dict(score_thresh=float('nan'))), '$'),
    'a bool for a number': (build(args=dict(score_thresh=True)), '$.build.args'),
    'a number of 400 digits': (build(args=dict(score_thresh=10**400)), '$.build.args.score_thresh'),
    'tiny anchors': (anchors(1e-300, 1), '$.build.anchors.sizes[0][0]'),
    'endless anchors': (anchors(8, 1e-9), '$.build.anchors.aspect_ratios[0][0]'),
    'an image of no width': (build(image_size=[0, 64]), '$.build.image_size[0]'),
    'an image of 8192 x 8192': (build(image_size=[8192, 8192]), '$.build.image_size'),
    'an image of half a pixel': (build(image_size=[0.5, 64]), '$.build.image_size[0]'),
    '300,000 numbers for names': (dict(frozen=[1] * 300_000), '$.frozen[0]'),
    'version 0': (dict(version=0), '$.version'),
    'a version that is true': (dict(version=True), '$.version'),
    'weights of negative size': (dict(weights__size=-1), '$.weights.size'),
    'a negative number of tensors': (dict(weights__tensors=-1), '$.weights.tensors'),
    'a class map that refers to itself': (
        build(class_map=dict(classes=['a', {'$dict': [[[1], 2]]}])),
        '$.build.class_map',
    ),
} | {
    f'faster_rcnn {name}': (build(model_type='faster_rcnn', args={name: 0.5}), f'$.build.args.{name}')
    for name, range_ in d.KINDS['faster_rcnn'].args.items()
    if range_.whole
}


@pytest.mark.parametrize('case', CARDS)
def test_cards(case, files):
    changes, place = CARDS[case]
    with pytest.raises(DecodeError) as e:
        d.read_card(changed(files[0], **changes))
    assert any(p.path.startswith(place) for p in e.value.problems), e.value
    assert len(e.value.problems) <= 1000 and len(str(e.value)) < 5000


@pytest.mark.parametrize(
    'args',
    [
        dict(detections_per_img=0),
        dict(detections_per_img=1_000_000),
        dict(score_thresh=0),
        dict(score_thresh=1),
        dict(nms_thresh=0.5),
    ],
    ids=str,
)
def test_what_is_in_range_is_taken(args, files):
    assert d.read_card(changed(files[0], **build(args=args))).build.args == args


def test_a_version_of_400_digits(files):
    with pytest.raises(VersionError) as e:
        d.read_card(changed(files[0], version=10**400))
    assert len(str(e.value)) < 300


def fitted(card, weights, **changes):
    "A card whose hash and size are those of some weights."
    return changed(
        card, weights__sha256=hashlib.sha256(weights).hexdigest(), weights__size=len(weights), **changes
    ), weights


def header(text, body=b''):
    return len(text).to_bytes(8, 'little') + text + body


WEIGHTS = {
    'empty': b'',
    'header of 2**63': b'\xff' * 7 + b'\x7f' + b'x' * 20,
    'no tensors': header(b'{}'),
    'deep header': header(b'{"a":' * 100_000 + b'1' + b'}' * 100_000),
    'tensor beyond the end': header(b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'),
    'shape of 0 x 2**63': header(
        b'{"a":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}'
    ),
    '12,000 empty tensors': header(
        json.dumps({str(i): dict(dtype='F32', shape=[0], data_offsets=[0, 0]) for i in range(12_000)}).encode()
    ),
}


@pytest.mark.parametrize('case', WEIGHTS)
def test_weights(case, files):
    with pytest.raises((DecodeError, LimitError)) as e:
        d.loads_detector(*fitted(files[0], WEIGHTS[case]))
    assert e.value.path.startswith('$.weights') and len(e.value.problems) <= 1000


def test_many_tensors_are_not_all_listed(files):
    data = WEIGHTS['12,000 empty tensors']
    with pytest.raises(DecodeError) as e:
        d.loads_detector(*fitted(files[0], data, weights__tensors=12_000))
    assert len(e.value.problems) == 1000


def test_the_number_of_tensors_is_checked(files):
    with pytest.raises(DecodeError, match='expected 7 tensors, found'):
        d.loads_detector(changed(files[0], weights__tensors=7), files[1])


@pytest.mark.parametrize('size', [(2896, 2896), (1024, 8192)], ids=str)
def test_a_large_page_is_taken(size, files):
    assert d.read_card(changed(files[0], **build(image_size=size))).build.image_size == size


def harmless(card, weights):
    """What a detector is loaded as, for less memory of Python's than the bytes that were read; torch takes the weights once more."""
    tracemalloc.start()
    try:
        return d.loads_detector(card, weights)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 2 * (len(card) + len(weights)) + 50_000_000


def test_a_card_without_libraries_says_less_and_changes_nothing(files):
    """They are for people; what is written again says what is installed."""
    found = harmless(changed(files[0], libraries={}), files[1])
    assert d.dumps_detector(found) == files


def test_metadata_of_900_kb_beside_the_weights_change_nothing(files):
    start = 8 + int.from_bytes(files[1][:8], 'little')
    told = json.loads(files[1][8:start]) | {'__metadata__': {'x': 'y' * 900_000}}
    weights = header(json.dumps(told).encode(), files[1][start:])
    assert d.dumps_detector(harmless(*fitted(files[0], weights))) == files


def test_a_header_of_more_than_a_megabyte_is_refused(files):
    told = header(json.dumps({'__metadata__': {'x': 'y' * d.MAX_TENSOR_HEADER}}).encode())
    with pytest.raises(LimitError, match='header of the weights has more than') as e:
        d.loads_detector(*fitted(files[0], told))
    assert e.value.path == '$.weights'


def test_weights_that_are_no_numbers_come_back_as_they_are_and_find_nothing(files):
    """So does what training has made of a model that diverged."""
    weights = files[1][:-400_000] + b'\xff' * 400_000
    card, weights = fitted(files[0], weights)
    found = harmless(card, weights)
    assert any(x.isnan().any() for x in found.model.state_dict().values())
    assert d.dumps_detector(found)[1] == weights
    with torch.no_grad():
        (boxes,) = found.model([torch.zeros(3, 64, 64)])
    assert not (boxes['scores'] > 0).any()


def test_100_000_classes_need_weights_for_them(files):
    """The model is built without memory for its tensors, and the weights are not those of so many classes."""
    names = [f'{i}' for i in range(100_000)]
    with pytest.raises(DecodeError) as e:
        harmless(changed(files[0], **build(class_map=dict(classes=names))), files[1])
    assert all(problem.path.startswith('$.weights.head') for problem in e.value.problems)
    assert 'expected torch.float32 of shape [900000]' in str(e.value) and len(str(e.value)) < 5000


@pytest.mark.parametrize(
    'card',
    [
        b'[' * 100_000,
        b'{"a":' * 100_000,
        b'1' * 400,
        b'\xff\xfe',
        b'{"format": "redaction-serde detector", "build": 1e999}',
    ],
    ids=['deep list', 'deep dict', 'digits', 'not text', 'infinite'],
)
def test_nothing_but_our_errors(card):
    with pytest.raises(SerdeError):
        d.read_card(card)


@pytest.mark.parametrize('place', ['', 'build', 'weights'])
def test_a_key_that_stands_twice_is_refused(files, place):
    card, weights = files
    text = json.dumps(json.loads(card))
    start = text.index(f'"{place}": {{') + len(f'"{place}": {{') if place else 1
    key = text[start : text.index(',', start)]
    twice = f'{text[:start]}{key}, {text[start:]}'.encode()
    assert json.loads(twice) == json.loads(card)
    with pytest.raises(DecodeError, match=rf'stands twice in one object - at `\$\.?{place}`'):
        d.loads_detector(twice, weights)
