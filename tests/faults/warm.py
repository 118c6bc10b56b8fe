"Imported once by the process that the commands are forked from: what numba compiles is compiled before."
import contextlib, os, tempfile
from pathlib import Path

import numpy as np

from dacl_dr.cli.main import main
from dacl_dr.data.toy import toy_data
from made import flags, write

quiet = contextlib.redirect_stdout, contextlib.redirect_stderr
with tempfile.TemporaryDirectory() as d, open(os.devnull, 'w') as nowhere, quiet[0](nowhere), quiet[1](nowhere):
    toy = toy_data(Path(d)/'toy')
    np.save(f'{d}/x.npy', np.random.default_rng(0).normal(size=(200, 8)).astype('f4'))
    write(d)
    vectors = flags(d, 'vectors', 'query_vectors', 'qrels')
    for command in (
        [
            'bm25-eval', '--corpus_file', toy/'psgs.tsv', '--test_file', toy/'toy-dev.json', '--output_path',
            f'{d}/bm25', '--dataset_name', 'toy', '--cache_dir', f'{d}/cache'],
        ['diagnose', '--vectors', f'{d}/x.npy', '--output_path', f'{d}/out'],
        [
            'tune', *vectors, *flags(d, 'run'), '--levers', 'm', 'stop', 'run', '--rounds', 0,
            '--output_path', f'{d}/tuned'],
        [
            'adapt', *vectors, '--held', .5, '--batch_size', 16, '--random_passages', 50, '--anyway',
            '--output_path', f'{d}/adapted'
                    ]):
        assert main(list(map(str, command))) == 0
