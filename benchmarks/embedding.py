"""Embedding beside sentence-transformers and model2vec: the same texts, lengths and precision, in turns, in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/embedding.py --corpus psgs.tsv.gz --questions NAME-test.json.gz --model MODEL \\
        --table nbs/experiments/results/performance.csv

Ways: this project's encoder in float32 and bfloat16, the checkpoint as the library loads it with
`SentenceTransformer.encode`, and with --peer_python that library's ONNX and OpenVINO backends, in an interpreter that
has them (`embedding_peer.py`). With --quality, what bfloat16 does: the smallest and the mean cosine to float32, and
recall@10 of exact search over the passages. The static encoder is compared with model2vec by giving both the same
vocabulary and vectors.
"""
import argparse, json, subprocess, tempfile
from pathlib import Path

import numpy as np, pandas as pd, torch

from measuring import OURS, in_turns, rows_of, save, short, show, timed

from dacl_dr.core.rows import spaced
from dacl_dr.encoders.encoder import chunk_rows
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import cut_texts
from dacl_dr.evaluation.judging import judgements_of
from dacl_dr.data.texts import open_corpus, open_queries, texts_at
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.search.exact import exact_search

TOKENS = 2048 # of a chunk on a CPU, as `dacl build-index` has it


def library(a):
    "The checkpoint as sentence-transformers runs it, cut to the same length."
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(a.model, device='cuda' if torch.cuda.is_available() else 'cpu')
    model.max_seq_length = a.length
    return lambda texts: model.encode(texts, batch_size=32, normalize_embeddings=True)


class Elsewhere:
    "A backend of sentence-transformers in another interpreter; encodes the same texts whenever it is called."
    def __init__(self, a, backend, texts, folder):
        given, self.output = Path(folder)/'texts.json', Path(folder)/f'{backend}.npy'
        given.write_text(json.dumps(texts))
        script = Path(__file__).with_name('embedding_peer.py')
        self.process = subprocess.Popen(
            [a.peer_python, script, backend, a.model, str(a.length), given, self.output],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self.process.stdout.readline()) and line != 'ready\n': pass
        if not line: raise SystemExit(f'{a.peer_python}: its {backend} backend does not start')
    def __call__(self, texts):
        self.process.stdin.write('again\n')
        self.process.stdin.flush()
        self.seconds = float(self.process.stdout.readline()) # without handing vectors over
        return np.load(self.output)


def ways_of(a, encoder):
    "Name → function of texts, in this interpreter."
    return {
        OURS: lambda texts: encoder.encode(texts, 'passage', TOKENS),
        'this project, bfloat16': lambda texts: encoder.encode(texts, 'passage', TOKENS, dtype=torch.bfloat16),
        'sentence-transformers': library(a),
    }


def seconds_of(work, texts):
    "What encoding takes; in another interpreter, what that says."
    seconds = timed(lambda: work(texts))
    return work.seconds if isinstance(work, Elsewhere) else seconds


def padded(lengths, chunks):
    "Tokens computed beyond those there are, as a share of these."
    return sum(len(c) * lengths[c].max() for c in chunks) / lengths.sum() - 1


def tell_padding(encoder, texts, length):
    "Print what padding costs both."
    tokens = encoder.tower('passage').tokenizer(texts, truncation=True, max_length=length)['input_ids']
    lengths = np.array([len(t) for t in tokens])
    longest_first = np.argsort([-len(x) for x in texts])
    theirs = np.array_split(longest_first, range(32, len(texts), 32))
    print(
        f'{len(texts):,} texts of {lengths.mean():.0f} tokens (at most {length}); padding computed: this project '
        f'{padded(lengths, chunk_rows(lengths, TOKENS)):.1%}, sentence-transformers {padded(lengths, theirs):.1%}')


def quality(a, ways):
    "Rows of how far each way's vectors are from float32, and what they find."
    passages, asked = open_corpus(a.corpus), open_queries(a.questions)
    some = spaced(len(asked), a.asked)
    questions, truth = texts_at(asked, some, 'text'), judgements_of(asked, passages, False)
    picked = Judgements([truth.relevant[i] for i in some])
    whole = texts_at(passages, np.arange(len(passages)), 'title+text')
    exact, rows = None, []
    for name, work in ways.items():
        x, q = work(whole), work(questions)
        exact = x if exact is None else exact
        cosine = (x * exact).sum(1)
        found = picked.metrics(exact_search(q, x, 10), ['recall@10'])['recall@10'].mean()
        rows.append({'way': name, 'smallest cosine': cosine.min(), 'mean cosine': cosine.mean(), 'recall@10': found})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def static_rows(a, texts):
    "The static encoder beside model2vec with the same vocabulary and vectors."
    from model2vec import StaticModel
    from dacl_dr.core.settings import EncoderSettings
    from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
    tokenizer = train_tokenizer(texts, 8192)
    encoder = StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(), 0)
    peer = StaticModel(encoder.passage.vectors.detach().numpy(), tokenizer, normalize=True)
    ways = {
        OURS: lambda: encoder.encode(texts, 'passage'),
        'model2vec': lambda: peer.encode(texts, max_length=None),
    }
    for work in ways.values(): work()
    taken = {n: [len(texts) / s for s in v] for n, v in in_turns(ways, a.rounds).items()}
    return rows_of('embedding', f'static, {len(texts):,} texts', 'texts/s', taken, bigger_is_better=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--corpus', required=True)
    p.add_argument('--questions', required=True)
    p.add_argument('--model', required=True)
    p.add_argument('--passages', type=int, default=1000, help='that are timed, evenly spaced through the corpus')
    p.add_argument('--asked', type=int, default=1000, help='questions asked for recall@10')
    p.add_argument('--length', type=int, default=256, help='tokens of a text at most')
    p.add_argument('--peer_python', help="an interpreter with sentence-transformers' backends")
    p.add_argument('--backends', nargs='*', default=['onnx', 'openvino'])
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--quality', action='store_true', help='also encode the whole corpus in each way, for recall@10')
    p.add_argument('--table', help='CSV whose part embedding is replaced')
    a = p.parse_args()
    encoder, corpus = load_encoder(a.model), open_corpus(a.corpus)
    cut_texts(encoder.tower('passage'), 'passage', a.length)
    texts = texts_at(corpus, spaced(len(corpus), a.passages), 'title+text')
    tell_padding(encoder, texts, a.length)
    ways = ways_of(a, encoder)
    for work in ways.values(): work(texts[:64]) # warms up
    with tempfile.TemporaryDirectory() as folder:
        others = {b: Elsewhere(a, b, texts, folder) for b in a.backends if a.peer_python}
        every = ways | {f'sentence-transformers, {b}': other for b, other in others.items()}
        seconds = in_turns(every, a.rounds, lambda work: seconds_of(work, texts))
        far = {n: float(np.abs(w(texts) - every[OURS](texts)).max()) for n, w in every.items()}
    print('largest difference of a value:', {n: f'{v:.0e}' for n, v in far.items()})
    taken = {n: [len(texts) / s for s in v] for n, v in seconds.items()}
    case = f'{short(a.model)}, {len(texts):,} passages'
    rows = [rows_of('embedding', case, 'texts/s', taken, bigger_is_better=True)]
    show(rows[0])
    rows.append(static_rows(a, texts_at(corpus, np.arange(len(corpus)), 'title+text')))
    show(rows[1])
    if a.table: save(a.table, pd.concat(rows), ['torch', 'transformers', 'sentence-transformers', 'model2vec'])
    if not a.quality: return
    kept = quality(a, ways)
    if a.table: kept.to_csv(Path(a.table).with_name('performance-precision.csv'), index=False, float_format='%.6g')


if __name__ == '__main__': main()
