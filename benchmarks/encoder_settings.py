"""How the static encoder's defaults were chosen: recipe A's quality on the dev split, one setting changed at a time.

    .venv/bin/python benchmarks/encoder_settings.py --data_dir data_set

Needs the offline corpus (dacl harvest). Prints one line a variant; about ten seconds each on two cores.
"""
import argparse
from pathlib import Path

import msgspec
import numpy as np
import torch

from dacl_dr.core.settings import Settings
from dacl_dr.data.formats import positive_rows
from dacl_dr.encoders.static import StaticEncoder, bag_texts
from dacl_dr.search.exact import exact_search
from dacl_dr.metrics.ranking import gold_rank, task_metrics
from dacl_dr.studies.task import Task, with_positives
from dacl_dr.studies.models import Variant, variant_settings
from dacl_dr.curriculum.loader import TrainingData
from dacl_dr.training.trainer import train

# name, changed encoder settings, changed training settings, power of the idf in each tower (1/2 is the default)
VARIANTS = [('default', {}, {}, .5),
            *((f'init_std {v}', {'init_std': v}, {}, .5) for v in (.2, .3, 1.)),
            *((f'learning_rate {v}', {}, {'learning_rate': v}, .5) for v in (3e-3, 3e-2)),
            *((f'token_dropout {v}', {'token_dropout': v}, {}, .5) for v in (0., .3)),
            ('idf in full', {}, {}, 1.), ('no idf', {}, {}, 0.)]


def dev_quality(task, gold, questions, encoder_settings, train_settings, idf_power, seed):
    "End-task metrics of recipe A on the dev split."
    encoder = StaticEncoder.create(task.tokenizer, task.prepare('pool'), encoder_settings, seed)
    with torch.no_grad():
        for tower in (encoder.query, encoder.passage): tower.importance.pow_(2 * idf_power)
    n = len(task.positives)
    data = TrainingData(
        task.prepare('train'), task.prepare('pool'), task.positives, task.positives[:, None], np.arange(len(task.pool)),
        np.zeros((n, 0), int), [str(i) for i in range(n)])
    settings = msgspec.structs.replace(task.settings, training=train_settings)
    of_variant = variant_settings(settings, Variant('A', 0., train_settings.temperature, seed))
    train(encoder, data, of_variant, say=lambda text: None)
    found = exact_search(encoder.encode(questions, 'query'), task.encode(encoder, 'all'), 100)
    return task_metrics(gold_rank(found, gold))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data_dir', default='data_set')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    settings = Settings()
    task = Task(Path(args.data_dir)/'codedocs', settings)
    dev = with_positives(task.files.dev)
    gold, questions = np.array(positive_rows(dev, task.passages)), bag_texts(task.tokenizer, [q.question for q in dev])
    for name, enc, tr, power in VARIANTS:
        changed = ((settings.encoder, enc), (settings.training, tr))
        encoding, training = (msgspec.structs.replace(s, **x) for s, x in changed)
        m = dev_quality(task, gold, questions, encoding, training, power, args.seed)
        print(f'{name:<22}' + '  '.join(f'{k} {v:.3f}' for k, v in m.items()), flush=True)


if __name__ == '__main__': main()
