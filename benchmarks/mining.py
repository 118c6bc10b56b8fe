"""Mining hard negatives beside sentence-transformers' `mine_hard_negatives`: same model, questions, pool and rules.

    python benchmarks/mining.py --data_dir DATA --dataset tldr --model MODEL \\
        --table nbs/experiments/results/performance.csv

Both encode questions and pool, take the 200 passages that score best for each question, drop the question's positives
and what scores over 95% of the positive's score, and keep the first --hard_negatives. The search for the 200 best is
measured alone too, over the vectors of the model: `top_k` beside `semantic_search` and faiss's flat index. Printed is
what share of the negatives is the same.
"""
import argparse, tempfile
from pathlib import Path

import numpy as np, pandas as pd

from measuring import OURS, in_turns, rows_of, save, show

from dacl_dr.core.settings import DataSettings, ModelSettings, Reading, RecipeSettings, RunSettings, TrainSettings
from dacl_dr.curriculum.loader import training_data
from dacl_dr.curriculum.mining import MiningPass, mine
from dacl_dr.encoders.static import load_encoder
from dacl_dr.search.exact import InMemory, top_k
from dacl_dr.training.sources import open_sources, read_data

TOKENS = 2048 # of a chunk on a CPU


def peer_miner(a, trainset, near):
    "sentence-transformers' miner; gives each question's negatives as texts."
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives
    model = SentenceTransformer(a.model, device='cpu')
    model.max_seq_length = a.length
    pairs = {'anchor': trainset.questions, 'positive': trainset.pool.take(trainset.positives)}
    pool = trainset.pool.take(np.arange(len(trainset.pool)))
    def mined():
        found = mine_hard_negatives(
            Dataset.from_dict(pairs), model, corpus=pool, range_max=a.depth, relative_margin=1 - near,
            num_negatives=a.hard_negatives, sampling_strategy='top', output_format='n-tuple', verbose=False)
        columns = [found[f'negative_{j + 1}'] for j in range(a.hard_negatives)]
        return dict(zip(found['anchor'], zip(*columns)))
    return mined


def search_rows(a, q, x, case):
    "Rows of the search for the best passages alone."
    import faiss, torch
    from sentence_transformers.util import semantic_search
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    tq, tx = torch.from_numpy(q), torch.from_numpy(x)
    ways = {
        OURS: lambda: top_k(q, InMemory(x).blocks(65_536), a.depth),
        'sentence-transformers': lambda: semantic_search(tq, tx, top_k=a.depth),
        'faiss': lambda: index.search(q, a.depth),
    }
    rows = rows_of('mining', f'{case}: the {a.depth} best alone', 's', in_turns(ways, a.rounds))
    show(rows)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data_dir', required=True)
    p.add_argument('--dataset', required=True)
    p.add_argument('--model', required=True)
    p.add_argument('--questions', type=int, default=2000)
    p.add_argument('--hard_negatives', type=int, default=7)
    p.add_argument('--depth', type=int, default=200)
    p.add_argument('--length', type=int, default=128)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--table', help='CSV whose part mining is replaced')
    a = p.parse_args()
    settings = RecipeSettings(
        model=ModelSettings(name=a.model, query_length=a.length, passage_length=a.length),
        data=DataSettings(dataset=a.dataset, max_questions=a.questions),
        training=TrainSettings(hard_negatives=a.hard_negatives), run=RunSettings(report_to=(), eval_questions=0))
    quiet = Reading(show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        sources = open_sources(settings, a.data_dir, reading=quiet)
        trainset, _ = read_data(settings, sources, Path(folder), reading=quiet)
    encoder = load_encoder(a.model, settings.model)
    how = MiningPass(tokens=TOKENS)
    last = {}
    def ours(): last['ours'] = mine(encoder, training_data(encoder, trainset), settings, how)[0]
    peer = peer_miner(a, trainset, settings.mining.near_positive)
    def theirs(): last['theirs'] = peer()
    case = f'{a.dataset}, {len(trainset.questions):,} questions, {len(trainset.pool):,} passages'
    rows = rows_of('mining', case, 's', in_turns({OURS: ours, 'sentence-transformers': theirs}, a.rounds))
    show(rows)
    pool = trainset.pool.take(np.arange(len(trainset.pool)))
    same = [
        len({pool[r] for r in negatives} & set(last['theirs'][question])) / a.hard_negatives
        for question, negatives in zip(trainset.questions, last['ours']) if question in last['theirs']]
    print(f'{np.mean(same):.1%} of the negatives of {len(same):,} questions are the same')
    data = training_data(encoder, trainset)
    q, x = encoder.encode(data.queries, 'query', TOKENS), encoder.encode(data.passages, 'passage', TOKENS)
    rows = pd.concat([rows, search_rows(a, q, x, case)])
    if a.table: save(a.table, rows, ['faiss-cpu', 'torch', 'sentence-transformers'])


if __name__ == '__main__': main()
