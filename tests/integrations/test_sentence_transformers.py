"""Inside the trainer of sentence-transformers: the same loss as this project's trainer, stages, cost in log and model
card."""
import numpy as np, pytest, torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

from dacl_dr.core.settings import SearchSettings, Stage
from dacl_dr.curriculum.loader import Collator, TrainingData
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.hnsw.curves import sweep
from dacl_dr.hnsw.cost import cost_at
from dacl_dr.hnsw.tracer import Tracer
from dacl_dr.integrations import CachedDistanceAwareLoss, DistanceAwareLoss, HnswCostEvaluator, StagesCallback
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.search.exact import exact_search, similarity
from dacl_dr.search.graph import build_hnsw
from dacl_dr.losses.terms import Objective
from dacl_dr.training.trainer import batch_losses

LOSSES = {
    'plain': lambda model: DistanceAwareLoss(model, w=.6),
    'cached': lambda model: CachedDistanceAwareLoss(model, w=.6, mini_batch_size=8),
}


@pytest.fixture(scope='module')
def texts():
    passages = [f'a{i} b{i % 9} c{i % 13}' for i in range(120)]
    return passages, [f'b{i % 9} a{i}' for i in range(120)]

@pytest.fixture(scope='module')
def folder(texts, tmp_path_factory):
    return tiny_bert(
        tmp_path_factory.mktemp('bert'), sum(texts, []), hidden_dropout_prob=0., attention_probs_dropout_prob=0.)

def opened(folder): return SentenceTransformer(str(folder), device='cpu')

def grads(module):
    return torch.cat([p.grad.flatten() for _, p in sorted(module.named_parameters()) if p.grad is not None])


def test_the_loss_is_that_of_the_own_trainer(folder, texts):
    "The same batch, with hard negatives from outside of it: value and gradients."
    passages, questions = texts
    encoder, rows = load_encoder(folder), np.arange(16)
    number, bm25 = np.arange(120), (np.arange(120)[:, None] + [40, 60]) % 120
    data = TrainingData(
        encoder.prepare(questions, 'query'), encoder.prepare(passages, 'passage'), number, number[:, None], number,
        bm25,
        [str(i) for i in number])
    collate = Collator(data, 4096, ())
    collate.negatives = bm25
    batch = collate(rows)
    encoder.train()
    vectors = [F.normalize(v, dim=-1) for v in encoder(batch['queries'] + batch['passages'])]
    own = batch_losses(vectors, batch, Objective(.05), .6).losses
    own.total.backward()
    for name, make in LOSSES.items():
        model = opened(folder).train()
        columns = [questions[:16], passages[:16], *([passages[r] for r in bm25[:16, i]] for i in range(2))]
        found = make(model)([model.preprocess(c) for c in columns], None)
        value = sum(found.values()) if isinstance(found, dict) else found
        value.backward()
        assert abs(value.item() - own.total.item()) < 1e-6 * own.total.item() + 1e-6, name
        theirs, ours = grads(model), grads(encoder)
        assert len(theirs) == len(ours), name
        assert (theirs.sort()[0] - ours.sort()[0]).abs().max() < 3e-6 * ours.abs().max(), name


def trained(folder, texts, out, make, stages=(Stage('joint', 2, (1., 1.)),), columns=None, evaluator=None, **args):
    model = opened(folder)
    loss = make(model)
    inner = getattr(loss, 'loss', loss)
    passages, questions = texts
    data = {
        'anchor': questions, 'positive': passages, 'negative_1': passages[40:] + passages[:40],
        'negative_2': passages[60:] + passages[:60]}
    trainer = SentenceTransformerTrainer(
        model, loss=loss, train_dataset=Dataset.from_dict(data), evaluator=evaluator,
        callbacks=[StagesCallback(inner, stages, columns=columns)], args=SentenceTransformerTrainingArguments(
            str(out), num_train_epochs=sum(s.epochs for s in stages), per_device_train_batch_size=24,
            learning_rate=1e-3,
            logging_steps=1, save_strategy='no', report_to='none', disable_tqdm=True, use_cpu=True, seed=0,
            batch_sampler=BatchSamplers.NO_DUPLICATES, eval_strategy='epoch' if evaluator else 'no', **args))
    trainer.train()
    return model, trainer


def test_plain_and_cached_train_to_the_same_model(folder, texts, tmp_path):
    models = [
        trained(folder, texts, tmp_path/name, make, prompts={'anchor': 'b1 ', 'positive': ''})[0]
        for name, make in LOSSES.items()]
    a, b = (m.encode_query(texts[1][:20]) for m in models)
    start = opened(folder).encode_query(texts[1][:20])
    assert abs(a - b).max() < 1e-4 < 1e-2 < abs(a - start).max()

@pytest.mark.parametrize('name', LOSSES)
def test_within_the_matryoshka_wrapper(name, folder, texts, tmp_path):
    model, trainer = trained(folder, texts, tmp_path, lambda m: MatryoshkaLoss(m, LOSSES[name](m), [32, 16]))
    losses = [row['loss'] for row in trainer.state.log_history if 'loss' in row]
    assert losses[-1] < losses[0]

def test_stages_move_w_and_the_negatives(folder, texts, tmp_path):
    stages = Stage('warm-up', 1, (0., 0.)), Stage('distance', 1, (0., 1.), 'bm25'), Stage('joint', 1, (1., 1.), 'model')
    seen = []
    class Watched(DistanceAwareLoss):
        def used(self, features):
            found = super().used(features)
            seen.append((self.w, len(found)))
            return found
    _, trainer = trained(folder, texts, tmp_path, Watched, stages, {'bm25': (0,), 'model': (0, 1)})
    ws, columns = zip(*seen)
    steps = len(seen) // 3
    assert columns == (2,) * steps + (3,) * steps + (4,) * steps
    assert ws[:steps] == (0,) * steps and ws[steps] == 0 and ws[2 * steps - 1:] == (.6,) * (steps + 1)
    rows = [row for row in trainer.state.log_history if 'infonce' in row]
    assert len(rows) == len(seen) and all(abs(r['loss'] - r['infonce'] - r['w_distance']) < 1e-3 for r in rows)

def test_cost_stands_in_log_and_model_card(folder, texts, tmp_path):
    passages, questions = texts
    corpus, asked = ({f'{kind}{i}': t for i, t in enumerate(x)} for kind, x in (('p', passages), ('q', questions)))
    judge = HnswCostEvaluator(
        asked, corpus, {f'q{i}': {f'p{i}'} for i in range(120)}, name='dev', search=SearchSettings(m=8))
    model, trainer = trained(folder, texts, tmp_path/'run', LOSSES['plain'], evaluator=judge)
    rows = [r for r in trainer.state.log_history if 'eval_dev_ndcg@10' in r]
    assert len(rows) == 2 and rows[-1]['eval_dev_ndcg@10'] > .1
    model.save_pretrained(str(tmp_path/'model'))
    card = (tmp_path/'model'/'README.md').read_text()
    for said in ('DistanceAwareLoss', 'visited at ANN recall 0.95', 'ndcg@10', '"temperature": 0.05'):
        assert said in card, said

def test_the_cost_is_that_of_a_search_by_hand(folder, texts, tmp_path):
    passages, questions = texts
    judge = HnswCostEvaluator(
        dict(enumerate(questions)), dict(enumerate(passages)), {i: {i} for i in range(120)},
        search=SearchSettings(m=4, ef_construction=40))
    model = opened(folder)
    told = judge(model)
    q, x = (
        encode(t, normalize_embeddings=True)
        for encode, t in ((model.encode_query, questions), (model.encode_document, passages)))
    tracer, exact, judged = Tracer(build_hnsw(x, 4, 40)), exact_search(q, x, 10), Judgements.of(np.arange(120))
    assert told['recall@10'] == pytest.approx(float((exact == np.arange(120)[:, None]).any(1).mean()))
    s = sweep(
        lambda ef: tracer.search(q, 10, ef), exact, lambda ids: judged.metrics(ids, ['recall@10']),
        SearchSettings(m=4, ef_construction=40), 'recall@10', nearness=similarity(q, x))
    for target in (.95, .99):
        mine = cost_at(target, s.mean("ann recall"), s.mean("visited"), censored=True)
        assert told[f'visited at ANN recall {target}'] == pytest.approx(mine, nan_ok=True)
