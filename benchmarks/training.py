"""Training speed and memory beside sentence-transformers' trainer: same model, data, batch, lengths, precision.

    .venv/bin/python benchmarks/training.py --data_dir data_set --dataset NQ --model_name bert-base-uncased
    python benchmarks/training.py --data_dir DATA/tldr --model_name MODEL --variants ours peer padded cached compiled \\
        --table nbs/experiments/results/performance.csv

Every measurement runs in its own process; the ways take turns. A process trains with in-batch positives and
--hard_negatives of the data set's own (mined with BM25 where it has none) and reports questions per second after the
first two steps, tokens that were there and tokens computed with padding, and its peak memory: resident on a CPU,
allocated on a GPU. Of the bound: what the linear layers of the tokens computed take, forward and backward, by the rate
at which a linear layer of the model's widest shape runs here alone. Ways besides ours and the peer: `padded` (this
trainer without chunks of equal length), `cached` (with cached gradients), `compiled` (with torch.compile).
"""
import argparse, json, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd, torch

from measuring import OURS, apart, matmul_limit, peak_bytes, rows_of, save, short

import dacl_dr.curriculum.loader as loader
import dacl_dr.training.trainer as training
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
            precision=a.precision, grad_cache=a.what == 'cached', torch_compile=a.what == 'compiled',
            chunk_tokens=a.chunk_tokens),
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


class Tokens:
    "What the towers of a model are given: tokens, and tokens with padding."
    def __init__(self, model):
        from sentence_transformers.models import Transformer
        self.counts = [] # a pair a forward pass
        towers = [m for m in model.modules() if isinstance(m, Transformer)]
        for tower in towers: tower.register_forward_pre_hook(self.note)
        self.linears = [m for m in towers[0].modules() if isinstance(m, torch.nn.Linear)]
    def note(self, module, args): # called with the features of a batch
        mask = args[0]['attention_mask']
        self.counts.append((int(mask.sum()), mask.numel()))
    def told(self, seconds, questions): # seconds of a question; all questions
        "Tokens a question, padding, and the share of the bound."
        there, computed = np.sum(self.counts, axis=0)
        per_token = sum(2 * m.in_features * m.out_features for m in self.linears)
        widest = max(self.linears, key=lambda m: m.in_features * m.out_features)
        flops = 3 * per_token * computed / questions # a question: backward takes twice what forward does
        limit = matmul_limit(widest.in_features, widest.out_features)
        return {'tokens': there / questions, 'computed': computed / questions, 'bound': flops / seconds / limit}


def ours(a, clock):
    "This project's trainer; gives what counts tokens."
    settings = settings_of(a)
    encoder = load_encoder(settings.model.name, settings.model)
    tokens = Tokens(encoder)
    init = training.RecipeTrainer.__init__
    def with_clock(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.add_callback(clock)
    training.RecipeTrainer.__init__ = with_clock
    if a.what == 'padded': loader.cut_into_chunks = one_chunk
    train(encoder, training_data(encoder, data_of(a, settings)), settings, desc=None, say=lambda text: None)
    return tokens


def one_chunk(texts, rows, side, tokens):
    "All texts of a side in one chunk, padded to the longest."
    (at, chunk), = texts.chunks(rows, 10**9)
    place = np.empty(len(rows), np.int64)
    place[at] = np.arange(len(rows))
    return [(side, chunk)], torch.from_numpy(place)


def theirs(a, clock):
    "sentence-transformers' trainer on the same texts, a column for each negative; gives what counts tokens."
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
    tokens = Tokens(model)
    with tempfile.TemporaryDirectory() as d:
        args = SentenceTransformerTrainingArguments(
            d, num_train_epochs=1, per_device_train_batch_size=a.batch_size, learning_rate=2e-5, warmup_steps=.05,
            report_to='none', save_strategy='no', disable_tqdm=True, logging_strategy='no', dataloader_drop_last=True,
            fp16=a.precision == 'fp16', bf16=a.precision == 'bf16', use_cpu=not torch.cuda.is_available())
        trainer = SentenceTransformerTrainer(
            model, args, train_dataset=Dataset.from_dict(columns), loss=MultipleNegativesRankingLoss(model),
            callbacks=[clock])
        trainer.train()
    return tokens


def measure(a):
    "One measurement in this process, printed as JSON."
    clock = Clock()
    tokens = (theirs if a.what == 'peer' else ours)(a, clock)
    steps = np.diff(clock.times[WARM - 1:])
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()
    speed = a.batch_size / float(np.median(steps))
    asked = a.batch_size * len(clock.times)
    told = tokens.told(1 / speed, asked)
    print(json.dumps({'questions_per_s': speed, 'peak_gb': peak / 1e9, 'steps': len(steps)} | told))


NAMES = {
    'ours': OURS, 'peer': 'sentence-transformers', 'padded': 'one padded batch a side', 'cached': 'gradient cache',
    'compiled': 'torch.compile',
}


def arguments():
    "The flags of this program."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    p.add_argument('--variants', nargs='+', choices=[*NAMES], default=['ours', 'peer'])
    p.add_argument('--table', help='CSV whose rows of this data set are replaced')
    p.add_argument('--what', help=argparse.SUPPRESS)
    p.add_argument('--folder', help=argparse.SUPPRESS)
    return p.parse_args()


def measured(a, variant, folder):
    "One measurement in a process of its own."
    left_out = ('variants', 'repeats', 'table')
    given = {k: v for k, v in vars(a).items() if v not in (None, False) and k not in left_out}
    passed = [x for k, v in given.items() for x in (f'--{k}', str(v))]
    return apart(__file__, [*passed, '--what', variant, '--folder', folder])


def main():
    a = arguments()
    if a.what: return measure(a)
    found, name = {NAMES[v]: [] for v in a.variants}, a.dataset or Path(a.data_dir).name
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(a.repeats):
            for v in a.variants: found[NAMES[v]].append(measured(a, v, folder))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'
    print(
        f'{short(a.model_name)}, {name}, batch {a.batch_size}, '
        f'{a.hard_negatives} hard negatives, passages up to {a.length} tokens, {a.precision}, {device}; '
        f'medians of {a.repeats} runs of {a.steps} steps')
    of = lambda key: {way: [r[key] for r in runs] for way, runs in found.items()}
    part, case = f'training {name}', f'{short(a.model_name)}, {name}'
    rows = [
        rows_of(part, case, 'questions/s', of('questions_per_s'), bigger_is_better=True),
        rows_of(part, case, 'GB at most', of('peak_gb')),
        rows_of(part, case, 'tokens computed a question', of('computed')),
        rows_of(part, case, 'tokens a question', of('tokens')),
        rows_of(part, case, 'share of the bound', of('bound'), bigger_is_better=True),
    ]
    for r in rows: print(r.drop(columns=['part', 'case']).round(3).to_string(index=False), flush=True)
    if a.table: save(a.table, pd.concat(rows), ['torch', 'transformers', 'sentence-transformers'])


if __name__ == '__main__': main()
