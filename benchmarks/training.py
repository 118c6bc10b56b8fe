"""Training speed and memory beside sentence-transformers' trainer: same model, data, batch, lengths, precision.

    .venv/bin/python benchmarks/training.py --data_dir data_set --dataset NQ --model_name bert-base-uncased

Every measurement runs in its own process; the two take turns. A process trains with in-batch positives and
--hard_negatives of the data set's own (mined with BM25 where it has none) and reports questions per second after the
first two steps, and its peak memory: resident on a CPU, allocated on a GPU. --parts shows what chunks of equal length
are worth, and what cached gradients cost.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from dacl_dr.curriculum import loader
from dacl_dr.training import trainer as training
from dacl_dr.core.settings import (
    DataSettings, MachineSettings, ModelSettings, Reading, RecipeSettings, RunSettings, Stage, TrainSettings,
)
from dacl_dr.training.sources import open_sources, read_data
from dacl_dr.encoders.static import load_encoder
from dacl_dr.curriculum.loader import TrainingData, training_data
from dacl_dr.curriculum.mining import Negatives
from dacl_dr.training.trainer import train

WARM = 2 # steps that are not counted


def settings_of(a):
    "One stage with the data set's hard negatives, or none."
    stages = (Stage('bm25', 1, (1, 1), 'bm25' if a.hard_negatives else 'in-batch'),)
    return RecipeSettings(
        model=ModelSettings(name=a.model_name, query_length=64, passage_length=a.length),
        data=DataSettings(dataset=a.dataset, max_questions=a.batch_size * (a.steps + WARM)),
        training=TrainSettings(batch_size=a.batch_size, hard_negatives=a.hard_negatives, stages=stages),
        machine=MachineSettings(
            precision=a.precision, grad_cache=a.what == 'cached', chunk_tokens=a.chunk_tokens),
        run=RunSettings(report_to=(), eval_questions=0))


def data_of(a, settings):
    "What is trained on."
    quiet = Reading(a.cache_dir, show_progress=False)
    trainset, _ = read_data(settings, open_sources(settings, a.data_dir, reading=quiet), Path(a.folder), reading=quiet)
    return trainset


class Clock(training.TrainerCallback):
    "When each step ended."
    def __init__(self): self.times = []
    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available(): torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def ours(a, clock):
    "This project's trainer."
    settings = settings_of(a)
    encoder = load_encoder(settings.model.name, settings.model)
    init = training.RecipeTrainer.__init__
    def with_clock(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.add_callback(clock)
    training.RecipeTrainer.__init__ = with_clock
    if a.what == 'padded': loader.cut_into_chunks = one_chunk
    train(encoder, training_data(encoder, data_of(a, settings)), settings, desc=None, say=lambda text: None)


def one_chunk(texts, rows, side, tokens):
    "All texts of a side in one chunk, padded to the longest."
    (at, chunk), = texts.chunks(rows, 10**9)
    place = np.empty(len(rows), np.int64)
    place[at] = np.arange(len(rows))
    return [(side, chunk)], torch.from_numpy(place)


def theirs(a, clock):
    "sentence-transformers' trainer on the same texts, a column for each negative."
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    settings = settings_of(a)
    trainset = data_of(a, settings)
    columns = {'anchor': trainset.questions, 'positive': trainset.pool.take(trainset.positives)}
    if a.hard_negatives:
        data = TrainingData(
            None, None, trainset.positives, trainset.known, trainset.numbers, trainset.bm25, trainset.ids,
            trainset.answers)
        negatives = Negatives(None, data, settings).bm25
        columns |= {f'negative_{j}': trainset.pool.take(negatives[:, j]) for j in range(a.hard_negatives)}
    model = SentenceTransformer(a.model_name, device='cuda' if torch.cuda.is_available() else 'cpu')
    model.max_seq_length = a.length
    with tempfile.TemporaryDirectory() as d:
        args = SentenceTransformerTrainingArguments(
            d, num_train_epochs=1, per_device_train_batch_size=a.batch_size, learning_rate=2e-5, warmup_steps=.05,
            report_to='none', save_strategy='no', disable_tqdm=True, logging_strategy='no', dataloader_drop_last=True,
            fp16=a.precision == 'fp16', bf16=a.precision == 'bf16', use_cpu=not torch.cuda.is_available())
        trainer = SentenceTransformerTrainer(
            model, args, train_dataset=Dataset.from_dict(columns), loss=MultipleNegativesRankingLoss(model),
            callbacks=[clock])
        trainer.train()


def measure(a):
    "One measurement in this process, printed as JSON."
    clock = Clock()
    (theirs if a.what == 'peer' else ours)(a, clock)
    steps = np.diff(clock.times[WARM - 1:])
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    resident = int(status['VmHWM'].split()[0]) * 1024
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident
    speed = a.batch_size / float(np.median(steps))
    print(json.dumps({'questions_per_s': speed, 'peak_gb': peak / 1e9, 'steps': len(steps)}))


NAMES = {
    'ours': 'this project', 'peer': 'sentence-transformers', 'padded': '  one padded batch a side',
    'cached': '  gradient cache',
}
MEASURED = ('questions_per_s', 'peak_gb')


def arguments():
    "The flags of this program."
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data_dir', default='data_set')
    p.add_argument('--dataset')
    p.add_argument('--cache_dir')
    p.add_argument('--model_name', required=True)
    p.add_argument('--batch_size', type=int, default=32)
    p.add_argument('--hard_negatives', type=int, default=7)
    p.add_argument('--length', type=int, default=256, help='tokens of a passage')
    p.add_argument('--chunk_tokens', type=int)
    p.add_argument('--precision', default='fp32')
    p.add_argument('--steps', type=int, default=6)
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument(
        '--parts', action='store_true', help='also without chunks of equal length, and with cached gradients')
    p.add_argument('--what', help=argparse.SUPPRESS)
    p.add_argument('--folder', help=argparse.SUPPRESS)
    return p.parse_args()


def measured(a, variant, folder):
    "One measurement in a process of its own."
    given = {k: v for k, v in vars(a).items() if v not in (None, False) and k not in ('parts', 'repeats')}
    passed = [x for k, v in given.items() for x in (f'--{k}', str(v))]
    command = [sys.executable, __file__, *passed, '--what', variant, '--folder', folder]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode: sys.exit(out.stderr)
    return json.loads(out.stdout.strip().splitlines()[-1])


def main():
    a = arguments()
    if a.what: return measure(a)
    variants = ['ours', 'peer'] + (['padded', 'cached'] if a.parts else [])
    found = {v: [] for v in variants}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(a.repeats):
            for v in variants: found[v].append(measured(a, v, folder))
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f'{torch.get_num_threads()} CPU threads'
    print(
        f'{Path(a.model_name).name}, {a.dataset or Path(a.data_dir).name}, batch {a.batch_size}, '
        f'{a.hard_negatives} hard negatives, passages up to {a.length} tokens, {a.precision}, {device}; '
        f'medians of {a.repeats} runs of {a.steps} steps')
    base_speed, base_peak = (median(r[k] for r in found['peer']) for k in MEASURED)
    for v in variants:
        speed, peak = (median(r[k] for r in found[v]) for k in MEASURED)
        speeds = [r['questions_per_s'] for r in found[v]]
        print(
            f'{NAMES[v]:<36} {speed:8.2f} questions/s ({min(speeds):.2f} to {max(speeds):.2f})  '
            f'×{speed / base_speed:.2f}   peak {peak:5.2f} GB  ×{peak / base_peak:.2f}', flush=True)


if __name__ == '__main__': main()
