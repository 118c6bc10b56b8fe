"One judge and one ANN recall for all commands; prefixes; and no results overwritten by those of something else."
import json

import numpy as np
import pandas as pd
import pytest
import pytrec_eval

from dacl_dr.cli.main import main
from dacl_dr.core.options import Diagnose
from dacl_dr.core.settings import EncoderSettings, Prefixes, Reading, SearchSettings
from dacl_dr.data.formats import read_passages
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.encoder import with_prefixes
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.evaluation.diagnosis import diagnose
from dacl_dr.evaluation.facts import diagnose_vectors
from dacl_dr.evaluation.sample import unit_rows
from dacl_dr.hnsw.tracer import Tracer
from dacl_dr.search.vectors import Vectors
from hostile import SCRIPT, shows_only

QUIET, SMALL = Reading(show_progress=False), SearchSettings(m=8, ef_construction=40)


def dacl(*args): return main([str(a) for a in args])
def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')


def one_line(capsys, code, *parts):
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and lines[-1].startswith('dacl: '), lines
    for part in parts: assert part in lines[-1], lines[-1]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A BEIR folder in which each query has several graded positives, and one judgement of a passage that is not there."
    home, rng = tmp_path_factory.mktemp('judges'), np.random.default_rng(0)
    toy_data(home/'data', n=400)
    passages = read_passages(home/'data'/'psgs.tsv')
    texts = [f'{p.title} {p.text}' for p in passages]
    tokenizer = train_tokenizer(texts, 300)
    for name, seed in (('encoder', 0), ('other', 1)):
        (home/name).mkdir()
        StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=32), seed).save(home/name)
    (home/'beir'/'qrels').mkdir(parents=True)
    lines = lambda rows: ''.join(json.dumps(r) + '\n' for r in rows)
    (home/'beir'/'corpus.jsonl').write_text(
        lines({'_id': f'd{p.id}', 'title': p.title, 'text': p.text} for p in passages))
    (home/'beir'/'queries.jsonl').write_text(lines({'_id': f'q{i}', 'text': passages[7 * i].text} for i in range(40)))
    judged = {
        f'q{i}': {
            f'd{passages[row].id}': int(grade) for row, grade in zip([7 * i, *rng.choice(400, 5)], (1, 3, 2, 1, 2, 0))}
        for i in range(40)
    }
    judged['q3']['d99999'] = 2
    for split, some in (('test', list(judged)), ('dev', list(judged)[:20])):
        rows = [f'{q}\t{d}\t{g}\n' for q in some for d, g in judged[q].items()]
        (home/'beir'/'qrels'/f'{split}.tsv').write_text('query-id\tcorpus-id\tscore\n' + ''.join(rows))
    for name in ('encoder', 'other'):
        assert dacl(
            'build-index', '--encoder_path', home/name, '--corpus_path', home/'beir', '--output_path',
            home/f'{name}-index',
            '--hnsw_m', 8, '--hnsw_ef_construction', 40, '--cache_dir', home/'cache') == 0
    (home/'judged.json').write_text(json.dumps(judged))
    return home


def index_flags(home, name='encoder', split='test', index=None):
    return ['--encoder_path', home/name, '--index_path', index or home/f'{name}-index',
        '--test_file', home/'beir'/'qrels'/f'{split}.tsv', '--cache_dir', home/'cache']


def test_diagnose_and_run_evaluation_judge_alike_and_as_trec_eval(home, tmp_path):
    assert dacl('run-evaluation', *index_flags(home), '--output_path', tmp_path, '--hnsw_ef_search', 400) == 0
    assert dacl('run-ef-sweep', *index_flags(home), '--output_path', tmp_path, '--rounds', 0, '--draws', 20) == 0
    assert dacl('diagnose', '--encoder', home/'encoder', '--corpus', home/'beir', '--queries', home/'beir',
        '--output_path', tmp_path/'d', '--cache_dir', home/'cache') == 0
    evaluated = json.loads((tmp_path/'evaluation.metrics.json').read_text())
    diagnosed = json.loads((tmp_path/'d'/'diagnosis.json').read_text())
    swept = json.loads((tmp_path/'sweep.sweep.json').read_text())['exact']
    judged = {
        q: {d: g for d, g in grades.items() if g} for q, grades in json.loads((home/'judged.json').read_text()).items()}
    run = {}
    for line in (tmp_path/'evaluation.run.trec').read_text().splitlines():
        q, _, d, _, score, _ = line.split()
        run.setdefault(q, {})[d] = float(score)
    oracle = pytrec_eval.RelevanceEvaluator(judged, {'recall_10', 'ndcg_cut_10', 'recip_rank'}).evaluate(run)
    cut = {q: dict(sorted(docs.items(), key=lambda x: -x[1])[:10]) for q, docs in run.items()}
    first = pytrec_eval.RelevanceEvaluator(judged, {'recip_rank'}).evaluate(cut)
    right = {
        'recall@10': np.mean([v['recall_10'] for v in oracle.values()]),
        'ndcg@10': np.mean([v['ndcg_cut_10'] for v in oracle.values()]),
        'mrr@10': np.mean([first[q]['recip_rank'] for q in judged]),
    }
    assert diagnosed['positives_not_in_corpus'] == evaluated['positives_not_in_corpus'] == 1
    assert diagnosed['most_positives'] >= 5
    for name, value in right.items():
        assert evaluated['metrics'][name] == pytest.approx(value, abs=1e-9), name
        assert diagnosed['numbers'][name] == pytest.approx(value, abs=1e-9), name
        assert swept[name] == pytest.approx(value, abs=1e-9), name
    assert right['recall@10'] < .5 < right['mrr@10'] # several positives: the first alone would say something else


def copied():
    "Four copies of each of 500 vectors, and queries near to some."
    rng = np.random.default_rng(0)
    x = np.repeat(unit(rng.normal(size=(500, 16))), 4, 0)
    return x, unit(x[::40] + .1 * rng.normal(size=(50, 16)))


def test_copies_do_not_stall_ann_recall_and_are_told(tmp_path):
    x, q = copied()
    np.save(tmp_path/'x.npy', x); np.save(tmp_path/'q.npy', q)
    found = json.loads(diagnose(Diagnose(
        vectors=tmp_path/'x.npy', query_vectors=tmp_path/'q.npy', output_path=tmp_path/'out', search=SMALL,
        reading=QUIET)).read_text())
    assert found['costs'][-1]['target'] == .99
    assert found['costs'][-1]['bound'] != 'not reached'
    assert found['costs'][-1]['ef']
    assert found['numbers']['repeated passages'] == .75
    assert any('75.0% of the passages repeat' in said for said in found['suggestions'])
    assert not any('larger M' in said for said in found['suggestions'] if 'reaches only' in said)
    table = pd.read_csv(tmp_path/'out'/'sweep.csv')
    assert table['ann recall'].max() > .99
    # any copy will do there too
    assert pd.read_parquet(tmp_path/'out'/'queries.parquet')['to find all'].notna().mean() > .9


def test_a_recall_by_distance_is_that_by_brute_force():
    x, q = copied()
    a = diagnose_vectors(x, q, s=SMALL)
    for i, ef in enumerate(a.sweep.ef):
        ids = Tracer(a.index).search(q, 10, int(ef)).ids
        right = []
        for row, found in enumerate(ids):
            cosine = x.astype('f8') @ q[row].astype('f8')
            right.append(np.mean(cosine[found] >= np.sort(cosine)[-10] - 1e-6))
        np.testing.assert_allclose(a.sweep.values['ann recall'][i], right)


def test_unit_float64_is_read_and_left_alone_and_wide_vectors_take_no_square_of_their_width(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(300, 400))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    before = x.copy()
    found, changed = unit_rows(x)
    assert found.dtype == np.float32 and not changed and (x == before).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    widths, true = [], {name: getattr(np.linalg, name) for name in ('eigh', 'eigvalsh')}
    for name in true:
        monkeypatch.setattr(
            np.linalg, name, lambda a, *more, name=name: (widths.append(a.shape[0]), true[name](a, *more))[1])
    np.save(tmp_path/'x.npy', x)
    diagnose(Diagnose(vectors=tmp_path/'x.npy', output_path=tmp_path/'out', search=SMALL, reading=QUIET))
    assert widths and max(widths) < 300 # of the queries at most, never of 400 dimensions


def test_judgements_of_vectors_as_qrels_or_rows(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(300, 8)))
    q = unit(x[:20] + .3 * rng.normal(size=(20, 8)))
    np.save(tmp_path/'x.npy', x); np.save(tmp_path/'q.npy', q)
    grades = {i: {i: 2, 100 + i: 1} for i in range(20)}
    (tmp_path/'trec.qrels').write_text(''.join(f'{a} 0 {b} {g}\n' for a, of in grades.items() for b, g in of.items()))
    (tmp_path/'ids.tsv').write_text(
        'query-id\tcorpus-id\tscore\n'
        + ''.join(f'q{a}\td{b}\t{g}\n' for a, of in grades.items() for b, g in of.items()))
    (tmp_path/'p.txt').write_text(''.join(f'd{i}\n' for i in range(300)))
    (tmp_path/'q.txt').write_text(''.join(f'q{i}\n' for i in range(20)))
    np.save(tmp_path/'rows.npy', np.array([[i, 100 + i, -1] for i in range(20)]))
    ways = {
        'trec': ['trec.qrels'], 'ids': ['ids.tsv', '--passage_ids', tmp_path/'p.txt', '--query_ids', tmp_path/'q.txt'],
        'rows': ['rows.npy']}
    told = {}
    for name, (file, *more) in ways.items():
        flags = ['--vectors', tmp_path/'x.npy', '--query_vectors', tmp_path/'q.npy', '--qrels', tmp_path/file, *more]
        assert dacl('diagnose', *flags, '--output_path', tmp_path/name, '--hnsw_m', 8) == 0
        told[name] = json.loads((tmp_path/name/'diagnosis.json').read_text())
    near = np.argsort(-(q @ x.T), axis=1)[:, :10]
    right = np.mean([len({i, 100 + i} & set(near[i])) / 2 for i in range(20)])
    for found in told.values():
        assert found['numbers']['recall@10'] == pytest.approx(right)
        assert found['standing']['kept']['task'] == 'recall@10'
    assert told['trec']['numbers'] == told['ids']['numbers']
    assert told['rows']['numbers']['ndcg@10'] != told['trec']['numbers']['ndcg@10']
    capsys.readouterr()
    vectors = ['--vectors', tmp_path/'x.npy', '--output_path', tmp_path/'no']
    one_line(capsys, dacl('diagnose', *vectors, '--qrels', tmp_path/'ids.tsv'), 'without query_vectors')
    one_line(
        capsys, dacl('diagnose', *vectors, '--query_vectors', tmp_path/'q.npy', '--qrels', tmp_path/'ids.tsv'),
        "names query 'q0'", '--query_ids')
    one_line(
        capsys, dacl('diagnose', *vectors, '--query_vectors', tmp_path/'q.npy', '--query_ids', tmp_path/'q.txt'),
        'without qrels')


def test_prefixes_are_kept_with_an_index_and_another_is_one_line(home, tmp_path, capsys):
    built = tmp_path/'index'
    words = read_passages(home/'data'/'psgs.tsv')[0].text.split()[:2]
    flags = ['--query_prefix', f'{words[0]} ', '--passage_prefix', f'{words[1]} ']
    build = [
        'build-index', '--encoder_path', home/'encoder', '--corpus_path', home/'beir', '--output_path', built,
        '--cache_dir', home/'cache']
    assert dacl(*build, *flags) == 0
    assert json.loads((built/'manifest.json').read_text())['prefixes']['query_prefix'] == f'{words[0]} '
    encoder = with_prefixes(load_encoder(home/'encoder'), Prefixes(passage_prefix=f'{words[1]} '))
    p = read_passages(home/'data'/'psgs.tsv')[5]
    text = f'{p.title} {p.text}'
    np.testing.assert_allclose(
        Vectors(built/'embeddings').take([5])[0], encoder.encode([text], 'passage')[0], atol=1e-6)
    plain = load_encoder(home/'encoder').encode([f'{words[1]} {text}'], 'passage')
    np.testing.assert_allclose(encoder.encode([text], 'passage'), plain, atol=1e-6)
    of_index = index_flags(home, index=built)
    assert dacl('run-evaluation', *of_index, '--output_path', tmp_path/'a') == 0
    assert dacl('run-evaluation', *of_index, *flags, '--output_path', tmp_path/'b') == 0
    a, b = (json.loads((tmp_path/n/'evaluation.metrics.json').read_text()) for n in 'ab')
    assert a['metrics'] == b['metrics'] and a['index']['prefixes']['passage_prefix'] == f'{words[1]} '
    assert dacl('run-evaluation', *index_flags(home), '--output_path', tmp_path/'c') == 0
    assert json.loads((tmp_path/'c'/'evaluation.metrics.json').read_text())['metrics'] != a['metrics']
    capsys.readouterr()
    for command in ('run-evaluation', 'run-ef-sweep'):
        one_line(
            capsys, dacl(command, *of_index, '--query_prefix', 'ask: ', '--output_path', tmp_path/'d'),
            'was built with --query_prefix', "'ask: ' is given")
        one_line(
            capsys, dacl(command, *index_flags(home), '--passage_prefix', 'x ', '--output_path', tmp_path/'d'),
            "--passage_prefix ''")
    one_line(
        capsys, dacl(*build, '--query_prefix', 'ask: ', *flags[2:]),
        f"holds another index: query_prefix is '{words[0]} ' there and 'ask: ' here; choose another --output")


def test_results_of_something_else_are_not_overwritten(home, tmp_path, capsys):
    index, other, dev = index_flags(home), index_flags(home, 'other'), index_flags(home, split='dev')
    quick = {'run-evaluation': [], 'run-ef-sweep': ['--rounds', 0, '--draws', 20]}
    for command, more in quick.items():
        out = ['--output_path', tmp_path/command, *more]
        assert dacl(command, *index, *out) == dacl(command, *index, *out) == 0 # the same inputs write anew
        capsys.readouterr()
        one_line(
            capsys, dacl(command, *other, *out), 'holds results of another encoder', '--output or --experiment_name')
        one_line(capsys, dacl(command, *dev, *out), 'holds results of another question set')
    bm25 = [
        'bm25-eval', '--test_file', home/'data'/'toy-dev.json', '--dataset_name', 'x', '--output_path', tmp_path/'bm25',
        '--cache_dir', home/'cache', '--corpus_file']
    toy_data(home/'more', n=400)
    (home/'more'/'psgs.tsv').write_text((home/'data'/'psgs.tsv').read_text() + '8888\tmore words\tmore\n')
    assert dacl(*bm25, home/'data'/'psgs.tsv') == 0
    one_line(capsys, dacl(*bm25, home/'more'/'psgs.tsv'), 'holds results of another corpus', '--dataset_name')
    space = [
        'run-representation-eval', '--dev_file', home/'data'/'toy-dev.json', '--output_path', tmp_path/'space',
        '--cache_dir', home/'cache', '--encoder_path']
    assert dacl(*space, home/'encoder') == 0
    assert 'searched were the 100 passages that they name' in capsys.readouterr().out
    one_line(capsys, dacl(*space, home/'other'), 'holds results of another encoder')
    texts = [
        'diagnose', '--corpus', home/'beir', '--queries', home/'beir', '--output_path', tmp_path/'d', '--cache_dir',
        home/'cache', '--max_queries', 20, '--encoder']
    assert dacl(*texts, home/'encoder') == 0
    one_line(capsys, dacl(*texts, home/'other'), 'holds results of another encoder')
    ablation = lambda *names: dacl(
        'run-ablation', '--model_dirs', *(f'{n}={home/n}' for n in names), '--index_dirs',
        *(f'{n}={home/n}-index' for n in names),
        '--test_file', home/'beir'/'qrels'/'test.tsv', '--dataset_name', 'x', '--output_path', tmp_path/'ablation',
        '--rounds', 0, '--draws', 20, '--cache_dir', home/'cache')
    assert ablation('encoder', 'other') == 0
    assert set(
        json.loads((tmp_path/'ablation'/'x'/'run.json').read_text())['repeated_passages']) == {'encoder', 'other'}
    one_line(capsys, ablation('encoder'), 'holds results of another set of models')


def test_names_of_models_are_shown_and_not_run(home, tmp_path):
    of = lambda *names: [
        '--model_dirs', *(f'{n}={home/"encoder"}' for n in names), '--index_dirs',
        *(f'{n}={home/"encoder-index"}' for n in names)]
    assert dacl(
        'run-ablation', *of('A', SCRIPT), '--test_file', home/'beir'/'qrels'/'test.tsv', '--dataset_name', 'x',
        '--output_path', tmp_path, '--rounds', 0, '--draws', 20, '--cache_dir', home/'cache') == 0
    shows_only(tmp_path/'x'/'ablation.html', SCRIPT)


def test_representation_says_what_is_missing_before_it_encodes(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        'dacl_dr.evaluation.representation.load_encoder', lambda *a: pytest.fail('an encoder was loaded'))
    look = [
        'run-representation-eval', '--encoder_path', home/'encoder', '--output_path', tmp_path/'out', '--cache_dir',
        home/'cache', '--dev_file']
    one_line(capsys, dacl(*look, home/'beir'/'qrels'/'test.tsv'), 'has no text', 'biencoder JSON')
    record = {
        'question': 'who', 'answers': [], 'positive_ctxs': [{'title': '', 'text': 'she', 'passage_id': '1'}],
        'negative_ctxs': [], 'hard_negative_ctxs': []}
    (tmp_path/'few.json').write_text(json.dumps([record]))
    one_line(capsys, dacl(*look, tmp_path/'few.json'), 'few.json: 1 passages are too few', 'that its questions name')
