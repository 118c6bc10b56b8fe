"""How a query adapter's gain depends on training pairs, rank, w and τ; and what fine-tuning the query tower gains
instead.

    python benchmarks/adapter_study.py --name tldr-minilm --encoder MODEL --corpus psgs.tsv.gz \\
        --questions tldr-train.json.gz tldr-dev.json.gz tldr-test.json.gz \\
        --table nbs/experiments/results/adapter-study.csv
    python benchmarks/adapter_study.py ... --tower 2 # fine-tune the query tower for two epochs instead

All questions are split anew by each seed, whole groups on one side: 80% train, 10% choose the epoch, 10% judge. A
group is what comes before --split_at in the title of the first positive: the title itself, or with `--split_at .` the
package of a title like numpy.linalg.norm. One setting is varied at a time. Every training is kept in --work, so that a
run that was stopped goes on. Columns: name, pairs, rank, w, temperature, method; what; before, after and change, means
over seeds, with 95% intervals over seeds and queries; seconds of a training, median of the seeds. A rank of 0 is a
full matrix.
"""
import argparse, json, time
from pathlib import Path
from typing import NamedTuple

import numpy as np, pandas as pd, torch
from tqdm import tqdm

from dacl_dr.adapting.gain import found_metrics
from dacl_dr.adapting.task import split_groups
from dacl_dr.core.files import atomic_file, make_folder
from dacl_dr.core.settings import AdapterSettings, SearchSettings
from dacl_dr.encoders.encoder import on_device
from dacl_dr.encoders.static import load_encoder
from dacl_dr.evaluation.judging import is_graded, judgements_of
from dacl_dr.data.texts import open_corpus, open_queries, texts_at
from dacl_dr.hnsw.cost import answers, questions_of
from dacl_dr.hnsw.curves import Sweep
from dacl_dr.hnsw.searcher import Searcher
from dacl_dr.losses.distance import combined_loss
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.metrics.statistics import against, drawn_means, query_draws
from dacl_dr.search.graph import build_hnsw
from dacl_dr.training.adapter import batch_passages, query_pairs, train_adapter
from adapt import swept # benchmarks/adapt.py
from tune import embedded # benchmarks/tune.py

GRID = [
    {}, {'w': 0.}, *({'pairs': n} for n in (500, 1000, 2000, 5000)), {'rank': 16}, {'rank': 64},
    {'temperature': .02}, {'temperature': .1}, {'w': 0., 'temperature': .02}, {'w': 0., 'temperature': .1}]
DRAWS = 1000


def read(a, work):
    "Passages, queries, their texts, positives and groups."
    passages, asked = open_corpus(a.corpus), [(p, open_queries(p)) for p in a.questions]
    texts = [t for _, table in asked for t in texts_at(table, np.arange(len(table)), 'title+text')]
    relevant = [r for p, table in asked for r in judgements_of(table, passages, is_graded(p)).relevant]
    model = None
    if not all((work/f'{n}.npy').exists() for n in ('p', 'asked')): model = on_device(load_encoder(a.encoder))
    p = embedded(model, work, 'p', texts_at(passages, np.arange(len(passages)), 'title+text'), 'passage')
    q = embedded(model, work, 'asked', texts, 'query')
    titles = passages.column('title', [min(r for r in found if r >= 0) for found in relevant])
    return p, q, texts, relevant, [t.split(a.split_at)[0] if a.split_at else t for t in titles]


class Trial:
    "One seed's questions."
    def __init__(self, p, q, texts, relevant, groups, seed):
        self.p, self.seed, split = p, seed, split_groups(groups, .2, seed)
        of = lambda rows: (q[rows], [relevant[i] for i in rows], [texts[i] for i in rows])
        self.train, self.dev, self.held = of(split.train), of(split.dev), of(split.held)
        self.before = found_metrics(Judgements(self.held[1]), self.held[0], p)
        self.frozen = None # its sweep, once it is needed

    def some(self, pairs):
        "Training queries that the seed draws."
        rows = np.random.default_rng(self.seed).permutation(len(self.train[0]))[:pairs]
        return self.train[0][rows], [self.train[1][i] for i in rows], [self.train[2][i] for i in rows]

    def swept(self, searcher, q, s): return swept(searcher, self.p, q, Judgements(self.held[1]), s)


class Measured(NamedTuple):
    "What one training gave."
    trial: Trial
    after: dict # metric of exact search → (Q,)
    swept: Sweep
    epoch: int # 0: as it was
    seconds: float


def adapter_of(t, settings):
    "Held-out queries by an adapter, its epoch and seconds."
    changed = {k: v for k, v in settings.items() if k != 'pairs'}
    q, relevant, _ = t.some(settings.get('pairs'))
    s, start = AdapterSettings(seed=t.seed, batch_size=min(512, len(q) // 2)).but(**changed), time.perf_counter()
    desc = f'{settings}, seed {t.seed}'
    found = train_adapter(query_pairs(q, relevant), t.p, t.dev[0], Judgements(t.dev[1]), s, desc=desc)
    return found.adapter.vectors(t.held[0]), found.best, time.perf_counter() - start


def tower_of(t, encoder, epochs, rate=2e-5, batch=128, drawn=4096):
    "Held-out queries by a query tower that was fine-tuned over frozen passages; InfoNCE and L_dis as the adapter's."
    from sentence_transformers import SentenceTransformer
    model, start, s = SentenceTransformer(encoder, device='cpu'), time.perf_counter(), AdapterSettings()
    q, relevant, texts = t.some(None)
    pairs = query_pairs(np.arange(len(q))[:, None], relevant) # rows of the queries stand for their vectors
    how = {'batch_size': 256, 'normalize_embeddings': True, 'show_progress_bar': False}
    encode = lambda some: model.encode_query(some, **how)
    recall = lambda of: np.nanmean(found_metrics(Judgements(of[1]), encode(of[2]), t.p)['recall@10'])
    optimiser, rng = torch.optim.AdamW(model.parameters(), rate), np.random.default_rng(t.seed)
    best, at, kept, steps = recall(t.dev), 0, encode(t.held[2]), epochs * (len(pairs.q) // batch)
    torch.manual_seed(t.seed)
    slope = lambda i: min(1, i / (.1 * steps)) * (1 - i / steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, slope)
    for epoch in range(epochs):
        model.train()
        order = rng.permutation(len(pairs.q))
        starts = range(0, len(order) - batch + 1, batch)
        for i in tqdm(starts, f'tower, seed {t.seed}, epoch {epoch + 1}', unit='batch', leave=False):
            rows = order[i:i + batch]
            features = model.preprocess([texts[r] for r in pairs.q[rows, 0]])
            vectors = torch.nn.functional.normalize(model(features)['sentence_embedding'], dim=-1)
            found, mask = batch_passages(pairs.known[rows], rng.integers(0, len(t.p), drawn), None)
            loss = combined_loss(vectors, torch.from_numpy(t.p[found]), s.temperature, s.w, mask)
            optimiser.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimiser.step()
            schedule.step()
        model.eval()
        now = recall(t.dev)
        if now > best: best, at, kept = now, epoch + 1, encode(t.held[2])
    return kept, at, time.perf_counter() - start


def measured(a, work, trials, searcher, settings):
    "Of each seed: the trial, quality and sweep of the held-out queries, and how they were trained."
    s, found = SearchSettings(), []
    key = '-'.join(f'{k}={v}' for k, v in settings.items()) or 'default'
    for t in trials:
        path = work/f'{key}-seed{t.seed}.npy'
        if not path.exists():
            q, epoch, seconds = tower_of(t, a.encoder, a.tower) if a.tower else adapter_of(t, settings)
            about = json.dumps({'epoch': epoch, 'seconds': seconds})
            with atomic_file(path.with_suffix('.json')) as tmp: tmp.write_text(about)
            with atomic_file(path) as tmp, open(tmp, 'wb') as f: np.save(f, q)
        q, about = np.load(path), json.loads(path.with_suffix('.json').read_text())
        if t.frozen is None: t.frozen = t.swept(searcher, t.held[0], s)
        found.append(Measured(t, found_metrics(Judgements(t.held[1]), q, t.p), t.swept(searcher, q, s), **about))
    return found


def identity(a, trials, settings):
    "The columns that tell one setting from the others."
    base = AdapterSettings()
    return {
        'name': a.name, 'method': f'query tower, {a.tower} epochs' if a.tower else 'adapter',
        'pairs': int(np.median([len(t.some(settings.get('pairs'))[0]) for t in trials])),
        'rank': settings.get('rank', 0), 'w': settings.get('w', base.w),
        'temperature': settings.get('temperature', base.temperature)}


def same(table, head):
    "Which rows of a table are of one setting?"
    return np.logical_and.reduce([table[column] == value for column, value in head.items()])


def told(what, values, drawn, relative): # values: (S, 2) after and before; drawn: (B, 2, S)
    "A row: means over seeds, and the change with its interval."
    change = against(values[:, 0], values[:, 1], drawn[:, 0], drawn[:, 1], relative)
    after, before = values.mean(0)
    return {
        'what': what, 'before': before, 'after': after,
        'change': change.value, 'change low': change.low, 'change high': change.high}


def quality_rows(found, draws):
    "What exact search finds."
    for metric in found[0].after:
        both = [np.stack([x.after[metric], x.trial.before[metric]]) for x in found]
        drawn = np.stack([drawn_means(b, d) for b, d in zip(both, draws)], 2)
        yield told(metric, np.array([np.nanmean(b, 1) for b in both]), drawn, relative=False)


def cost_rows(found, draws):
    "What a search costs at each goal; the absolute one is the frozen encoder's."
    asked = [questions_of([x.trial.frozen], SearchSettings()) for x in found]
    whole = [np.ones((1, len(x.trial.held[0])), int) for x in found]
    def spent(i, which): # (B, 2, S)
        of = [
            [answers(questions[i], s, d) for s in (x.swept, x.trial.frozen)]
            for x, questions, d in zip(found, asked, which)]
        return np.transpose(of, (2, 1, 0))

    for i, question in enumerate(asked[0]):
        if question.budget is not None: continue
        absolute = question.target is not None and question.quality != 'ann recall'
        what = "visited at 99% of the frozen encoder's exact recall@10" if absolute else question.name
        yield told(what, spent(i, whole)[0].T, spent(i, draws), relative=True)


def rows_of(found, head):
    "The table of one setting."
    draws = [query_draws(len(x.trial.held[0]), DRAWS, x.trial.seed) for x in found]
    head = head | {
        'seeds': len(found), 'epochs': ' '.join(str(x.epoch) for x in found),
        'seconds': np.median([x.seconds for x in found])}
    return pd.DataFrame([head | row for row in (*quality_rows(found, draws), *cost_rows(found, draws))])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('name', 'encoder', 'corpus', 'table'): p.add_argument(f'--{name}', required=True)
    p.add_argument('--questions', nargs='+', required=True, help='files of questions with positives')
    p.add_argument('--split_at', help='a group is what comes before it in a title; the whole title if none is given')
    p.add_argument('--work', default='runs/adapter-study', help='gets vectors and what was trained')
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--again', action='store_true', help='measure settings too that stand in the table')
    p.add_argument('--tower', type=int, help='epochs of fine-tuning the query tower, instead of the grid of adapters')
    a = p.parse_args()
    work, path = make_folder(Path(a.work)/a.name), Path(a.table)
    data = read(a, work)
    trials = [Trial(*data, seed) for seed in range(a.seeds)]
    print({t.seed: [len(x[0]) for x in (t.train, t.dev, t.held)] for t in trials})
    s = SearchSettings()
    searcher = Searcher(build_hnsw(data[0], s.m, s.ef_construction))
    most = min(len(t.train[0]) for t in trials)
    grid = [{'tower': a.tower}] if a.tower else [g for g in GRID if g.get('pairs', 0) < most]
    for settings in grid:
        head = identity(a, trials, settings)
        kept = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*head])
        if same(kept, head).any() and not a.again: continue
        rows = rows_of(measured(a, work, trials, searcher, settings), head)
        with atomic_file(path) as tmp:
            pd.concat([kept[~same(kept, head)], rows]).to_csv(tmp, index=False, float_format='%.5g')
        print(rows[[*head, 'what', 'before', 'after', 'change', 'change low', 'change high']].to_string(), flush=True)


if __name__ == '__main__': main()
