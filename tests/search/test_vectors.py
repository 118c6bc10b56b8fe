"Vectors in shards: a stop loses one, damage is found, and nothing of another encoder is read."
import json, os, signal, time
from pathlib import Path

import numpy as np
import pytest

import dacl_dr.search.vectors as vectors
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import EmbedSettings, EncoderSettings, Reading
from dacl_dr.data.formats import Passage, write_passages
from dacl_dr.core.files import write_manifest
from dacl_dr.search.vectors import Vectors, embed_corpus, read_embedding
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.data.store import open_passages
from dacl_dr.data.pool import Pool
from processes import start

SMALL = EmbedSettings(shard_rows=16)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('embed')
    passages = open_passages(toy_data(home/'data')/'psgs.tsv', reading=Reading(home/'cache', show_progress=False))
    texts = [f'{p.title} {p.text}' for p in passages]
    tokenizer = train_tokenizer(texts, 300)
    (home/'encoder').mkdir()
    StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=16), 0).save(home/'encoder')
    return home


@pytest.fixture(scope='module')
def passages(home): return open_passages(home/'data'/'psgs.tsv', reading=Reading(home/'cache', show_progress=False))


@pytest.fixture(scope='module')
def encoder(home): return load_encoder(home/'encoder')


@pytest.fixture
def made(tmp_path, encoder, passages):
    embed_corpus(encoder, passages, tmp_path/'vectors', SMALL, show_progress=False)
    return tmp_path/'vectors'


def embed_slowly(home, out, env):
    os.environ |= env
    one = vectors.embed_shard
    def slow(*args): time.sleep(.12); one(*args)
    vectors.embed_shard = slow
    passages = open_passages(home/'data'/'psgs.tsv', Reading(home/'cache', show_progress=False))
    embed_corpus(load_encoder(home/'encoder'), passages, out, SMALL, show_progress=False)


def content(folder): return {f.name: f.read_bytes() for f in Path(folder).iterdir() if f.suffix == '.npy'}


def test_vectors_are_the_encoders_in_corpus_order(made, encoder, passages):
    v = Vectors(made)
    np.testing.assert_allclose(
        v.take(np.arange(160)), encoder.encode(Pool([], passages, 'title+text').take(np.arange(160)), 'passage'),
        atol=1e-6)
    np.testing.assert_array_equal(v.take([159, 0, 17]), v.take(np.arange(160))[[159, 0, 17]])
    assert [len(x) for _, x in v.blocks(64, check=True)] == [64, 64, 32]
    assert not [f for f in made.iterdir() if f.suffix not in ('.npy', '') and f.name not in ('manifest.json', '.lock')]


@pytest.mark.parametrize('shards', [1, 4, 8])
def test_killed_and_started_again_gives_the_same_vectors(home, made, tmp_path, shards, encoder, passages):
    p, out = start(embed_slowly, home, tmp_path/'killed', {}), tmp_path/'killed'
    while len(list(out.glob('*.json'))) < shards + 1 and p.is_alive(): time.sleep(.01) # plan.json is one of them
    p.kill(); p.join()
    assert p.exitcode == -signal.SIGKILL
    assert not (out/'manifest.json').exists()
    done = {f.stem: f.with_suffix('.npy').stat().st_mtime_ns for f in out.glob('0*.json')}
    assert len(done) >= shards
    (out/'.00009.npy.1.partial').write_bytes(b'half')
    embed_corpus(encoder, passages, out, SMALL, show_progress=False)
    assert content(out) == content(made)
    assert {s: (out/f'{s}.npy').stat().st_mtime_ns for s in done} == done # what was finished was not computed again
    assert not list(out.glob('.*.partial')) and not list(out.glob('0*.json'))


def test_two_processes_share_the_work(home, made, tmp_path):
    both = [start(embed_slowly, home, tmp_path/'two', {'RANK': str(r), 'WORLD_SIZE': '2'}) for r in (0, 1)]
    for p in both: p.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    assert content(tmp_path/'two') == content(made)


def test_a_second_process_in_the_same_folder_is_refused(home, tmp_path, encoder, passages):
    p = start(embed_slowly, home, tmp_path/'v', {})
    while not (tmp_path/'v'/'plan.json').exists(): time.sleep(.01)
    with pytest.raises(DaclError, match='another dacl process'):
        embed_corpus(encoder, passages, tmp_path/'v', SMALL, show_progress=False)
    p.join(60)
    assert p.exitcode == 0


def test_damage_is_found(made):
    shard = made/'00003.npy'
    good = shard.read_bytes()
    shard.write_bytes(good[:-4] + b'\0\0\0\0')
    with pytest.raises(DaclError, match='00003.npy: its bytes have changed'): list(Vectors(made).blocks(64, check=True))
    for bad, word in (
        (good[:200], 'cut or damaged'), (good[:50], 'cut or damaged'), (b'', 'cut or damaged'),
        ((made/'00009.npy').read_bytes()[:128] + good[128:200], 'cut or damaged')
    ):
        shard.write_bytes(bad)
        with pytest.raises(DaclError, match=word): Vectors(made)
    np.save(shard, np.zeros((16, 8), 'f4'))
    with pytest.raises(DaclError, match='shape'): Vectors(made)
    shard.unlink()
    with pytest.raises(DaclError, match='missing'): Vectors(made)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"rows": 5}'])
def test_a_damaged_manifest_is_said_so(made, text):
    (made/'manifest.json').write_text(text)
    with pytest.raises(DaclError, match='manifest.json: damaged'): Vectors(made)
    (made/'manifest.json').unlink()
    with pytest.raises(DaclError, match='not finished'): read_embedding(made)


def test_a_manifest_of_other_numbers_is_refused(made):
    about = json.loads((made/'manifest.json').read_text())
    (made/'manifest.json').write_text(json.dumps(about | {'rows': 161}))
    with pytest.raises(DaclError, match='manifest.json: damaged .its content is not what was written'): Vectors(made)
    del about['seal']
    write_manifest(made/'manifest.json', about | {'rows': 161})
    with pytest.raises(DaclError, match='161 rows and shards of 160'): Vectors(made)


def test_a_vector_that_is_not_finite_names_its_passage(home, tmp_path, passages):
    broken = load_encoder(home/'encoder')
    broken.passage.vectors.data[:] = float('nan')
    with pytest.raises(DaclError, match="passage 'p0' .*nan"):
        embed_corpus(broken, passages, tmp_path/'v', SMALL, show_progress=False)


def test_a_text_without_known_tokens_stands_at_one_place_and_is_told(home, tmp_path, encoder, capsys):
    write_passages(tmp_path/'psgs.tsv', [Passage('good', 'bamon kedil', 'title1'), Passage('bad', '!!', '??')])
    reading = Reading(tmp_path/'cache', show_progress=False)
    made = embed_corpus(
        encoder, open_passages(tmp_path/'psgs.tsv', reading=reading), tmp_path/'v', SMALL, show_progress=False)
    bad = made.take(np.arange(2))[1]
    assert bad[0] == 1 and not bad[1:].any()
    assert (made.about.coverage.texts, made.about.coverage.empty) == (2, 1)
    assert '1 of the passages have no token that the encoder knows' in capsys.readouterr().err


def test_half_precision_halves_the_files(made, tmp_path, encoder, passages):
    half = embed_corpus(
        encoder, passages, tmp_path/'half', EmbedSettings(shard_rows=16, dtype='float16'), show_progress=False)
    assert half.map(0).dtype == np.float16
    np.testing.assert_allclose(half.take(np.arange(160)), Vectors(made).take(np.arange(160)), atol=1e-3)


def test_vectors_of_another_kind_are_refused(home, made, passages):
    other = load_encoder(home/'encoder')
    with pytest.raises(DaclError, match='shard_rows is'):
        embed_corpus(other, passages, made, EmbedSettings(shard_rows=17), show_progress=False)
    other.query.vectors.data[0] += 1
    with pytest.raises(DaclError, match='encoder is'): embed_corpus(other, passages, made, SMALL, show_progress=False)
