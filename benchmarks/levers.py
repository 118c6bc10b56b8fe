"""Do the savings of training, stop rule, lexical entry points, links and query adapter add up, and which is the best
combination of them?

    dacl run-study curriculum --dataset tldr --jobs 2
    python benchmarks/levers.py --study runs/curriculum-tldr-static --models A B \\
        --table nbs/experiments/results/levers.csv --best nbs/experiments/results/levers-best.csv

Searches the trained encoders of a cross-fitted study in the ways of `WAYS`: efSearch or a stop rule (the best open
candidate is farther than (1 + gamma) times the tenth), M of 8, 16 and 32, from BM25's first ten results or from the
top, queries as they are or by an adapter that was trained on the part's training questions. Of each part --questions
are asked, evenly spaced, over each seed of the study; a graph has an insertion order of its own. What each model and
way found is kept in --work, so an interrupted run goes on.

Columns of --table: name of the data, model, way, question (a cost at matched quality), value, change against the
baseline model searched plainly, 95% intervals over questions and seeds, `over plain` and `over A`: the change against
the same model searched plainly, and against the baseline searched in the same way. BM25's own work is not counted.
Two questions are of quality, their changes in points over exact search of the baseline: `recall@10 of exact search`,
and `recall@10 of the narrowest search`.

Columns of --best: of each group of levers the model and way that is cheapest at own shares on the first part, among
those that rank at most a point below the baseline there, and what it costs on the other parts, against the baseline
with efSearch at the M that is cheapest on the first part; a group whose best is the baseline itself has no row. Where
the narrowest search of some seed finds more than was asked for, the change is a bound (`at most`). `recall@10`: points
of exact search above the baseline; `found`: of recall@10 by the narrowest search, above exact search of the baseline.
"""
import argparse, sys
from pathlib import Path
from typing import NamedTuple

import numpy as np, pandas as pd

from dacl_dr.core.files import atomic_file, claimed
from dacl_dr.core.rows import spaced
from dacl_dr.core.settings import AdapterSettings
from dacl_dr.core.stamps import stamp
from dacl_dr.encoders.static import load_encoder
from dacl_dr.hnsw.cost import answers, compare, cost_over, questions_of
from dacl_dr.hnsw.curves import Sweep, pooled
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.metrics.statistics import against, drawn_means, query_draws
from dacl_dr.studies.measures import graph_order, read_sweep, save_sweep, vectors_by
from dacl_dr.studies.task import Task
from dacl_dr.studies.workers import read_study
from dacl_dr.training.adapter import query_pairs, train_adapter
from dacl_dr.tuning.material import Half, Material
from dacl_dr.tuning.runner import Graphs, Runner
from dacl_dr.tuning.seeds import bm25_seeds
from dacl_dr.tuning.ways import Way
from measuring import in_order, put_into # benchmarks/measuring.py

BY_EF = {'M 8': Way(m=8), 'plain': Way(m=16), 'M 32': Way(m=32)}
BY_RULE = {
    'M 8, stop': Way(m=8, stop='gamma'), 'stop': Way(m=16, stop='gamma'), 'M 32, stop': Way(m=32, stop='gamma'),
}
ADAPTED = {'adapter': Way(m=16, adapted=True), 'stop, adapter': Way(m=16, stop='gamma', adapted=True)}
SEEDED = {
    'bm25': Way(m=16, seeds='bm25'), 'stop, bm25': Way(m=16, stop='gamma', seeds='bm25'),
    'stop, bm25, adapter': Way(m=16, stop='gamma', seeds='bm25', adapted=True),
}
WAYS = BY_EF | BY_RULE | ADAPTED | SEEDED
GRID = {
    'ef': (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 224, 320),
    'gamma': (0, 15, 30, 45, 60, 75, 90, 110, 130, 150, 175, 200, 240, 290, 350, 450),
}
PARTS = { # group of levers → (is the model free?, ways)
    'training': (True, BY_EF), 'graph': (False, BY_EF | BY_RULE), 'training, graph': (True, BY_EF | BY_RULE),
    'graph, adapter': (False, BY_EF | BY_RULE | ADAPTED), 'all but BM25': (True, BY_EF | BY_RULE | ADAPTED),
    'all': (True, WAYS),
}
CHANGE = ['change', 'change low', 'change high']


class Asked(NamedTuple):
    "A part of a study, and which of its questions are asked."
    task: Task
    rows: np.ndarray # (Q,) of its test questions
    lexical: object # BM25's first results of them

    @classmethod
    def of(cls, task, most):
        rows = spaced(len(task.test.questions), most or len(task.test.questions))
        texts = task.texts_of('test')
        return cls(task, rows, bm25_seeds(task.texts, [texts[i] for i in rows]))


def searched(runner, half, knobs):
    "A sweep over all knobs."
    found = []
    for t in runner.search(half.rows, half.extra).many(knobs, len(knobs)):
        found.append({'visited': t.visited} | half.judge(t.ids))
    values = {name: np.stack([f[name] for f in found]).astype(float) for name in found[0]}
    return Sweep(np.array(knobs), values, half.best)


def adapted_by(encoder, task, passages, q, seed):
    "Queries by an adapter that the part's training questions trained."
    pairs = query_pairs(task.encode(encoder, 'train'), [[i] for i in task.train.gold])
    dev = task.encode(encoder, 'dev'), Judgements.of(task.dev.gold)
    s = AdapterSettings(seed=seed)
    s = s.but(batch_size=min(s.batch_size, len(pairs.q)))
    return train_adapter(pairs, passages, *dev, s).adapter.vectors(q)


def sweeps_of_model(study, asked:Asked, v, work):
    "Way → sweep of one trained encoder, searched now or before."
    task = asked.task
    home = v.folder(task.settings)
    paths = {way: work/f'{home}-{way.replace(", ", "-").replace(" ", "")}.parquet' for way in WAYS}
    if not all(p.exists() for p in paths.values()):
        encoder = load_encoder(study/home/'train'/'encoder')
        q, passages = vectors_by(encoder, task)
        q, order = np.ascontiguousarray(q[asked.rows]), graph_order(task, v)
        place = np.argsort(order) # of each passage in the graph
        rows = asked.lexical.rows
        shared = {
            'passages': np.ascontiguousarray(passages[order]),
            'judged': Judgements.of(place[task.test.gold[asked.rows]]),
            'lexical': {'bm25': asked.lexical._replace(rows=np.where(rows < 0, -1, place[rows]))},
        }
        m = Material(q=q, **shared)
        adapted = adapted_by(encoder, task, passages, q, v.seed)
        halves = {way: Half(Material(q=x, **shared), np.arange(len(q)), 'recall@10')
                  for way, x in ((False, q), (True, adapted))} # the queries that are asked are a model's own
        graphs, m.adapted = Graphs(m), adapted
        for name, way in WAYS.items():
            found = searched(Runner(m, way, graphs.get(way)), halves[way.adapted], GRID[way.stop])
            with atomic_file(paths[name]) as tmp: save_sweep(found, tmp)
    return {way: read_sweep(p) for way, p in paths.items()}


def all_sweeps(plan, corpus, work, a):
    "(model, way) → seed → part → sweep."
    s, found = plan.settings, {}
    whole = Task(corpus, s)
    for fold in range(a.folds):
        asked = None
        for v in plan.runs:
            if v.fold != fold or v.label(s) not in a.models: continue
            if asked is None: asked = Asked.of(whole.part(fold), a.questions)
            for way, sweep in sweeps_of_model(Path(a.study), asked, v, work).items():
                found.setdefault((v.label(s), way), {}).setdefault(v.seed, []).append(sweep)
            print(v.folder(s), flush=True)
    return {(m, w): found[m, w] for m in a.models for w in WAYS}


def over_parts(found, which):
    "(model, way) → a sweep a seed, over the questions of some parts."
    return {key: [pooled(parts[which]) for parts in seeds.values()] for key, seeds in found.items()}


def table_of(name, found, s, draws):
    "All questions, each model and way against three baselines."
    called = lambda sweeps: {f'{m} | {w}': x for (m, w), x in sweeps.items()}
    part = lambda t, i: t.model.str.split(' | ', regex=False).str[i]
    split = lambda t: t.assign(way=part(t, 1), model=part(t, 0))
    first = next(iter(found))[0]
    plain_first = lambda sweeps: {k: sweeps[k] for k in sorted(sweeps, key=lambda k: (k[0] != first, k[1] != 'plain'))}
    whole = split(compare(called(plain_first(found)), s, draws=draws))
    keys = ['model', 'way', 'question']
    def against_each(groups, over):
        parts = [split(compare(called(plain_first(g)), s, draws=draws))[[*keys, *CHANGE]] for g in groups]
        return pd.concat(parts).rename(columns={c: f'{c} over {over}' for c in CHANGE})
    models = dict.fromkeys(m for m, _ in found)
    by_model = [{(m, w): x for (m, w), x in found.items() if m == model} for model in models]
    by_way = [{(m, w): x for (m, w), x in found.items() if w == way} for way in WAYS]
    for over, groups in (('plain', by_model), (first, by_way)):
        whole = whole.merge(against_each(groups, over), on=keys, how='left')
    costs = whole[whole.question.str.match('visited at (ANN|.* of own)')]
    return pd.concat([costs, pd.DataFrame(quality_rows(found, draws))]).assign(name=name)


def points(a, b, drawn):
    "A change of recall@10 in points, paired."
    of = lambda x: 100 * np.stack(x) # (S, Q)
    return against(of(a).mean(1), of(b).mean(1), *(drawn_means(of(x), drawn) for x in (a, b)), relative=False)


def quality_rows(found, draws):
    "Recall@10 that each model and way finds, over exact search of the baseline."
    exact = lambda sweeps: [x.exact['recall@10'] for x in sweeps]
    narrow = lambda sweeps: [x.values['recall@10'][0] for x in sweeps]
    before = exact(found[next(iter(found))])
    drawn = query_draws(len(before[0]), draws)
    for what, of in (('exact', exact), ('the narrowest', narrow)):
        for (model, way), sweeps in found.items():
            q, value = points(of(sweeps), before, drawn), np.mean([x.mean() for x in of(sweeps)])
            row = {'question': f'recall@10 of {what} search', 'model': model, 'way': way, 'value': value}
            yield row | dict(zip(CHANGE, (q.value, q.low, q.high)))


def cost_of(sweeps, s):
    "Cost at own shares, a geometric mean over seeds; where the narrowest search finds more, that one's."
    costs = [cost_over(s.own_shares, x.exact['recall@10'].mean(), x.mean('recall@10'), x.mean('visited'), True)
             for x in sweeps]
    return np.exp(np.mean(np.log(costs)))


def cheapest(found, s, models, ways):
    "The model and way that costs least, of those that rank at most a point below the baseline."
    ranks = lambda key: np.mean([x.exact['recall@10'].mean() for x in found[key]])
    least = ranks(next(iter(found))) - .01
    good = [(m, w) for m in models for w in ways if ranks((m, w)) >= least]
    return min(good, key=lambda key: round(np.log(cost_of(found[key], s)), 4)) # of equals the simplest, which is first


def bound_of(question, sweeps):
    "A cost, the mean over seeds, and whether it is a bound: the narrowest search of some seed finds more than that."
    costs = [answers(question, x, np.ones((1, x.values['visited'].shape[1]), int))[0] for x in sweeps]
    least = [np.isclose(cost, x.mean('visited')[0]) for cost, x in zip(costs, sweeps)]
    return np.mean(costs), bool(np.isfinite(costs).all() and any(least))


def own_of(question):
    "The shares of a model's own quality that a question asks for."
    return question.own_shares or question.own_share


def best_rows(found, s, draws):
    "Of each group of levers, what was chosen on the first part costs on the others."
    first, rest = over_parts(found, slice(0, 1)), over_parts(found, slice(1, None))
    models = list(dict.fromkeys(m for m, _ in found))
    exact = lambda sweeps: [x.exact['recall@10'] for x in sweeps]
    before = cheapest(first, s, models[:1], BY_EF)
    drawn = query_draws(len(rest[before][0].exact['recall@10']), draws)
    questions = [q for q in questions_of(rest[before], s) if q.quality == 'ann recall' or own_of(q)]
    for group, (free, ways) in PARTS.items():
        key = cheapest(first, s, models if free else models[:1], ways)
        q = points(exact(rest[key]), exact(rest[before]), drawn)
        narrow = points([x.values['recall@10'][0] for x in rest[key]], exact(rest[before]), drawn)
        told = {'levers': group, 'model': key[0], 'way': key[1], 'against': before[1], 'recall@10': q.value,
                'recall@10 low': q.low, 'recall@10 high': q.high, 'found': narrow.value}
        if key == before: continue
        table = compare({'before': rest[before], 'after': rest[key]}, s, draws=draws)
        rows = table[table.model == 'after'].set_index('question')
        for question in questions:
            (plain, _), (value, is_bound) = bound_of(question, rest[before]), bound_of(question, rest[key])
            row = dict(rows.loc[question.name, ['value', *CHANGE]])
            if is_bound and np.isfinite(plain): row |= {'value': value, 'change': value / plain - 1}
            yield told | {'question': question.name} | row | {'at most': is_bound}


def check(p, plan, a):
    "Ends the program for models that are not there, or parts too few to choose on one."
    known = {v.label(plan.settings) for v in plan.runs}
    strange = sorted(set(a.models) - known)
    if strange: p.error(f'--models: {strange} are not of the study, which has {sorted(known)}')
    if a.best and a.folds < 2: p.error('--best chooses on one part and reports on the others: it needs two at least')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--study', required=True, help='folder of a finished study')
    p.add_argument('--models', nargs='+', required=True, help='of it, the baseline first')
    p.add_argument('--table', required=True)
    p.add_argument('--best', help='table of the best combinations')
    p.add_argument('--work', default='runs/levers')
    p.add_argument('--folds', type=int, help='parts of the questions that are asked; all of them without')
    p.add_argument('--questions', type=int, help='asked of each part; all of them without')
    p.add_argument('--draws', type=int, default=400)
    a = p.parse_args()
    plan, corpus = read_study(a.study)
    name, s, parts = f'{plan.dataset}-{plan.encoder}', plan.settings.search, plan.settings.scale.folds
    a.folds = min(a.folds or parts, parts)
    check(p, plan, a)
    key = stamp([str(a.study), plan.settings.scale, a.questions, {n: (w, GRID[w.stop]) for n, w in WAYS.items()}])
    work = Path(a.work)/f'{name}-{key}'
    with claimed(work): found = all_sweeps(plan, corpus, work, a)
    table = table_of(name, over_parts(found, slice(None)), s, a.draws)
    print(table[['model', 'way', 'question', 'value', *CHANGE]].to_string())
    put_into(a.table, name, table)
    if not a.best: return
    best = pd.DataFrame(best_rows(found, s, a.draws)).assign(name=name)
    print(best.to_string())
    put_into(a.best, name, best)


if __name__ == '__main__': sys.exit(in_order(main))
