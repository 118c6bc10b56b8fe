"""Search, index building and embedding beside faiss and sentence-transformers: the same work, in turns, in one run.

    python benchmarks/search.py --corpus_file psgs_w100.tsv --model_name sentence-transformers/all-MiniLM-L6-v2

Prints medians of the ratios of paired runs, with the smallest and the largest. Parts:
  tracer     the tracer on one thread against faiss on one thread, whose search it repeats while it keeps the books
  batched    both on all cores
  searcher   the searcher on one thread against faiss on one thread: by efSearch, whose search it repeats, and by the
             distance-adaptive rule at the ANN recall of that efSearch
  build      an index of this project against faiss's own add(): time, and peak memory beside the size of the index
  embedding  embed_corpus against SentenceTransformer.encode: same texts, lengths and precision, and what bounds both
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median

import numpy as np

from dacl_dr.core.rows import spaced
from dacl_dr.core.settings import EmbedSettings, IndexSettings, Reading
from scale import synthetic

EFS = (16, 64, 256)


def ratios(ours, theirs):
    r = [a / b for a, b in zip(ours, theirs)]
    return f'x{median(r):.3f} ({min(r):.3f} to {max(r):.3f})'


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def in_turns(ours, theirs, rounds):
    "Pairs of times; every other round the other goes first."
    pairs = []
    for i in range(rounds):
        if i % 2: pairs.append((timed(ours), timed(theirs)))
        else: pairs.append((timed(theirs), timed(ours))[::-1])
    return pairs


def search_part(a, threads):
    import faiss
    from dacl_dr.search.graph import build_hnsw
    from dacl_dr.hnsw.tracer import Tracer
    x, q = synthetic(a.rows, a.dim, 1), synthetic(2000, a.dim, 0)
    faiss.omp_set_num_threads(os.cpu_count())
    index = build_hnsw(x, 32, 200)
    tracer = Tracer(index)
    faiss.omp_set_num_threads(threads)
    part = 'tracer' if threads == 1 else 'batched'
    print(
        f'\n{part}: {a.rows:,} x {a.dim}, M=32, 2,000 queries, k=10, {threads} thread(s); '
        'time of the tracer over time of faiss')
    for ef in EFS:
        index.hnsw.efSearch = ef
        search = lambda: index.search(q, 10)
        trace = lambda: tracer.search(q, 10, ef, threads=threads)
        same = (search()[1] == trace().ids).all()
        pairs = in_turns(trace, search, a.repeats)
        rate = 2000 / median(theirs for _, theirs in pairs)
        print(
            f'  ef {ef:>3}: {ratios(*zip(*pairs))}, faiss {rate:,.0f} queries/s, '
            f'ids equal for every query: {bool(same)}, {trace().evaluations.mean():,.0f} evaluations')


def gamma_for(searcher, q, exact, recall):
    "The smallest gamma, in steps of a hundredth, that finds as much."
    from dacl_dr.hnsw.searcher import Stop
    from dacl_dr.metrics.ranking import ann_recall
    for step in range(200):
        stop = Stop(gamma=step / 100)
        if ann_recall(searcher.find(q, 10, stop).ids, exact).mean() >= recall: return stop
    raise SystemExit('no gamma reaches the recall')


def searcher_part(a):
    import faiss
    from dacl_dr.hnsw.searcher import Searcher, Stop
    from dacl_dr.metrics.ranking import ann_recall
    from dacl_dr.search.exact import exact_search
    from dacl_dr.search.graph import build_hnsw
    x, q = synthetic(a.rows, a.dim, 1), synthetic(2000, a.dim, 0)
    faiss.omp_set_num_threads(os.cpu_count())
    index, exact = build_hnsw(x, 32, 200), exact_search(q, x, 10)
    searcher = Searcher(index)
    faiss.omp_set_num_threads(1)
    print(
        f'\nsearcher: {a.rows:,} x {a.dim}, M=32, 2,000 queries, k=10, 1 thread; time of a distance computation over '
        "faiss's by efSearch; time of a query by gamma over faiss's at the same ANN recall")
    for ef in EFS:
        index.hnsw.efSearch = ef
        by_ef = searcher.find(q, 10, Stop(ef=ef))
        stop = gamma_for(searcher, q, exact, ann_recall(by_ef.ids, exact).mean())
        search = lambda: index.search(q, 10)
        plain = in_turns(lambda: searcher.find(q, 10, Stop(ef=ef), threads=1), search, a.repeats)
        gamma = in_turns(lambda: searcher.find(q, 10, stop, threads=1), search, a.repeats)
        print(
            f'  ef {ef:>3}: {ratios(*zip(*plain))} a computation, ids equal: {bool((search()[1] == by_ef.ids).all())}; '
            f'gamma {stop.gamma:.2f}: {ratios(*zip(*gamma))} a query, '
            f'{searcher.find(q, 10, stop).evaluations.mean() / by_ef.evaluations.mean():.2f} of the computations')


def build_one(a, whose):
    import faiss
    from dacl_dr.search.exact import InMemory
    from dacl_dr.search.graph import fill_index
    x = synthetic(a.build_rows, a.dim, 1)
    start = time.perf_counter()
    if whose == 'ours':
        index = fill_index(InMemory(x), IndexSettings(chunk_rows=len(x)))
    else:
        index = faiss.IndexHNSWFlat(a.dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(x)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({'s': seconds, 'peak': peak, 'bytes': len(faiss.serialize_index(index))}))


def build_apart(a, whose):
    "What `build_one` measures, in a process of its own."
    command = [sys.executable, __file__, '--parts', whose, '--dim', str(a.dim), '--build_rows', str(a.build_rows)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def build_part(a):
    print(
        f'\nbuild: {a.build_rows:,} x {a.dim}, M=32, efConstruction=200, one add(), {os.cpu_count()} threads; '
        'each in its own process, the vectors in memory')
    runs = {w: [] for w in ('ours', 'faiss')}
    for _ in range(3):
        for whose, found in runs.items(): found.append(build_apart(a, whose))
    seconds = {whose: [r['s'] for r in found] for whose, found in runs.items()}
    peak = {whose: median(r['peak'] for r in found) / 1e6 for whose, found in runs.items()}
    size = {whose: found[0]['bytes'] for whose, found in runs.items()}
    print(f"  time over faiss's {ratios(seconds['ours'], seconds['faiss'])}, faiss {median(seconds['faiss']):.1f} s")
    print(
        f"  peak memory {peak['ours']:,.0f} MB, faiss {peak['faiss']:,.0f} MB; "
        f"index {size['ours'] / 1e6:,.0f} MB, as many bytes as faiss's: {size['ours'] == size['faiss']}")


def padded(lengths, chunks):
    return sum(len(c) * lengths[c].max() for c in chunks)


def embedding_part(a):
    import torch
    from dacl_dr.data.formats import write_passages
    from dacl_dr.search.vectors import embed_corpus
    from dacl_dr.encoders.encoder import chunk_rows
    from dacl_dr.encoders.static import load_encoder
    from dacl_dr.encoders.transformer import cut_texts
    from dacl_dr.data.store import open_passages
    encoder = load_encoder(a.model_name)
    cut_texts(encoder.tower('passage'), 'passage', a.max_length)
    model = encoder.model
    with tempfile.TemporaryDirectory() as d:
        whole = open_passages(a.corpus_file, reading=Reading(d))
        write_passages(Path(d)/'psgs.tsv', [whole[int(r)] for r in spaced(len(whole), a.passages)])
        passages = open_passages(Path(d)/'psgs.tsv', reading=Reading(d))
        texts = [f'{p.title} {p.text}' for p in passages]
        tokens = encoder.tower('passage').tokenizer(texts, truncation=True, max_length=a.max_length)
        lengths = np.array([len(t) for t in tokens['input_ids']])
        number = iter(range(1000))
        def ours():
            return embed_corpus(encoder, passages, Path(d)/f'v{next(number)}', EmbedSettings(), show_progress=False)
        theirs = lambda: model.encode_document(texts, batch_size=32, normalize_embeddings=True)
        far = float(np.abs(ours().take(np.arange(len(texts))) - theirs()).max())
        pairs = in_turns(ours, theirs, a.repeats // 2)
    linears = [m for m in encoder.tower('passage').modules() if isinstance(m, torch.nn.Linear)]
    per_token = sum(2 * m.in_features * m.out_features for m in linears)
    widest = max(((m.in_features, m.out_features) for m in linears), key=lambda shape: shape[0] * shape[1])
    peak = median(bound(torch, *widest) for _ in range(5))
    our_rate, their_rate = (len(texts) / median(p[i] for p in pairs) for i in (0, 1))
    longest_first = np.argsort([-len(x) for x in texts])
    batches = np.array_split(longest_first, range(32, len(texts), 32))
    our_padding = padded(lengths, chunk_rows(lengths, 2048)) / lengths.sum() - 1
    their_padding = padded(lengths, batches) / lengths.sum() - 1
    share = lambda rate: rate * lengths.mean() * per_token / peak / 1e9 # of the bound
    print(
        f'\nembedding: {len(texts):,} passages of {lengths.mean():.0f} tokens (at most {a.max_length}), float32, '
        f'{torch.get_num_threads()} threads, largest difference of a value {far:.0e}')
    ratio = ratios([theirs for _, theirs in pairs], [ours for ours, _ in pairs])
    print(
        f'  passages/s over those of SentenceTransformer.encode: {ratio}: '
        f'{our_rate:,.1f} against {their_rate:,.1f}')
    print(f'  padding computed: {our_padding:.1%} against {their_padding:.1%}')
    print(
        f'  what bounds it: the linear layers take {per_token / 1e6:.1f} MFLOP a token and run here at '
        f'{peak:.0f} GFLOP/s alone; of that bound are reached {share(our_rate):.0%} and {share(their_rate):.0%}')


def bound(torch, n, m):
    "GFLOP/s of a linear layer."
    x, w = torch.randn(2048, n), torch.randn(m, n)
    def twenty():
        for _ in range(20): torch.nn.functional.linear(x, w)
    with torch.no_grad(): return 20 * 2 * 2048 * n * m / timed(twenty) / 1e9


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ['tracer', 'batched', 'searcher', 'build', 'embedding']
    p.add_argument('--parts', nargs='+', default=parts, help='which (default: all)')
    p.add_argument('--rows', type=int, default=50_000)
    p.add_argument('--build_rows', type=int, default=20_000)
    p.add_argument('--dim', type=int, default=768)
    p.add_argument('--repeats', type=int, default=7)
    p.add_argument('--corpus_file', help='passage TSV of real text, for embedding')
    p.add_argument('--model_name', help='an encoder, for embedding')
    p.add_argument('--passages', type=int, default=1000, help='evenly spaced through the corpus')
    p.add_argument('--max_length', type=int, default=256)
    a = p.parse_args()
    for part in a.parts:
        if part in ('ours', 'faiss'): build_one(a, part)
        elif part == 'tracer': search_part(a, 1)
        elif part == 'batched': search_part(a, os.cpu_count())
        elif part == 'searcher': searcher_part(a)
        elif part == 'build': build_part(a)
        elif not (a.corpus_file and a.model_name):
            p.error('embedding needs --corpus_file and --model_name')
        else: embedding_part(a)


if __name__ == '__main__': main()
