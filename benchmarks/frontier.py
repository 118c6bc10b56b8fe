"""Is a model cheaper than every temperature of the baseline that ranks as well? Or than any other model of its study?

    dacl run-study answer --jobs 2
    python benchmarks/frontier.py --study runs/answer-codedocs-static --table nbs/experiments/results/frontier.csv
    python benchmarks/frontier.py --study runs/curriculum-tldr-static --table nbs/experiments/results/stages.csv \
        --against A C D "C no-mining" "D no-mining"

Compares all models of a finished study with each of those trained with recipe A, whatever their temperature, or with
each of `--against`, paired by seed and question. Columns: name of the data, model, `against`, change of the cost at own
shares and its 95% interval, of visited nodes at ANN recall 0.95 (`neighbours`), and of recall@10 of exact search, in
points. Rows against `curve` hold recall@10 above A's curve over temperatures at the model's own cost, drawn straight in
the logarithm of the cost: mean and Student's interval over seeds.
"""
import argparse
from pathlib import Path

import numpy as np, pandas as pd

from dacl_dr.hnsw.cost import compare, cost_over
from dacl_dr.metrics.statistics import against, drawn_means, query_draws
from dacl_dr.studies.conclusions import above_temperature, own_cost
from dacl_dr.studies.tables import sweeps_of
from dacl_dr.studies.workers import read_study
from measuring import put_into # benchmarks/measuring.py


def recall_change(model, baseline, drawn):
    "Change of recall@10 of exact search, in points."
    of = lambda sweeps: np.stack([s.exact['recall@10'] for s in sweeps]) # (S, Q)
    a, b = of(model), of(baseline)
    means = [100 * drawn_means(x, drawn) for x in (a, b)]
    return against(100 * a.mean(1), 100 * b.mean(1), *means, relative=False)


def above_curve(found, curve, s):
    "Recall@10 in points above the line through the baseline's temperatures, at each model's own cost: a row a model."
    def row(model, seed, x):
        recall = x.exact['recall@10'].mean()
        cost = cost_over(s.own_shares, recall, x.mean('recall@10'), x.mean('visited'))
        who = {'model': model, 'seed': seed, 'recipe': 'A' if model in curve else 'B'}
        return [who | {'metric': 'recall@10', 'value': recall}, who | {'metric': 'cost', 'value': cost}]
    rows = [r for model, builds in found.items() for seed, x in enumerate(builds) for r in row(model, seed, x)]
    return above_temperature(pd.DataFrame(rows), 'recall@10', 'cost')


ENDS = '', ' low', ' high'


def rows_against(first, found, s, draws):
    "All models against one of them: a row a model."
    drawn = query_draws(len(found[first][0].exact['recall@10']), draws)
    others = {m: x for m, x in found.items() if m != first}
    table = compare({first: found[first]} | others, s.search, draws=draws).rename(columns={'question': 'metric'})
    asked = {'change': own_cost(table), 'neighbours': 'visited at ANN recall 0.95'}
    table = table.set_index(['metric', 'model'])
    for model, sweeps in others.items():
        costs = {
            name + end: table.loc[(metric, model), 'change' + end]
            for name, metric in asked.items() for end in ENDS
        }
        q = recall_change(sweeps, found[first], drawn)
        recall = {'recall': q.value, 'recall low': q.low, 'recall high': q.high}
        yield {'model': model, 'against': first, **costs, **recall}


def rows_above(found, curve, s):
    "Recall above the baseline's curve: a row a model."
    for r in above_curve(found, curve, s.search).itertuples():
        yield {'model': r.model, 'against': 'curve', 'recall': r.value, 'recall low': r.low, 'recall high': r.high}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--study', required=True, help='folder of a finished study')
    p.add_argument('--table', required=True)
    p.add_argument('--against', nargs='+', help="models of the study; without it, A's temperatures and their curve")
    p.add_argument('--draws', type=int, default=200)
    a = p.parse_args()
    plan, _ = read_study(a.study)
    name, s = f'{plan.dataset}-{plan.encoder}', plan.settings
    found = sweeps_of(Path(a.study), s, plan.runs)
    curve = dict.fromkeys(v.label(s) for v in plan.runs if v.recipe == 'A' and found.get(v.label(s)))
    rows = [r for first in a.against or curve for r in rows_against(first, found, s, a.draws)]
    if not a.against: rows += rows_above(found, curve, s)
    new = pd.DataFrame([{'name': name, **r} for r in rows])
    print(new.to_string())
    put_into(a.table, name, new)


if __name__ == '__main__': main()
