# The locked environment and the package. Docker runs the repository that is mounted, not a copy:
#   docker build -t visiontokens .                              CPU
#   docker build --build-arg VARIANT=gpu -t visiontokens .      NVIDIA GPUs, with DeepSpeed
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD":/repository visiontokens snakemake --configfile config/scales/smoke.yaml
FROM python:3.11.14-slim-bookworm

ARG VARIANT=cpu

WORKDIR /opt/build
COPY Makefile requirements.lock environment.gpu.yml uv.lock pyproject.toml README.md LICENSE ./
COPY containers/install.sh containers/install.sh
COPY config config
COPY src src
RUN sh containers/install.sh "$VARIANT" && rm -rf /opt/build && useradd --no-log-init --uid 1000 visiontokens

# A relative folder: where the repository is the working directory, its own code runs, as edited.
# Caches go where any user may write; CUDA_HOME is there in the GPU variant.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=src \
    HOME=/tmp \
    CUDA_HOME=/opt/venv/lib/python3.11/site-packages/nvidia/cu13
USER 1000
WORKDIR /repository
CMD ["visiontokens", "--help"]
