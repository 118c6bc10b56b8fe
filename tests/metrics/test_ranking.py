"End-task metrics against ir_measures and pytrec_eval, trec_eval's own code, and by hand."
from urllib.parse import unquote

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings, strategies as st
from ir_measures import R, RR, Success, nDCG

from dacl_dr.core.errors import DaclError
from dacl_dr.metrics.ranking import (
    METRICS, RANKING, answer_accuracy, grades_of, ideal_of, make_run, qrels_metrics, ranking_metrics, write_run,
)

IDS = st.sampled_from([*(f'd{i}' for i in range(14)), 'd', 'D1', 'é', 'ü', '\uffff', '\U0001F600'])
SCORES = st.integers(-3, 3).map(float) | st.floats(-2000, 2000)
RANKINGS = st.lists(st.dictionaries(IDS, SCORES, max_size=18), min_size=1, max_size=4)
GRADES = st.dictionaries(IDS, st.integers(0, 3), max_size=6)


@pytest.fixture
def ranking():
    "A run with many ties and qrels with several graded positives."
    rng = np.random.default_rng(0)
    ids = [[f'd{i}' for i in rng.permutation(60)[:30]] for _ in range(40)]
    scores = [np.round(rng.random(30), 1) for _ in ids]
    qrels = {
        f'q{n}': {f'd{i}': int(g) for i, g in zip(rng.permutation(60)[:4], rng.integers(1, 4, 4))} for n in range(40)}
    return make_run(list(qrels), ids, scores), qrels


def oracle(run, qrels, ks, depth):
    "The same table by ir_measures. It breaks ties for RR@k in another way than for the others, so the run is cut."
    qrels = {q: grades for q, grades in qrels.items() if grades}
    names = {R@k: f'recall@{k}' for k in ks} | {Success@k: f'success@{k}' for k in ks} | {nDCG@depth: f'ndcg@{depth}'}
    cut = {q: dict(list(docs.items())[:depth]) for q, docs in run.items()}
    values = {name: dict.fromkeys(qrels, 0.) for name in [*names.values(), f'mrr@{depth}']}
    for m in ir_measures.iter_calc(names, qrels, run): values[names[m.measure]][m.query_id] = m.value
    for m in ir_measures.iter_calc([RR], qrels, cut): values[f'mrr@{depth}'][m.query_id] = m.value
    return values


@settings(max_examples=150, deadline=None)
@given(
    RANKINGS, st.data(), st.integers(0, 6), st.sampled_from([(1, 5, 10), (2,), (3, 1, 50)]), st.sampled_from([1, 3, 10])
)
def test_a_run_is_judged_as_by_ir_measures(rankings, data, decimals, ks, depth):
    "Ties, grades from 0, scores that single precision can't tell apart, queries without a run or without judgements."
    queries = [f'q{n}' for n in range(len(rankings))]
    run = make_run(queries, [[*docs] for docs in rankings], [[*docs.values()] for docs in rankings], decimals)
    qrels = {q: data.draw(GRADES) for q in [*queries, 'never asked']}
    if data.draw(st.booleans()): del run['q0']
    ours, theirs = qrels_metrics(run, qrels, ks, depth), oracle(run, qrels, ks, depth)
    assert [*ours] == [*theirs]
    for name, values in theirs.items():
        assert [*ours[name]] == [*values]
        np.testing.assert_allclose([*ours[name].values()], [*values.values()], rtol=0, atol=1e-12, err_msg=name)


def test_metrics_of_ranks_by_hand():
    "The formulas for one gold passage, for every rank and any shape."
    ranks = np.arange(103).reshape(1, 103) # 0: not found
    found = lambda k: (ranks > 0) & (ranks <= k)
    expected = {f'recall@{k}': found(k) * 1. for k in (1, 5, 10, 20, 50, 100)}
    expected['mrr@10'] = np.where(found(10), 1 / np.maximum(ranks, 1), 0)
    expected['ndcg@10'] = np.where(found(10), 1 / np.log2(np.maximum(ranks, 1) + 1), 0)
    assert METRICS.keys() == expected.keys()
    for name, values in expected.items(): np.testing.assert_array_equal(METRICS[name](ranks), values)


def test_parity_with_trec_eval(ranking):
    run, qrels = ranking
    ours = qrels_metrics(run, qrels, ks=(1, 5, 20), depth=10)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {'recall.1,5,20', 'success.1,5', 'ndcg_cut.10'}).evaluate(run)
    for name in ('recall_1', 'recall_5', 'recall_20', 'success_1', 'success_5', 'ndcg_cut_10'):
        mine = name.replace('_cut', '').replace('_', '@')
        assert ours[mine] == pytest.approx({q: v[name] for q, v in theirs.items()}, abs=1e-12), mine
    rr = pytrec_eval.RelevanceEvaluator(qrels, {'recip_rank'}).evaluate(run)
    assert ours['mrr@10'] == pytest.approx({q: v['recip_rank'] if v['recip_rank'] >= .1 else 0 for q, v in rr.items()})


def test_arrays_agree_with_trec_eval_to_twelve_digits_ties_included(ranking):
    run, qrels = ranking
    rows = np.array([[int(d[1:]) for d in docs] for docs in run.values()])
    relevant = [{int(d[1:]): g for d, g in grades.items()} for grades in qrels.values()]
    ours = ranking_metrics(
        grades_of(rows, relevant), ideal_of(relevant), [f'{f}@{k}' for f in RANKING for k in (1, 3, 5, 10, 20, 30)])
    measures = {
        f'{m}.{",".join(map(str, (1, 3, 5, 10, 20, 30)))}' for m in ('recall', 'success', 'ndcg_cut')} | {'recip_rank'}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    for k in (1, 3, 5, 10, 20, 30):
        for mine, name in (('recall', 'recall'), ('success', 'success'), ('ndcg', 'ndcg_cut')):
            np.testing.assert_allclose(ours[f'{mine}@{k}'], [theirs[q][f'{name}_{k}'] for q in qrels], atol=1e-12)
        rr = np.array([theirs[q]['recip_rank'] for q in qrels])
        np.testing.assert_allclose(ours[f'mrr@{k}'], np.where(rr >= 1 / k - 1e-12, rr, 0), atol=1e-12)


def test_a_query_without_a_relevant_passage_has_no_value():
    values = ranking_metrics(
        grades_of(np.array([[1], [-1]]), [{}, {1: 1}]), ideal_of([{}, {1: 1}]),
        ['recall@1', 'ndcg@1', 'mrr@1', 'success@1'])
    for v in values.values(): np.testing.assert_array_equal(v, [np.nan, 0])
    assert np.isnan(ranking_metrics(np.zeros((2, 3)), ideal_of([{}, {}]), ['recall@1'])['recall@1']).all()


@pytest.mark.parametrize('name', ['recal@10', 'recall', 'recall@0', 'recall@x', 'map@10'])
def test_an_unknown_metric_is_an_error(name):
    with pytest.raises(DaclError, match=f"unknown metric '{name}'"):
        ranking_metrics(np.zeros((1, 3)), np.ones((1, 1)), [name])


def test_order_of_ties_and_rounding():
    run = make_run(['q'], [['a', 'b', 'c', 'd']], [[1, 1.00004, .99996, 2]])
    assert list(run['q']) == ['d', 'c', 'b', 'a'] # by id, descending, where four decimals are equal
    assert qrels_metrics(run, {'q': {'b': 1}}, ks=(2, 3))['recall@3'] == {'q': 1}
    assert qrels_metrics(run, {'q': {'b': 1}}, ks=(2,))['recall@2'] == {'q': 0}


def test_scores_that_single_precision_cannot_tell_apart_are_ties():
    "1000.00002 and 1000.00001 are one number in float32, so the id decides, as in trec_eval."
    run, qrels = {'q': {'a': 1000.00002, 'b': 1000.00001}}, {'q': {'b': 1}}
    ours, theirs = qrels_metrics(run, qrels, ks=(1,)), pytrec_eval.RelevanceEvaluator(
        qrels, {'recip_rank'}).evaluate(run)
    assert ours['mrr@10']['q'] == ours['recall@1']['q'] == theirs['q']['recip_rank'] == 1


def test_recall_and_first_rank_are_different_with_several_positives():
    values = qrels_metrics(make_run(['q'], [['a', 'b']], [[2, 1]]), {'q': {'a': 1, 'z': 1}}, ks=(1,))
    assert (values['recall@1']['q'], values['success@1']['q'], values['mrr@10']['q']) == (.5, 1, 1)


def test_queries_that_found_nothing_count_as_zero_and_unjudged_ones_do_not_count():
    values = qrels_metrics({'q1': {'a': 1.}, 'q2': {}}, {'q1': {'a': 1}, 'q2': {'b': 1}, 'q3': {}}, ks=(1,))
    assert values['recall@1'] == {'q1': 1, 'q2': 0} and values['mrr@10'] == {'q1': 1, 'q2': 0}


def test_run_file(tmp_path, ranking):
    run, _ = ranking
    f = write_run(tmp_path/'x.trec', run, 'tag')
    with open(f) as lines: again = pytrec_eval.parse_run(lines)
    assert again == run
    for id in ('a b', 'a\tb', 'a\n', 'a\u00a0b', '5% of it'):
        with open(write_run(f, {'q': {id: 1.}}, 'tag')) as lines: again = pytrec_eval.parse_run(lines)
        assert {unquote(d) for d in again['q']} == {id}
    assert '100%' in write_run(f, {'q': {'100%': 1.}}, 'tag').read_text() # nothing is quoted without need
    with pytest.raises(DaclError, match='is empty'): write_run(f, {'q': {'': 1.}}, 'tag')
    with open(f) as lines: assert list(pytrec_eval.parse_run(lines)) == ['q'] # the old file stands


def test_answer_accuracy_is_not_recall():
    hits = np.array([[False, True, True], [False, False, False], [True, True, True]])
    assert {
        n: v.tolist() for n, v in answer_accuracy(hits, (1, 3)).items()
    } == {'answer accuracy@1': [0, 0, 1], 'answer accuracy@3': [1, 0, 1]}
