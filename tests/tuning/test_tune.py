"dacl tune: every input it takes, one line for what it can't take, and the same table after a kill."
import gzip, json, os, signal, subprocess, sys, time
from pathlib import Path

import faiss, numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import BOLD, shows_only
from made import clumps, flags, of, tune, tuned, unit, write
from processes import left_on_screen

from dacl_dr.core.settings import EncoderSettings
from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
from dacl_dr.tuning.material import halves

ROOT = Path(__file__).resolve().parents[2]
INDEX = 'index', 'query_vectors', 'qrels'
FEW = '--levers', 'stop'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tune')
    write(folder)
    return folder


# bad input

def bad_norms(folder):
    for name, metric in (('long', faiss.METRIC_L2), ('long_ip', faiss.METRIC_INNER_PRODUCT)):
        index = faiss.IndexHNSWFlat(24, 8, metric)
        index.add(2 * clumps()[0])
        faiss.write_index(index, str(folder/f'{name}.faiss'))

def bad_codes(folder):
    index = faiss.IndexHNSWSQ(24, faiss.ScalarQuantizer.QT_8bit, 8, faiss.METRIC_INNER_PRODUCT)
    index.train(clumps()[0])
    index.add(clumps()[0])
    faiss.write_index(index, str(folder/'codes.faiss'))

def bad_files(folder):
    bad_norms(folder)
    bad_codes(folder)
    np.save(folder/'q23.npy', clumps(dim=23)[1])
    np.save(folder/'few.npy', clumps()[1][:19])
    np.save(folder/'short.npy', clumps()[0][:40])
    np.save(folder/'none.npy', np.full(200, -1))
    (folder/'others.txt').write_text('q1 0 7 1\n')
    (folder/'beyond.txt').write_text('0 0 2000 1\n')
    (folder/'ids.txt').write_text(''.join(f'p{i}\n' for i in range(2000)))
    (folder/'nowhere.txt').write_text(''.join(f'{i} 0 x{i} 1\n' for i in range(200)))
    (folder/'others.run').write_text('q1 Q0 7 1 2.5 x\n')
    (folder/'elsewhere.run').write_text('1 Q0 p7 1 2.5 x\n')
    (folder/'no.run').write_text('0 Q0 7 1 2.5 x\n0 7 2.5\n')

REFUSED = {
    'judgements of other queries': (
        INDEX[:2], '--qrels others.txt', "others.txt: names query 'q1', and there are rows 0 to 199"),
    'a passage that is not there': (
        INDEX[:2], '--qrels beyond.txt', "names passage '2000', and there are rows 0 to 1,999"),
    'judgements that match nothing': (
        INDEX[:2], '--qrels nowhere.txt --passage_ids ids.txt', 'exact search finds nothing that is judged relevant'),
    'judgements without a passage': (
        INDEX[:2], '--qrels none.npy', 'exact search finds nothing that is judged relevant'),
    'a run of other queries': (INDEX, '--run others.run', 'has no result for any of the 200 queries'),
    'a run of other passages': (INDEX, '--run elsewhere.run', 'none of its passages is among the 2,000'),
    'no run': (INDEX, '--run no.run', 'no.run: line 2 is not of a TREC run'),
    'queries of another dimension': (('index',), '--query_vectors q23.npy', '23'),
    'training queries of another dimension': (
        INDEX, '--train_queries q23.npy', 'its rows have 23 dimensions, the passages 24'),
    'an index of 8 bits': (('query_vectors',), '--index codes.faiss', 'codes.faiss'),
    'an index of long vectors': (('query_vectors',), '--index long.faiss', 'its vectors are not of norm 1'),
    'an index of long vectors by inner product': (('query_vectors',), '--index long_ip.faiss', 'normalise the vectors'),
    'no index': (('query_vectors',), '--index q.npy', 'q.npy'),
    'an absent index': (('query_vectors',), '--index absent.faiss', 'absent.faiss'),
    'more results than passages': (INDEX, '--k 2000', '2,000 passages are too few to tune a search for 2000'),
    'few passages': (('query_vectors',), '--vectors short.npy', '40 passages are too few to tune a search for 10'),
    'few queries': (('index',), '--query_vectors few.npy', '19 queries are too few'),
    'a goal out of reach': (
        INDEX, '--metric ndcg --target .99', 'the target, ndcg@10 0.99, is above what exact search'),
    'two goals': (INDEX, '--target .9 --max_ms 1', 'target and max_ms are given; give one goal'),
    'two goals of vectors': (('vectors', 'query_vectors'), '--target .9 --max_ms 1', 'give one goal'),
    'a metric without judgements': (INDEX[:2], '--metric recall', 'metric recall needs judgements'),
    'index and vectors': (('index', 'vectors', 'query_vectors'), '', 'index and vectors are given'),
    'index alone': (('index',), '', 'index is given without query_vectors'),
    'an unknown lever': (INDEX, '--levers sotp', "'sotp' is not known"),
    'a share above 1': (INDEX, '--keep 1.5', '--keep'),
}

@pytest.fixture(scope='module')
def bad(data):
    bad_files(data)
    return data

@pytest.mark.parametrize('name', REFUSED)
def test_bad_input_is_one_line(name, bad, capsys, monkeypatch, tmp_path):
    names, words, said = REFUSED[name]
    given = flags(bad, *names)
    for word in words.split(): given.append(str(bad/word) if (bad/word).is_file() else word)
    monkeypatch.chdir(tmp_path)
    assert tune(tmp_path, *given) == 2
    err = left_on_screen(capsys.readouterr().err)
    assert err.count('\n') == 1 and err.startswith('dacl: ') and said in err, err
    assert not (tmp_path/'out'/'tuned.json').exists()

def test_results_of_another_data_set_stay(data, tmp_path, capsys):
    assert tune(tmp_path, *flags(data, *INDEX), *FEW) == 0
    before = (tmp_path/'out'/'tuned.json').read_bytes()
    np.save(tmp_path/'other.npy', clumps()[1][::-1])
    capsys.readouterr()
    assert tune(tmp_path, *flags(data, 'index', 'qrels'), '--query_vectors', tmp_path/'other.npy', *FEW) == 2
    err = capsys.readouterr().err
    assert 'holds results of another set of queries; choose another --output' in err and err.count('\n') == 1
    assert (tmp_path/'out'/'tuned.json').read_bytes() == before


# kills

TIMES = 'build_s', 'lexical_ms'

def untimed(rows): return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]

def test_a_killed_run_goes_on_to_the_same_table(data, tmp_path):
    words = [*flags(data, *INDEX, 'run'), '--levers', 'm', 'stop', 'run', '--build_seconds', '1000']
    assert tune(tmp_path, *words, out='whole') == 0
    code = 'import sys; from dacl_dr.cli.main import main; sys.exit(main(sys.argv[1:]))'
    argv = [sys.executable, '-c', code, 'tune', *words, '--output', str(tmp_path/'killed'), '--rounds', '0']
    child = subprocess.Popen(argv, env=os.environ | {'PYTHONPATH': str(ROOT)}, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(
        list((tmp_path/'killed').glob('tried/*.trial'))
    ) < 4 and child.poll() is None and time.monotonic() < until:
        time.sleep(.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    tried = {f.name: f.stat().st_mtime_ns for f in (tmp_path/'killed'/'tried').glob('*.trial')}
    assert len(tried) >= 4 and not (tmp_path/'killed'/'tuned.json').exists()
    broken = sorted((tmp_path/'killed'/'tried').glob('*.trial'))[0]
    broken.write_bytes(broken.read_bytes()[:-100]) # one of them was cut short, as by a full disk
    assert tune(tmp_path, *words, out='killed') == 0
    assert untimed(tuned(tmp_path, 'killed')['rows']) == untimed(tuned(tmp_path, 'whole')['rows'])
    again = {f.name: f.stat().st_mtime_ns for f in (tmp_path/'killed'/'tried').glob('*.trial')}
    assert [name for name in tried if again[name] != tried[name]] == [broken.name]
    assert set(again) == {f.name for f in (tmp_path/'whole'/'tried').glob('*.trial')}


# inputs

def test_vectors_and_an_index_of_them_are_tuned_alike(data, tmp_path):
    same = '--hnsw_m', '8', '--hnsw_ef_construction', '40'
    assert tune(tmp_path, *flags(data, *INDEX), *FEW, out='index') == 0
    assert tune(tmp_path, *flags(data, 'vectors', 'query_vectors', 'qrels'), *same, *FEW, out='vectors') == 0
    a, b = (of(tuned(tmp_path, out)) for out in ('index', 'vectors'))
    for name in ('have', 'plain', 'stop', 'together'):
        assert a[name]['way'] == b[name]['way']
        assert a[name]['kept']['value'] == pytest.approx(b[name]['kept']['value'], abs=.02)
    assert a['have']['build_s'] is None and b['have']['build_s'] > 0
    assert a['stop']['change']['value'] < 0

def test_an_index_with_labels(data, tmp_path):
    write(tmp_path, np.random.default_rng(3).permutation(9000)[:2000])
    words = '--qrels', tmp_path/'qrels.txt', *flags(tmp_path, 'index', 'query_vectors', 'run'), '--levers', 'run'
    assert tune(tmp_path, *words) == 0
    assert tune(
        tmp_path, *flags(data, 'index', 'query_vectors', 'run'), '--qrels', data/'qrels.txt', '--levers', 'run',
        out='plain') == 0
    assert untimed(tuned(tmp_path)['rows']) == untimed(tuned(tmp_path, 'plain')['rows'])

def test_training_queries_bytes_and_memory(data, tmp_path):
    words = flags(data, *INDEX, 'train_queries')
    assert tune(tmp_path, *words, '--levers', 'links', out='links') == 0
    assert of(tuned(tmp_path, 'links'))['links']['way']['links'] > 0
    assert tune(tmp_path, *words, '--levers', 'storage', '--save', 'bytes', '--max_mb', '.25') == 0
    rows = of(tuned(tmp_path))
    assert rows['together']['way']['storage'] != 'float32'
    assert rows['together']['megabytes'] <= .25 < rows['have']['megabytes']

def test_a_budget_of_milliseconds(data, tmp_path, capsys, monkeypatch):
    "A distance computation is told to take 10 microseconds, whatever the machine does: 4 ms are 400 of them."
    monkeypatch.setattr('dacl_dr.tuning.trials.ms_a_computation', lambda *_: .01)
    words = *flags(data, *INDEX, 'run'), '--levers', 'stop', 'run', '--max_ms'
    for ms in ('.01', '4', '50'): assert tune(tmp_path, *words, ms, out=ms, rounds=1) == 0
    said, (none, few, many) = capsys.readouterr().out, [of(tuned(tmp_path, ms)) for ms in ('.01', '4', '50')]
    assert all(f'within {ms} ms' in said for ms in ('0.01', '4', '50'))
    for name in ('plain', 'together'):
        assert none[name]['knob'] is None and few[name]['evaluations']['value'] < 440 # queries that did not choose
        assert none[name]['change'] is None # nothing was searched
    assert 'Not reached on the queries that settings are chosen on: efSearch at the best M' in said
    assert few['plain']['knob'] < many['plain']['knob'] and many['plain']['evaluations']['value'] > 440
    assert few['together']['quality']['value'] >= few['plain']['quality']['value'] - .02
    assert tuned(tmp_path, '4')['times']['plain']['median'] > 0

def test_more_results(data, tmp_path):
    assert tune(tmp_path, *flags(data, *INDEX), *FEW, '--k', '20') == 0
    found = tuned(tmp_path)
    assert found['aim']['metric'] == 'recall@20' and of(found)['have']['knob'] == 20

@pytest.mark.parametrize('metric', ['ann_recall', 'ndcg'])
def test_metrics(metric, data, tmp_path):
    names = INDEX[:2] if metric == 'ann_recall' else INDEX
    assert tune(tmp_path, *flags(data, *names), '--metric', metric, *FEW) == 0
    found = tuned(tmp_path)
    assert found['aim']['metric'] == {'ann_recall': 'ann recall', 'ndcg': 'ndcg@10'}[metric]
    assert of(found)['plain']['kept']['value'] > .95

def test_a_seed_changes_halves_and_insertion(data, tmp_path, monkeypatch):
    "Of an index that is there the halves alone; of vectors the graph too, which is seen with equal halves."
    built = {'vectors': ('--hnsw_m', '8', '--hnsw_ef_construction', '40'), 'index': ()}
    def cost(kind, seed, out):
        words = *flags(data, kind, 'query_vectors', 'qrels'), *built[kind], *FEW
        assert tune(tmp_path, *words, '--seed', seed, out=out) == 0
        return of(tuned(tmp_path, out))['have']['evaluations']['value']
    first, other = cost('index', 0, 'a'), cost('index', 1, 'b')
    assert first != other and first == pytest.approx(other, rel=.2)
    monkeypatch.setattr('dacl_dr.tuning.trials.halves', lambda n, seed=0: halves(n))
    assert cost('index', 1, 'c') == first
    first, other = cost('vectors', 0, 'd'), cost('vectors', 1, 'e')
    assert first != other and first == pytest.approx(other, rel=.2)

SUBJECTS = 'parser graph index window socket thread colour number query vector'.split()
ACTIONS = 'open close read write find sort merge split draw count'.split()

def texts(folder):
    """100 passages of a few words each, three times over with other endings, queries with half of their words; two
    encoders."""
    rng = np.random.default_rng(0)
    passages = [f'{a} the {s} of {t} {i}' for i, (a, s, t) in enumerate(
        (a, s, t) for a in ACTIONS for s in SUBJECTS for t in rng.choice(SUBJECTS, 3, replace=False))]
    queries = [
        ' '.join(passages[i].split()[:3]) + ' ' + passages[i].split()[-1]
        for i in rng.choice(len(passages), 60, replace=False)]
    (folder/'passages.txt').write_text('\n'.join(passages))
    (folder/'queries.txt').write_text('\n'.join(queries))
    tokenizer = train_tokenizer(passages, 300)
    for name, dim in (('one', 32), ('two', 16)):
        StaticEncoder.create(tokenizer, bag_texts(tokenizer, passages), EncoderSettings(dim=dim), 0).save(folder/name)

def test_encoders_with_texts(tmp_path, capsys):
    texts(tmp_path)
    words = (
        '--corpus', tmp_path/'passages.txt', '--queries', tmp_path/'queries.txt', '--train_queries',
        tmp_path/'queries.txt')
    words = *words, '--cache_dir', tmp_path/'cache', '--levers', 'bm25', 'links'
    assert tune(tmp_path, '--encoder', tmp_path/'one', *words, out='alone') == 0
    rows = of(tuned(tmp_path, 'alone'))
    assert rows['bm25']['way']['seeds'] == 'bm25' and rows['bm25']['lexical_ms'] > 0 and rows['bm25']['postings'] > 1
    assert tune(tmp_path, '--encoder', tmp_path/'one', tmp_path/'two', *words, out='both') == 0
    table = json.loads((tmp_path/'both'/'comparison.json').read_text())
    assert table['folders'] == ['one', 'two'] and [r['dimensions'] for r in table['rows']] == [32, 16]
    assert untimed(tuned(tmp_path/'both', 'one')['rows']) == untimed(tuned(tmp_path, 'alone')['rows'])
    assert 'one' in capsys.readouterr().out


def test_names_of_files_are_shown_and_not_run(data, tmp_path):
    (tmp_path/f'{BOLD}.faiss').symlink_to(data/'mine.faiss')
    assert tune(tmp_path, *flags(data, *INDEX[1:]), '--index', tmp_path/f'{BOLD}.faiss', *FEW) == 0
    shows_only(tmp_path/'out'/'tuning.html', f'{BOLD}.faiss')
