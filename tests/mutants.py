"""Do the tests notice? Each mutant is one wrong line in a copy of the package, and a pytest file or the module's
notebook has to fail.

    python tests/mutants.py [--only MODULE ...]

Run it with `make mutants`. It writes the rows of these modules in nbs/experiments/results/mutants.csv, and
exits with 1 if a mutant survives.
"""
import argparse, csv, json, multiprocessing, os, re, shlex, shutil, sys, tempfile, time
from datetime import date
from pathlib import Path
from typing import NamedTuple

# what dacl_dr, pytest and the notebooks import is loaded once, and then forked for each check
import altair, bm25s, execnb.shell, faiss, hypothesis, hypothesis.extra, ir_measures, IPython.paths, nbdev.config
import nbdev.test, numba, pandas, pyarrow.ipc, pytest, rank_bm25, regex, safetensors.torch, scipy.optimize, scipy.stats
import sentence_transformers, sklearn.metrics, tokenizers, torch, transformers

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT/'nbs/experiments/results/mutants.csv'
COPIED = ('dacl_dr', 'tests', 'nbs', 'settings.ini', 'pyproject.toml', 'README.md') # into the folder where mutants live
LONGEST = 900 # seconds of a check without a mutant
PATIENCE = 10 # a check with a mutant that takes as many times as long hangs, and is noticed; never below a minute


class Mutant(NamedTuple):
    words: str
    was: str # stands once in one of the topic's modules, and once in the exported cells of its notebook
    now: str


class Topic(NamedTuple):
    modules: tuple[str, ...] # where the lines stand
    checks: tuple[str, ...] # cheapest first: a notebook below nbs/, or the arguments of pytest with a file below tests/
    mutants: list[Mutant]


MUTANTS = {
    'losses': Topic(
        ('losses.infonce', 'losses.distance'), ('losses/test_losses.py', 'losses/infonce', 'losses/distance'), [
        Mutant(
            'similarities are multiplied by the temperature', 'full(q) @ full(d).T / temperature',
            'full(q) @ full(d).T * temperature'),
        Mutant('half precision stays half', 'return x.to(torch.promote_types(x.dtype, torch.float32))', 'return x'),
        Mutant(
            'autocast stays on', 'torch.autocast(x.device.type, enabled=False)',
            "torch.autocast(x.device.type, enabled=torch.is_autocast_enabled('cpu'))"),
        Mutant(
            'the mask of false negatives is ignored', 'return logits if mask is None else', 'return logits if True else'
        ),
        Mutant(
            'masked passages are logits of 0', 'logits.masked_fill(mask, torch.finfo(logits.dtype).min)',
            'logits.masked_fill(mask, 0)'),
        Mutant(
            'the sum over queries instead of the mean', 'loss = F.cross_entropy(logits, target)',
            "loss = F.cross_entropy(logits, target, reduction='sum')"),
        Mutant('the symmetric loss is not halved', '(to_queries, target)) / 2', '(to_queries, target))'),
        Mutant('symmetric is ignored', 'if not symmetric: return loss', 'if True: return loss'),
        Mutant(
            'only the trained positive is known', 'passages[None, None, :]).any(1)', 'passages[None, None, :])[:, 0]'),
        Mutant('the trained positive is masked too', 'mask[own, first + own] = False', 'pass'),
        Mutant(
            'known positives of another process are unmasked', 'mask[own, first + own] = False',
            'mask[own, own] = False'),
        Mutant('cosine similarity instead of distance', '(1 - F.cosine_similarity(', '(F.cosine_similarity('),
        Mutant(
            'the distance is summed over queries', 'full(positive), dim=-1)).mean()', 'full(positive), dim=-1)).sum()'),
        Mutant(
            'the dot product instead of the cosine', 'F.cosine_similarity(full(q), full(positive), dim=-1)',
            '(full(q) * full(positive)).sum(-1)'),
        Mutant('the distance loss is subtracted', 'Losses(nce + w * dis,', 'Losses(nce - w * dis,'),
        Mutant('w is ignored', 'Losses(nce + w * dis,', 'Losses(nce + dis,'),
        Mutant(
            'the last passages are taken for the positives', 'distance_loss(q, d[:len(q)])',
            'distance_loss(q, d[-len(q):])'),
    ]),
    'terms': Topic(('losses.terms',), ('losses/test_terms.py', 'losses/terms'), [
        Mutant(
            'the farthest of a batch instead of the nearest', '.topk(min(k, len(d)), dim=1)',
            '.topk(min(k, len(d)), dim=1, largest=False)'),
        Mutant('the spread counts a passage with itself', 'k / (k - 1) * (1 - centre', '(1 - centre'),
        Mutant(
            'the sum of the nearest instead of their mean', 'F.embedding(rows, full(d)).mean(1)',
            'F.embedding(rows, full(d)).sum(1)'),
        Mutant(
            'squared distances give half the dimension', '.clamp(min=LEAST_DISTANCE**2).sqrt()',
            '.clamp(min=LEAST_DISTANCE**2)'),
        Mutant(
            'the dimension is lowered where it should rise', 'return -torch.log(-torch.log',
            'return torch.log(-torch.log'),
        Mutant('the farthest itself counts among the distances', 'r[:, :-1] / r[:, -1:]', 'r / r[:, -1:]'),
        Mutant('the queries of low dimension count', 'dimension >= torch.quantile', 'dimension < torch.quantile'),
        Mutant(
            'three quarters of the queries count', 'torch.quantile(dimension, 1 - share)',
            'torch.quantile(dimension, share)'),
        Mutant('what is masked counts as another', 'infonce_logits(q, d, 1., mask)', 'infonce_logits(q, d, 1., None)'),
        Mutant('the positive counts among the others', '.masked_fill(F.one_hot(own, len(d)).bool(), -1.)', ''),
        Mutant('the nearest other instead of the mean of ten', '.values.mean(1)', '.values[:, 0]'),
        Mutant(
            'the margin is to the wrong side', 'F.relu(margin - (positive - nearest))',
            'F.relu(margin + (positive - nearest))'),
        Mutant('questions without a route count', ' * routes.known).mean()', ').mean()'),
        Mutant(
            'the edge need not be surpassed by a margin', 'F.relu(routes.edge + margin - cosine)',
            'F.relu(routes.edge - cosine)'),
        Mutant(
            'the node is pushed away', 'F.relu(routes.edge + margin - cosine)', 'F.relu(cosine - routes.edge + margin)'
        ),
        Mutant('the last dimensions instead of the first', 'full(x)[:, :prefix]', 'full(x)[:, -prefix:]'),
        Mutant(
            'a prefix is not brought to norm 1', 'return F.normalize(full(x)[:, :prefix], dim=-1)',
            'return full(x)[:, :prefix]'),
        Mutant(
            'InfoNCE of the prefix alone', '(nce + infonce_loss(q, d, o.temperature, mask, o.symmetric)) / 2',
            'infonce_loss(q, d, o.temperature, mask, o.symmetric)'),
        Mutant('w is ignored', 'return Losses(nce + w * added', 'return Losses(nce + added'),
        Mutant(
            'the distance loss instead of the term', "added = distance if o.term == 'distance' or not w else",
            'added = distance if True else'),
    ]),
    'folds': Topic(
        ('studies.task', 'studies.tables', 'hnsw.curves', 'hnsw.cost', 'studies.measures'),
        ('studies/task', 'hnsw/curves', 'hnsw/cost', 'studies/test_folds.py'), [
        Mutant(
            'the part that is asked is trained on too', "own(q) == (self.name == 'test')",
            "own(q) or self.name == 'train'"),
        Mutant(
            'dev questions are asked', "if folds == 1 or self.name == 'dev': return",
            "if self.name == 'dev': return [*with_positives(files.dev), *with_positives(files.test)]\n"
            "        if folds == 1: return"),
        Mutant('every line of a file is a group of its own', "re.sub(r':\\d+$', '', first", "re.sub(r'^$', '', first"),
        Mutant(
            'test questions are never asked again', 'both = with_positives(files.train) + with_positives(files.test)',
            'both = with_positives(files.train)'),
        Mutant(
            'the first part stands for all', 'return sweeps[0] if len(sweeps) == 1 else pooled(sweeps)',
            'return sweeps[0]'),
        Mutant(
            'parts count alike, whatever their size', 'facts.mul(sizes, axis=0).sum(skipna=False) / sum(sizes)',
            'facts.mean(skipna=False)'),
        Mutant(
            'questions of each part are numbered from 0', 'return whole.assign(question=range(len(whole)))',
            'return whole.assign(question=[i for r in ranks for i in range(len(r))])'),
        Mutant(
            'sweeps are put together by place, not by efSearch', 'at = [np.searchsorted(s.ef, efs) for s in sweeps]',
            'at = [np.arange(len(efs)) for s in sweeps]'),
        Mutant(
            'all graphs have one order', 'insertion_order(len(task.texts), seed if own else None)',
            'insertion_order(len(task.texts), None)'),
        Mutant('the arithmetic mean of costs', 'float(np.exp(np.mean(np.log(costs))))', 'float(np.mean(costs))'),
        Mutant(
            'shares below the first point are given up', 'crossing(max(share * own, q[0]), q, c, censored)',
            'crossing(share * own, q, c, censored)'),
    ]),
    'negatives': Topic(
        ('curriculum.negatives', 'search.exact'),
        ('curriculum/negatives', 'search/exact', 'training/test_trainer.py -k mined'), [
        Mutant(
            'known positives are taken for negatives', 'if int(numbers[row]) in positives: dropped', 'if False: dropped'
        ),
        Mutant('rows are compared with text numbers', 'int(numbers[row]) in positives', 'row in positives'),
        Mutant('passages too close to the positive are kept', 'elif score > limit[i]:', 'elif False:'),
        Mutant('a passage at the limit itself is dropped', 'elif score > limit[i]:', 'elif score >= limit[i]:'),
        Mutant('passages with an answer are kept', 'elif answered(i, row):', 'elif False:'),
        Mutant('an empty place is taken for the last passage', 'if kept == n or row < 0: break', 'if kept == n: break'),
        Mutant('shares are of all candidates, looked at or not', 'count / max(seen, 1)', 'count / rows.size'),
        Mutant(
            'rows count from the beginning of their block', 'np.ascontiguousarray(rows + first)',
            'np.ascontiguousarray(rows)'),
        Mutant('random negatives may be known positives', 'tries = [r for r in drawn if allowed(r)]', 'tries = drawn'),
        Mutant(
            'random negatives may hold an answer', 'free = [r for r in tries if not answered(r)] or tries[:1]',
            'free = tries'),
        Mutant(
            'the seed of random negatives is ignored', 'rng = np.random.default_rng(seed)',
            'rng = np.random.default_rng(0)'),
        Mutant('a random negative may stand twice', 'new = (r for r in free if r not in taken)', 'new = iter(free)'),
        Mutant('the first source of negatives takes all places', 'first[:, :n // 2], second', 'first, second'),
        Mutant(
            'triplets in the wrong order count as hard', '((margins >= 0) & (margins < margin))', '(margins < margin)'),
    ]),
    'curriculum': Topic(('curriculum.stages',), ('curriculum/stages', 'losses/test_losses.py -k weight'), [
        Mutant('the weight never reaches its end', 'step / max(steps - 1, 1)', 'step / steps'),
        Mutant('the weight is a step ahead', '(end - start) * step /', '(end - start) * (step + 1) /'),
        Mutant(
            'stages ignore w', 'tuple(w * share for share in stage.weight)', 'tuple(share for share in stage.weight)'),
        Mutant(
            'recipe C has a distance loss', 'settings.w if recipe in WITH_DISTANCE else 0',
            "settings.w if recipe != 'A' else 0"),
        Mutant(
            'recipe B has none', 'settings.w if recipe in WITH_DISTANCE else 0', "settings.w if recipe == 'D' else 0"),
        Mutant('a stage lasts an epoch too long', 'if epoch < s.epochs: return', 'if epoch <= s.epochs: return'),
        Mutant('epochs of a stage are counted over the recipe', 'epoch -= s.epochs', 'epoch -= 0 * s.epochs'),
        Mutant('stages without epochs stay', 'for s in stages if s.epochs)', 'for s in stages)'),
        Mutant('every epoch has the same batches', 'default_rng([seed, epoch])', 'default_rng([seed, 0])'),
        Mutant('the seed of the batches is ignored', 'default_rng([seed, epoch])', 'default_rng([0, epoch])'),
        Mutant(
            'a last whole batch is lost', 'range(0, n - batch_size + 1, batch_size)',
            'range(0, n - batch_size, batch_size)'),
        Mutant('a shorter last batch is given', 'range(0, n - batch_size + 1, batch_size)', 'range(0, n, batch_size)'),
    ]),
    'gradcache': Topic(
        ('losses.gradcache',),
        ('losses/gradcache', 'losses/test_gradcache.py -k cache', 'losses/test_gradcache.py -k two_processes'), [
        Mutant(
            'dropout is drawn anew in the second pass', 'with state: model([chunk])',
            'with contextlib.nullcontext(): model([chunk])'),
        Mutant('the state of the CPU is not set', 'torch.set_rng_state(self.cpu)', 'pass'),
        Mutant('the random state is left where the replay ended', 'return self.outer.__exit__(*exc)', 'return None'),
        Mutant('vectors take the place of their gradients', 'backward(leaf.grad)', 'backward(leaf.detach())'),
        Mutant('gradients of gathered rows are not multiplied', 'return processes() * own', 'return own'),
        Mutant(
            'every process takes the gradients of the first', 'grad.chunk(processes())[torch.distributed.get_rank()]',
            'grad.chunk(processes())[0]'),
        Mutant('gradients are summed over processes', 'g.div_(processes())', 'pass'),
    ]),
    'metrics': Topic(('metrics.ranking',), ('metrics/ranking', 'metrics/test_ranking.py'), [
        Mutant('ranks begin at 0', 'hit.argmax(1) + 1, 0)', 'hit.argmax(1), 0)'),
        Mutant('rank k does not count', 'places = np.arange(1, k + 1)', 'places = np.arange(1, k)'),
        Mutant(
            'a passage that was not retrieved counts as found', 'places = np.arange(1, k + 1)',
            'places = np.arange(k + 1)'),
        Mutant('k is ignored', 'RANKING[family](grades[judged][:, :k], ideal', 'RANKING[family](grades[judged], ideal'),
        Mutant(
            'ties of a run go to the smaller id', 'sorted(zip(rounded, ids), reverse=True)',
            'sorted(zip(rounded, ids), key=lambda x: (-x[0], x[1]))'),
        Mutant(
            'scores of a run are not rounded', 'np.round(np.asarray(row, float), decimals)', 'np.asarray(row, float)'),
        Mutant('ranks of a run file begin at 0', 'enumerate(docs.items(), 1)', 'enumerate(docs.items())'),
        Mutant(
            'gains are discounted by one place more', 'np.arange(grades.shape[1]) + 2', 'np.arange(grades.shape[1]) + 3'
        ),
        Mutant('the ideal of nDCG is not cut at k', 'gain(ideal[:, :k])', 'gain(ideal)'),
        Mutant('the ideal has the worst first', 'sorted(of_query.values(), reverse=True)', 'sorted(of_query.values())'),
        Mutant(
            'recall is of k at most', '(g > 0).sum(1) / (ideal > 0).sum(1)',
            '(g > 0).sum(1) / np.minimum((ideal > 0).sum(1), k)'),
        Mutant(
            'ties of a judged run go to the smaller id',
            'sorted(zip(scores, docs), reverse=True)',
            'sorted(zip(scores, docs), key=lambda x: (-x[0], x[1]))',
        ),
        Mutant(
            'a judged run is sorted in double precision', 'np.array(list(docs.values()), np.float32)',
            'np.array(list(docs.values()))'),
        Mutant('answer accuracy is a share of passages', 'hits[:, :k].any(1)', 'hits[:, :k].mean(1)'),
        Mutant('ANN recall counts neighbours beyond k', 'exact[:, None, :k]', 'exact[:, None]'),
    ]),
    'answers': Topic(('data.answers',), ('data/test_answers.py', 'data/answers'), [
        Mutant(
            'accents are not taken apart', "TOKEN.findall(unicodedata.normalize('NFD', text))",
            "TOKEN.findall(unicodedata.normalize('NFC', text))"),
        Mutant('upper and lower case differ', '[t.lower() for t in', '[t for t in'),
        Mutant('answers match inside of words', r"'\0' + '\0'.join(ts) + '\0' if ts", r"'\0'.join(ts) if ts"),
        Mutant(
            'an answer without tokens matches everything', '[a for a in map(joined, answers) if a]',
            'list(map(joined, answers))'),
        Mutant('all answers have to be there', 'any(a in text for a in answers)', 'all(a in text for a in answers)'),
        Mutant(
            'titles are searched for answers', "passages.column('text', rows[q, found])",
            "passages.column('title', rows[q, found])"),
        Mutant(
            'only the first positive counts', 'for c in question.positive_ctxs if c.passage_id]',
            'for c in question.positive_ctxs[:1] if c.passage_id]'),
    ]),
    'reading': Topic(('data.records',), ('data/records', 'data/test_formats.py'), [
        Mutant(
            'one bad record fewer is allowed', 'if self.count <= self.allowed: return',
            'if self.count < self.allowed: return'),
        Mutant('bad records are not counted', 'self.count += 1', 'pass'),
        Mutant('lines of a broken row are lost', 'self.again += self.taken[:0:-1]', 'pass'),
        Mutant('every move is one line', r"self.line += self.text.count('\n', self.at, to)", 'self.line += 1'),
        Mutant('a byte order mark stays', 'if head[:3] == codecs.BOM_UTF8: f.read(3)', ''),
    ]),
    'data': Topic(('data.formats', 'data.benchmarks'), ('data/formats', 'data/benchmarks', 'data/test_formats.py'), [
        Mutant('rows with too many columns pass', 'if len(row) != 3: bad(', 'if len(row) < 3: bad('),
        Mutant('repeated ids pass', 'if id in seen: raise', 'if False: raise'),
        Mutant(
            'passage id 0 is no id', "(raw.passage_id, raw.psg_id, raw.id) if i not in (None, ''))",
            '(raw.passage_id, raw.psg_id, raw.id) if i)'),
        Mutant(
            'judgements of 0 count as relevant', 'for p, s in grades.items() if s > 0}',
            'for p, s in grades.items() if s >= 0}'),
        Mutant(
            'gold passages go by line, whatever the question',
            'in_place = n < len(self.pairs) and self.pairs[n][0] == question',
            'in_place = n < len(self.pairs)',
        ),
    ]),
    'store': Topic(
        ('data.store', 'data.conversion', 'data.tables'),
        (
            'data/store', 'data/conversion', 'data/tables',
            "data/test_store.py -k 'rows_ids or collide or converted_once or repeated or middle or meanwhile or gold "
            "or beir'"),
        [
            Mutant('ids with the same hash are the same', '[there[n] == ids[i] for n, i in', '[True for n, i in'),
            Mutant(
                'of a repeated id the last row is kept', '(int(r), int(f), a) for f, r, a, b in',
                '(int(f), int(r), a) for f, r, a, b in'),
            Mutant('rows passed over before are accepted silently', 'if done.skipped > reading.skip_bad:', 'if False:'),
            Mutant(
                'a source that changes meanwhile is accepted',
                'if any((a.size, a.mtime_ns) != (b.size, b.mtime_ns) for', 'if any(False for'),
            Mutant(
                'columns come in the order of the file', 'zip(places.tolist(), taken.to_pylist())',
                'zip(places.tolist()[::-1], taken.to_pylist())'),
            Mutant(
                'long records do not end a batch', 'if len(batch) == most or total >= chars:', 'if len(batch) == most:'
            ),
        ],
    ),
    'statistics': Topic(
        ('metrics.statistics',), ('representation/test_formulas.py -k "holm or study"', 'metrics/statistics'), [
        Mutant('draws of queries are ignored', '0. if means is None else variance_of(means)', '0.'),
        Mutant('a one-sided p-value', 'float(2 * stats.t.sf(', 'float(stats.t.sf('),
        Mutant('models are not paired', 'if a.shape[-1] != b.shape[-1]: b = b.mean', 'b = b.mean'),
        Mutant('queries are drawn without replacement', 'rng.integers(0, n, n)', 'rng.permutation(n)'),
        Mutant('every draw is divided by the same number', 'weights.sum(1, keepdims=True)', 'len(here)'),
        Mutant(
            'an interval that ends at 0 is a difference', 'if change.low <= 0 <= change.high',
            'if change.low < 0 < change.high'),
    ]),
    'representation': Topic(
        (
            'representation.alignment_uniformity', 'representation.pairs', 'representation.spread',
            'representation.summary'),
        (
            "representation/test_formulas.py -k 'brute_force or duplicates'",
            'representation/alignment_uniformity',
            'representation/spread',
            'representation/pairs',
            'representation/summary',
        ),
        [
            Mutant(
                'a Gaussian of twice the width', 'potential *= 4\n        potential -= 4',
                'potential *= 2\n        potential -= 2'),
            Mutant(
                'each point is a pair with itself', '(own.sum(dtype=np.float64) - np.trace(own, dtype=np.float64)) / 2',
                'own.sum(dtype=np.float64) / 2'),
            Mutant('a random passage may be the positive', 'other += known & (other >= of)', 'other += 0'),
            Mutant('Euclidean instead of Mahalanobis', '(along**2 / span.variances).sum(1)', '(along**2).sum(1)'),
            Mutant('the deviation instead of the variance', 'float(cos.var())', 'float(cos.std())'),
        ],
    ),
    'difficulty': Topic(
        ('hnsw.difficulty',),
        (
            "representation/test_formulas.py -k 'formulas or rotation or rank_correlation or judgements'",
            'hnsw/difficulty'),
        [
            Mutant('a passage is a neighbour of itself', '1 - (sums**2 - k) / (k * (k - 1))', '1 - sums**2 / k**2'),
            Mutant(
                'a hub is its own neighbour', 'without_itself(exact_search(some, passages, k + 1), rows)',
                'exact_search(some, passages, k)'),
            Mutant('k is ignored by the in-degree', 'degree[sought].mean(1)', 'degree[near].mean(1)'),
            Mutant('the interval of rho with n for n - 3', '/ (len(x) - 3))', '/ len(x))'),
            Mutant('the weakest measure first', 'lambda column: -column.abs() if', 'lambda column: column.abs() if'),
        ],
    ),
    'semantics': Topic(
        ('representation.pairs', 'representation.spread', 'representation.summary', 'metrics.ranking'),
        ("representation/test_formulas.py -k 'pairs or semantics'", 'representation/pairs', 'representation/spread'),
        [
            Mutant('the margin to the easiest negative', '-np.inf, negative).max(1)', 'np.inf, negative).min(1)'),
            Mutant('ties count for nothing', '+ .5 * tie', '+ 0 * tie'),
            Mutant(
                'a question is compared with itself', 'apart = gold != gold[other]', 'apart = np.ones(len(q), bool)'),
            Mutant(
                'the order of neighbours is turned round', 'np.argsort(-cosines, axis=1', 'np.argsort(cosines, axis=1'),
        ],
    ),
    'static': Topic(('encoders.static',), ('encoders/static', 'training/test_trainer.py -k same_seed'), [
        Mutant('importance is ignored', 'self.dropout(weights * importance)', 'self.dropout(weights)'),
        Mutant('no dropout', 'self.dropout(weights * importance)', 'weights * importance'),
        Mutant('the seed of an encoder is ignored', '.manual_seed(seed))', '.manual_seed(0))'),
        Mutant(
            'passages are embedded by the tower of queries',
            "{'query': self.query, 'passage': self.passage}",
            "{'query': self.query, 'passage': self.query}",
        ),
        Mutant('towers are exchanged on loading', 'for name in STATIC)', 'for name in reversed(STATIC))'),
    ]),
    'bm25': Topic(
        ('search.bm25', 'search.bm25_disk'),
        (
            "search/test_bm25.py -k 'engines_agree or stable_sort or ties or analysed or engine or same_scores'",
            'search/bm25'),
        [
            Mutant(
                'ties go to the larger row', "np.argsort(-scores[rows], kind='stable')[:k]",
                "np.argsort(scores[rows], kind='stable')[::-1][:k]"),
            Mutant('ties for the last place are lost', 'scores >= low if low > 0', 'scores > low if low > 0'),
            Mutant(
                "Okapi's idf, which can be negative", 'idf = np.log(1 + (n - df + .5)', 'idf = np.log((n - df + .5)'),
        ],
    ),
    'runs': Topic(('core.files', 'core.stamps', 'core.steps'), ('core/files', 'core/steps',), [
        Mutant('every block of a file has the digest of the first', 'f.seek(start)', 'f.seek(0)'),
        Mutant('a name may lead out of its folder', r"[\s/\\\0]|^\.*$", r'[\s\0]|^$'),
        Mutant(
            'a file of a step that was changed is used', 'file_digest(folder/name, HASHED) == digest',
            '(folder/name).is_file()'),
    ]),
    'index': Topic(
        ('search.graph', 'search.exact', 'search.indexing'),
        (
            "search/test_indexing.py -k 'levels or faiss_byte or checked or nodes or flat or blocks or norm or damage "
            "or refused or believed'",
            'search/graph'),
        [
            Mutant(
                'the seed of the insertion order is ignored',
                'else np.random.default_rng(seed).permutation(n)',
                'else np.random.default_rng(0).permutation(n)',
            ),
            Mutant('efConstruction is ignored', 'index.hnsw.efConstruction = s.ef_construction', 'pass'),
            Mutant(
                'shards are not checked when an index is built',
                'vectors.take(order[i:i + s.chunk_rows], check=True)',
                'vectors.take(order[i:i + s.chunk_rows])',
            ),
            Mutant(
                'nodes of the level below are counted', 'np.flatnonzero(levels > level)',
                'np.flatnonzero(levels >= level)'),
            Mutant('ids that were changed are believed', "if about.ids not in ('', file_digest(path))", 'if False'),
            Mutant(
                'ids stand in the order of the corpus', "passages.column('id', rows)",
                "passages.column('id', np.arange(i, i + len(rows)))"),
        ],
    ),
    'embed': Topic(
        ('search.vectors',),
        ('search/vectors', "search/test_vectors.py -k 'order or damage or kind or half or finite or tokens'"), [
        Mutant(
            'an encoder that does not normalise is refused', '((np.abs(norms - 1) > NORM_TOLERANCE) & normalized)',
            '(np.abs(norms - 1) > NORM_TOLERANCE)'),
        Mutant('passages are embedded as queries', "encode(read, 'passage', tokens", "encode(read, 'query', tokens"),
        Mutant(
            'vectors of another encoder are accepted', "for what in ('encoder', 'corpus',", "for what in ('corpus',"),
        Mutant(
            'a shard whose file is gone counts as finished', 'return found if vectors.is_file() else None',
            'return found'),
        Mutant(
            'the key of an encoder forgets normalising', 'encoder.normalized, reading_of(encoder)',
            'reading_of(encoder)'),
        Mutant(
            'the key of a corpus forgets rows passed over', 'sources[0].sha256, passages.conversion.skipped)',
            'sources[0].sha256)'),
    ]),
    'tracer': Topic(
        ('hnsw.kernels', 'hnsw.tracer', 'search.graph'),
        (
            'hnsw/kernels', 'hnsw/tracer',
            "hnsw/test_tracer.py -k 'route or traversal or parity_where or marks or patience or refused'"),
        [
            Mutant('steps begin at 0', 'if route[i, 0] == node: return i + 1', 'if route[i, 0] == node: return i'),
            Mutant('patience of one hop more', 'idle >= patience: break', 'idle > patience: break'),
            Mutant(
                'marks of one search stay for the next', 'room_for_turns(self.tables[i], len(queries))',
                'self.tables[i].turn[:] = 0'),
            Mutant("faiss's counters are not reset", 'stats.reset()', 'pass'),
        ],
    ),
    'batches': Topic(
        ('curriculum.loader',),
        ('curriculum/loader', "training/test_trainer.py -k 'same_seed or softmax or accumulation'"), [
        Mutant('passages with an answer are not masked', "if 'answer' in kinds and data.answers:", 'if False:'),
        Mutant('the positive trained on may be masked', 'mask[places, first + places] = False', 'pass'),
        Mutant('an incomplete group of batches is kept', 'n // batch_size // group * group', 'n // batch_size'),
        Mutant(
            'the seed of the batches is ignored', 'Batches(n, size, settings.seed, group)', 'Batches(n, size, 0, group)'
        ),
    ]),
    'training': Topic(
        ('training.trainer', 'curriculum.mining', 'curriculum.negatives'),
        (
            'training/trainer', 'curriculum/mining', 'curriculum/negatives',
            "training/test_trainer.py -k 'same_seed or mined or softmax or accumulation or together'"),
        [
            Mutant('rows count from the beginning of their block', 'yield start, vectors', 'yield 0, vectors'),
            Mutant(
                'the limit of what is too close is ignored',
                'np.where(positive > 0, share * positive, positive)',
                'np.full(len(positive), np.inf)',
            ),
            Mutant(
                'a negative score of the positive raises the limit',
                'np.where(positive > 0, share * positive, positive)',
                'share * positive',
            ),
            Mutant(
                "BM25's negatives take the place of mined ones",
                "return self.mined if stage.negatives == 'model'",
                "return self.bm25 if stage.negatives == 'model'",
            ),
            Mutant(
                'accumulated gradients are summed',
                'self.accelerator.backward(found.losses.total / self.current_gradient_accumulation_steps)',
                'self.accelerator.backward(found.losses.total)',
            ),
            Mutant('symmetric is ignored', 'Objective(t.temperature, t.symmetric,', 'Objective(t.temperature, False,'),
        ],
    ),
    'tuning': Topic(
        ('tuning.choosing', 'tuning.material', 'tuning.trials', 'tuning.runner', 'tuning.outcome', 'hnsw.searcher'),
        (
            'tuning/outcome', 'tuning/choosing', 'tuning/trials', 'tuning/test_choosing.py',
            'hnsw/test_searcher.py -k distance_adaptive'),
        [
            Mutant(
                'a lever moves to what costs more',
                'surely_less(builder.bench, better, best,', 'surely_less(builder.bench, best, better,',
            ),
            Mutant('a lever moves within the noise', '(a < b)[known].mean()) >= SURE', '(a < b)[known].mean()) >= 0'),
            Mutant(
                'a way is never given up', 'min(ceiling, DEAREST * len(runner.m.passages))',
                'DEAREST * len(runner.m.passages)'),
            Mutant('draws that end below the goal are left', ' and short < UNKNOWN: break', ': break'),
            Mutant('a sweep ends at the goal', '>= goal + ALMOST * (best - goal) and short < UNKNOWN', '>= goal'),
            Mutant(
                'the goal is all of exact search', 'return self.keep * float(np.nanmean(exact))',
                'return float(np.nanmean(exact))'),
            Mutant('both halves are the same', 'np.sort(order[n // 2:])', 'np.sort(order[:n // 2])'),
            Mutant(
                'knobs are chosen on the reporting half',
                'tune = half_sweep(runner, bench.tune, aim, most, ceiling=ceiling)',
                'tune = half_sweep(runner, bench.report, aim, most, ceiling=ceiling)'),
            Mutant(
                'results that are compared again cost nothing', 'bytes_compared(way, dim) + way.rerank * dim * 4',
                'bytes_compared(way, dim)'),
            Mutant(
                'a cost at the goal is that of the last search',
                "evaluations = cost_at(goal, quality, t.tune.mean('evaluations'), censored=True)",
                "evaluations = t.tune.mean('evaluations')[-1]",
            ),
            Mutant('memory has no bound', 'budget.megabytes is not None and t.bytes > budget.megabytes * 1e6', 'False'),
            Mutant('a graph is not paid for', 'if key not in self.paid and not', 'if False and not'),
            Mutant('a graph is paid for again', 'if key not in self.paid and not', 'if not'),
            Mutant('the last knob that reaches the goal is chosen', 'int(s.ef[reached[0]])', 'int(s.ef[reached[-1]])'),
            Mutant(
                'a knob is put at the end of a sweep', 'place = int(np.searchsorted(s.ef, knob))', 'place = len(s.ef)'),
            Mutant(
                'the farthest stands first after comparing again', 'np.argsort(-near, axis=1', 'np.argsort(near, axis=1'
            ),
            Mutant('missing results stand first', 'near[ids < 0] = -np.inf', 'near[ids < 0] = np.inf'),
            Mutant('seeds are not entered at', "'entries': self.entries(rows)}", "'entries': None}"),
            Mutant('levels of nodes take no memory', '4 * hnsw.neighbors.size() + 12 * n', '4 * hnsw.neighbors.size()'),
            Mutant(
                'a change is of the baseline', 'return of_draws(a[0] / b[0] - 1, ', 'return of_draws(b[0] / a[0] - 1, '
            ),
            Mutant(
                'gamma widens the similarity itself', '(1 + gamma) * (1 + np.float64(kth)) - 1',
                '(1 + gamma) * np.float64(kth)'),
        ],
    ),
}


def holders(topic, m:Mutant)->list[str]:
    "The modules of a topic that hold the mutant's line."
    return [name for name in topic.modules if m.was in source_file(ROOT, name).read_text()]


def source_file(root, module)->Path: return root/'dacl_dr'/f"{module.replace('.', '/')}.py"


def notebook_file(root, module)->Path: return root/'nbs'/f"{module.replace('.', '/')}.ipynb"


def home_of(topic, m:Mutant)->str:
    "The one module with the mutant's line. The list is out of date if there is not one."
    found = holders(topic, m)
    if len(found) == 1: return found[0]
    sys.exit(f'{m.was!r} stands in {found or "none"} of {topic.modules}; bring tests/mutants.py up to date ({m.words})')


def once(text, m:Mutant, place):
    "The text with the mutant's line in it. The list is out of date if the line is not there exactly once."
    n = text.count(m.was)
    if n != 1: sys.exit(f'{place}: holds {m.was!r} {n} times, not once; bring tests/mutants.py up to date ({m.words})')
    return text.replace(m.was, m.now)


def mutated_notebook(path, m:Mutant)->str:
    "A notebook with the mutant in its exported cells."
    nb = json.loads(path.read_text(encoding='utf-8'))
    source_of = lambda cell: ''.join(cell['source'])
    cells = [c for c in nb['cells'] if c['cell_type'] == 'code' and re.match(r'\s*#\s*\|\s*export\b', source_of(c))]
    gap = '\n# another cell\n'
    whole = once(gap.join(map(source_of, cells)), m, path.name)
    for c, source in zip(cells, whole.split(gap)): c['source'] = source
    return json.dumps(nb)


def is_notebook(check)->bool: return '.py' not in check


def child(check, world, cache, output):
    "One check in a process of its own, forked with the libraries already there."
    for stream in (1, 2): os.dup2(output.fileno(), stream)
    os.chdir(world)
    sys.path[0] = str(world)
    os.environ |= {
        'PYTHONPATH': str(world), 'PYTHONDONTWRITEBYTECODE': '1', 'NUMBA_CACHE_DIR': str(cache), 'IN_TEST': '1'}
    sys.dont_write_bytecode, numba.config.CACHE_DIR = True, str(cache)
    IPython.paths.get_ipython_cache_dir = lambda: str(cache)
    # what fails need not be made small; conftest.py builds on it
    hypothesis.settings.register_profile('unshrunk', phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile('unshrunk')
    if is_notebook(check):
        skipped = nbdev.config.get_config().tst_flags.split()
        failed = not nbdev.test.test_nb(world/f'nbs/{check}.ipynb', skip_flags=skipped)[0]
    else:
        file, *words = shlex.split(check)
        failed = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '--tb=line', f'tests/{file}', *words])
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(int(failed))


def run(check, world, cache, limit=LONGEST)->str|None: # seconds
    "None if a check passes, or what failed."
    with tempfile.TemporaryFile('w+') as output:
        p = multiprocessing.get_context('fork').Process(target=child, args=(check, world, cache, output))
        p.start()
        p.join(limit)
        if p.exitcode is None:
            p.kill()
            p.join()
            return f'{check}: no end after {limit:.0f} s'
        if p.exitcode == 0: return None
        output.seek(0)
        said = output.read()
    if is_notebook(check): failed, why = f'{check}.ipynb', said.strip().splitlines()[-1:]
    else:
        found, why = re.search(
            r'^(?:FAILED|ERROR) tests/(\S+)', said, re.M), re.findall(r'^\S+:\d+: .*', said, re.M)[:1]
        if not found: sys.exit(f'{check} could not be run:\n{said[-3000:]}')
        failed = found[1].split('[')[0]
    print(f'    {why[0][-150:] if why else ""}')
    return failed


def try_mutant(topic, m:Mutant, world, cache, limits:dict[str, float])->str: # seconds of each check
    "What catches a mutant; '' if nothing does."
    module = home_of(topic, m)
    files = source_file(world, module), notebook_file(world, module)
    whole = [f.read_text() for f in files]
    files[0].write_text(once(whole[0], m, files[0].name))
    files[1].write_text(mutated_notebook(files[1], m))
    caught = next((c for check in topic.checks if (c := run(check, world, cache, limits[check]))), '')
    for f, text in zip(files, whole): f.write_text(text)
    return caught


def try_topic(name, topic, world, tmp, begin)->list[dict]: # rows of the table
    "All mutants of a topic; without one its checks have to pass."
    limits = {}
    for check in topic.checks:
        start = time.monotonic()
        wrong = run(check, world, tmp/'numba')
        if wrong: sys.exit(f'{wrong} fails without any mutant; mend it first')
        limits[check] = max(60, PATIENCE * (time.monotonic() - start))
    rows = []
    for i, m in enumerate(topic.mutants):
        compiled = 'njit' in source_file(ROOT, home_of(topic, m)).read_text()
        # numba looks at the changed cell only, not at those that call it
        cache = tmp/f'numba-{name}-{i}' if compiled else tmp/'numba'
        caught = try_mutant(topic, m, world, cache, limits)
        today = date.today().isoformat()
        rows.append({'module': home_of(topic, m), 'mutant': m.words, 'caught by': caught, 'date': today})
        print(f"{time.monotonic() - begin:6.0f} s  {name}: {m.words}: {caught or 'SURVIVED'}", flush=True)
    return rows


def write_rows(rows):
    "Put the rows of the modules that were tried in the place of their old ones."
    tried = {r['module'] for r in rows}
    known = {m for topic in MUTANTS.values() for m in topic.modules}
    if RESULT.exists():
        with open(RESULT, newline='', encoding='utf-8') as f: old = list(csv.DictReader(f))
        rows = rows + [r for r in old if r['module'] in known - tried]
    order = list(dict.fromkeys(m for topic in MUTANTS.values() for m in topic.modules))
    with open(RESULT, 'w', newline='', encoding='utf-8') as f:
        out = csv.DictWriter(f, rows[0], lineterminator='\n')
        out.writeheader()
        out.writerows(sorted(rows, key=lambda r: order.index(r['module'])))


def main():
    parser = argparse.ArgumentParser(description='Do the tests notice wrong lines?')
    parser.add_argument(
        '--only', nargs='+', choices=MUTANTS, default=list(MUTANTS), metavar='TOPIC', help=', '.join(MUTANTS))
    args = parser.parse_args()
    for name in args.only: # all lines are looked for before anything runs
        for m in MUTANTS[name].mutants:
            module = home_of(MUTANTS[name], m)
            compile(once(source_file(ROOT, module).read_text(), m, module), m.words, 'exec')
            mutated_notebook(notebook_file(ROOT, module), m)
    rows, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        world = Path(tmp)/'world'
        world.mkdir()
        for name in COPIED: (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, world/name)
        for name in args.only: rows += try_topic(name, MUTANTS[name], world, Path(tmp), begin)
    survived = [r for r in rows if not r['caught by']]
    print(f'{len(rows) - len(survived)} of {len(rows)} mutants caught')
    write_rows(rows) # a survivor stands there without a test that catches it
    return 1 if survived else 0


if __name__ == '__main__': sys.exit(main())
