"""What a query adapter gains on a data set, over several seeds: quality and cost on test queries that nothing has seen.

    python benchmarks/adapt.py --name tldr-minilm --encoder MODEL --corpus psgs.tsv.gz --train tldr-train.json.gz \\
        --dev tldr-dev.json.gz --test tldr-test.json.gz --table nbs/experiments/results/adapter.csv

Embeds once into --work. Each seed trains on the training questions; the dev questions choose the epoch; the test
questions report. Columns: name, seed, pairs, rank, w, epoch taken, seconds, peak megabytes; recall@10 of exact search
before and after and its change, with 95% intervals over queries; visited nodes at each goal before and after, with the
change. Rows of seed `all` average over seeds, with intervals over seeds and queries.
"""
import argparse, resource, time
from pathlib import Path

import numpy as np, pandas as pd

from dacl_dr.adapting.gain import found_metrics
from dacl_dr.core.files import make_folder
from dacl_dr.core.settings import AdapterSettings, SearchSettings
from dacl_dr.encoders.encoder import on_device
from dacl_dr.encoders.static import load_encoder
from dacl_dr.evaluation.judging import is_graded, judgements_of
from dacl_dr.data.texts import open_corpus, open_queries, texts_at
from dacl_dr.hnsw.cost import compare
from dacl_dr.hnsw.curves import sweep
from dacl_dr.hnsw.passes import Passes
from dacl_dr.hnsw.searcher import Searcher
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.metrics.statistics import against, drawn_means, query_draws
from dacl_dr.search.exact import exact_search, similarity
from dacl_dr.search.graph import build_hnsw
from dacl_dr.training.adapter import Pairs, query_pairs, train_adapter
from measuring import put_into # benchmarks/measuring.py
from tune import embedded # benchmarks/tune.py


def vectors_of(a, work):
    "Passages; of each split its queries and judgements."
    passages, model, splits = open_corpus(a.corpus), None, {}
    lacking = any(not (work/f'{n}.npy').exists() for n in ('p', 'train', 'dev', 'q'))
    if lacking: model = on_device(load_encoder(a.encoder))
    x = embedded(model, work, 'p', texts_at(passages, np.arange(len(passages)), 'title+text'), 'passage')
    for name, file, path in (('train', 'train', a.train), ('dev', 'dev', a.dev), ('test', 'q', a.test)):
        asked = open_queries(path)
        judged = Judgements(judgements_of(asked, passages, is_graded(path)).relevant)
        texts = texts_at(asked, np.arange(len(asked)), 'title+text')
        splits[name] = embedded(model, work, file, texts, 'query'), judged
    return x, splits


def swept(searcher, passages, q, judged, s):
    judge = lambda ids: judged.metrics(ids, ['recall@10'])
    exact, near = exact_search(q, passages, 10), similarity(q, passages)
    return sweep(Passes(searcher, q, 10), exact, judge, s, 'recall@10', None, near)


def repeated(pairs, n, seed):
    "n pairs: those there are again and again, each query moved a little."
    rows = np.arange(n) % len(pairs.q)
    q = pairs.q[rows] + .02 * np.random.default_rng(seed).normal(size=(n, pairs.q.shape[1])).astype('f4')
    return Pairs(q / np.linalg.norm(q, axis=1, keepdims=True), pairs.known[rows])


def trained(a, passages, splits, seed):
    "An adapter of one seed, and how it was trained."
    train, judged = splits['train']
    rows = np.random.default_rng(seed).permutation(len(train))[:a.pairs] if a.pairs else np.arange(len(train))
    pairs = query_pairs(train[rows], [judged.relevant[i] for i in rows])
    if a.repeated: pairs = repeated(pairs, a.repeated, seed)
    s = AdapterSettings(seed=seed, w=a.w, rank=a.rank, temperature=a.temperature)
    start = time.perf_counter()
    found = train_adapter(pairs, passages, *splits['dev'], s, desc=f'{a.name}, seed {seed}')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found, {'pairs': len(pairs.q), 'epoch': found.best, 'seconds': time.perf_counter() - start, 'peak MB': peak}


def quality(metric, before, after, draws): # after: of each seed, (S, Q)
    "A metric before and after, with the change over seeds and queries."
    drawn, base = drawn_means(after, draws), drawn_means(before[None], draws)
    unchanged = np.full(len(after), before.mean())
    change = against(after.mean(1), unchanged, drawn, np.repeat(base, len(after), 1), relative=False)
    return {
        'what': metric, 'before': before.mean(), 'after': after.mean(),
        'change': change.value, 'change low': change.low, 'change high': change.high}


def costs(found):
    "What a comparison says of the adapted queries."
    before, after = (found[found.model == m].set_index('question') for m in ('before', 'after'))
    for question in after.index:
        if not question.startswith('visited'): continue
        row = after.loc[question]
        yield {
            'what': question, 'before': before.value[question], 'after': row.value, 'change': row.change,
            'change low': row['change low'], 'change high': row['change high']}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('name', 'encoder', 'corpus', 'train', 'dev', 'test', 'table'):
        p.add_argument(f'--{name}', required=True)
    p.add_argument('--work', default='runs/adapt', help='gets vectors')
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--pairs', type=int, help='training questions, drawn by the seed; all if none is given')
    p.add_argument('--repeated', type=int, help='time so many pairs: those there are, again and again, moved a little')
    p.add_argument('--w', type=float, default=1.)
    p.add_argument('--temperature', type=float, default=.05)
    p.add_argument('--rank', type=int)
    a = p.parse_args()
    passages, splits = vectors_of(a, make_folder(Path(a.work)/a.name))
    (q, judged), s = splits['test'], SearchSettings()
    searcher, draws = Searcher(build_hnsw(passages, s.m, s.ef_construction)), query_draws(len(q), 1000)
    before, frozen = found_metrics(judged, q, passages), swept(searcher, passages, q, judged, s)
    table, after, sweeps = [], [], []
    about = {'name': a.name, 'seed': None, 'w': a.w, 'temperature': a.temperature, 'rank': a.rank}
    for seed in range(a.seeds):
        found, told = trained(a, passages, splits, seed)
        moved = found.adapter.vectors(q)
        after.append(found_metrics(judged, moved, passages))
        sweeps.append(swept(searcher, passages, moved, judged, s))
        rows = [quality(m, before[m], after[-1][m][None], draws) for m in before]
        rows += costs(compare({'before': [frozen], 'after': sweeps[-1:]}, s))
        table += [about | {'seed': seed} | told | row for row in rows]
    rows = [quality(m, before[m], np.stack([x[m] for x in after]), draws) for m in before]
    rows += costs(compare({'before': [frozen], 'after': sweeps}, s))
    table += [about | {'seed': 'all'} | row for row in rows]
    table = pd.DataFrame(table)
    print(table[['seed', 'what', 'before', 'after', 'change', 'change low', 'change high']].to_string())
    put_into(a.table, a.name, table)


if __name__ == '__main__': main()
