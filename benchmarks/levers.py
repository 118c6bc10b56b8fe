"""Do the savings of training, of the stop rule and of lexical entry points add up?

    dacl run-study answer --jobs 2
    python benchmarks/levers.py --study runs/answer-codedocs-static --models A B --folds 3 \\
        --table nbs/experiments/results/levers.csv

Searches the trained encoders of a cross-fitted study in four ways each, M 16: plain, with a stop rule (the best open
candidate is farther than (1 + gamma) times the tenth), from BM25's first ten results, and with both. Every question is
asked once, over each seed of the study; a graph has an insertion order of its own. What each model and way found is
kept in --work, so an interrupted run goes on. Columns: name of the data, model, way, question (a cost at matched
quality), value, change against the baseline model searched plainly, 95% intervals over questions and seeds, `over
plain` and `over A`: the change against the same model searched plainly, and against the baseline searched in the same
way. BM25's own work is not counted.
"""
import argparse
from pathlib import Path

import numpy as np, pandas as pd

from dacl_dr.core.files import atomic_file, make_folder
from dacl_dr.encoders.static import load_encoder
from dacl_dr.hnsw.cost import compare
from dacl_dr.hnsw.curves import Sweep, pooled
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.studies.measures import graph_order, read_sweep, save_sweep, vectors_by
from dacl_dr.studies.plan import StudyPlan
from dacl_dr.studies.task import Task
from dacl_dr.studies.workers import read_study
from dacl_dr.tuning.material import Half, Material
from dacl_dr.tuning.runner import Graphs, Runner
from dacl_dr.tuning.seeds import bm25_seeds
from dacl_dr.tuning.ways import Way

WAYS = {
    'plain': Way(m=16), 'stop': Way(m=16, stop='gamma'), 'bm25': Way(m=16, seeds='bm25'),
    'stop, bm25': Way(m=16, stop='gamma', seeds='bm25'),
}
GRID = {
    'ef': (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160),
    'gamma': (0, 15, 30, 45, 60, 75, 90, 110, 130, 150, 175, 200, 240, 290),
}


def searched(runner, half, knobs):
    "A sweep over all knobs."
    found = []
    for t in runner.search(half.rows, half.extra).many(knobs, len(knobs)):
        found.append({'visited': t.visited} | half.judge(t.ids))
    values = {name: np.stack([f[name] for f in found]).astype(float) for name in found[0]}
    return Sweep(np.array(knobs), values, half.best)


def sweeps_of_model(plan:StudyPlan, task, study, v, lexical, work):
    "Way → sweep of one trained encoder, searched now or before."
    paths = {way: work/f'{v.folder(plan.settings)}-{way.replace(", ", "-")}.parquet' for way in WAYS}
    if not all(p.exists() for p in paths.values()):
        q, passages = vectors_by(load_encoder(study/v.folder(plan.settings)/'train'/'encoder'), task)
        rows = graph_order(task, v)
        place = np.argsort(rows) # of each passage in the graph
        seeds = {'bm25': lexical._replace(rows=np.where(lexical.rows < 0, -1, place[lexical.rows]))}
        judged = Judgements.of(place[task.test.gold])
        m = Material(passages=np.ascontiguousarray(passages[rows]), q=q, judged=judged, lexical=seeds)
        half, graphs = Half(m, np.arange(len(q)), 'recall@10'), Graphs(m)
        for name, way in WAYS.items():
            found = searched(Runner(m, way, graphs.get(way)), half, GRID[way.stop])
            with atomic_file(paths[name]) as tmp: save_sweep(found, tmp)
    return {way: read_sweep(p) for way, p in paths.items()}


def all_sweeps(plan, corpus, study, models, work, folds):
    "(model, way) → its seeds, each over all questions."
    s, whole = plan.settings, Task(corpus, plan.settings)
    parts = {}
    for fold in range(min(folds or s.scale.folds, s.scale.folds)):
        task, lexical = whole.part(fold), None
        for v in plan.runs:
            if v.fold != fold or v.label(s) not in models: continue
            if lexical is None: lexical = bm25_seeds(task.texts, task.texts_of('test'))
            for way, found in sweeps_of_model(plan, task, study, v, lexical, work).items():
                parts.setdefault((v.label(s), way, v.seed), []).append(found)
            print(v.folder(s), flush=True)
    found = {}
    for (model, way, seed), sweeps in parts.items(): found.setdefault((model, way), []).append(pooled(sweeps))
    return {(m, w): found[m, w] for m in models for w in WAYS}


def table_of(name, found, s, draws):
    "All questions, each model and way against three baselines."
    called = lambda sweeps: {f'{m} | {w}': x for (m, w), x in sweeps.items()}
    part = lambda t, i: t.model.str.split(' | ', regex=False).str[i]
    split = lambda t: t.assign(way=part(t, 1), model=part(t, 0))
    first, columns = next(iter(found))[0], ['change', 'change low', 'change high']
    whole = split(compare(called(found), s, draws=draws))
    keys = ['model', 'way', 'question']
    def against(groups, over):
        parts = [split(compare(called(g), s, draws=draws))[[*keys, *columns]] for g in groups]
        return pd.concat(parts).rename(columns={c: f'{c} over {over}' for c in columns})
    models = dict.fromkeys(m for m, _ in found)
    by_model = [{(m, w): x for (m, w), x in found.items() if m == model} for model in models]
    by_way = [{(m, w): x for (m, w), x in found.items() if w == way} for way in WAYS]
    for over, groups in (('plain', by_model), (first, by_way)):
        whole = whole.merge(against(groups, over), on=keys, how='left')
    return whole[whole.question.str.match('visited at (ANN|.* of own)')].assign(name=name)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--study', required=True, help='folder of a finished study')
    p.add_argument('--models', nargs='+', required=True, help='of it, the baseline first')
    p.add_argument('--table', required=True)
    p.add_argument('--work', default='runs/levers')
    p.add_argument('--folds', type=int, help='parts of the questions that are asked; all of them without')
    p.add_argument('--draws', type=int, default=400)
    a = p.parse_args()
    study = Path(a.study)
    plan, corpus = read_study(study)
    name = f'{plan.dataset}-{plan.encoder}'
    found = all_sweeps(plan, corpus, study, a.models, make_folder(Path(a.work)/name), a.folds)
    table = table_of(name, found, plan.settings.search, a.draws)
    print(table[['model', 'way', 'question', 'value', 'change', 'change low', 'change high']].to_string())
    path = Path(a.table)
    kept = [pd.read_csv(path).query('name != @name')] if path.exists() else []
    with atomic_file(path) as tmp: pd.concat([*kept, table]).to_csv(tmp, index=False, float_format='%.5g')


if __name__ == '__main__': main()
