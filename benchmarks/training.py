"""Training speed and memory beside sentence-transformers' trainer: same model, data, batch, lengths, precision.

    .venv/bin/python benchmarks/training.py --data_dir data_set --dataset NQ --model_name bert-base-uncased

Every measurement runs in its own process; the two take turns. A process trains with in-batch positives and --hard_negatives of the
data set's own (mined with BM25 where it has none) and reports questions per second after the first two steps, and its peak memory:
resident on a CPU, allocated on a GPU. --parts shows what chunks of equal length are worth, and what cached gradients cost.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from dacl_dr.training import trainer as training
from dacl_dr.core.settings import DataSettings, MachineSettings, ModelSettings, Reading, RecipeSettings, RunSettings, Stage, TrainSettings
from dacl_dr.training.sources import open_sources, read_data
from dacl_dr.encoders.static import load_encoder
from dacl_dr.curriculum.loader import training_data
from dacl_dr.curriculum.mining import Negatives
from dacl_dr.training.trainer import train

WARM = 2 # steps that are not counted


def settings_of(a):
    "One stage with the data set's hard negatives, or none."
    stages = (Stage('bm25', 1, (1, 1), 'bm25' if a.hard_negatives else 'in-batch'),)
    return RecipeSettings(model=ModelSettings(name=a.model_name, query_length=64, passage_length=a.length), data=DataSettings(dataset=a.dataset, max_questions=a.batch_size * (a.steps + WARM)),
                          training=TrainSettings(batch_size=a.batch_size, hard_negatives=a.hard_negatives, stages=stages), run=RunSettings(report_to=(), eval_questions=0),
                          machine=MachineSettings(precision=a.precision, grad_cache=a.what == 'cached', chunk_tokens=a.chunk_tokens))


def data_of(a, settings):
    return read_data(settings, open_sources(settings, a.data_dir, reading=Reading(a.cache_dir, show_progress=False)), Path(a.folder), reading=Reading(a.cache_dir, show_progress=False))[0]


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
    def with_clock(self, *args, **kwargs): init(self, *args, **kwargs); self.add_callback(clock)
    training.RecipeTrainer.__init__ = with_clock
    if a.what == 'padded': training.Collator.parts = padded_parts
    train(encoder, training_data(encoder, data_of(a, settings)), settings, desc=None, say=lambda text: None)


def padded_parts(self, texts, rows, side):
    "All texts of a side in one chunk, padded to the longest."
    (at, chunk), = texts.chunks(rows, 10**9)
    place = np.empty(len(rows), np.int64); place[at] = np.arange(len(rows))
    return [(side, chunk)], torch.from_numpy(place)


def theirs(a, clock):
    "sentence-transformers' trainer on the same texts, a column for each negative."
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    settings = settings_of(a)
    trainset = data_of(a, settings)
    columns = {'anchor': trainset.questions, 'positive': trainset.pool.take(trainset.positives)}
    if a.hard_negatives:
        negatives = Negatives(None, training.TrainingData(None, None, trainset.positives, trainset.known, trainset.numbers, trainset.bm25, trainset.ids, trainset.answers), settings).bm25
        columns |= {f'negative_{j}': trainset.pool.take(negatives[:, j]) for j in range(a.hard_negatives)}
    model = SentenceTransformer(a.model_name, device='cuda' if torch.cuda.is_available() else 'cpu')
    model.max_seq_length = a.length
    with tempfile.TemporaryDirectory() as d:
        args = SentenceTransformerTrainingArguments(d, num_train_epochs=1, per_device_train_batch_size=a.batch_size, learning_rate=2e-5, warmup_steps=.05, report_to='none', save_strategy='no', disable_tqdm=True,
            logging_strategy='no', dataloader_drop_last=True, fp16=a.precision == 'fp16', bf16=a.precision == 'bf16', use_cpu=not torch.cuda.is_available())
        SentenceTransformerTrainer(model, args, train_dataset=Dataset.from_dict(columns), loss=MultipleNegativesRankingLoss(model), callbacks=[clock]).train()


def measure(a):
    "One measurement in this process, printed as JSON."
    clock = Clock()
    (theirs if a.what == 'peer' else ours)(a, clock)
    steps = np.diff(clock.times[WARM - 1:])
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else int(status['VmHWM'].split()[0]) * 1024
    print(json.dumps({'questions_per_s': a.batch_size / float(np.median(steps)), 'peak_gb': peak / 1e9, 'steps': len(steps)}))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data_dir', default='data_set'); p.add_argument('--dataset'); p.add_argument('--cache_dir')
    p.add_argument('--model_name', required=True)
    p.add_argument('--batch_size', type=int, default=32); p.add_argument('--hard_negatives', type=int, default=7)
    p.add_argument('--length', type=int, default=256, help='tokens of a passage'); p.add_argument('--chunk_tokens', type=int)
    p.add_argument('--precision', default='fp32'); p.add_argument('--steps', type=int, default=6); p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--parts', action='store_true', help='also without chunks of equal length, and with cached gradients')
    p.add_argument('--what', help=argparse.SUPPRESS); p.add_argument('--folder', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.what: return measure(a)
    variants = ['ours', 'peer'] + (['padded', 'cached'] if a.parts else [])
    names = {'ours': 'this project', 'peer': 'sentence-transformers', 'padded': '  one padded batch a side', 'cached': '  gradient cache'}
    found = {v: [] for v in variants}
    with tempfile.TemporaryDirectory() as d:
        passed = [x for k, v in vars(a).items() if v not in (None, False) and k not in ('parts', 'repeats') for x in (f'--{k}', str(v))]
        for _ in range(a.repeats):
            for v in variants:
                out = subprocess.run([sys.executable, __file__, *passed, '--what', v, '--folder', d], capture_output=True, text=True)
                if out.returncode: sys.exit(out.stderr)
                found[v].append(json.loads(out.stdout.strip().splitlines()[-1]))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'
    print(f"{Path(a.model_name).name}, {a.dataset or Path(a.data_dir).name}, batch {a.batch_size}, {a.hard_negatives} hard negatives, passages up to {a.length} tokens, {a.precision}, {device}; medians of {a.repeats} runs of {a.steps} steps")
    base = {k: median(r[k] for r in found['peer']) for k in ('questions_per_s', 'peak_gb')}
    for v in variants:
        speed, peak = (median(r[k] for r in found[v]) for k in ('questions_per_s', 'peak_gb'))
        spread = ' to '.join(f'{f(r["questions_per_s"] for r in found[v]):.2f}' for f in (min, max))
        print(f"{names[v]:<36} {speed:8.2f} questions/s ({spread})  ×{speed / base['questions_per_s']:.2f}   peak {peak:5.2f} GB  ×{peak / base['peak_gb']:.2f}", flush=True)


if __name__ == '__main__': main()
