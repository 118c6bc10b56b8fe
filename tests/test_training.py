"Training at the quickstart's batch size: repeatable to the last bit, negatives never a positive."
import numpy as np
import pytest
import torch

from dacl_dr.config import DaclError, EncoderSettings, TrainSettings
from dacl_dr.curriculum import recipe_stages
from dacl_dr.encoder import StaticEncoder, TokenBags
from dacl_dr.experiment import Task, tiny_settings
from dacl_dr.training import TrainingData, batch_losses, mine, train
from tokenizers import Tokenizer, models

VOCAB = 600


def bags(rng, n, length):
    ids = np.concatenate([rng.choice(VOCAB, length, replace=False) for _ in range(n)])
    return TokenBags(np.arange(n + 1) * length, ids, np.ones(n * length, np.float32))


@pytest.fixture(scope='module')
def world():
    rng = np.random.default_rng(0)
    n = 1100
    passages = bags(rng, n, 120)
    queries = TokenBags(np.arange(n + 1) * 8, passages.ids.reshape(n, 120)[:, :8].ravel().copy(), np.ones(n * 8, np.float32))
    tokenizer = Tokenizer(models.WordPiece({f't{i}': i for i in range(VOCAB)}, unk_token='t0'))
    return tokenizer, TrainingData(queries, passages, np.arange(n), np.roll(np.arange(n), 1)[:, None])


def trained(world, recipe, **kw):
    tokenizer, data = world
    s = TrainSettings(batch_size=512, num_epochs=2, stages={'warm-up': 1, 'distance': 2, 'joint': 2}, **kw)
    enc = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    return enc, train(enc, data, recipe_stages(recipe, s), s, 0), s


@pytest.mark.parametrize('recipe', ['A', 'D'])
def test_same_seed_same_weights(world, recipe):
    a, b = trained(world, recipe)[0].state_dict(), trained(world, recipe)[0].state_dict()
    for k in a: assert torch.equal(a[k], b[k]), k


def test_distance_weight_pulls_pairs_together(world):
    "The only difference between A and B is w; B's positives end nearer."
    ha, hb = trained(world, 'A')[1], trained(world, 'B', w=3.)[1]
    assert hb.steps[-1]['distance'] < ha.steps[-1]['distance']
    assert [s['w'] for s in ha.steps] == [0] * len(ha.steps)


def test_mined_negatives_are_never_the_positive(world):
    _, data = world
    enc, _, s = trained(world, 'A', hard_negatives=3)
    negatives, facts = mine(enc, data, s, 0, 0)
    assert negatives.shape == (1100, 3) and (negatives != data.positives[:, None]).all()
    q, p = enc.encode(data.queries, 'query'), enc.encode(data.passages, 'passage')
    hard = np.take_along_axis(q @ p.T, negatives, 1)
    assert hard.mean() > (q @ p.T).mean() + .1 # harder than a random passage


def test_hard_negatives_enter_the_softmax(world):
    "Adding passages to the denominator can only raise InfoNCE."
    _, data = world
    enc = trained(world, 'A')[0]
    rows = np.arange(64)
    with torch.no_grad(): without, with_ = batch_losses(enc, data, rows, None, .05, 0.), batch_losses(enc, data, rows, data.bm25, .05, 0.)
    assert with_.infonce > without.infonce and with_.distance == without.distance


def test_a_loss_that_is_not_a_number_stops_training(world):
    tokenizer, data = world
    s = TrainSettings(batch_size=512, num_epochs=1)
    enc = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    with torch.no_grad(): enc.passage.vectors.fill_(float('nan'))
    with pytest.raises(DaclError, match='loss is nan at step 0'): train(enc, data, recipe_stages('A', s), s, 0)


def test_tokenizer_and_idf_see_training_texts_only(tiny_run):
    "A word that occurs in no training text is not a piece of its own."
    data, *_ = tiny_run
    task = Task(data/'codedocs', tiny_settings())
    train_text = ' '.join([q.question for q in task.train_questions] + [task.texts[i] for i in task.pool]).lower()
    pieces = [p for p in task.tokenizer.get_vocab() if len(p) > 3 and not p.startswith(('##', '['))]
    assert len(pieces) > 100 and all(p in train_text for p in pieces)
    gold_rows = set(task.gold.tolist())
    assert not gold_rows & set(task.pool.tolist())
