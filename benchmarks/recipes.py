"""Recipes A, B, C and D end to end, and how hard their negatives are: writes a CSV that nbs/experiments/recipes.ipynb reads.

    .venv/bin/python benchmarks/recipes.py --data_dir data_set/NQ --model_name bert-base-uncased --config full.yaml --output runs/recipes

Each recipe is trained with the program's own `train_recipe`, so an interrupted run goes on. Rows are (data, device, what, recipe, epoch or
source, metric, value): the dev sample before and after training, the log of each mining, and the hardness of BM25's and of mined negatives
under the same encoder, over all training questions, with the checks that none is a known positive or holds an answer.
"""
import argparse, json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import torch

from dacl_dr.core.settings import MiningSettings, Reading, RecipeSettings
from dacl_dr.core.yaml import load_settings
from dacl_dr.search.exact import top_k
from dacl_dr.curriculum.negatives import choose_negatives, fill_random, hard_share
from dacl_dr.training.sources import open_sources, read_data
from dacl_dr.training.recipe import dev_metrics, train_recipe
from dacl_dr.core.files import atomic_file
from dacl_dr.encoders.static import load_encoder
from dacl_dr.curriculum.loader import training_data
from dacl_dr.curriculum.mining import Negatives

GEOMETRY = ('recall@1', 'recall@10', 'mrr@10', 'pos mean', 'pos var', 'alignment', 'uniformity queries', 'uniformity passages')


def hardness(encoder, trainset, settings):
    "Margins of BM25's and of mined negatives under an encoder."
    data = training_data(encoder, trainset)
    q, p = encoder.encode(data.queries, 'query', desc='questions'), encoder.encode(data.passages, 'passage', desc='passages')
    positive = (q * p[data.positives]).sum(1)
    scores, rows = top_k(q, [(0, p)], settings.mining.depth)
    answered = (data.answers,) if data.answers else ()
    mined, _ = choose_negatives(rows, scores, data.known, data.numbers, np.where(positive > 0, settings.mining.near_positive * positive, positive), settings.training.hard_negatives, *answered)
    mined = fill_random(mined, data.known, data.numbers, settings.seed, *answered) # what `training.mine` does, without embedding everything again
    for name, rows in (('bm25', Negatives(encoder, data, settings).bm25), ('mined', mined)):
        cosine = np.stack([(q * p[r]).sum(1) for r in rows.T], axis=1)
        known = (data.numbers[rows][:, :, None] == data.known[:, None, :]).any(-1)
        judged = [i for i in range(len(rows)) if not data.answers or not all(data.answers(i, r) for r in range(0, len(p), max(1, len(p) // 50)))] # a few questions have an answer that every passage contains
        answered = [data.answers(i, r) for i in judged for r in rows[i].tolist()] if data.answers else [False]
        yield name, {'hard triplets': hard_share(positive, cosine), 'above the positive': float((positive[:, None] < cosine).mean()), 'mean margin': float((positive[:, None] - cosine).mean()), 'known positives': int(known.sum()), 'with an answer': int(sum(answered)), 'answered by every passage': len(rows) - len(judged), 'triplets': rows.size}


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data_dir', required=True); p.add_argument('--model_name', required=True); p.add_argument('--config', help='YAML of RecipeSettings')
    p.add_argument('--output', default='runs/recipes', help='run folders and the CSV'); p.add_argument('--cache_dir'); p.add_argument('--recipes', nargs='+', default=list('ABCD'))
    a = p.parse_args()
    base = load_settings(a.config, {'model.name': a.model_name}, cls=RecipeSettings)
    rows, device, name = [], torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU', Path(a.data_dir).name
    add = lambda what, recipe, where, facts: rows.extend({'data': name, 'device': device, 'what': what, 'recipe': recipe, 'where': where, 'metric': k, 'value': v} for k, v in facts.items() if isinstance(v, (int, float)))
    for recipe in a.recipes:
        settings, folder = msgspec.structs.replace(base, recipe=recipe), Path(a.output)/name/recipe
        model = train_recipe(settings, a.data_dir, folder, reading=Reading(a.cache_dir))
        history = json.loads((folder/'history.json').read_text())
        if not rows:
            _, dev = read_data(settings, open_sources(settings, a.data_dir, reading=Reading(a.cache_dir)), folder, reading=Reading(a.cache_dir))
            add('dev', 'before', 'before training', dev_metrics(load_encoder(a.model_name, settings.model), dev))
        add('dev', recipe, 'after training', {k: history['evaluations'][-1][k] for k in GEOMETRY})
        add('run', recipe, 'training', {'steps': len(history['steps']), 'minings': len(history['minings'])})
        for m in history['minings']: add('mining', recipe, f"step {m['step']}", {k: v for k, v in m.items() if k not in ('step', 'epoch')})
    whole = msgspec.structs.replace(base, recipe='D', data=msgspec.structs.replace(base.data, max_questions=None), mining=MiningSettings())
    trainset, _ = read_data(whole, open_sources(whole, a.data_dir, reading=Reading(a.cache_dir)), Path(a.output)/name, reading=Reading(a.cache_dir))
    for who, encoder in (('before', load_encoder(a.model_name, base.model)), ('D', load_encoder(Path(a.output)/name/'D'/'final_model'))):
        for source, facts in hardness(encoder, trainset, whole): add('hardness', who, source, facts)
    with atomic_file(Path(a.output)/f'{name}.csv') as tmp: pd.DataFrame(rows).to_csv(tmp, index=False)
    print(Path(a.output)/f'{name}.csv')


if __name__ == '__main__': main()
