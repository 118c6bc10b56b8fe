"""A matrix of tiny models with random weights: the vectors here are those of sentence-transformers, for queries and
passages.

`pytest -s tests/encoders/test_library.py` prints it."""
import json

import numpy as np
import pytest
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling, StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from dacl_dr.core.settings import ModelSettings
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import TransformerEncoder, word_tokenizer
from dacl_dr.search.vectors import encoder_key

TEXTS = [
    'the tower of london', 'a bridge over the river', 'london', 'rain in spain falls mainly on the plain',
    'query : passage : The TOWER of London and a bridge 大きさ',
    ' '.join(['rain', 'falls', 'on', 'the', 'tower', 'of', 'london'] * 30),
]
SIZE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=130)
PROMPTS = {'query': 'query : the ', 'document': 'passage : a '}
CHAT = "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ' }}{% endfor %}"


def tokenizer(length=128, **change):
    tok = word_tokenizer([*TEXTS, 'system user'])
    tok.model_max_length = length or int(1e30)
    for name, value in change.items(): setattr(tok, name, value)
    return tok


def written(folder, model, tok=None):
    tok = tok or tokenizer()
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def fresh(cls, config, seed=0, **size):
    torch.manual_seed(seed)
    return cls(config(**{'vocab_size': len(tokenizer()) + 8, 'pad_token_id': 0} | size))


def bert(folder, tok=None, seed=0, **size):
    return written(folder, fresh(hf.BertModel, hf.BertConfig, seed, **SIZE | size), tok)
def tower(folder, *given, **size): return Transformer(str(bert(folder/'tower', *given, **size)))


def saved(folder, *modules, truncate_dim=None, **how):
    model = SentenceTransformer(modules=list(modules), device='cpu', **how)
    model.truncate_dim = truncate_dim
    model.save(str(folder/'model'), create_model_card=False)
    return folder/'model'


def static():
    words = Tokenizer(
        models.WordLevel(
            {w: i for i, w in enumerate(['[UNK]', 'the', 'tower', 'of', 'london', 'rain'])}, unk_token='[UNK]'))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(3)
    return StaticEmbedding(words, embedding_weights=torch.randn(6, 16))


KINDS = {}


def kind(name):
    def add(make):
        KINDS[name] = make
        return make
    return add


def family(name, cls, config, tok=None, **size):
    "A plain checkpoint of transformers."
    KINDS[name] = lambda f: written(f/'plain', fresh(cls, config, **size), tok and tok())


def pooled(name, how, *more, **pooling):
    KINDS[name] = lambda f: saved(f, tower(f), Pooling(32, how, **pooling), *(m() for m in more))


family('BERT', hf.BertModel, hf.BertConfig, **SIZE)
family('RoBERTa', hf.RobertaModel, hf.RobertaConfig, **SIZE)
family(
    'DistilBERT', hf.DistilBertModel, hf.DistilBertConfig, dim=32, n_layers=2, n_heads=2, hidden_dim=64,
    max_position_embeddings=130)
family('MPNet', hf.MPNetModel, hf.MPNetConfig, **SIZE)
family('ELECTRA', hf.ElectraModel, hf.ElectraConfig, embedding_size=32, **SIZE)
family('ALBERT', hf.AlbertModel, hf.AlbertConfig, embedding_size=16, **SIZE)
family(
    'T5, no limit', hf.T5EncoderModel, hf.T5Config, lambda: tokenizer(None), d_model=32, d_kv=16, d_ff=64, num_layers=2,
    num_heads=2)
family('GPT-2', hf.GPT2Model, hf.GPT2Config, n_embd=32, n_layer=2, n_head=2, n_positions=130)
family(
    'Qwen2, left padding', hf.Qwen2Model, hf.Qwen2Config, lambda: tokenizer(padding_side='left'), num_key_value_heads=2,
    **SIZE)
family(
    'chat template', hf.Qwen2Model, hf.Qwen2Config, lambda: tokenizer(chat_template=CHAT), num_key_value_heads=2, **SIZE
)
for mode in ('mean', 'cls', 'max', 'lasttoken', 'weightedmean', 'mean_sqrt_len_tokens'): pooled(f'pooling {mode}', mode)
pooled('two poolings', ('cls', 'mean'))
pooled('normalised', 'mean', Normalize)
pooled('Dense, tanh', 'mean', lambda: Dense(32, 8), Normalize)
pooled('Dense, identity', 'cls', lambda: Dense(32, 8, activation_function=torch.nn.Identity()))
pooled('LayerNorm', 'mean', lambda: LayerNorm(32))


@kind('no pooler in the file')
def _(f):
    return written(f/'plain', hf.BertModel(hf.BertConfig(vocab_size=len(tokenizer()), **SIZE), add_pooling_layer=False))


@kind('prompts')
def _(f): return saved(f, tower(f), Pooling(32), prompts=PROMPTS)


@kind('prompts, not pooled')
def _(f): return saved(f, tower(f), Pooling(32, include_prompt=False), Normalize(), prompts=PROMPTS)


@kind('prompts, not pooled, left padding')
def _(f):
    qwen = written(
        f/'tower', fresh(hf.Qwen2Model, hf.Qwen2Config, num_key_value_heads=2, **SIZE), tokenizer(padding_side='left'))
    return saved(f, Transformer(str(qwen)), Pooling(32, include_prompt=False), prompts=PROMPTS)


@kind('prompt named passage')
def _(f): return saved(f, tower(f), Pooling(32), prompts={'query': 'query : ', 'passage': 'passage : '})


@kind('chat template and prompts, last token')
def _(f):
    qwen = written(
        f/'tower', fresh(hf.Qwen2Model, hf.Qwen2Config, num_key_value_heads=2, **SIZE),
        tokenizer(24, padding_side='left', chat_template=CHAT))
    return saved(f, Transformer(str(qwen)), Pooling(32, 'lasttoken'), Normalize(), prompts=PROMPTS)


@kind('truncate_dim')
def _(f): return saved(f, tower(f), Pooling(32), Normalize(), truncate_dim=8)


@kind('max_seq_length')
def _(f):
    short = tower(f)
    short.max_seq_length = 8
    return saved(f, short, Pooling(32))


@kind('a length for each side')
def _(f):
    apart = tower(f)
    apart.query_length, apart.document_length = 5, 9
    return saved(f, apart, Pooling(32))


@kind('lower case')
def _(f):
    cased = bert(f/'tower')
    (cased/'sentence_bert_config.json').write_text(json.dumps({'max_seq_length': 64, 'do_lower_case': True}))
    return saved(f, Transformer(str(cased), do_lower_case=True), Pooling(32))


for bits in ('float16', 'bfloat16'):
    @kind(f'weights in {bits}')
    def _(f, bits=bits): return written(f/'plain', fresh(hf.BertModel, hf.BertConfig, **SIZE).to(getattr(torch, bits)))


@kind('router, two towers')
def _(f):
    a, b = (
        [Transformer(str(bert(f/name, seed=seed))), Pooling(32, how)]
        for name, seed, how in (('a', 1, 'cls'), ('b', 2, 'mean')))
    return saved(f, Router.for_query_document(a, b), Normalize())


@kind('router, norm inside')
def _(f):
    a, b = (
        [Transformer(str(bert(f/name, seed=seed))), Pooling(32), Normalize()] for name, seed in (('a', 1), ('b', 2)))
    return saved(f, Router.for_query_document(a, b))


@kind('router, token vectors for queries')
def _(f): return saved(f, Router.for_query_document([static(), Dense(16, 32)], [tower(f), Pooling(32)]), Normalize())


@kind('StaticEmbedding')
def _(f): return saved(f, static())


@kind('StaticEmbedding, normalised, prompts')
def _(f): return saved(f, static(), Normalize(), prompts=PROMPTS)


@kind('model2vec')
def _(f):
    from safetensors.torch import save_file
    made = static()
    made.tokenizer.save(str(f/'tokenizer.json'))
    save_file({'embeddings': made.embedding.weight.detach()}, f/'model.safetensors')
    (f/'config.json').write_text(
        json.dumps({'model_type': 'model2vec', 'architectures': ['StaticModel'], 'normalize': True}))
    return f


def library_of(folder):
    "The same folder as sentence-transformers opens it."
    if (folder/'config.json').is_file() and 'model2vec' in (folder/'config.json').read_text():
        return SentenceTransformer(modules=[StaticEmbedding.load(str(folder)), Normalize()], device='cpu')
    return SentenceTransformer(str(folder), device='cpu', model_kwargs={'dtype': torch.float32})


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_has_the_vectors_of_the_library(name, tmp_path):
    folder = KINDS[name](tmp_path)
    ours, theirs = load_encoder(folder), library_of(folder)
    gaps = []
    for side, encode in (('query', theirs.encode_query), ('passage', theirs.encode_document)):
        a, b = ours.encode(TEXTS, side, tokens=60), encode(TEXTS)
        assert a.shape == b.shape == (len(TEXTS), ours.dim)
        gaps.append(np.abs(a - b).max())
    print(f'{name:<40} dim {ours.dim:<3} queries {gaps[0]:.0e}  passages {gaps[1]:.0e}')
    assert max(gaps) < 1e-4 < np.abs(a[0] - a[1]).max() # other texts have other vectors
    assert ours.normalized == bool(np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5))
    assert encoder_key(load_encoder(folder)) == encoder_key(ours) # nothing of it is random


def test_there_are_kinds_enough(): assert len(KINDS) >= 30


TRAINABLE = [name for name in KINDS if name not in ('truncate_dim', 'lower case')]


@pytest.mark.parametrize('name', TRAINABLE)
def test_what_is_trained_from_a_kind_and_saved_opens_in_the_library(name, tmp_path):
    (tmp_path/'base').mkdir()
    encoder = TransformerEncoder.open(KINDS[name](tmp_path/'base'), ModelSettings(query_length=16, passage_length=24))
    with torch.no_grad():
        for p in encoder.parameters(): p.mul_(1.01) # trained, as it were
    encoder.save(tmp_path/'trained')
    st, again = SentenceTransformer(str(tmp_path/'trained'), device='cpu'), load_encoder(tmp_path/'trained')
    for side, encode in (('query', st.encode_query), ('passage', st.encode_document)):
        was = encoder.encode(TEXTS, side)
        assert np.abs(was - encode(TEXTS)).max() < 1e-4
        assert np.abs(was - again.encode(TEXTS, side)).max() < 1e-4
    assert encoder.normalized and again.normalized


def test_gpt2_padded_on_the_left_depends_on_its_batch_as_in_the_library(tmp_path):
    "Its positions are counted from the padding; text by text both agree."
    folder = written(
        tmp_path/'gpt', fresh(hf.GPT2Model, hf.GPT2Config, n_embd=32, n_layer=2, n_head=2, n_positions=130),
        tokenizer(padding_side='left'))
    ours, theirs = load_encoder(folder), library_of(folder)
    assert np.abs(ours.encode(TEXTS, 'query', tokens=1) - theirs.encode_query(TEXTS, batch_size=1)).max() < 1e-4


@pytest.mark.parametrize('side, cls', [('question', hf.DPRQuestionEncoder), ('ctx', hf.DPRContextEncoder)])
@pytest.mark.parametrize('projection', [0, 16])
def test_dpr_encoders_give_their_pooler_output(side, cls, projection, tmp_path):
    made = fresh(cls, hf.DPRConfig, projection_dim=projection, **SIZE).eval()
    encoder = load_encoder(written(tmp_path/'dpr', made))
    tok = tokenizer()
    with torch.no_grad():
        right = made(**tok(TEXTS, padding=True, truncation=True, return_tensors='pt')).pooler_output.numpy()
    for which in ('query', 'passage'): assert np.abs(encoder.encode(TEXTS, which) - right).max() < 1e-5
    encoder.save(tmp_path/'again')
    assert np.abs(load_encoder(tmp_path/'again').encode(TEXTS, 'query') - right).max() < 1e-5
    print(f'{cls.__name__:<40} dim {right.shape[1]:<3} projection {projection}')


def test_a_prompt_that_is_left_out_is_another_encoder(tmp_path):
    keys = set()
    for pooled in (True, False):
        (f := tmp_path/str(pooled)).mkdir()
        keys.add(encoder_key(load_encoder(saved(f, tower(f), Pooling(32, include_prompt=pooled), prompts=PROMPTS))))
    assert len(keys) == 2


def test_an_edited_activation_is_another_encoder(tmp_path):
    torch.manual_seed(0)
    folder = saved(tmp_path, tower(tmp_path), Pooling(32), Dense(32, 8), Normalize())
    first, before = encoder_key(load_encoder(folder)), load_encoder(folder).encode(TEXTS, 'query')
    config = folder/'2_Dense'/'config.json'
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {'activation_function': 'torch.nn.modules.linear.Identity'}))
    again = load_encoder(folder)
    assert np.abs(again.encode(TEXTS, 'query') - before).max() > 1e-4 and encoder_key(again) != first
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {'activation_function': 'torch.nn.modules.activation.ReLU'}))
    assert len({first, encoder_key(again), encoder_key(load_encoder(folder))}) == 3


def test_a_chat_template_belongs_to_the_key(tmp_path):
    keys = set()
    for i, chat in enumerate((None, CHAT, CHAT.replace(':', ''))):
        made = fresh(hf.Qwen2Model, hf.Qwen2Config, num_key_value_heads=2, **SIZE)
        keys.add(encoder_key(load_encoder(written(tmp_path/str(i), made, tokenizer(chat_template=chat)))))
    assert len(keys) == 3
