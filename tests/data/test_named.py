"Data that is known by name, and folders of datasets: read by the real libraries, which skip where they are missing."
import sys
from types import SimpleNamespace
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import Diagnose
from dacl_dr.core.settings import Reading
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.evaluation.judging import is_graded
from dacl_dr.data.texts import open_corpus, open_queries
from dacl_dr.evaluation.sample import choose_rows
from dacl_dr.search.indexing import corpus_place
from dacl_dr.search.retriever import corpus_of

TEXTS = ['the nile flows north', 'mount everest is tall', 'le été à Paris', '北京是首都']
ASKED = ['where does the nile flow', 'how tall is everest', '首都']
GRADES = [('q0', 'd0', 2), ('q1', 'd1', 1), ('q1', 'd2', 0)]
CORPUS = {'_id': [f'd{i}' for i in range(4)], 'title': ['T'] * 4, 'text': TEXTS}
QUERIES = {'_id': [f'q{i}' for i in range(3)], 'text': ASKED}
QRELS = dict(zip(('query-id', 'corpus-id', 'score'), map(list, zip(*GRADES))))


@pytest.fixture
def reading(tmp_path): return Reading(tmp_path/'cache', show_progress=False)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    "The library, with a cache of its own and no network."
    library = pytest.importorskip('datasets')
    monkeypatch.setattr(library.config, 'HF_DATASETS_CACHE', tmp_path/'hf')
    library.disable_progress_bars()
    return library


def passages_of(found): return [(p.id, p.title, p.text) for p in found]


ALL = list(zip(CORPUS['_id'], CORPUS['title'], TEXTS))


def judged_as_given(questions):
    found = [(q.id, q.question, [(c.passage_id, c.score) for c in q.positive_ctxs]) for q in questions]
    assert found == [('q0', ASKED[0], [('d0', 2)]), ('q1', ASKED[1], [('d1', 1)])]


def test_a_saved_folder(tmp_path, datasets, reading):
    "Several files, and a selection of rows, which the library writes out."
    whole = datasets.Dataset.from_dict({n: [*c, c[0]] for n, c in CORPUS.items()}).select(range(4))
    whole.save_to_disk(tmp_path/'corpus', num_shards=3)
    assert len(list((tmp_path/'corpus').glob('*.arrow'))) == 3
    assert passages_of(open_corpus(tmp_path/'corpus', reading)) == ALL
    datasets.Dataset.from_dict(QUERIES).save_to_disk(tmp_path/'queries')
    assert [q.question for q in open_queries(tmp_path/'queries', reading)] == ASKED
    with patch.dict(sys.modules, datasets=None): # the folder is read without the library
        assert passages_of(open_corpus(tmp_path/'corpus', reading)) == ALL


def test_a_saved_folder_of_splits(tmp_path, datasets, reading):
    both = datasets.DatasetDict({n: datasets.Dataset.from_dict(CORPUS) for n in ('train', 'test')})
    both.save_to_disk(tmp_path/'both')
    with pytest.raises(DaclError, match='has several splits, train, test; name one as .*both/train$'):
        open_corpus(tmp_path/'both', reading)
    assert passages_of(open_corpus(tmp_path/'both'/'test', reading)) == ALL


def test_a_saved_folder_without_texts_names_its_columns(tmp_path, datasets, reading):
    datasets.Dataset.from_dict({'n': [1], 'url': ['x']}).save_to_disk(tmp_path/'d')
    with pytest.raises(DaclError, match='d: has no column of texts; its columns are n, url; name one of them text'):
        open_corpus(tmp_path/'d', reading)
    datasets.Dataset.from_dict({'id': ['a', 'b'], 'text': ['x', None]}).save_to_disk(tmp_path/'e')
    with pytest.raises(DaclError, match='e row 1: has no text'): open_corpus(tmp_path/'e', reading)


@pytest.fixture
def hub(tmp_path, datasets):
    "A folder laid out like MTEB's data sets on the hub."
    (home := tmp_path/'hub').mkdir()
    tables = {'corpus': ('corpus', CORPUS), 'queries': ('queries', QUERIES), 'default': ('test', QRELS)}
    card = ''.join(
        f'- config_name: {c}\n  data_files: [{{split: {s}, path: {s}.parquet}}]\n' for c, (s, _) in tables.items())
    (home/'README.md').write_text(f'---\nconfigs:\n{card}---\n')
    for split, table in tables.values(): pq.write_table(pa.table(table), home/f'{split}.parquet')
    return home


def test_the_hub(hub, reading):
    corpus, asked = f'hf:{hub}/corpus', f'hf:{hub}:test'
    assert passages_of(open_corpus(corpus, reading)) == ALL
    questions = open_queries(asked, reading)
    judged_as_given(questions)
    assert is_graded(asked)
    chosen = choose_rows(open_corpus(corpus, reading), questions, Diagnose(corpus=corpus, queries=asked))
    assert chosen.with_positive == 2 and chosen.judged.relevant[0] == {0: 2}
    assert [q.question for q in open_queries(f'hf:{hub}/queries', reading)] == ASKED


@pytest.fixture
def offline(datasets, monkeypatch):
    "Without this, each unknown name is asked of the network several times."
    from huggingface_hub import constants
    for config in (datasets.config, constants): monkeypatch.setattr(config, 'HF_HUB_OFFLINE', True)


@pytest.mark.parametrize('name', ['hf:{hub}:none', 'hf:{hub}/none', 'hf:no/such/config', 'hf:a/b:train[:5]'])
def test_faults_of_the_hub_are_one_line(name, hub, offline, reading):
    name = name.format(hub=hub)
    with pytest.raises(DaclError) as e: open_corpus(name, reading)
    assert '\n' not in str(e.value) and str(e.value).startswith(f'{name}: ')


@pytest.fixture
def ir(tmp_path, monkeypatch):
    "A data set registered from files, as a user of the package would."
    library = pytest.importorskip('ir_datasets')
    write = lambda name, rows: (tmp_path/name).write_text(''.join('\t'.join(map(str, r)) + '\n' for r in rows))
    write('docs.tsv', zip(CORPUS['_id'], TEXTS))
    write('queries.tsv', zip(QUERIES['_id'], ASKED))
    (tmp_path/'qrels.txt').write_text(''.join(f'{q} 0 {d} {s}\n' for q, d, s in GRADES))
    monkeypatch.setattr(library.registry, '_registered', {})
    files = {'docs_tsv': 'docs.tsv', 'queries_tsv': 'queries.tsv', 'qrels_trec': 'qrels.txt'}
    whole = library.create_dataset(**{k: str(tmp_path/f) for k, f in files.items()})
    monkeypatch.setattr(library, 'load', {'small/test': whole, 'small/asked': library.create_dataset(
        queries_tsv=str(tmp_path/'queries.tsv'))}.__getitem__)
    return tmp_path


def test_ir_datasets(ir, reading):
    assert passages_of(open_corpus('ir:small/test', reading)) == [(i, '', t) for i, _, t in ALL]
    judged_as_given(open_queries('ir:small/test', reading))
    assert [q.question for q in open_questions('ir:small/asked', reading)] == ASKED
    assert is_graded('ir:small/test')


def test_an_ir_data_set_is_converted_once_until_its_file_changes(ir, reading):
    made = lambda: (open_passages('ir:small/test', reading).folder/'data.arrow').stat().st_mtime_ns
    assert made() == made()
    with open(ir/'docs.tsv', 'a') as f: f.write('d9\tanother text\n')
    assert len(open_passages('ir:small/test', reading)) == 5


def test_faults_of_ir_datasets_are_one_line(ir, reading):
    with pytest.raises(DaclError, match='ir:no/such: ir_datasets has no such data set'):
        open_corpus('ir:no/such', reading)
    with pytest.raises(DaclError, match='ir:small/asked: has no docs'): open_corpus('ir:small/asked', reading)
    (ir/'qrels.txt').write_text('q7 0 d0 1\n')
    with pytest.raises(DaclError, match="ir:small/test: query 'q7' is not in its queries"):
        open_queries('ir:small/test', reading)
    (ir/'docs.tsv').write_text('d0\ta\nd0\tb\n')
    with pytest.raises(DaclError, match="passage id 'd0' is repeated"): open_corpus('ir:small/test', reading)


@pytest.mark.parametrize('name, package', [('hf:a/b', 'datasets'), ('ir:beir/scifact', 'ir_datasets')])
def test_a_missing_package_is_named(name, package, reading):
    with patch.dict(sys.modules, {package: None}), pytest.raises(DaclError, match=f'pip install {package}$'):
        open_corpus(name, reading)


def test_the_program_takes_names(hub, tmp_path, capsys):
    code = main(
        ['bm25-eval', '--corpus', f'hf:{hub}/corpus', '--test_file', f'hf:{hub}:test', '--dataset_name', 'small',
                 '--k', '2', '--output', str(tmp_path/'out'), '--cache_dir', str(tmp_path/'cache')])
    assert code == 0, capsys.readouterr().err
    [found] = (tmp_path/'out').rglob('*.metrics.json')
    assert 'recall            1.0000' in capsys.readouterr().out and found.is_file()


def test_an_index_keeps_the_name_of_its_corpus(tmp_path, hub, reading):
    index = SimpleNamespace(about=SimpleNamespace(corpus_file=corpus_place(f'hf:{hub}/corpus')), folder=tmp_path)
    assert corpus_of(index, None) == f'hf:{hub}/corpus'
