"Training at the quickstart's batch size: repeatable to the last bit, negatives never a positive, bad numbers stopped."
import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import EncoderSettings, MachineSettings, RecipeSettings, RunSettings, Stage, TrainSettings
from dacl_dr.studies.task import Task
from dacl_dr.studies.run import tiny_settings
from dacl_dr.encoders.static import StaticEncoder, TokenBags
from dacl_dr.curriculum.loader import Collator, TrainingData
from dacl_dr.curriculum.mining import Negatives, mine
from dacl_dr.losses.terms import Objective
from dacl_dr.training.trainer import RecipeTrainer, batch_losses, train

VOCAB = 600
STAGES = (Stage('warm-up', 1, (0, 0)), Stage('distance', 2, (0, 1), 'bm25'), Stage('joint', 2, (1, 1), 'model'))


def bags(rng, n, length):
    ids = np.concatenate([rng.choice(VOCAB, length, replace=False) for _ in range(n)])
    return TokenBags(np.arange(n + 1) * length, ids, np.ones(n * length, np.float32))


@pytest.fixture(scope='module')
def world():
    rng = np.random.default_rng(0)
    n = 1100
    passages = bags(rng, n, 120)
    queries = TokenBags(
        np.arange(n + 1) * 8, passages.ids.reshape(n, 120)[:, :8].ravel().copy(), np.ones(n * 8, np.float32))
    tokenizer = Tokenizer(models.WordPiece({f't{i}': i for i in range(VOCAB)}, unk_token='t0'))
    return tokenizer, TrainingData(
        queries, passages, np.arange(n), np.arange(n)[:, None], np.arange(n), np.roll(np.arange(n), 1)[:, None],
        [f'q{i}' for i in range(n)])


def recipe(name, **kw):
    w = kw.pop('w', .6)
    machine = MachineSettings(**{k: kw.pop(k) for k in list(kw) if k in MachineSettings.__struct_fields__})
    t = TrainSettings(
        **{
            'batch_size': 512, 'num_epochs': 2, 'stages': STAGES, 'hard_negatives': 1, 'learning_rate': 1e-2,
            'warmup': 0, 'max_grad_norm': 0}
        | kw,
        w=w)
    return RecipeSettings(recipe=name, training=t, machine=machine, run=RunSettings(report_to=(), eval_questions=0))


def trained(world, name, **kw):
    tokenizer, data = world
    enc = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    return enc, train(enc, data, recipe(name, **kw), desc=None, say=lambda text: None)


@pytest.mark.parametrize('name', ['A', 'D'])
def test_same_seed_same_weights(world, name):
    a, b = trained(world, name)[0].state_dict(), trained(world, name)[0].state_dict()
    for k in a: assert torch.equal(a[k], b[k]), k


def test_distance_weight_pulls_pairs_together(world):
    "The only difference between A and B is w; B's positives end nearer."
    ha, hb = trained(world, 'A')[1], trained(world, 'B', w=3.)[1]
    assert hb.steps[-1]['distance'] < ha.steps[-1]['distance']
    assert [s['w'] for s in ha.steps] == [0] * len(ha.steps) and [s['w'] for s in hb.steps] == [3] * len(hb.steps)


def test_mined_negatives_are_never_the_positive(world):
    _, data = world
    enc, _ = trained(world, 'A', hard_negatives=3)
    negatives, facts = mine(enc, data, recipe('A', hard_negatives=3))
    assert negatives.shape == (1100, 3) and (negatives != data.positives[:, None]).all()
    q, p = enc.encode(data.queries, 'query'), enc.encode(data.passages, 'passage')
    hard = np.take_along_axis(q @ p.T, negatives, 1)
    assert hard.mean() > (q @ p.T).mean() + .1 # harder than a random passage
    assert facts['pool'] == 1100 and facts['dropped_known_positive'] > 0


def test_hard_negatives_enter_the_softmax(world):
    "Adding passages to the denominator can only raise InfoNCE; their number is what the log says."
    _, data = world
    enc, collate = trained(world, 'A')[0], Collator(data, 4096, ('passage',))
    def losses(negatives):
        collate.negatives = negatives
        batch = collate(np.arange(64))
        with torch.no_grad(): return batch_losses(enc(batch['queries'] + batch['passages']), batch, Objective(.05), 0.)
    (without, n0), (with_, n1) = losses(None), losses(data.bm25)
    assert with_.infonce > without.infonce and with_.distance == without.distance
    assert n0 == 63 and 63 < n1 < 127 # each hard negative of another is this one's positive or the next's


def test_accumulation_adds_no_negatives_the_cache_does(world):
    seen = lambda **kw: trained(world, 'A', **kw)[1].steps[0]['negatives']
    assert seen(batch_size=128) == seen(batch_size=128, gradient_accumulation_steps=4) == 127
    assert seen(batch_size=512) == seen(batch_size=512, grad_cache=True) == 511
    one, four = (
        trained(world, 'A', batch_size=128, gradient_accumulation_steps=n, max_grad_norm=1e6)[1].steps[0]['grad_norm']
        for n in (1, 4))
    assert .3 * one < four < 1.2 * one # their mean, not their sum


def test_a_loss_that_is_not_a_number_stops_training(world, tmp_path):
    "The step and the questions are named, the checkpoint before it is kept."
    tokenizer, data = world
    enc = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    train(enc, data, recipe('A', num_epochs=1), tmp_path, desc=None, say=lambda text: None)
    before = sorted(p.name for p in (tmp_path/'checkpoints').iterdir())
    poisoned = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    with torch.no_grad(): poisoned.passage.vectors.fill_(float('nan'))
    with pytest.raises(DaclError, match=r'loss is nan at step 0 .* questions q\d+, '):
        train(poisoned, data, recipe('A'), desc=None)
    epochs = []
    def turns_bad(encoder): # untrained, after the first epoch, and after the second
        epochs.append(0)
        if len(epochs) == 3:
            with torch.no_grad(): encoder.query.vectors[0, 0] = float('inf')
        return {'recall@10': 0.}
    enc = StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    with pytest.raises(DaclError, match='is not finite, so it was not saved'):
        train(enc, data, recipe('A', num_epochs=3), tmp_path/'b', turns_bad, desc=None, say=lambda text: None)
    assert before == [p.name for p in (tmp_path/'b'/'checkpoints').iterdir()] == ['step-000002']


def test_a_checkpoint_of_another_recipe_is_refused(world, tmp_path):
    tokenizer, data = world
    fresh = lambda: StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    train(fresh(), data, recipe('A', num_epochs=1), tmp_path, desc=None, say=lambda text: None)
    with pytest.raises(DaclError, match='of another recipe .training differs'):
        train(fresh(), data, recipe('A', num_epochs=2), tmp_path, desc=None, say=lambda text: None)


@pytest.mark.parametrize('source', ['model', 'bm25+model'])
def test_bm25_and_mined_negatives_together(world, source):
    stage, (tokenizer, data) = Stage('both', 1, negatives=source), world
    enc, history = trained(world, 'D', stages=(stage,), hard_negatives=2)
    assert len(history.minings) == 1 and history.steps[0]['negatives'] > 511
    data = msgspec.structs.replace(data, bm25=np.stack([np.roll(np.arange(1100), s) for s in (1, 2)], 1))
    found, mined = Negatives(
        enc, data, recipe('D', hard_negatives=2)).of(stage, 0, True), mine(enc, data, recipe('D', hard_negatives=2))[0]
    assert (found[:, 0] == (mined if source == 'model' else data.bm25)[:, 0]).all() # half from each
    assert (found[:, 1] == mined[:, 1]).all() if source == 'model' else np.mean(found[:, 1] == mined[:, 0]) > .9


def test_a_resumed_training_keeps_its_routes(world, tmp_path, monkeypatch):
    "Stopped in the epoch after the one that found them: the same nodes are trained, and the same weights come out."
    tokenizer, data = world
    stages = Stage('routes', 2, (1, 1)), Stage('none', 1, (0, 0))
    settings = recipe('D', term='route', stages=stages, batch_size=256).but(
        run=RunSettings(report_to=(), eval_questions=0, save_every=2))
    fresh = lambda: StaticEncoder.create(tokenizer, data.passages, EncoderSettings(dim=64), 0)
    compute, stop, ends = RecipeTrainer.training_step, [6], []
    def stopped(self, *args, **kwargs):
        if self.state.global_step in stop:
            stop.clear()
            raise KeyboardInterrupt
        ends.append(self.collate.routes is None)
        return compute(self, *args, **kwargs)
    whole, resumed = fresh(), fresh()
    history = train(whole, data, settings, tmp_path/'whole', desc=None, say=lambda text: None)
    monkeypatch.setattr(RecipeTrainer, 'training_step', stopped)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, data, settings, tmp_path/'parts', desc=None, say=lambda text: None)
    again = train(resumed, data, settings, tmp_path/'parts', desc=None, say=lambda text: None)
    assert [m['step'] for m in again.minings] == [m['step'] for m in history.minings] == [0]
    assert history.minings[0]['routed'] > 0
    for k, x in whole.state_dict().items(): assert torch.equal(x, resumed.state_dict()[k]), k
    assert ends == [False] * 8 + [True] * 4 # a stage without a weight needs none


def test_tokenizer_and_idf_see_training_texts_only(tiny_run):
    "A word that occurs in no training text is not a piece of its own."
    data, *_ = tiny_run
    task = Task(data/'codedocs', tiny_settings())
    train_text = ' '.join([q.question for q in task.train.questions] + [task.texts[i] for i in task.pool]).lower()
    pieces = [p for p in task.tokenizer.get_vocab() if len(p) > 3 and not p.startswith(('##', '['))]
    assert len(pieces) > 100 and all(p in train_text for p in pieces)
    gold_rows = set(task.test.gold.tolist())
    assert not gold_rows & set(task.pool.tolist())
