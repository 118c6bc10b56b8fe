"Gradient caching and data parallelism give the gradients of one batch in one process."
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from processes import torchrun
from dacl_dr.core.settings import ModelSettings
from dacl_dr.encoders.transformer import TransformerEncoder, tiny_bert
from dacl_dr.losses.gradcache import cached_backward
from dacl_dr.data.toy import toy_data
from dacl_dr.data.formats import read_questions
from dacl_dr.curriculum.trainset import QuestionSource, training_set
from dacl_dr.curriculum.loader import Collator, training_data
from dacl_dr.losses.terms import Objective
from dacl_dr.training.trainer import batch_losses

ROOT = Path(__file__).resolve().parents[2]
ROWS = np.arange(24)


def world(home, towers, dropout):
    "A random BERT and the toy data, with random passages for hard negatives."
    toy = home/'toy' if (home/'toy').exists() else toy_data(home/'toy')
    trainset = training_set(QuestionSource(read_questions(toy/'toy-train.json'), toy), 0, show_progress=False)
    bert = home/'bert' if (home/'bert').exists() else tiny_bert(
        home/'bert', trainset.pool.take(np.arange(len(trainset.pool))) + trainset.questions,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    encoder = TransformerEncoder.open(bert, ModelSettings(towers=towers, query_length=16, passage_length=32))
    data = training_data(encoder, trainset)
    data.bm25 = np.random.default_rng(0).integers(0, len(trainset.pool), (len(trainset.questions), 3))
    return encoder, data


def collator(data, hard, rank=0, size=1, tokens=60):
    collate = Collator(data, tokens, ('passage', 'answer'), rank, size)
    collate.negatives = data.bm25 if hard else None
    return collate


def gradients(encoder):
    return {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}


def largest(a, b):
    assert a.keys() == b.keys() and len(a) > 20
    return max((a[n] - b[n]).abs().max().item() for n in a)


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('towers', ['shared', 'separate'])
@pytest.mark.parametrize('symmetric', [False, True])
def test_cache_equals_full_batch_with_dropout(tmp_path, towers, hard, symmetric):
    encoder, data = world(tmp_path, towers, dropout=.2)
    batch = collator(data, hard)(ROWS)
    chunks = batch['queries'] + batch['passages']
    assert len(chunks) > 5
    loss_of = lambda vectors: batch_losses(vectors, batch, Objective(.05, symmetric), .6)[0]
    def run(f):
        torch.manual_seed(3); encoder.train(); encoder.zero_grad()
        losses = f()
        return gradients(encoder), losses, torch.get_rng_state()
    def plain():
        losses = loss_of(encoder(chunks)); losses.total.backward()
        return losses
    full, a, state = run(plain)
    cached, b, after = run(lambda: cached_backward(encoder, chunks, loss_of, lambda l: l.total.backward()))
    assert a.total.item() == pytest.approx(b.total.item(), abs=1e-6)
    assert largest(full, cached) < 1e-5 and max(g.abs().max() for g in full.values()) > .1
    assert torch.equal(state, after) # the next batch's dropout is the same too
    other, *_ = run(lambda: (torch.manual_seed(4), plain())[1])
    assert largest(full, other) > 1e-3 # dropout is at work


SCRIPT = '''
import sys, torch, numpy as np
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)] # of this test and of `processes`
from test_gradcache import ROWS, collator, gradients, world
from safetensors.torch import load_file, save_file
from dacl_dr.losses.gradcache import average_gradients, cached_backward
from dacl_dr.losses.terms import Objective
from dacl_dr.training.trainer import batch_losses
torch.distributed.init_process_group('gloo')
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
for towers in ('shared', 'separate'):
    encoder, data = world(Path(sys.argv[2])/'one'/towers, towers, dropout=0.)
    encoder.load_state_dict(load_file(Path(sys.argv[2])/f'{towers}.safetensors'))
    for hard in (False, True):
        batch = collator(data, hard, rank, size)(ROWS)
        loss_of = lambda vectors: batch_losses(vectors, batch, Objective(.05, True), .6)[0]
        for cached in (False, True):
            model = torch.nn.parallel.DistributedDataParallel(encoder, find_unused_parameters=True)
            encoder.train(); encoder.zero_grad(); torch.manual_seed(0)
            chunks = batch['queries'] + batch['passages']
            if cached: cached_backward(model, chunks, loss_of, lambda l: l.total.backward()); average_gradients(model)
            else: loss_of(model(chunks)).total.backward()
            save_file(gradients(encoder), Path(sys.argv[2])/f'{towers}-{hard}-{cached}-{rank}.safetensors')
torch.distributed.destroy_process_group()
'''


def test_two_processes_equal_one(tmp_path):
    """Half of the batch each, negatives gathered: the gradients of the whole batch, with and without cache, hard
    negatives, separate towers."""
    expected = {}
    for towers in ('shared', 'separate'):
        encoder, data = world(tmp_path/'one'/towers, towers, dropout=0.)
        save_file({n: t.clone() for n, t in encoder.state_dict().items()}, tmp_path/f'{towers}.safetensors')
        for hard in (False, True):
            batch = collator(data, hard)(ROWS)
            encoder.train(); encoder.zero_grad()
            batch_losses(
                encoder(batch['queries'] + batch['passages']), batch, Objective(.05, True), .6)[0].total.backward()
            expected[towers, hard] = gradients(encoder)
    (tmp_path/'run.py').write_text(SCRIPT)
    r = torchrun(tmp_path/'run.py', ROOT/'tests'/'losses', tmp_path)
    assert r.returncode == 0, r.stderr[-2000:]
    for (towers, hard), one in expected.items():
        for cached in (False, True):
            for rank in range(2):
                two = load_file(tmp_path/f'{towers}-{hard}-{cached}-{rank}.safetensors')
                assert largest(one, two) < 1e-5, (towers, hard, cached, rank)
