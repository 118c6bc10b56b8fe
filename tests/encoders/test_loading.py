"""Checkpoints whose weights do not fit: each is refused by one line that says what is missing and what the folder seems
to be."""
import json

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from sentence_transformers import SentenceTransformer
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import ModelSettings
from dacl_dr.encoders import loading
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import TransformerEncoder, word_tokenizer
from dacl_dr.search.vectors import encoder_key

TEXTS = ['the tower of london', 'a bridge over the river']
SIZE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=130)


def written(folder, cls=hf.BertModel, config=hf.BertConfig, **more):
    tok = word_tokenizer(TEXTS)
    torch.manual_seed(0)
    cls(config(vocab_size=len(tok), **SIZE | more)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def edited(folder, change):
    "The same folder with other names or weights."
    file = folder/'model.safetensors'
    save_file(change(load_file(file)), file, metadata={'format': 'pt'})
    return folder


def configured(folder, **values):
    config = folder/'config.json'
    config.write_text(json.dumps(json.loads(config.read_text()) | values))
    return folder


def prefixed(prefix): return lambda weights: {prefix + name: w for name, w in weights.items()}


@pytest.mark.parametrize('prefix, who', [
    ('module.', 'DistributedDataParallel'), ('module.bert.', 'DistributedDataParallel'), ('model.', 'Lightning'),
    ('encoder.', 'Tevatron'),
    ('lm_q.', 'Tevatron'), ('question_model.', 'DPR'), ('ctx_model.', 'DPR'), ('_orig_mod.', 'torch.compile'),
    ('own.', 'a wrapper'),
])
@pytest.mark.parametrize('settings', [None, ModelSettings()])
def test_prefixes_that_programs_leave(prefix, who, settings, tmp_path):
    folder = edited(written(tmp_path/'m'), prefixed(prefix))
    with pytest.raises(
        DaclError, match=rf"37 of 39 weights are not in it .*names begin with '{prefix}', as {who}.*save_pretrained"
    ):
        load_encoder(folder, settings)


def test_a_prefix_of_some_wrapper_in_shards_that_pytorch_saved(tmp_path):
    folder = written(tmp_path/'m')
    torch.save({f'module.{n}': w for n, w in load_file(folder/'model.safetensors').items()}, folder/'pytorch_model.bin')
    (folder/'model.safetensors').unlink()
    with pytest.raises(DaclError, match="names begin with 'module.'"): load_encoder(folder)


@pytest.mark.parametrize('layers, fault', [
    (4, r'32 of 71 weights are not in it \(encoder.layer.2.*speaks of 4 layers, the weights of 2: make both agree'),
    (1, r'16 weights of it have no place .*speaks of 1 layers, the weights of 2: make both agree'),
])
def test_another_number_of_layers(layers, fault, tmp_path):
    with pytest.raises(DaclError, match=fault):
        load_encoder(configured(written(tmp_path/'m'), num_hidden_layers=layers))


def test_a_few_weights_are_gone(tmp_path):
    folder = edited(written(tmp_path/'m'), lambda w: {n: x for n, x in w.items() if 'word_embeddings' not in n})
    with pytest.raises(
        DaclError,
        match=r'1 of 39 weights are not in it \(embeddings.word_embeddings.weight\), and would be random; take it from'
    ):
        load_encoder(folder)


def test_weights_of_another_shape(tmp_path):
    folder = edited(written(tmp_path/'m'), lambda w: w | {'embeddings.word_embeddings.weight': torch.zeros(9, 16)})
    with pytest.raises(DaclError, match='cannot be loaded'): load_encoder(folder)


def test_weights_of_nothing(tmp_path):
    folder = edited(written(tmp_path/'m'), lambda w: w | {'adapter.down': torch.zeros(2)})
    with pytest.raises(
        DaclError, match='no place in the model .adapter.down.; configuration and weights are not of one model'
    ):
        load_encoder(folder)


HEADS = {
    'cross-encoder': (
        hf.BertForSequenceClassification, hf.BertConfig, {'num_labels': 1},
        'a classifier or cross-encoder .classifier.bias, ….*give a bi-encoder'),
    'DistilBERT classifier': (
        hf.DistilBertForSequenceClassification, hf.DistilBertConfig, {}, 'a classifier or cross-encoder'),
    'RoBERTa classifier': (hf.RobertaForSequenceClassification, hf.RobertaConfig, {}, 'a classifier or cross-encoder'),
    'question answering': (hf.BertForQuestionAnswering, hf.BertConfig, {}, 'a classifier or cross-encoder .qa_outputs'),
    'SPLADE': (
        hf.BertForMaskedLM, hf.BertConfig, {},
        'a language model or SPLADE .cls.*train one from it, or if it is no SPLADE open and save it with '
        'sentence-transformers'),
    'pretraining': (hf.BertForPreTraining, hf.BertConfig, {}, 'a language model or SPLADE'),
    'DistilBERT': (hf.DistilBertForMaskedLM, hf.DistilBertConfig, {}, 'a language model or SPLADE'),
    'RoBERTa': (hf.RobertaForMaskedLM, hf.RobertaConfig, {}, 'a language model or SPLADE'),
    'ELECTRA': (hf.ElectraForPreTraining, hf.ElectraConfig, {}, 'a language model or SPLADE'),
    'Qwen2': (
        hf.Qwen2ForCausalLM, hf.Qwen2Config, {'num_key_value_heads': 2, 'tie_word_embeddings': False, 'vocab_size': 40},
        'a language model or SPLADE'),
}


@pytest.mark.parametrize('name', HEADS)
def test_a_model_with_a_head_is_no_text_encoder(name, tmp_path):
    cls, config, more, fault = HEADS[name]
    folder = tmp_path/'m'
    tok = word_tokenizer(TEXTS)
    cls(config(**{'vocab_size': len(tok)} | SIZE | more)).save_pretrained(folder)
    tok.save_pretrained(folder)
    with pytest.raises(DaclError, match=fault): load_encoder(folder)
    if 'language model' not in fault:
        with pytest.raises(DaclError, match=fault): load_encoder(folder, ModelSettings())
    else: # training starts from it
        encoder = load_encoder(folder, ModelSettings(query_length=16, passage_length=16))
        assert np.isfinite(encoder.encode(TEXTS, 'query')).all()
        encoder.save(tmp_path/'trained')
        assert encoder_key(load_encoder(tmp_path/'trained')) == encoder_key(encoder)


def test_a_language_model_saved_by_sentence_transformers_is_an_encoder(tmp_path):
    "As the refusal of the model itself says."
    tok = word_tokenizer(TEXTS)
    hf.BertForMaskedLM(hf.BertConfig(vocab_size=len(tok), **SIZE)).save_pretrained(tmp_path/'m')
    tok.save_pretrained(tmp_path/'m')
    theirs = SentenceTransformer(str(tmp_path/'m'), device='cpu')
    theirs.save(str(tmp_path/'saved'))
    found = load_encoder(tmp_path/'saved').encode(TEXTS, 'passage')
    assert np.abs(found - theirs.encode(TEXTS)).max() < 1e-4


def test_a_colbert(tmp_path):
    folder = edited(
        written(tmp_path/'m'), lambda w: {f'bert.{n}': x for n, x in w.items()} | {'linear.weight': torch.zeros(8, 32)})
    with pytest.raises(DaclError, match='a ColBERT .linear.weight., not a bi-encoder'): load_encoder(folder)


@pytest.mark.parametrize(
    'kind, said',
    [('CrossEncoder', 'a cross-encoder'), ('SparseEncoder', 'a sparse encoder'), ('MultiVectorEncoder', 'a ColBERT')])
def test_pipelines_that_say_what_they_are(kind, said, tmp_path):
    TransformerEncoder.open(written(tmp_path/'m')).save(tmp_path/'st')
    file = tmp_path/'st'/'config_sentence_transformers.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'model_type': kind}))
    for settings in (None, ModelSettings()):
        with pytest.raises(DaclError, match=f'it is {said}.*not a bi-encoder'): load_encoder(tmp_path/'st', settings)


def test_a_declared_encoder_may_have_a_head(tmp_path):
    "A modules.json says which vectors are meant."
    TransformerEncoder.open(written(tmp_path/'m')).save(tmp_path/'st')
    edited(tmp_path/'st', lambda w: w | {'lm_head.weight': torch.zeros(3)})
    load_encoder(tmp_path/'st')


def test_dpr_of_the_other_kind_is_no_question_encoder_with_random_weights(tmp_path):
    folder = configured(written(tmp_path/'m', hf.DPRContextEncoder, hf.DPRConfig), architectures=['DPRQuestionEncoder'])
    with pytest.raises(DaclError, match='37 of 37 weights are not in it'): load_encoder(folder)


def test_a_pooler_that_nothing_reads_may_be_missing(tmp_path):
    folder = edited(written(tmp_path/'m'), lambda w: {n: x for n, x in w.items() if not n.startswith('pooler')})
    keys = {encoder_key(load_encoder(folder)) for _ in range(2)}
    assert len(keys) == 1


def test_a_name_where_the_hub_does_not_answer(monkeypatch):
    "One question, no retries; a cache may still serve."
    asked = []
    monkeypatch.setattr(loading, 'hub_answers', lambda: asked.append(1) or False)
    for name in ('no-such/model', 'no-such-model'):
        with pytest.raises(
            DaclError,
            match=f"'{name}' cannot be loaded .no such folder, nor among earlier downloads, and the hub does not answer"
        ):
            load_encoder(name)
    assert len(asked) == 2


def test_a_folder_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'hub_answers', lambda: pytest.fail('asked the hub'))
    load_encoder(written(tmp_path/'m'))


def test_vectors_that_the_library_does_not_give_are_refused(tmp_path, monkeypatch):
    folder = written(tmp_path/'m')
    embed = TransformerEncoder.embed
    monkeypatch.setattr(TransformerEncoder, 'embed', lambda self, chunk, side: embed(self, chunk, side).roll(1, -1))
    with pytest.raises(
        DaclError,
        match=r'a query has another vector here than in sentence-transformers .largest difference [\d.]+, smallest '
        r'cosine -?[\d.]+'
    ):
        load_encoder(folder)


def in_hub_cache(cache, repo, revisions):
    "A repository of the hub as its client keeps it: branches and tags name commits, which are folders."
    own = cache/f'models--{repo.replace("/", "--")}'
    (own/'refs').mkdir(parents=True)
    for n, (name, seed) in enumerate(revisions.items()):
        commit = f'{n:040x}'
        folder = written(own/'snapshots'/commit)
        torch.manual_seed(seed)
        edited(folder, lambda weights: {name: w + seed * .1 * torch.randn_like(w) for name, w in weights.items()})
        (own/'refs'/name).write_text(commit)


def test_a_revision_of_a_name_on_the_hub(tmp_path, monkeypatch):
    from huggingface_hub import constants
    in_hub_cache(tmp_path, 'o/n', {'main': 0, 'v1': 1})
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr('transformers.utils.hub.constants.HF_HUB_CACHE', str(tmp_path))
    s = ModelSettings(passage_length=64)
    keys = {name: encoder_key(load_encoder(f'o/n{name}', s)) for name in ('', '@main', '@v1', f'@{1:040x}')}
    assert keys[''] == keys['@main'] != keys['@v1'] == keys[f'@{1:040x}']
    with pytest.raises(
        DaclError, match=r"model 'o/n@v2' cannot be loaded \(no such folder, nor among earlier downloads"
    ):
        load_encoder('o/n@v2', ModelSettings())
    with pytest.raises(DaclError, match='expected OWNER/NAME@REVISION'): load_encoder('o/n@', ModelSettings())
