# docker build -t dacl-dr . && docker run --rm -v "$PWD:/work" dacl-dr quickstart
# torch on Linux comes with CUDA. On a GPU: docker build --build-arg GPU=1 ... and docker run --gpus all ...; not tried.
FROM python:3.11-slim
ARG GPU=
COPY . /opt/dacl-dr
# two distributions own the module faiss, so the second takes the place of the first: nbs/howto/gpus.ipynb
RUN pip install --no-cache-dir --constraint /opt/dacl-dr/constraints.txt "/opt/dacl-dr${GPU:+[gpu]}" \
    && if [ -n "$GPU" ]; then pip uninstall -y faiss-cpu && pip install --no-cache-dir --force-reinstall --no-deps 'faiss-gpu>=1.15,<2'; fi
RUN useradd --create-home dacl && mkdir /work && chown dacl /work
USER dacl
WORKDIR /work
ENTRYPOINT ["dacl"]
CMD ["--help"]
