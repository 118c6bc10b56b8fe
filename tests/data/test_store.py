"The memory-mapped store: converted once, made again when the source changes, never half there."
import errno, os, resource, signal, subprocess, sys
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dacl_dr.data.conversion as conversion
import dacl_dr.data.store as store
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import Reading
from dacl_dr.data.formats import Context, Passage, Question, write_passages, write_questions
from dacl_dr.data.conversion import cache_home, read_conversion
from dacl_dr.data.store import open_passages, open_questions

ROOT = Path(__file__).resolve().parents[2]
passages = [Passage(f'p{i}', f'text {i} ' * (i % 9 + 1), f'title {i}') for i in range(30_000)]


@pytest.fixture
def corpus(tmp_path): return write_passages(tmp_path/'psgs.tsv', passages)


def opened(path, **kw): return open_passages(path, Reading(path.parent/'cache', show_progress=False, **kw))
def cached(path): return sorted(p.name for p in (path.parent/'cache').iterdir() if p.suffix != '.lock')


def test_rows_ids_columns(corpus):
    c = opened(corpus)
    assert len(c) == 30_000 and list(c) == passages and len(c.starts) > 3
    rows = np.random.default_rng(0).integers(0, 30_000, 2000)
    assert c.column('title', rows) == [passages[r].title for r in rows]
    assert [c[int(r)] for r in rows[:50]] == [passages[r] for r in rows[:50]]
    assert c.rows([passages[r].id for r in rows]).tolist() == rows.tolist()
    assert c.rows([]).tolist() == [] and c.rows(['', 'p', 'p30000', 'P1']).tolist() == [-1] * 4
    for bad in (30_000, -30_001):
        with pytest.raises(IndexError): c[bad]
    with pytest.raises(IndexError): c.column('id', [30_000])


def test_ids_whose_hashes_collide(corpus, monkeypatch):
    monkeypatch.setattr(store, 'id_hash', lambda id: int(id[1:] or 0) % 50 if id[1:].isdigit() else 7)
    c = opened(write_passages(corpus, passages[:400]))
    assert c.rows([p.id for p in passages[:400]]).tolist() == list(range(400))
    assert c.rows(['p1000007', 'x']).tolist() == [-1, -1]


def test_converted_once_and_again_when_the_source_changes(corpus):
    made = lambda: (opened(corpus).folder/'data.arrow').stat().st_mtime_ns
    first = made()
    assert made() == first
    os.utime(corpus, ns=(1, 1)); assert made() == first # touched: hashed again, not converted
    assert read_conversion(opened(corpus).folder).sources[0].mtime_ns == 1
    data = corpus.read_bytes(); corpus.write_bytes(data.replace(b'text 29999 ', b'TEXT 29999 ', 1)) # same size
    assert made() > first and opened(corpus)[29_999].text.startswith('TEXT 29999')
    assert len(cached(corpus)) == 1


@pytest.mark.parametrize('damage', ['manifest.json', 'data.arrow', 'hashes.npy'])
def test_a_damaged_conversion_is_made_again(corpus, damage):
    (f := opened(corpus).folder/damage).unlink()
    assert len(opened(corpus)) == 30_000 and f.exists()
    for cut in (f, f.parent/'manifest.json', f.parent/'starts.npy'):
        cut.write_bytes(cut.read_bytes()[:-5])
        assert len(opened(corpus)) == 30_000


@pytest.mark.parametrize('name', ['data.arrow', 'order.npy', 'manifest.json'])
def test_one_changed_bit_of_a_conversion(tmp_path, name):
    "The size stays; what it stands for would be another text or another row."
    f = write_passages(tmp_path/'psgs.tsv', few := passages[:50])
    data = bytearray((damaged := opened(f).folder/name).read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert list(c := opened(f)) == few and c.rows([few[7].id]).tolist() == [7]


def test_repeated_ids(corpus):
    with open(corpus, 'a') as f: f.write('p7\tx\ty\np29999\tx\ty\np7\tz\ty\n')
    with pytest.raises(
        DaclError, match=r"psgs.tsv line 30002: passage id 'p7' is repeated \(it stands on line 9 already\)"
    ):
        opened(corpus)
    with pytest.raises(DaclError, match='bad record 3 and --skip_bad allows 2'): opened(corpus, skip_bad=2)
    assert cached(corpus) == []
    c = opened(corpus, skip_bad=3)
    assert (
        len(c), c.conversion.skipped, c[7], c.rows(['p7', 'p29999']).tolist()) == (30_000, 3, passages[7], [7, 29_999])
    with pytest.raises(DaclError, match='accept them again with --skip_bad 3'): opened(corpus)


def test_a_bad_row_in_the_middle_leaves_nothing(corpus):
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text(''.join(lines[:20_000] + ['no columns\n'] + lines[20_000:]))
    with pytest.raises(DaclError, match='psgs.tsv line 20001: 1 columns instead of 3'): opened(corpus)
    assert cached(corpus) == []
    assert len(opened(corpus, skip_bad=1)) == 30_000


CONVERT = '''
import sys
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import Reading
open = open_questions if sys.argv[1].endswith("json") else open_passages
try: print(len(open(sys.argv[1], Reading(sys.argv[2], show_progress=False))))
except DaclError as e: print(e); sys.exit(2)
'''
def convert(path, **kw):
    return subprocess.run(
        [sys.executable, '-c', CONVERT, str(path), str(path.parent/'cache')], cwd=ROOT, text=True, capture_output=True,
        **kw)


@pytest.mark.parametrize('kind', ['passages', 'questions'])
@pytest.mark.skipif(sys.platform == 'win32', reason='needs file size limits')
def test_full_disk(corpus, kind):
    "A limit on the size of files stops the writing as a full disk does."
    if kind == 'questions':
        corpus = write_questions(
            corpus.with_name('q.json'), [Question(p.text, (Context(p.title, p.text, p.id),)) for p in passages])
    r = convert(corpus, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)))
    assert r.returncode == 2, (r.stdout, r.stderr)
    assert 'the disk is full' in r.stdout, (r.stdout, r.stderr)
    assert '--cache_dir' in r.stdout, (r.stdout, r.stderr)
    assert len(r.stdout.splitlines()) == 1, (r.stdout, r.stderr)
    assert cached(corpus) == []
    r = convert(corpus)
    assert r.stdout.strip() == '30000', r.stderr


def test_no_room_is_seen_before_the_work(corpus, monkeypatch):
    monkeypatch.setattr(conversion.shutil, 'disk_usage', lambda p: namedtuple('U', 'free')(1000))
    with pytest.raises(DaclError, match=r'0.0 GiB free, converting .*psgs.tsv needs at least .* --cache_dir'):
        opened(corpus)
    assert cached(corpus) == []


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_the_disk_fills_at_the_last_file(corpus, monkeypatch, number):
    def full(*args): raise OSError(number, os.strerror(number))
    monkeypatch.setattr(store.np, 'save', full)
    with pytest.raises(DaclError, match='the disk is full'): opened(corpus)
    assert cached(corpus) == []


def test_other_faults_are_not_taken_for_a_full_disk(corpus, monkeypatch):
    def broken(*args): raise OSError(errno.EIO, 'Input/output error')
    monkeypatch.setattr(store.np, 'save', broken)
    with pytest.raises(OSError, match='Input/output'): opened(corpus)
    assert cached(corpus) == []


def test_killed_in_the_middle(corpus):
    "What a killed conversion leaves is not taken for complete, and the next one sweeps it away."
    slow = CONVERT.replace(
        'import sys',
        'import sys, time, dacl_dr.data.store as s\nsave = s.np.save\n'
        'def wait(*a): print("saving", flush=True); time.sleep(60)\ns.np.save = wait',
        1)
    p = subprocess.Popen(
        [sys.executable, '-c', slow, str(corpus), str(corpus.parent/'cache')], cwd=ROOT, stdout=subprocess.PIPE,
        text=True)
    assert p.stdout.readline() == 'saving\n'
    p.send_signal(signal.SIGKILL); p.wait(); p.stdout.close()
    assert [n.startswith('.psgs') for n in cached(corpus)] == [True]
    assert len(opened(corpus)) == 30_000 and [n.startswith('psgs-') for n in cached(corpus)] == [True]


def test_a_source_that_changes_meanwhile(corpus, monkeypatch):
    finish = store.finish
    def slow_writer(folder):
        with open(corpus, 'a') as f: f.write('p30000\tlate\trow\n')
        return finish(folder)
    monkeypatch.setattr(store, 'finish', slow_writer)
    with pytest.raises(DaclError, match='changed while it was read'): opened(corpus)
    assert cached(corpus) == []


def test_two_processes_convert_once(corpus):
    ps = [
        subprocess.Popen(
            [sys.executable, '-c', CONVERT, str(corpus), str(corpus.parent/'cache')], cwd=ROOT, stdout=subprocess.PIPE,
            text=True)
        for _ in range(2)]
    assert [p.communicate()[0].strip() for p in ps] == ['30000', '30000'] and len(cached(corpus)) == 1


def test_bad_sources(tmp_path):
    for f, said in ((tmp_path, 'is a directory'), (tmp_path/'nowhere.tsv', 'No such file')):
        with pytest.raises(DaclError, match=said): open_passages(f, reading=Reading(tmp_path/'cache'))
    (f := tmp_path/'psgs.tsv').write_text('')
    with pytest.raises(DaclError, match='is empty'): opened(f)
    f.write_text('id\ttext\ttitle\n')
    with pytest.raises(DaclError, match='holds no passages'): opened(f)
    (g := tmp_path/'q.json').write_text('[]')
    with pytest.raises(DaclError, match='holds no questions'):
        open_questions(g, reading=Reading(tmp_path/'cache', show_progress=False))
    (f := tmp_path/'file').touch()
    with pytest.raises(DaclError, match='cannot write here'):
        open_questions(write_questions(tmp_path/'q.json', [Question('q', ())]), reading=Reading(f/'cache'))


def test_questions_of_a_tsv_are_made_again_when_their_gold_file_comes(tmp_path):
    (f := tmp_path/'x-test.csv').write_text("who\t['Ann']\n")
    ask = lambda: open_questions(f, reading=Reading(tmp_path/'cache', show_progress=False))[0]
    assert ask().positive_ctxs == ()
    (tmp_path/'x-test-gold.json').write_text('[{"question": "who", "passage_id": "5"}]')
    assert ask().positive_ctxs[0].passage_id == '5'


def test_beir_folder(tmp_path):
    (tmp_path/'toy'/'qrels').mkdir(parents=True)
    (tmp_path/'toy'/'corpus.jsonl').write_text(
        '{"_id": "d1", "title": "T", "text": "one"}\n{"_id": 2, "text": "two"}\n')
    (tmp_path/'toy'/'queries.jsonl').write_text('{"_id": "q1", "text": "first?"}\n')
    (tmp_path/'toy'/'qrels'/'test.tsv').write_text('query-id\tcorpus-id\tscore\nq1\t2\t1\n')
    c, q = (
        f(tmp_path/p, Reading(tmp_path/'cache', show_progress=False))
        for f, p in ((open_passages, 'toy'), (open_questions, 'toy/qrels/test.tsv')))
    assert list(c) == [Passage('d1', 'one', 'T'), Passage('2', 'two')]
    assert c.rows([q[0].positive_ctxs[0].passage_id]).tolist() == [1]


def row_in_another_process(table): return table[-1]

def test_a_table_goes_to_another_process_as_its_folder(corpus):
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(row_in_another_process, opened(corpus)).result() == passages[-1]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv('DACL_CACHE', str(tmp_path))
    assert cache_home() == tmp_path and cache_home('here') == Path('here')
    monkeypatch.delenv('DACL_CACHE'); assert cache_home() == Path.home()/'.cache'/'dacl-dr'
