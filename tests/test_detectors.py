"""Detectors as files and artifacts: whole, exact, and refused if anything is wrong."""

import hashlib
import json
import pickle
import socket
from copy import deepcopy
from pathlib import Path

import numpy as np
import processes
import pytest
import torch

from redaction_serde import detectors as d
from redaction_serde.fidelity import compare
from redaction_serde.records import load, parse_coco, save
from redaction_serde.errors import DecodeError, EncodeError, LimitError, Limits, VersionError
from icevision.core import BBox, ClassMap
from icevision.data import Prediction

CLASSES = ClassMap(['content', 'redaction'])
SIZE = (96, 128)


def packed(class_map):
    return d.pack_class_map(class_map, '$', d.Packing())


@pytest.fixture(scope='module')
def files():
    return d.dumps_detector(d.make_detector(CLASSES, image_size=SIZE, score_thresh=0.01))


@pytest.fixture
def detector(files):
    return d.loads_detector(*files)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kw):
        raise AssertionError('no network is needed here')

    for name in ('connect', 'connect_ex'):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


def same(a, b, size=SIZE):
    """Do two models give the same outputs, to the last bit?"""
    image = torch.rand(1, 3, size[1], size[0], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        (x,), (y,) = a.model(image), b.model(image)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) and len(x['boxes']) > 0


@pytest.mark.parametrize(
    'model_type, args',
    [
        ('retinanet', dict(score_thresh=0.0)),
        ('faster_rcnn', dict(box_score_thresh=0.0)),
        ('mask_rcnn', dict(box_detections_per_img=7)),
        ('keypoint_rcnn', dict(num_keypoints=5)),
    ],
)
def test_every_type_comes_back(model_type, args, no_network):
    made = d.make_detector(CLASSES, model_type, image_size=SIZE, **args)
    files = d.dumps_detector(made)
    again = d.loads_detector(*files)
    assert same(made, again)
    assert d.dumps_detector(again) == files and again.class_map == CLASSES and not again.model.training


@pytest.mark.parametrize('backbone', d.BACKBONES)
@pytest.mark.parametrize('model_type', d.KINDS)
def test_every_backbone_can_be_built_and_run(model_type, backbone, no_network):
    """Without memory for weights: on torch's meta device the shapes alone are computed."""
    build = d.Build(
        model_type, backbone, packed(CLASSES), SIZE, args=dict(num_keypoints=5) if model_type == 'keypoint_rcnn' else {}
    )
    assert not d.check_build(build)
    model = d._skeleton(build)
    with torch.device('meta'):
        features = model.backbone(torch.zeros(1, 3, SIZE[1], SIZE[0]))
    assert len(features) == d.LEVELS


def test_backbones_of_one_map_are_not_on_the_list():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = d.faster_rcnn.model(num_classes=3, backbone=d.faster_rcnn.backbones.resnet18(pretrained=False)).eval()
    with pytest.raises(AssertionError, match='Anchors'):
        model(torch.rand(1, 3, 64, 64))


def test_no_code_is_shared_between_models():
    a, b = (d.build_model(d.Build('retinanet', 'resnet18_fpn', packed(CLASSES), SIZE)) for _ in range(2))
    assert not {p.data_ptr() for p in a.parameters()} & {p.data_ptr() for p in b.parameters()}


def test_the_caller_is_not_disturbed(files, pages):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    detector = d.loads_detector(*files)
    d.measure_norms(d.make_detector(CLASSES, backbone='resnet18_fpn', image_size=SIZE), pages._records._list)
    d.train_detector(detector, pages, steps=1)
    d.predict(detector, pages)
    d.make_detector(CLASSES, seed=9)
    d.dumps_detector(detector)
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        with d.undisturbed(5):
            1 / 0
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()


def test_frozen_layers_and_buffers_come_back():
    detector = d.make_detector(CLASSES, backbone='resnet18_fpn', image_size=SIZE)
    for p in detector.model.backbone.parameters():
        p.requires_grad_(False)
    detector.model.backbone.body.bn1.running_mean += 1
    again = d.loads_detector(*d.dumps_detector(detector))
    assert [p.requires_grad for p in detector.model.parameters()] == [p.requires_grad for p in again.model.parameters()]
    assert torch.equal(again.model.backbone.body.bn1.running_mean, detector.model.backbone.body.bn1.running_mean)


def test_a_loaded_detector_is_its_own(files):
    a, b = d.loads_detector(*files), d.loads_detector(*files)
    with torch.no_grad():
        next(a.model.parameters()).add_(1)
    assert not torch.equal(next(a.model.parameters()), next(b.model.parameters()))
    assert d.dumps_detector(b) == files


def meddle_hook(m):
    m.head.register_forward_hook(lambda *a: None)


def meddle_threshold(m):
    m.nms_thresh = 0.1


def meddle_anchors(m):
    m.anchor_generator = d.AnchorGenerator(
        tuple((s, s + 1, s + 2) for s in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5
    )


def meddle_coder(m):
    m.box_coder.bbox_xform_clip = 1.0


def meddle_matcher(m):
    m.proposal_matcher.high_threshold = 0.9


def meddle_transform(m):
    m.transform.normalize = print


def meddle_attribute(m):
    m.notes = 'mine'


def meddle_half(m):
    m.half()


def meddle_layer(m):
    m.backbone.body.layer4 = torch.nn.Identity()


def meddle_extra(m):
    m.extra = torch.nn.Linear(1, 1)


def meddle_format(m):
    m.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'meddle, place',
    [
        (meddle_hook, '$.model.head._forward_hooks'),
        (meddle_threshold, '$.model.nms_thresh'),
        (meddle_anchors, '$.model.anchor_generator.sizes'),
        (meddle_coder, '$.model.box_coder'),
        (meddle_matcher, '$.model.proposal_matcher'),
        (meddle_transform, '$.model.transform.normalize'),
        (meddle_attribute, '$.model.notes'),
        (meddle_half, '$.weights.backbone.body.stem.0.weight'),
        (meddle_layer, '$.model.backbone.body.layer4'),
        (meddle_extra, '$.weights.extra.weight'),
        (meddle_format, '$.weights.backbone.body.stem.0.weight'),
    ],
    ids=lambda x: getattr(x, '__name__', None),
)
def test_what_would_be_lost_is_refused(meddle, place, detector, files, tmp_path):
    d.save_detector(detector, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    meddle(detector.model)
    with pytest.raises(EncodeError) as e:
        d.save_detector(detector, tmp_path)
    assert place in [p.path for p in e.value.problems], e.value
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_build_that_is_not_the_models_is_refused(detector):
    with pytest.raises(EncodeError):
        d.dumps_detector(
            d.Detector(detector.model, d.Build('faster_rcnn', 'small_fpn', detector.build.class_map, SIZE))
        )
    with pytest.raises(EncodeError, match='unknown model type'):
        d.dumps_detector(d.Detector(detector.model, d.Build('os.system', 'small_fpn', detector.build.class_map, SIZE)))
    lone = d.Detector(
        detector.model,
        d.Build(
            'retinanet',
            'small_fpn',
            d.ClassMapData(['background', 'a', '\ud800']),
            SIZE,
            args=dict(score_thresh=0.01),
        ),
    )
    with pytest.raises(EncodeError, match='surrogate'):
        d.dumps_detector(lone)


def changed(files, **changes):
    plain = json.loads(files[0])
    for path, value in changes.items():
        *keys, last = path.split('__')
        inner = plain
        for key in keys:
            inner = inner[key]
        inner[last] = value
    return json.dumps(plain).encode(), files[1]


def weights_of(files, data, **changes):
    return changed(files, weights__sha256=hashlib.sha256(data).hexdigest(), weights__size=len(data), **changes)[0], data


@pytest.mark.parametrize(
    'changes, error, place',
    [
        (dict(format='other'), DecodeError, '$'),
        (dict(version=2), VersionError, '$.version'),
        (dict(version=0), DecodeError, '$.version'),
        (dict(version='1'), DecodeError, '$.version'),
        (dict(build__model_type='os.system'), DecodeError, '$.build.model_type'),
        (dict(build__backbone='mobilenet'), DecodeError, '$.build.backbone'),
        (dict(build__backbone='__class__'), DecodeError, '$.build.backbone'),
        (dict(build__args=dict(head=1)), DecodeError, '$.build.args.head'),
        (dict(build__args=dict(score_thresh=-1)), DecodeError, '$.build.args.score_thresh'),
        (dict(build__args=dict(score_thresh=10**30)), DecodeError, '$.build.args.score_thresh'),
        (dict(build__args=dict(score_thresh=True)), DecodeError, '$.build.args[...]'),
        (dict(build__image_size=[1, 10**9]), DecodeError, '$.build.image_size'),
        (dict(build__anchors=dict(sizes=[[8]] * 4, aspect_ratios=[[1]] * 5)), DecodeError, '$.build.anchors.sizes'),
        (dict(build__anchors=dict(sizes=[[8] * 50] * 5, aspect_ratios=[[1] * 3] * 5)), DecodeError, '$.build.anchors'),
        (
            dict(build__anchors=dict(sizes=[[8], [8], [8], [8], [8, 9]], aspect_ratios=[[1]] * 5)),
            DecodeError,
            '$.build.anchors',
        ),
        (dict(build__anchors=dict(sizes=[[]] * 5, aspect_ratios=[[]] * 5)), DecodeError, '$.build.anchors'),
        (dict(build__class_map=dict(classes=[])), DecodeError, None),
        (dict(build__class_map=dict(classes=[0] * 300_000)), DecodeError, None),
        (dict(build__class_map=dict(classes=[{'$x': 1}, 'a', 'b'])), DecodeError, None),
        (dict(build__class_map=dict(classes=[[1], 'a', 'b'])), DecodeError, '$.build.class_map'),
        (dict(frozen=['no.such']), DecodeError, '$.frozen[0]'),
        (dict(weights__sha256='../../x'), DecodeError, '$.weights.sha256'),
        (dict(weights__size=5), DecodeError, '$.weights.size'),
        (dict(weights__sha256='0' * 64), DecodeError, '$.weights.sha256'),
        (dict(more=1), DecodeError, '$'),
        (dict(build__model_type='keypoint_rcnn'), DecodeError, '$.build.args.num_keypoints'),
        (dict(build__model_type='faster_rcnn', build__args={}), DecodeError, None),
        (dict(build__backbone='resnet34_fpn'), DecodeError, None),
    ],
)
def test_hostile_cards(changes, error, place, files, no_network):
    with pytest.raises(error) as e:
        d.loads_detector(*changed(files, **changes))
    assert type(e.value) in (error, LimitError, VersionError)
    if place and '...' not in place:
        assert any(p.path.startswith(place) for p in e.value.problems), e.value


@pytest.mark.parametrize(
    'card',
    [
        b'',
        b'{',
        b'[]',
        b'null',
        b'[' * 100_000,
        b'\x80\x04N.',
        b'{"format": "redaction-serde detector", "version": 1}',
        b'\xff',
        b' ' * ((1 << 20) + 1),
    ],
    ids=['empty', 'cut', 'list', 'null', 'deep', 'pickle', 'bare', 'not text', 'long'],
)
def test_what_is_not_a_card(card, files):
    with pytest.raises(DecodeError):
        d.loads_detector(card, files[1])


def _safetensors(header, body=b''):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + body


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'1234567',
        pickle.dumps([1]),
        (1 << 62).to_bytes(8, 'little') + b'{}',
        _safetensors(b'{' + b' ' * (1 << 20) + b'}'),
        _safetensors({}),
        _safetensors({'a': dict(dtype='F32', shape=[1 << 40], data_offsets=[0, 4])}, b'1234'),
        _safetensors({'a': dict(dtype='F32', shape=[1], data_offsets=[0, 8])}, b'1234'),
        _safetensors({'a': dict(dtype='F32', shape=[-1], data_offsets=[0, 4])}, b'1234'),
        _safetensors({'a': dict(dtype='O', shape=[1], data_offsets=[0, 4])}, b'1234'),
        _safetensors(b'{"a":'),
    ],
    ids=[
        'empty',
        'short',
        'pickle',
        'huge header',
        'long header',
        'no tensors',
        'huge shape',
        'past the end',
        'negative',
        'unknown type',
        'cut header',
    ],
)
def test_hostile_weights(data, files):
    with pytest.raises(DecodeError) as e:
        d.loads_detector(*weights_of(files, data))
    assert e.value.path.startswith('$.weights')


def test_wrong_tensors_are_all_named(files):
    tensors = d.read_tensors(files[1])
    tensors['other'] = torch.zeros(1)
    tensors['backbone.body.stem.1.weight'] = torch.zeros(3)
    tensors['backbone.body.stem.1.bias'] = tensors['backbone.body.stem.1.bias'].double()
    del tensors['backbone.body.stem.0.weight']
    with pytest.raises(DecodeError) as e:
        d.loads_detector(*weights_of(files, d.write_tensors(tensors)))
    assert {p.path for p in e.value.problems} == {
        f'$.weights.{n}'
        for n in ('other', 'backbone.body.stem.1.weight', 'backbone.body.stem.1.bias', 'backbone.body.stem.0.weight')
    }


@pytest.mark.parametrize('at', [0, 9, 20_000, -1])
def test_every_flipped_bit_is_noticed(at, files):
    data = bytearray(files[1])
    data[at] ^= 1
    with pytest.raises(DecodeError, match='not those of the card'):
        d.loads_detector(files[0], bytes(data))


def test_limits(files):
    with pytest.raises(LimitError, match='Limits'):
        d.loads_detector(*files, limits=Limits(bytes=len(files[1]) - 1))
    assert d.loads_detector(*files, limits=Limits(bytes=len(files[1])))


def test_a_failed_write_leaves_the_old_detector(detector, files, tmp_path, monkeypatch):
    d.save_detector(detector, tmp_path)
    with torch.no_grad():
        next(detector.model.parameters()).add_(1)
    real = d.write_file

    def fails(path, data):
        if Path(path).name == d.CARD_FILE:
            raise OSError(28, 'No space left on device')
        real(path, data)

    monkeypatch.setattr(d, 'write_file', fails)
    with pytest.raises(OSError):
        d.save_detector(detector, tmp_path)
    assert d.dumps_detector(d.load_detector(tmp_path)) == files
    monkeypatch.setattr(d, 'write_file', real)
    d.save_detector(detector, tmp_path)
    assert d.dumps_detector(d.load_detector(tmp_path)) == d.dumps_detector(detector)
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.glob('weights-*')).unlink()
    with pytest.raises(DecodeError, match='belong together'):
        d.load_detector(tmp_path)


CHILD = '''
import sys
from redaction_serde import detectors as d
from redaction_serde.records import load, save
detector, pages, out, what = sys.argv[1:]
pages = load(pages)
if what == 'train':
    made = d.make_detector(d.ClassMap(['content', 'redaction']), image_size=(96, 128), seed=1)
    d.train_detector(made, pages, steps=3, seed=1)
    d.save_detector(made, detector)
save(d.predict(d.load_detector(detector), pages, threshold=0.005), out)
'''


def child(*args):
    done = processes.run('-c', CHILD, *args)
    assert done.returncode == 0, done.stderr


def test_another_process_trains_and_predicts_the_same(pages, tmp_path):
    save(pages, tmp_path / 'pages.json')
    (tmp_path / 'theirs').mkdir()
    child(tmp_path / 'theirs', tmp_path / 'pages.json', tmp_path / '1.json', 'train')
    child(tmp_path / 'theirs', tmp_path / 'pages.json', tmp_path / '2.json', 'predict')
    ours = d.make_detector(CLASSES, image_size=SIZE, seed=1)
    fresh = load(tmp_path / 'pages.json')
    losses = d.train_detector(ours, fresh, steps=3, seed=1)
    assert d.dumps_detector(ours) == d.dumps_detector(d.load_detector(tmp_path / 'theirs'))
    found = d.predict(ours, fresh, threshold=0.005)
    assert sum(len(p.detection.bboxes) for p in found) > 10 and len(losses) == 3
    assert compare(found, load(tmp_path / '1.json')) and compare(found, load(tmp_path / '2.json'))
    with torch.no_grad():
        ours.model.head.classification_head.cls_logits.bias.add_(1e-6)
    assert not compare(d.predict(ours, fresh, threshold=0.005), load(tmp_path / '2.json'))


def test_boxes_are_in_pixels_of_the_page(pages):
    """A model that finds exactly the truth, in its own pixels, gives the truth in the page's."""

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return [next(self.answers)]

    detector = d.Detector(Oracle(), d.Build('retinanet', 'resnet18_fpn', packed(pages[0].detection.class_map), SIZE))

    def answer(r):
        t = d._target(r, d.page_tensor(r, SIZE)[1])
        return dict(boxes=t['boxes'], labels=t['labels'], scores=torch.ones(len(t['boxes'])))

    detector.model.answers = (answer(r) for r in pages)
    for p in d.predict(detector, pages):
        assert np.allclose(
            [b.xyxy for b in p.detection.bboxes], [b.xyxy for b in p.ground_truth.detection.bboxes], atol=1e-3
        )
        assert p.detection.labels == p.ground_truth.detection.labels and p.ground_truth in pages._records._list


def made_up(rng, pages):
    """Predictions that are often near the truth, with scores at random."""
    predictions = []
    for r in pages:
        pred = deepcopy(r)
        keep = rng.random(len(r.detection.bboxes)) < 0.8
        boxes = [np.array(b.xyxy) + rng.normal(0, 6, 4) for b, k in zip(r.detection.bboxes, keep) if k]
        ids = [i if rng.random() < 0.9 else 3 - i for i, k in zip(r.detection.label_ids, keep) if k]
        boxes += [np.array(b.xyxy) + 1 for b in r.detection.bboxes[::4]]  # found twice
        ids += r.detection.label_ids[::4]
        pred.detection.set_bboxes(
            [BBox(*sorted(b[::2])[:1], *sorted(b[1::2])[:1], *sorted(b[::2])[1:], *sorted(b[1::2])[1:]) for b in boxes]
        )
        pred.detection.set_labels_by_id(ids)
        pred.add_component(d.ScoresRecordComponent())
        pred.detection.set_scores(rng.permutation(len(ids)) / len(ids))
        predictions.append(Prediction(pred))
        predictions[-1].ground_truth = r
    return predictions


@pytest.mark.parametrize('seed', range(3))
def test_evaluation_agrees_with_pycocotools(seed, pages, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    predictions = made_up(np.random.default_rng(seed), pages)
    scores = d.evaluate(predictions)
    truth, found = COCO(), []
    truth.dataset = dict(
        images=[dict(id=i) for i in range(len(pages))], categories=[dict(id=1), dict(id=2)], annotations=[]
    )
    for i, p in enumerate(predictions):
        for b, c in zip(p.ground_truth.detection.bboxes, p.ground_truth.detection.label_ids):
            x, y, w, h = b.xywh
            truth.dataset['annotations'].append(
                dict(
                    id=len(truth.dataset['annotations']) + 1,
                    image_id=i,
                    category_id=c,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                )
            )
        for b, c, s in zip(p.detection.bboxes, p.detection.label_ids, p.detection.scores):
            found.append(dict(image_id=i, category_id=c, bbox=list(b.xywh), score=float(s)))
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(found), 'bbox')
    judge.params.iouThrs, judge.params.maxDets, judge.params.areaRng, judge.params.areaRngLbl = (
        np.array([0.5]),
        [1000],
        [[0, 1e10]],
        ['all'],
    )
    judge.evaluate(), judge.accumulate()
    for k, name in enumerate(('content', 'redaction')):
        assert 0 < scores[name]['recall'] < 1
        assert judge.eval['recall'][0, k, 0, 0] == pytest.approx(scores[name]['recall'])
        precision = judge.eval['precision'][0, :, k, 0, 0].mean()
        assert 0 < precision < 1 and precision == pytest.approx(d.average_precision(predictions, name))


def test_materializer_refuses_what_was_changed(detector, files, tmp_path):
    from zenml.client import Client
    from redaction_serde.materializers import DetectorMaterializer

    uri = Path(Client().active_stack.artifact_store.path) / tmp_path.name
    uri.mkdir(parents=True)
    m = DetectorMaterializer(str(uri))
    m.save(detector)
    assert (
        m.compute_content_hash(detector)
        == DetectorMaterializer(str(uri)).compute_content_hash(detector)
        == hashlib.sha256(files[0]).hexdigest()
    )
    assert d.dumps_detector(m.load(d.Detector)) == files
    assert m.extract_metadata(detector)['classes'] == ['background', 'content', 'redaction'] and m.save_visualizations(
        detector
    )
    (weights,) = uri.glob('weights-*')
    for path, content in (
        (weights, files[1][:-1]),
        (weights, files[1] + b'x'),
        (weights, b''),
        (uri / d.CARD_FILE, b'{}'),
        (uri / d.CARD_FILE, b''),
    ):
        good = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(DecodeError):
            m.load(d.Detector)
        path.write_bytes(good)
    weights.rename(uri / 'away')
    with pytest.raises(DecodeError, match='missing from the artifact'):
        m.load(d.Detector)


def statuses(run):
    return {name: step.status.value for name, step in run.steps.items()}


def test_pipeline_runs_again_what_it_must(tmp_path):
    from redaction_serde import pipelines
    from redaction_serde.lessons.pages import make_documents

    def run(n):
        annotations = make_documents(tmp_path / 'pages', n_pages=n, seed=5, size=(425, 550))
        return pipelines.redaction_pipeline(str(annotations), str(annotations.parent / 'images'), steps=1)

    first, second = run(11), run(11)
    assert set(statuses(first).values()) == {'completed'}
    assert [n for n, s in statuses(second).items() if s == 'completed'] == ['read_pages']
    third = run(12)  # the twelfth page is for testing
    assert [n for n, s in statuses(third).items() if s == 'cached'] == ['train']
    detector, tested = (
        third.steps[step].outputs[name][0].load()
        for step, name in (('train', 'detector'), ('split_pages', 'test_pages'))
    )
    assert compare(third.steps['predict_pages'].outputs['predictions'][0].load(), d.predict(detector, tested))
    stored = third.steps['train'].outputs['detector'][0]
    for path in Path(stored.uri).iterdir():
        path.unlink()
    d.save_detector(
        d.make_detector(detector.class_map, anchors=detector.build.anchors, seed=99), stored.uri
    )  # a whole and valid detector, but another
    with pytest.raises(DecodeError, match='has changed since it was saved'):
        stored.load()
    html = third.steps['report'].outputs['training_report'][0].load()
    assert '<script' not in html and html.count('src="data:image/png') == 2


def test_a_split_moves_no_page(pages_file):
    pages = parse_coco(pages_file, pages_file.parent / 'images')
    whole, less = d.split_by_name(pages, 0.5), d.split_by_name(pages.new(pages._records._list[1:]), 0.5)
    for a, b in zip(whole, less):
        assert {r.record_id for r in b} == {r.record_id for r in a} - {pages[0].record_id}
    assert sum(map(len, whole)) == len(pages)


def demo(folder, *args):
    python = processes.python(folder)
    return processes.run('-c', processes.CLI, python, 'demo', '--train', *args, '--out', folder / 'out')


def test_demo_that_trains(tmp_path):
    done = demo(tmp_path, '--pages', 6, '--steps', 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        done.stderr == ''
        and 'came back to the last bit' in done.stdout
        and 'after 2 steps from random weights' in done.stdout
    )
    verdict = json.loads((tmp_path / 'out' / 'training.json').read_text())
    assert verdict['identical'] and verdict['pages'] == 16 and verdict['cached'] == 0
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'predictions.png',
        'training.json',
        'training.html',
        'pages',
        'zenml',
    }
    again = demo(tmp_path, '--pages', 6, '--steps', 2)
    assert again.returncode == 0 and '5 pipeline steps were cached' in again.stdout


@pytest.mark.parametrize(
    'args, words',
    [(['--steps', 0], '--steps must be at least 1'), (['--pages', 1], 'the split leaves 16 pages to learn from and 0')],
)
def test_demo_that_cannot_train(args, words, tmp_path):
    done = demo(tmp_path, *args)
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr, done.stderr


def test_demo_notices_another_detector(tmp_path, monkeypatch, capsys):
    """The verdict is not a formality: it is 1 if the detector predicts something else."""
    from redaction_serde import cli

    (tmp_path / 'out').mkdir()
    monkeypatch.setattr(cli, 'check_split', lambda *a: None)
    monkeypatch.setattr(cli, 'run_training', lambda *a: {})
    monkeypatch.setattr('redaction_serde.compat.prepare_zenml', lambda store: store)
    verdict = dict(
        identical=False,
        boxes=2,
        boxes_identical=1,
        pages=1,
        steps=1,
        cached=5,
        scores={},
        differences=['changed: here'],
    )
    monkeypatch.setattr(
        cli, 'second_process', lambda *a, **k: (tmp_path / 'out' / 'training.json').write_text(json.dumps(verdict))
    )
    assert cli.main(['demo', '--train', '--pages', '1', '--out', str(tmp_path / 'out')]) == 1
    told = capsys.readouterr().out
    assert 'did NOT come back' in told and '5 pipeline steps were cached' in told
