"Downloads from a server that misbehaves in every way we could think of."
import gzip, hashlib, os, re, signal, socket, subprocess, sys, threading, time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

import dacl_dr.data.download as dl
from dacl_dr.core.errors import DaclError
from dacl_dr.data.download import PUBLIC_FILES, Fetching, PublicFile, download, fetch, part_of

CONTENT = os.urandom(50_000)
QUICK = Fetching(wait=.001, show_progress=False)


class Server:
    """Answers each request with the next of `plan`, then properly. A step is (status, headers, bytes to send or None
    for all, what to do instead)."""
    def __init__(self):
        self.plan, self.asked, self.content, self.etag, self.ranges = [], [], CONTENT, '"v1"', True
        outer = self
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self): outer.answer(self)
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.http.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.http.server_port}/'
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, h):
        asked = h.headers.get('Range', ''); self.asked.append(asked)
        step = self.plan.pop(0) if self.plan else {}
        matches = h.headers.get('If-Range', self.etag) == self.etag
        start = int(re.match(r'bytes=(\d+)-', asked)[1]) if asked and self.ranges and matches else 0
        status = step.get('status') or (416 if start >= len(self.content) and start else 206 if start else 200)
        h.send_response(status)
        if status == 206:
            h.send_header(
                'Content-Range', step.get('range') or f'bytes {start}-{len(self.content) - 1}/{len(self.content)}')
        if status == 416: h.send_header('Content-Range', f'bytes */{len(self.content)}')
        if self.etag and not step.get('no_mark'): h.send_header('ETag', self.etag)
        for k, v in step.get('headers', {}).items(): h.send_header(k, v)
        body = self.content[start:] if status in (200, 206) else b''
        h.send_header('Content-Length', str(len(body))); h.end_headers()
        h.wfile.write(body[:step.get('send', len(body))]); h.wfile.flush()
        if 'stall' in step: time.sleep(step['stall'])
        if len(body) > step.get('send', len(body)): h.close_connection = True


@pytest.fixture
def server():
    s = Server()
    yield s
    s.http.shutdown(); s.http.server_close()


@pytest.fixture
def get(server, tmp_path):
    "Fetch from the server into tmp_path/x."
    return lambda size=None, **kw: fetch(server.url + 'x', part_of(tmp_path/'x'), size, QUICK.but(**kw))


def test_goes_on_after_each_drop(server, get):
    server.plan = [{'send': 10_000}, {'send': 10_000}, {'send': 0}, {'send': 5_000}]
    assert get().read_bytes() == CONTENT
    assert server.asked == ['', 'bytes=10000-', 'bytes=20000-', 'bytes=20000-', 'bytes=25000-']


def test_goes_on_in_another_call(server, get, tmp_path):
    server.plan = [{'send': 20_000}] + [{'send': 0}] * 3
    with pytest.raises(
        DaclError, match=r'3 times in a row; check the network and the proxy, .* goes on from byte 20,000'
    ):
        get(tries=3)
    assert not (tmp_path/'x').exists()
    assert get().read_bytes() == CONTENT and server.asked[-1] == 'bytes=20000-'


def test_drops_that_bring_bytes_do_not_use_up_the_tries(server, get):
    server.plan = [{'send': 1000}] * 20
    assert get(tries=2).read_bytes() == CONTENT and len(server.asked) == 21


def test_a_server_without_ranges(server, get):
    server.ranges, server.plan = False, [{'send': 30_000}]
    assert get().read_bytes() == CONTENT and server.asked == ['', 'bytes=30000-']


def test_a_file_that_changes_in_between_starts_over(server, get, tmp_path):
    server.plan = [{'send': 30_000}] + [{'send': 0}] * 2
    with pytest.raises(DaclError): get(tries=2)
    server.etag, server.content = '"v2"', os.urandom(50_000)
    assert get().read_bytes() == server.content


def test_without_a_mark_of_its_version_a_part_is_not_trusted(server, get, tmp_path):
    server.plan = [{'send': 30_000, 'no_mark': True}]
    assert get().read_bytes() == CONTENT and server.asked == ['', '']
    server.asked, part = [], part_of(tmp_path/'x')
    part.write_bytes(b'somebody else wrote this')
    dl.mark_of(part).write_text('{')
    assert get().read_bytes() == CONTENT and server.asked == ['']


def test_a_weak_etag_is_no_mark_but_a_date_is(server, get):
    server.etag, server.plan = 'W/"v1"', [{
        'send': 30_000, 'headers': {'Last-Modified': 'Mon, 01 Jan 2024 00:00:00 GMT'}}]
    assert get().read_bytes() == CONTENT # If-Range holds the date, which this server takes for another version
    assert server.asked == ['', 'bytes=30000-']


def test_complete_and_too_long_parts(server, get, tmp_path):
    part = get(); server.asked = []
    assert get().read_bytes() == CONTENT and server.asked == ['bytes=50000-'] # 416, and it is whole
    part.write_bytes(CONTENT + b'more')
    assert get().read_bytes() == CONTENT and server.asked[1:] == ['bytes=50004-', '']


def test_another_part_than_asked_for(server, get):
    server.plan = [{'send': 10_000}, {'range': 'bytes 0-49999/50000'}]
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize(
    'status, said',
    [(404, 'the file has moved'), (403, 'access is refused'), (401, 'check the address'), (410, 'check the address')])
def test_answers_that_are_final(server, get, status, said):
    server.plan = [{'status': status}]
    with pytest.raises(DaclError, match=f'{server.url}x: {status} .*{said}') as e: get()
    assert len(server.asked) == 1 and '\n' not in str(e.value)


def test_answers_that_may_change(server, get, monkeypatch):
    slept = []
    monkeypatch.setattr(dl.time, 'sleep', slept.append)
    server.plan = [
        {'status': 503, 'headers': {'Retry-After': '7'}}, {'status': 429, 'headers': {'Retry-After': '99999'}},
        {'status': 500}, {'send': 100}]
    assert get(wait=1.).read_bytes() == CONTENT
    assert slept == [7, 60, 8., 1.] # as told, a minute at most, doubled, from the start after progress
    server.plan = [{'status': 502}] * 9
    with pytest.raises(DaclError, match='502 Bad Gateway, 4 times in a row'): get(tries=4)


def test_a_silent_server(server, get):
    server.plan = [{'send': 10_000, 'stall': 3}, {'send': 0, 'stall': 3}, {'send': 0, 'stall': 3}]
    with pytest.raises(DaclError, match='the server is silent, 2 times in a row.*from byte 10,000'):
        get(timeout=.2, tries=2)


def test_nobody_there(tmp_path):
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    for url, said in (
        (f'http://127.0.0.1:{port}/x', 'the connection is refused'),
        ('http://no-such-host.invalid/x', 'its name is not known here'), ('http://[bad/x', 'is no address')
    ):
        with pytest.raises(DaclError, match=said) as e: fetch(url, part_of(tmp_path/'x'), how=QUICK.but(tries=2))
        assert '\n' not in str(e.value) and str(e.value).startswith(url)


def test_another_size_than_expected(get):
    with pytest.raises(DaclError, match='is 50,000 bytes long, 49,999 are expected'): get(size=49_999)


TEXT = b"who\t['Ann']\n" * 900
PACKED = gzip.compress(TEXT)
FILES = {
    'toy': (
        PublicFile('a/train.json.gz', 'Toy/toy-train.json', len(PACKED), hashlib.md5(PACKED).hexdigest(), len(TEXT)),)}


@pytest.fixture
def toy(server, tmp_path):
    "Download the toy data set from the server."
    server.content = PACKED
    how = QUICK.but(base_url=server.url)
    return lambda files=FILES, **kw: download('toy', tmp_path/'data', how=how, files=files, **kw)


def names(tmp_path):
    return sorted(
        str(p.relative_to(tmp_path/'data')) for p in (tmp_path/'data').rglob('*')
        if p.is_file() and not p.name.endswith('.lock'))
def changed(**kw): return {'toy': (msgspec.structs.replace(FILES['toy'][0], **kw),)}


def test_a_data_set(toy, server, tmp_path, capsys):
    assert toy()[0].read_bytes() == TEXT and names(tmp_path) == ['Toy/toy-train.json']
    server.asked = []; (tmp_path/'data'/'Toy'/'toy-train.json').write_text('mine')
    toy()
    assert server.asked == []
    assert (tmp_path/'data'/'Toy'/'toy-train.json').read_text() == 'mine'
    assert 'present' in capsys.readouterr().out


def test_keep_gz_is_not_fetched_again(toy, server, tmp_path):
    toy(keep_gz=True); assert names(tmp_path) == ['Toy/toy-train.json', 'Toy/toy-train.json.gz']
    (tmp_path/'data'/'Toy'/'toy-train.json').unlink(); server.asked = []
    assert toy()[0].read_bytes() == TEXT and server.asked == []


def test_wrong_checksum_and_truncated_gzip(toy, server, tmp_path):
    with pytest.raises(DaclError, match='its MD5 sum is [0-9a-f]{32}, 0{32} is expected'):
        toy(files=changed(md5='0' * 32))
    assert [n for n in names(tmp_path) if not n.endswith('.json') or n.startswith('Toy/toy')] == []
    server.content = PACKED[:-5]
    with pytest.raises(DaclError, match='cut short or damaged'): toy(files=changed(md5='', size=None))
    assert not (tmp_path/'data'/'Toy'/'toy-train.json').exists()
    server.content = PACKED
    assert toy()[0].read_bytes() == TEXT


def test_lines_are_counted_where_there_is_no_checksum(toy, server, tmp_path):
    with pytest.raises(DaclError, match='has 900 lines, 901 are expected'): toy(files=changed(md5='', lines=901))
    assert toy(files=changed(md5='', lines=900))[0].read_bytes() == TEXT
    server.content = TEXT[:-1] # a last line without its end
    assert toy(files={'toy': (PublicFile('test.csv', 'Toy/toy-test.csv', lines=900),)})[0].read_bytes() == TEXT[:-1]
    assert names(tmp_path) == ['Toy/toy-test.csv', 'Toy/toy-train.json']


def test_room_is_checked_before_the_first_byte(toy, server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda p: namedtuple('U', 'free')(len(TEXT)))
    with pytest.raises(DaclError, match='0.0 GB free, about 0.0 GB are needed; make room or choose another --data_dir'):
        toy()
    assert server.asked == []
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda p: namedtuple('U', 'free')(len(TEXT) + len(PACKED)))
    assert toy()[0].exists()


def test_a_full_disk_while_unpacking_keeps_what_was_fetched(toy, server, tmp_path, monkeypatch):
    real_open = open
    class Full:
        def __init__(self, f): self.f = f
        def __enter__(self): return self
        def __exit__(self, *a): self.f.close()
        def write(self, b): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(
        dl, 'open', raising=False,
        value=lambda p, mode='r', *a: Full(real_open(p, mode)) if '.partial' in str(p) else real_open(p, mode, *a))
    with pytest.raises(
        DaclError, match=r'cannot write toy-train.json \(No space left on device\).* what was fetched is kept'
    ):
        toy()
    assert 'Toy/toy-train.json' not in names(tmp_path) and 'Toy/toy-train.json.gz' in names(tmp_path)
    monkeypatch.undo(); server.asked = []
    assert toy()[0].read_bytes() == TEXT and server.asked == []


def test_one_process_at_a_time(toy, tmp_path):
    (tmp_path/'data').mkdir()
    with FileLock(tmp_path/'data'/'.download.lock'):
        with pytest.raises(DaclError, match='another process is downloading'): toy()
    toy()


def test_interrupted(toy, server, tmp_path):
    "Ctrl-C leaves a part, no file, and the next call goes on."
    server.plan = [{'send': 20, 'stall': 20}]
    code = (
        f'from dacl_dr.data.download import *\nimport sys; sys.path.insert(0, "tests/data")\n'
        f'from test_download import FILES\ndownload("toy", {str(tmp_path/"data")!r}, '
        f'how=Fetching(base_url={server.url!r}, show_progress=False), files=FILES)')
    # where tests run in the background, it is ignored
    p = subprocess.Popen(
        [sys.executable, '-c', code], cwd=Path(__file__).resolve().parents[2], stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    part = part_of(tmp_path/'data'/'Toy'/'toy-train.json')
    for _ in range(600):
        if part.exists(): break
        time.sleep(.05)
    p.send_signal(2); p.wait()
    assert part.exists() and not (tmp_path/'data'/'Toy'/'toy-train.json').exists()
    assert toy()[0].read_bytes() == TEXT


def test_the_table_of_public_files():
    files = [f for fs in PUBLIC_FILES.values() for f in fs]
    assert list(PUBLIC_FILES) == ['nq', 'trivia', 'wikipedia'] and len({f.target for f in files}) == len(files) == 7
    for f in files:
        assert not f.target.startswith(('/', '.')) and '..' not in f.target and f.unpacked > 0
        assert (re.fullmatch('[0-9a-f]{32}', f.md5) and f.size) or f.lines
