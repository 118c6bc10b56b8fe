"Indexes that are built once, survive a kill to the same bytes, and refuse what does not fit."
import json, resource, signal, time
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pyarrow as pa
import pytest

import dacl_dr.search.graph as graph
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import EmbedSettings, IndexSettings
from dacl_dr.core.files import alone_in, write_manifest
from dacl_dr.search.exact import InMemory, exact_search
from dacl_dr.search.graph import draw_levels, fill_index, insertion_order
from dacl_dr.search.indexing import Index, build_index, node_ids
from processes import start

N, D = 1500, 24


def unit(n=N, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')


class Toy(InMemory):
    "What `Vectors` offers, over an array."
    def __init__(self, x, encoder='e', corpus='c'):
        super().__init__(x)
        self.folder, self.about = Path('vectors'), SimpleNamespace(
            encoder=encoder, corpus=corpus, settings=EmbedSettings())


IDS = SimpleNamespace(column=lambda name, rows: [f'p{r}' for r in rows])
SMALL = IndexSettings(m=8, ef_construction=40, chunk_rows=100)


@pytest.mark.parametrize('n, m', [(1, 4), (10, 32), (5000, 2), (20000, 16)])
def test_levels_are_those_faiss_draws(n, m):
    index = faiss.IndexHNSWFlat(2, m)
    index.hnsw.prepare_level_tab(n, False)
    np.testing.assert_array_equal(draw_levels(n, m), faiss.vector_to_array(index.hnsw.levels))


def test_in_one_chunk_it_is_faiss_byte_for_byte():
    plain = faiss.IndexHNSWFlat(D, 8, faiss.METRIC_INNER_PRODUCT)
    plain.hnsw.efConstruction = 60 # 40 is what faiss takes without being told
    plain.add(unit())
    np.testing.assert_array_equal(
        faiss.serialize_index(fill_index(InMemory(unit()), IndexSettings(m=8, ef_construction=60))),
        faiss.serialize_index(plain))


def build_slowly(out, settings):
    "Its links noted after every chunk."
    one = graph.add_rows
    def slow(*args): time.sleep(.05); one(*args)
    graph.add_rows = slow
    build_index(Toy(unit()), IDS, out, IndexSettings(**settings), save_every_s=0, show_progress=False)


@pytest.mark.parametrize(
    'chunks, settings',
    [(1, {}), (6, {}), (13, {}), (4, {'storage': 'float16'}), (9, {'storage': 'sq8'}), (7, {'order': 3})])
def test_killed_and_started_again_gives_the_same_bytes(tmp_path, monkeypatch, chunks, settings):
    settings |= {'m': 8, 'ef_construction': 40, 'chunk_rows': 100}
    p, out = start(build_slowly, tmp_path/'killed', settings), tmp_path/'killed'
    while not list(out.glob(f'*-{chunks}00-*.links')) and p.is_alive(): time.sleep(.005)
    p.kill(); p.join()
    assert p.exitcode == -signal.SIGKILL
    assert not (out/'manifest.json').exists() and list(out.glob('*.links'))
    s = IndexSettings(**settings)
    begun = [int(f.stem.split('-')[1]) for f in out.glob('*.links')]
    added, one = [], graph.add_rows
    monkeypatch.setattr(graph, 'add_rows', lambda index, x, levels: (added.append(len(x)), one(index, x, levels)))
    build_index(Toy(unit()), IDS, out, s, save_every_s=0, show_progress=False)
    assert sum(added) == N - max(begun) # the rest only
    whole = build_index(Toy(unit()), IDS, tmp_path/'whole', s, show_progress=False)
    assert (out/'index.faiss').read_bytes() == (tmp_path/'whole'/'index.faiss').read_bytes()
    assert {f.name for f in out.iterdir()} == {'.lock', 'index.faiss', 'ids.arrow', 'manifest.json'}
    assert whole.about.digest == Index(out).about.digest


@pytest.mark.parametrize(
    'damage', [lambda b: b[:3000], lambda b: b[:3000] + bytes([b[3000] ^ 1]) + b[3001:], lambda b: b'\xff' * len(b)])
def test_links_that_were_damaged_are_not_used(tmp_path, damage):
    "faiss believes a damaged file: it gives other neighbours, asks for a terabyte or crashes."
    out = tmp_path/'i'
    p = start(build_slowly, out, {'m': 8, 'ef_construction': 40, 'chunk_rows': 100})
    while not list(out.glob('*-300-*.links')): time.sleep(.005)
    p.kill(); p.join()
    for f in out.glob('*.links'): f.write_bytes(damage(f.read_bytes()))
    build_index(Toy(unit()), IDS, out, SMALL, show_progress=False)
    np.testing.assert_array_equal(
        faiss.serialize_index(Index(out).faiss), faiss.serialize_index(fill_index(InMemory(unit()), SMALL)))


def test_nodes_lead_to_the_corpus_whatever_the_order(tmp_path):
    x, q = unit(), unit(50, 1)
    for order in (None, 7):
        index = build_index(Toy(x), IDS, tmp_path/str(order), IndexSettings(m=8, order=order), show_progress=False)
        index.faiss.hnsw.efSearch = 400
        np.testing.assert_array_equal(index.rows[index.faiss.search(q, 5)[1]], exact_search(q, x, 5))
        table = pa.ipc.open_file(tmp_path/str(order)/'ids.arrow').read_all()
        assert table['id'].to_pylist() == [f'p{r}' for r in insertion_order(N, order)]


def test_flat_is_exact(tmp_path):
    x, q = unit(), unit(50, 1)
    index = build_index(Toy(x), IDS, tmp_path/'flat', IndexSettings(index_type='flat'), show_progress=False)
    np.testing.assert_array_equal(Index(tmp_path/'flat').faiss.search(q, 9)[1], exact_search(q, x, 9))
    assert index.about.degrees == [] and not index.is_hnsw


@pytest.mark.parametrize('block, k', [(100, 10), (7, 30), (2000, 10)])
def test_exact_search_in_blocks_equals_one_piece(block, k):
    np.testing.assert_array_equal(
        exact_search(unit(40, 1), InMemory(unit()), k, block=block), exact_search(unit(40, 1), unit(), k))


@pytest.fixture
def made(tmp_path):
    build_index(Toy(unit()), IDS, tmp_path/'index', SMALL, show_progress=False)
    return tmp_path/'index'


def test_damage_is_found(made):
    f, good = made/'index.faiss', (made/'index.faiss').read_bytes()
    f.write_bytes(good[:70_000] + bytes([good[70_000] ^ 1]) + good[70_001:])
    with pytest.raises(DaclError, match='index.faiss: its bytes have changed'): Index(made)
    for name in ('index.faiss', 'ids.arrow'):
        path, whole = made/name, (made/name).read_bytes() if name != 'index.faiss' else good
        path.write_bytes(whole[:-7])
        with pytest.raises(DaclError, match=f'{name}: [0-9,]+ bytes, [0-9,]+ were written'): Index(made)
        path.unlink()
        with pytest.raises(DaclError, match=f'{name}: missing'): Index(made)
        path.write_bytes(whole)
    Index(made)


def test_other_ids_are_not_believed(made):
    f, good = made/'ids.arrow', (made/'ids.arrow').read_bytes()
    assert list(node_ids(made))[:2] == ['p0', 'p1']
    f.write_bytes(good.replace(b'p1p2', b'p1p3', 1))
    with pytest.raises(DaclError, match='ids.arrow: cannot be read .its bytes have changed'): node_ids(made)


@pytest.mark.parametrize('text', ['', '{"rows": 5}', 'null', '{'])
def test_a_damaged_manifest_is_said_so(made, text):
    (made/'manifest.json').write_text(text)
    with pytest.raises(DaclError, match='manifest.json: damaged'): Index(made)
    (made/'manifest.json').unlink()
    with pytest.raises(DaclError, match='no finished index'): Index(made)


def test_a_manifest_of_another_size_is_refused(made):
    m = json.loads((made/'manifest.json').read_text())
    # nodes would lead to other passages
    (made/'manifest.json').write_text(json.dumps(m | {'settings': m['settings'] | {'order': 3}}))
    with pytest.raises(DaclError, match='manifest.json: damaged .its content is not what was written'): Index(made)
    del m['seal']
    write_manifest(made/'manifest.json', m | {'dim': D + 1})
    with pytest.raises(DaclError, match=f'{N:,} vectors of {D} dimensions'): Index(made)


def test_other_encoder_or_corpus_is_refused(made):
    index = Index(made)
    index.refuse_other('e', 'c')
    with pytest.raises(DaclError, match='another encoder'): index.refuse_other(encoder='x')
    with pytest.raises(DaclError, match='another corpus'): index.refuse_other(corpus='x')
    for toy, s in ((Toy(unit(), encoder='x'), SMALL), (Toy(unit(), corpus='x'), SMALL), (Toy(unit()), IndexSettings())):
        with pytest.raises(DaclError, match='holds another index'): build_index(toy, IDS, made, s, show_progress=False)


@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
def test_bytes_are_checked_as_they_are_read(kind):
    class Checked(InMemory):
        def take(self, rows, check=False): checked.append(check); return super().take(rows, check)
    checked = []
    fill_index(Checked(unit()), IndexSettings(index_type=kind, chunk_rows=500))
    assert checked == [True] * 3


@pytest.mark.parametrize(
    'factor, word', [(0, 'has norm 0'), (2, 'has norm 2'), (np.nan, 'is not finite'), (np.inf, 'is not finite')])
@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
def test_vectors_of_another_norm_name_their_row(tmp_path, factor, word, kind):
    x = unit()
    x[777] *= factor
    with pytest.raises(DaclError, match=f'row 777 {word}'):
        build_index(Toy(x), IDS, tmp_path/'i', IndexSettings(index_type=kind, chunk_rows=100), show_progress=False)
    assert {f.name for f in (tmp_path/'i').iterdir()} <= {'.lock'}


def build_within(limit, out, save_every_s, said):
    "What is said where no file may be larger."
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try: build_index(Toy(unit()), IDS, out, SMALL, save_every_s=save_every_s, show_progress=False)
    except DaclError as e: said.write_text(str(e))


@pytest.mark.parametrize('limit, left', [(20_000, 'links'), (200_000, 'index.faiss')])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, limit, left):
    p = start(build_within, limit, tmp_path/'i', 0 if left == 'links' else 300, tmp_path/'said')
    p.join()
    said = (tmp_path/'said').read_text()
    assert p.exitcode == 0
    assert left in said
    assert 'cannot be written' in said
    assert 'make room' in said
    assert len(said.splitlines()) == 1
    assert {f.suffix or f.name for f in (tmp_path/'i').iterdir()} <= {'.lock', '.links'} # links noted before are whole
    build_index(Toy(unit()), IDS, tmp_path/'i', SMALL, show_progress=False) # with room again


class OnGpu:
    "What faiss's CAGRA does, without a GPU: an HNSW graph of what it was trained on."
    def __init__(self, resources, d, metric, config): self.d, self.metric, self.m = d, metric, config.graph_degree // 2
    def train(self, x): self.x = x.copy()
    def copyTo(self, index): index.add(self.x)


def test_a_graph_from_a_gpu_is_in_the_order_that_was_asked_for(tmp_path, monkeypatch):
    x, q = unit(), unit(50, 1)
    fakes = {
        'GpuIndexCagra': OnGpu, 'GpuIndexCagraConfig': SimpleNamespace, 'StandardGpuResources': SimpleNamespace,
        'IndexHNSWCagra': faiss.IndexHNSWFlat,
    }
    for name, fake in fakes.items(): monkeypatch.setattr(faiss, name, fake, raising=False)
    monkeypatch.setattr(graph, 'faiss_gpus', lambda: 1)
    index = build_index(Toy(x), IDS, tmp_path/'i', IndexSettings(m=8, order=7, builder='cagra'), show_progress=False)
    index.faiss.hnsw.efSearch = 400
    np.testing.assert_array_equal(index.rows[index.faiss.search(q, 5)[1]], exact_search(q, x, 5))


def test_a_gpu_that_is_not_there_is_said_so(tmp_path):
    if hasattr(faiss, 'GpuIndexCagra') and faiss.get_num_gpus(): pytest.skip('there is one')
    with pytest.raises(DaclError, match="'cagra' needs a GPU"):
        build_index(Toy(unit()), IDS, tmp_path/'i', IndexSettings(builder='cagra'), show_progress=False)


def test_links_that_were_not_named_yet_are_swept(tmp_path, monkeypatch):
    "A kill between writing and naming them leaves a file that the next run in the folder removes."
    def killed(path): raise KeyboardInterrupt
    monkeypatch.setattr(graph, 'file_digest', killed)
    index = graph.build_hnsw(unit(100), 8, 40)
    with pytest.raises(KeyboardInterrupt): graph.BuildProgress(tmp_path, 'k', 0).save(index)
    assert [f.suffix for f in tmp_path.iterdir()] == ['.partial']
    with alone_in(tmp_path): assert [f.name for f in tmp_path.iterdir()] == ['.lock']
