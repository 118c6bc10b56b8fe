"""A backend of sentence-transformers in an interpreter of its own; what `embedding.py --peer_python` talks to.

Its ONNX and OpenVINO backends need `optimum`, whose releases stop at an older transformers than this project's. So
they run where those are installed: texts come from a file, each line on standard input is a request to encode them
once more, and each answer the seconds it took. The vectors of the last round are written beside the texts.
"""
import json, sys, time

import numpy as np
from sentence_transformers import SentenceTransformer


def main():
    backend, model, length, texts, output = sys.argv[1:]
    texts = json.load(open(texts))
    model = SentenceTransformer(model, backend=backend, device='cpu')
    model.max_seq_length = int(length)
    model.encode(texts[:64], batch_size=32)
    print('ready', flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        x = model.encode(texts, batch_size=32, normalize_embeddings=True)
        seconds = time.perf_counter() - start
        np.save(output, x)
        print(seconds, flush=True)


if __name__ == '__main__': main()
