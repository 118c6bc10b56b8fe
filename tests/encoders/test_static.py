"""A static encoder on disk: the class path that sentence-transformers writes into it, and what is wrong with a damaged
one."""
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import EncoderSettings
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.search.vectors import encoder_key

DOCS = ['def read_file(path): return open(path).read()', 'def get_max(array): return max(array)']
NOW, BEFORE = 'dacl_dr.encoders.static.StaticBag', 'dacl_dr.static.StaticBag'


@pytest.fixture
def encoder():
    tokenizer = train_tokenizer(DOCS, 100)
    made = StaticEncoder.create(tokenizer, bag_texts(tokenizer, DOCS), EncoderSettings(dim=16), 0)
    with torch.no_grad(): made.query.vectors.neg_() # the towers of a fresh encoder are equal
    return made


def both(encoder): return encoder.encode(DOCS, 'query'), encoder.encode(DOCS, 'passage')


@pytest.fixture
def saved(encoder, tmp_path):
    encoder.save(tmp_path/'encoder')
    return tmp_path/'encoder'


def naming(folder, name):
    "The files that name a class."
    return [f for f in folder.rglob('*.json') if f'"{name}"' in f.read_text()]


def test_sentence_transformers_opens_what_is_saved(encoder, saved):
    from sentence_transformers import SentenceTransformer
    assert naming(saved, NOW)
    opened = SentenceTransformer(str(saved), trust_remote_code=True, device='cpu')
    for ours, theirs in zip(both(encoder), (opened.encode_query(DOCS), opened.encode_document(DOCS))):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_an_encoder_saved_under_the_old_class_path_opens(encoder, saved, tmp_path):
    for file in naming(saved, NOW): file.write_text(file.read_text().replace(NOW, BEFORE))
    assert naming(saved, BEFORE) and not naming(saved, NOW)
    again = load_encoder(saved)
    for was, now in zip(both(encoder), both(again)): np.testing.assert_array_equal(was, now)
    assert encoder_key(again) == encoder_key(encoder) # vectors and indexes made with it stay valid
    again.save(tmp_path/'again') # which names the class of today
    assert naming(tmp_path/'again', NOW) and not naming(tmp_path/'again', BEFORE)


@pytest.mark.parametrize('change, fault', [
    ({'vectors': torch.ones(7)}, 'query tower: its vectors have 1 dimensions instead of 2'),
    ({'importance': torch.ones(7)}, 'query tower: it has not one weight for each vector'),
    (
        {'vectors': torch.ones(7, 16), 'importance': torch.ones(7)},
        'query tower: its tokenizer has another number of tokens'),
])
def test_a_damaged_one_says_what_does_not_fit(saved, change, fault):
    file = next(saved.rglob('query_0_StaticBag/model.safetensors'))
    save_file(load_file(file) | change, file)
    with pytest.raises(DaclError, match=f'damaged .its parts do not fit together: {fault}'): load_encoder(saved)


def test_a_dropout_of_everything_is_refused(saved):
    for file in saved.rglob('document_0_StaticBag/config.json'): file.write_text(json.dumps({'token_dropout': 1.}))
    with pytest.raises(DaclError, match='passage tower: a token_dropout of 1.0'): load_encoder(saved)
