"What is chosen, on which queries, and what it costs: counted again by other means."
import sys
from pathlib import Path

import faiss, msgspec, numpy as np
import pytest, pytrec_eval

sys.path.insert(0, str(Path(__file__).parent))
from made import clumps, material

from dacl_dr.hnsw.cost import rising
from dacl_dr.hnsw.searcher import Searcher, Stop
from dacl_dr.hnsw.tracer import faiss_counts
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.tuning import LEVERS, Aim, Bench, Budget, Lexical, Way, choose_ways, outcome_rows
from dacl_dr.tuning.choosing import Builder, bytes_read, descend_levers, spent_at_goal
from dacl_dr.tuning.levers import levers_named
from dacl_dr.tuning.material import Half, halves
from dacl_dr.tuning.runner import compared_again
from dacl_dr.tuning.trials import place_of, with_knob

SMALL = Way(m=8, ef_construction=40)


@pytest.fixture(scope='module')
def tuned():
    m = material()
    bench = Bench(m, Aim())
    return bench, choose_ways(bench, SMALL, levers_named(['stop', 'run']))


def recall(judged, rows, ids):
    "recall@10 of some queries, by pytrec_eval."
    qrels = {str(i): {str(p): g for p, g in judged.relevant[i].items()} for i in rows}
    run = {str(i): {str(p): float(10 - n) for n, p in enumerate(found)} for i, found in zip(rows, ids)}
    found = pytrec_eval.RelevanceEvaluator(qrels, {'recall.10'}).evaluate(run)
    return np.mean([v['recall_10'] for v in found.values()])

def test_costs_and_recall_are_what_other_programs_count(tuned):
    bench, choice = tuned
    rows, report = {r.name: r for r in outcome_rows(bench, choice, 16)}, bench.report.rows
    x, q, near = clumps()
    index = bench.graphs.get(SMALL).index # nodes are passages
    plain = faiss_counts(index, q[report], 10, rows['plain'].knob)
    assert plain.evaluations.mean() == rows['plain'].evaluations.value
    assert recall(bench.m.judged, report, plain.ids) == pytest.approx(rows['plain'].quality.value)
    best = rows['hybrid']
    entries = near[report][:, 3:5][:, :best.way.n_seeds]
    stop = Stop(gamma=best.knob / 1000) if best.way.stop == 'gamma' else Stop(ef=max(10, best.knob))
    if best.way.stop == 'patience': stop = Stop(ef=1024, patience=best.knob)
    found = Searcher(index).find(q[report], 10, stop, entries)
    assert found.evaluations.mean() == best.evaluations.value and found.visited.mean() == best.visited
    assert recall(bench.m.judged, report, found.ids) == pytest.approx(best.quality.value)
    assert best.change.value < 0
    exact = np.argsort(-(q[report] @ x.T), 1)[:, :10]
    assert recall(bench.m.judged, report, exact) * best.kept.value == pytest.approx(best.quality.value)

def test_the_chosen_knob_is_the_first_that_reaches_the_goal(tuned):
    bench, choice = tuned
    for f in choice.found:
        t, goal = f.trial, .99 * bench.tune.best['recall@10'].mean()
        at = place_of(t.tune, t.knob)
        assert t.tune.mean('recall@10')[at:].max() >= goal - 1e-9
        assert at == 0 or rising(t.tune.mean('recall@10'))[at - 1] < goal - 1e-12

def test_what_is_chosen_does_not_depend_on_the_reporting_half(tuned):
    bench, choice = tuned
    tune, report = halves(200)
    assert not set(tune) & set(report) and sorted([*tune, *report]) == list(range(200))
    near, rng = clumps()[2], np.random.default_rng(1)
    relevant = list(bench.m.judged.relevant)
    for i in report: relevant[i] = {int(near[i, rng.integers(10)]): 1, -2: 1} # one of two is nowhere
    other = Bench(material(judged=Judgements(relevant)), Aim())
    again = choose_ways(other, SMALL, levers_named(['stop', 'run']))
    assert [(f.name, f.trial.way, f.trial.knob) for f in again.found] == [
        (f.name, f.trial.way, f.trial.knob) for f in choice.found]
    assert other.report.best['recall@10'].mean() == .5 < bench.report.best['recall@10'].mean()

def test_bm25_and_a_run_of_the_same_results_give_equal_rows():
    near, rows = clumps()[2], {}
    for source in ('bm25', 'run'):
        bench = Bench(material(lexical={source: Lexical(near[:, 3:5])}), Aim())
        choice = choose_ways(bench, SMALL, levers_named(['stop', source]))
        found = outcome_rows(bench, choice, 16)
        rows[source] = [(r.knob, r.evaluations, r.quality, r.kept, r.change, r.megabytes) for r in found]
    assert rows['bm25'] == rows['run']

def test_no_lever_makes_it_worse(tuned):
    bench, choice = tuned
    spent = {f.name: spent_at_goal(bench, f.trial, Budget()) for f in choice.found}
    assert spent['hybrid'] <= spent['together'] <= min(spent['plain'], spent['stop'])
    assert spent['hybrid'] <= spent['run'] < spent['plain']

def test_a_descent_does_not_leave_a_better_way(tuned):
    bench, _ = tuned
    best = bench.trial(SMALL.but(seeds='run', n_seeds=5, stop='gamma'))
    moved = descend_levers(Builder(bench, Budget()), best, levers_named(['stop']))
    assert spent_at_goal(bench, moved, Budget()) <= spent_at_goal(bench, best, Budget())
    worse = bench.trial(SMALL.but(stop='patience'))
    moved = descend_levers(Builder(bench, Budget()), worse, levers_named(['stop', 'run']))
    assert spent_at_goal(bench, moved, Budget()) < spent_at_goal(bench, worse, Budget())

def test_what_is_read():
    assert bytes_read(Way(), 100, 24) == 9600
    assert bytes_read(Way(storage='sq8'), 100, 24) == 2400
    assert bytes_read(Way(storage='sq8', rerank=20), 100, 24) == 2400 + 20 * 96
    assert bytes_read(Way(axes='pca', dims=12, rerank=40), 100, 24) == 4800 + 40 * 96

def test_a_goal_is_a_share_of_exact_search_or_a_value():
    assert Aim(keep=.9).goal(np.array([.5, .7])) == pytest.approx(.54)
    assert Aim(keep=.9, target=.3).goal(np.array([.5, .7])) == .3

def test_a_sweep_takes_a_knob_in_its_place(tuned):
    bench, choice = tuned
    t, runner = choice.named('plain').trial, bench.runner(SMALL)
    s = with_knob(runner, bench.report, t.report, 11)
    assert (np.diff(s.ef) > 0).all() and 11 in s.ef
    found = runner.find(bench.report.rows, 11)
    assert (s.values['evaluations'][place_of(s, 11)] == found.evaluations).all()
    assert (s.values['recall@10'][place_of(s, 11)] == bench.report.judge(found.ids)['recall@10']).all()

def test_results_are_compared_again_by_full_vectors():
    x, q, near = clumps()
    shuffled = np.take_along_axis(near, np.random.default_rng(0).permuted(np.tile(np.arange(10), (200, 1)), axis=1), 1)
    assert (compared_again(shuffled, q, x) == near).all()
    assert (compared_again(np.where(np.arange(10) < 3, -1, near), q, x)[:, -3:] == -1).all()

def test_memory_is_of_links_and_of_what_is_compared(tuned):
    bench, _ = tuned
    full, codes = bench.trial(SMALL), bench.trial(SMALL.but(storage='sq8'))
    assert full.bytes - codes.bytes == 3 * 2000 * 24
    index = bench.graphs.get(SMALL).index
    assert full.bytes == 4 * index.hnsw.neighbors.size() + 12 * 2000 + 4 * 2000 * 24
    assert spent_at_goal(bench, full, Budget(megabytes=full.bytes / 1e6)) < np.inf
    assert spent_at_goal(bench, full, Budget(megabytes=full.bytes / 1e6 - .001)) == np.inf

def test_a_cost_at_the_goal_lies_between_its_knobs(tuned):
    bench, _ = tuned
    t = bench.trial(SMALL)
    at, spent = place_of(t.tune, t.knob), t.tune.mean('evaluations')
    assert spent[at - 1] < spent_at_goal(bench, t, Budget()) <= spent[at]

def test_a_query_of_a_passage_is_not_its_own_result():
    x = clumps()[0]
    rows = np.arange(0, 2000, 50)
    from dacl_dr.evaluation.judging import OthersJudged
    judged = OthersJudged([{int(r) + 1: 1} for r in rows], rows)
    half = Half(material(q=x[rows], judged=judged, lexical={}), np.arange(40), 'recall@10')
    assert half.extra == 1 and half.exact.shape == (40, 11) and (half.exact[:, 0] == rows).all()

def test_a_graph_is_paid_for_once(tuned):
    builder = Builder(tuned[0], Budget(seconds=100))
    t = builder.trial(SMALL)
    assert 0 < t.seconds and builder.left == 100 - t.seconds
    builder.trial(SMALL.but(stop='gamma'))
    assert builder.left == 100 - t.seconds
    assert Builder(tuned[0], Budget(seconds=0)).trial(SMALL.but(m=10)) is None
