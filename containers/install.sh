#!/bin/sh
# Installs the locked environment and the package into an image, for Dockerfile and visiontokens.def alike.
#   sh containers/install.sh cpu|gpu        in a folder with the files that .dockerignore lets through
# Every version comes from the files that the other ways in use: requirements.lock, environment.gpu.yml, uv.lock, Makefile.
set -eu

variant=${1:-}
venv=${VENV:-/opt/venv}
case $variant in
cpu | gpu) ;;
*)
    echo "containers/install.sh: expected cpu or gpu, found '$variant'" >&2
    exit 2
    ;;
esac

# git: results record the commit they come from. g++: Triton and DeepSpeed compile small parts on first use.
packages=git
[ "$variant" = cpu ] || packages="git g++"
apt-get update
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $packages
rm -rf /var/lib/apt/lists/*

python -m venv "$venv"
"$venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check "$(grep -om1 'uv==[0-9.]*' Makefile)"
install() {
    "$venv/bin/uv" pip install --no-cache -p "$venv/bin/python" "$@"
}

if [ "$variant" = cpu ]; then
    install --torch-backend cpu -r requirements.lock
else
    # PyPI's torch for Linux is the CUDA build. DeepSpeed asks nvcc for its version: the wheel of the toolkit that torch
    # uses has it. FlashAttention would be an hour of compiling; without it attention runs on SDPA, and says so.
    toolkit=$(grep -A1 '^name = "cuda-toolkit"' uv.lock | sed -n 's/^version = "\(.*\)"/\1/p')
    deepspeed=$(sed -n 's/^ *- \(deepspeed==.*\)/\1/p' environment.gpu.yml)
    install -r requirements.lock
    install "cuda-toolkit[nvcc]==$toolkit"
    DS_BUILD_OPS=0 install --no-build-isolation "$deepspeed"
fi
install --no-deps .
