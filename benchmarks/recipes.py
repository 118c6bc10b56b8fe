"""Recipes A, B, C and D end to end, and how hard their negatives are: a CSV for nbs/experiments/recipes.ipynb.

    .venv/bin/python benchmarks/recipes.py --data_dir data_set/NQ --model_name bert-base-uncased \\
        --config full.yaml --output runs/recipes

Each recipe is trained with the program's own `train_recipe`, so an interrupted run goes on. Rows are (data, device,
what, recipe, epoch or source, metric, value): the dev sample before and after training, the log of each mining, and the
hardness of BM25's and of mined negatives under the same encoder, over all training questions, with the checks that none
is a known positive or holds an answer.
"""
import argparse, json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dacl_dr.core.settings import MiningSettings, Reading, RecipeSettings
from dacl_dr.core.yaml import load_settings
from dacl_dr.search.exact import top_k
from dacl_dr.curriculum.negatives import choose_negatives, fill_random, hard_share, no_answer, score_limit
from dacl_dr.training.sources import open_sources, read_data
from dacl_dr.training.recipe import dev_metrics, train_recipe
from dacl_dr.core.files import atomic_file
from dacl_dr.encoders.static import load_encoder
from dacl_dr.curriculum.loader import training_data
from dacl_dr.curriculum.mining import Negatives

GEOMETRY = (
    'recall@1', 'recall@10', 'mrr@10', 'pos mean', 'pos var', 'alignment', 'uniformity queries', 'uniformity passages',
)


def judged_questions(data, n_questions, n_passages):
    "Questions without an answer that every passage contains, of which there are a few."
    if not data.answers: return list(range(n_questions))
    some = range(0, n_passages, max(1, n_passages // 50))
    return [i for i in range(n_questions) if not all(data.answers(i, r) for r in some)]


def hardness(encoder, trainset, settings):
    "Margins of BM25's and of mined negatives under an encoder."
    data = training_data(encoder, trainset)
    q = encoder.encode(data.queries, 'query', desc='questions')
    p = encoder.encode(data.passages, 'passage', desc='passages')
    positive = (q * p[data.positives]).sum(1)
    scores, rows = top_k(q, [(0, p)], settings.mining.depth)
    # what `mine` does, without embedding everything again
    limit = score_limit(positive, settings.mining.near_positive)
    answered = data.answers or no_answer
    mined, _ = choose_negatives(
        rows, scores, data.known, data.numbers, limit, settings.training.hard_negatives, answered)
    mined = fill_random(mined, data.known, data.numbers, settings.seed, answered)
    for name, rows in (('bm25', Negatives(encoder, data, settings).bm25), ('mined', mined)):
        cosine = np.stack([(q * p[r]).sum(1) for r in rows.T], axis=1)
        known = (data.numbers[rows][:, :, None] == data.known[:, None, :]).any(-1)
        judged = judged_questions(data, len(rows), len(p))
        with_answer = [answered(i, r) for i in judged for r in rows[i].tolist()]
        yield name, {
            'hard triplets': hard_share(positive, cosine),
            'above the positive': float((positive[:, None] < cosine).mean()),
            'mean margin': float((positive[:, None] - cosine).mean()),
            'known positives': int(known.sum()), 'with an answer': int(sum(with_answer)),
            'answered by every passage': len(rows) - len(judged), 'triplets': rows.size,
        }


class Table:
    "The rows of the CSV."
    def __init__(self, data):
        self.rows = []
        self.data = data
        self.device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'

    def add(self, what, recipe, where, facts):
        for metric, value in facts.items():
            if not isinstance(value, (int, float)): continue
            self.rows.append({
                'data': self.data, 'device': self.device, 'what': what, 'recipe': recipe, 'where': where,
                'metric': metric, 'value': value,
            })


def arguments():
    "The flags of this program."
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data_dir', required=True)
    p.add_argument('--model_name', required=True)
    p.add_argument('--config', help='YAML of RecipeSettings')
    p.add_argument('--output', default='runs/recipes', help='run folders and the CSV')
    p.add_argument('--cache_dir')
    p.add_argument('--recipes', nargs='+', default=list('ABCD'))
    return p.parse_args()


def main():
    a = arguments()
    base = load_settings(a.config, {'model.name': a.model_name}, cls=RecipeSettings)
    reading, name = Reading(a.cache_dir), Path(a.data_dir).name
    output = Path(a.output)
    table = Table(name)
    for recipe in a.recipes:
        settings, folder = base.but(recipe=recipe), output/name/recipe
        train_recipe(settings, a.data_dir, folder, reading=reading)
        history = json.loads((folder/'history.json').read_text())
        if not table.rows:
            _, dev = read_data(settings, open_sources(settings, a.data_dir, reading=reading), folder, reading=reading)
            before = dev_metrics(load_encoder(a.model_name, settings.model), dev)
            table.add('dev', 'before', 'before training', before)
        last = history['evaluations'][-1]
        table.add('dev', recipe, 'after training', {k: last[k] for k in GEOMETRY})
        counts = {'steps': len(history['steps']), 'minings': len(history['minings'])}
        table.add('run', recipe, 'training', counts)
        for m in history['minings']:
            facts = {k: v for k, v in m.items() if k not in ('step', 'epoch')}
            table.add('mining', recipe, f"step {m['step']}", facts)
    whole = base.but(recipe='D', data=base.data.but(max_questions=None), mining=MiningSettings())
    sources = open_sources(whole, a.data_dir, reading=reading)
    trainset, _ = read_data(whole, sources, output/name, reading=reading)
    encoders = {
        'before': load_encoder(a.model_name, base.model), 'D': load_encoder(output/name/'D'/'final_model'),
    }
    for who, encoder in encoders.items():
        for source, facts in hardness(encoder, trainset, whole): table.add('hardness', who, source, facts)
    path = output/f'{name}.csv'
    with atomic_file(path) as tmp: pd.DataFrame(table.rows).to_csv(tmp, index=False)
    print(path)


if __name__ == '__main__': main()
