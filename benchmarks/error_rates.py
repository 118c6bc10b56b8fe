"""How often a study sees a saving that is there, and one that is not.

    python benchmarks/error_rates.py --table nbs/experiments/results/error-rates.csv

Invents studies of two models, three seeds each, in which the second costs 0, 3, 5 or 10% less and is equally good, and
puts them through the comparison of a real study (`hnsw.cost.compare`): how often is each cost called fewer, or more,
and how wide are the intervals? A query is lost below an efSearch of its own, which is log-normal, shared by the models
up to noise of its own for each model and seed; noise and tail are chosen so that recall rises with efSearch about as
it does for real. The intervals come out a little narrower than the real ones. `questions`: 4,141 as in the test split
of the code corpus, or 19,129, all its training and test questions once, by five trainings a seed.
"""
import argparse

import numpy as np, pandas as pd
from tqdm import tqdm

from dacl_dr.core.files import atomic_file
from dacl_dr.core.settings import SearchSettings
from dacl_dr.hnsw.cost import compare
from dacl_dr.hnsw.curves import Sweep

EFS = np.array([10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256])
SAVINGS, SEEDS = (0, .03, .05, .1), 3
QUESTIONS = {4141: 1, 19_129: 5} # → trainings that one seed is the mean of
NEEDED, TAIL, NOISE = .9, 1.6, .5 # of log efSearch: median's, over queries, of a model and seed
SEED_NOISE = .02 # of costs


def invented(rng, needed, saving, trainings):
    "A sweep: each query is found from an efSearch of its own; costs vary from training to training."
    own = needed + NOISE * rng.normal(size=needed.shape)
    found = (np.log(EFS)[:, None] >= own).astype(float)
    of_queries = np.exp(.2 * rng.normal(size=needed.shape))
    cost = 60 * EFS[:, None]**.85 * of_queries * np.exp(SEED_NOISE / trainings**.5 * rng.normal())
    values = {'ann recall': found, 'recall@10': found, 'visited': (1 - saving) * cost}
    return Sweep(EFS, values, {'recall@10': np.ones(len(needed))})


def one_study(rng, n, saving, draws):
    "What one invented study says of each question, a row each."
    needed = NEEDED + TAIL * np.abs(rng.normal(size=n)) * (rng.random(n) < .25)
    models = {m: [invented(rng, needed, s, QUESTIONS[n]) for _ in range(SEEDS)] for m, s in (('A', 0), ('B', saving))}
    table = compare(models, SearchSettings(), draws=draws)
    return table[(table.model == 'B') & table.question.str.contains('of own')]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--table', required=True)
    p.add_argument('--studies', type=int, default=60, help='invented, of each kind')
    p.add_argument('--draws', type=int, default=60)
    a = p.parse_args()
    rows = []
    for n in QUESTIONS:
        for saving in SAVINGS:
            rng = np.random.default_rng(0)
            said = pd.concat([one_study(rng, n, saving, a.draws) for _ in tqdm(range(a.studies), f'{n}, {saving:.0%}')])
            for question, t in said.groupby('question'):
                rows.append({
                    'questions': n, 'saving': saving, 'question': question, 'studies': len(t),
                    'fewer': (t.verdict == 'fewer').mean(), 'more': (t.verdict == 'more').mean(),
                    'half width': ((t['change high'] - t['change low']) / 2).median(),
                    'covered': ((t['change low'] <= -saving) & (t['change high'] >= -saving)).mean()})
    table = pd.DataFrame(rows)
    print(table.to_string())
    with atomic_file(a.table) as tmp: table.to_csv(tmp, index=False, float_format='%.4g')


if __name__ == '__main__': main()
