"A trained encoder is pushed by the real client of the hub, to an endpoint that stands here."
import base64, json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from processes import left_on_screen

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.training.hub import check_push, push_folder


class Hub(BaseHTTPRequestHandler):
    "What the client asks for when it pushes: who am I, make a repository, how to upload, one commit."
    def log_message(self, *_): pass

    def answer(self, found, code=200):
        body = json.dumps(found).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self): self.answer({})

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.headers.get('Authorization') != 'Bearer hf_good':
            return self.answer({'error': 'Invalid credentials'}, 401)
        if self.path.startswith('/api/whoami-v2'): return self.answer({'name': 'owner', 'type': 'user', 'orgs': []})
        sha = '0' * 40
        if self.path.startswith('/api/models/'):
            return self.answer({'id': 'owner/name', 'sha': sha, 'siblings': [], 'tags': []})
        self.answer({'error': 'Not found'}, 404)

    def do_POST(self):
        self.server.asked.append(self.path)
        data = self.rfile.read(int(self.headers['Content-Length']))
        if self.path == '/api/repos/create':
            there = bool(self.server.created)
            self.server.created.append(json.loads(data))
            made = {'url': f'{self.server.url}/owner/name', 'name': 'owner/name'}
            if there: return self.answer(made | {'error': 'You already created this model repo'}, 409)
            return self.answer(made)
        if self.path == '/api/validate-yaml': return self.answer({'errors': [], 'warnings': []})
        if '/preupload/' in self.path:
            how = lambda f: {'path': f['path'], 'uploadMode': 'regular', 'shouldIgnore': False, 'oid': None}
            return self.answer({'files': [how(f) for f in json.loads(data)['files']]})
        if '/commit/' in self.path: return self.commit(data)
        self.answer({'error': 'Not found'}, 404)

    def commit(self, data):
        if self.server.refuses: return self.answer({'error': 'You are not allowed to write here'}, 403)
        lines = [json.loads(line) for line in data.decode().splitlines()]
        files = [line['value'] for line in lines if line['key'] == 'file']
        self.server.files |= {f['path']: base64.b64decode(f['content']) for f in files}
        self.answer({
            'success': True, 'commitUrl': f'{self.server.url}/owner/name/commit/{"1" * 40}', 'commitOid': '1' * 40})


@pytest.fixture
def hub(monkeypatch):
    "A server of this process, and the client told of it. `HF_ENDPOINT` is read when the client is imported."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.url, server.asked, server.created, server.files, server.refuses = (
        f'http://127.0.0.1:{server.server_port}', [], [], {}, False)
    threading.Thread(target=server.serve_forever, args=(.02,), daemon=True).start()
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setenv('HF_TOKEN', 'hf_good')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    (home := tmp_path/'model').mkdir()
    (home/'README.md').write_text('---\nlibrary_name: sentence-transformers\n---\n\n# name\n')
    (home/'modules.json').write_text('[]')
    (home/'1_Pooling').mkdir()
    (home/'1_Pooling'/'config.json').write_text('{}')
    return home


def test_a_folder_is_pushed_whole(hub, folder):
    check_push('owner/name')
    assert push_folder(folder, 'owner/name') == f'{hub.url}/owner/name'
    assert hub.files == {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob('*') if f.is_file()}
    assert hub.created[0]['name'] == 'name' and hub.created[0]['organization'] == 'owner'
    (folder/'README.md').write_text('# again\n')
    push_folder(folder, 'owner/name') # where it is already
    assert hub.files['README.md'] == b'# again\n' and len(hub.created) == 2


def test_name_and_login_are_checked_first(hub, monkeypatch):
    with pytest.raises(DaclError, match="'a/b/c' is no name on the hub"): check_push('a/b/c')
    assert hub.asked == []
    monkeypatch.setenv('HF_TOKEN', 'hf_other')
    with pytest.raises(DaclError, match=f'{hub.url} does not accept the login .*set HF_TOKEN') as e:
        check_push('owner/name')
    assert '\n' not in str(e.value) and 'hf_other' not in str(e.value)
    monkeypatch.delenv('HF_TOKEN')
    monkeypatch.setattr('huggingface_hub.hf_api.get_token', lambda: None)
    with pytest.raises(DaclError, match=f'not logged in to {hub.url}; hf auth login, or set HF_TOKEN$'):
        check_push('owner/name')


def test_what_could_not_be_pushed_is_named_with_its_folder(hub, folder):
    hub.refuses = True
    with pytest.raises(DaclError, match='model: trained and saved, but not pushed .*hf upload owner/name') as e:
        push_folder(folder, 'owner/name')
    assert '\n' not in str(e.value)


@pytest.fixture
def data(tmp_path):
    toy_data(tmp_path/'data'/'toy', 400)
    words = (tmp_path/'data'/'toy'/'psgs.tsv').read_text().split()
    tiny_bert(tmp_path/'bert', [' '.join(words)])
    (tmp_path/'mine.yaml').write_text(
        f'model: {{name: {tmp_path}/bert, query_length: 16, passage_length: 32}}\n'
        'run: {report_to: [], eval_questions: 20, eval_passages: 60}\n')
    return tmp_path


def train(data, *more):
    return main(
        [
            'train-baseline', '--config', str(data/'mine.yaml'), '--data_dir', str(data/'data'), '--output',
            str(data/'run'),
            '--cache_dir', str(data/'cache'), '--batch_size', '40', '--num_epochs', '1', *more])


def test_training_ends_on_the_hub(hub, data, capsys):
    assert train(data, '--push_to_hub', 'owner/name') == 0
    model = data/'run'/'final_model'
    assert f'pushed: {hub.url}/owner/name' in capsys.readouterr().out
    assert hub.files == {str(f.relative_to(model)): f.read_bytes() for f in model.rglob('*') if f.is_file()}
    assert b'trained with recipe A of DACL-DR' in hub.files['README.md'] and 'model.safetensors' in hub.files


def test_no_training_without_a_login(hub, data, monkeypatch, capsys):
    monkeypatch.setenv('HF_TOKEN', 'hf_other')
    assert train(data, '--push_to_hub', 'owner/name') == 2
    assert left_on_screen(capsys.readouterr().err).startswith('dacl: --push_to_hub: ') and not (data/'run').exists()


def test_an_adapted_encoder_goes_with_its_measured_cost(hub, data, capsys):
    code = main(['adapt', '--encoder', str(data/'bert'), '--corpus', str(data/'data'/'toy'/'psgs.tsv'), '--queries',
                 str(data/'data'/'toy'/'toy-train.json'), '--output', str(data/'out'), '--cache_dir', str(data/'cache'),
                 '--anyway',
                 '--num_epochs', '1', '--batch_size', '32', '--held', '.4', '--push_to_hub', 'owner/name'])
    said = capsys.readouterr()
    assert code == 0, said.err
    encoder = data/'out'/'encoder'
    assert hub.files == {str(f.relative_to(encoder)): f.read_bytes() for f in encoder.rglob('*') if f.is_file()}
    card = hub.files['README.md'].decode()
    assert '## Visited nodes a query' in card and '| goal | before | after | change |' in card


def test_vectors_alone_cannot_be_pushed(hub, data, capsys):
    np.save(data/'x.npy', np.eye(4))
    code = main(
        ['adapt', '--vectors', str(data/'x.npy'), '--query_vectors', str(data/'x.npy'), '--qrels', str(data/'x.npy'),
                 '--output', str(data/'out'), '--push_to_hub', 'owner/name'])
    assert code == 2 and 'push_to_hub needs an encoder' in capsys.readouterr().err
