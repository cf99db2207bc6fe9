# syntax=docker/dockerfile:1
# cissod-bench for the CPU: docker build -t cissod-bench . && docker run --rm --shm-size=1g cissod-bench
# Data and results: docker run ... -v "$PWD/data:/home/bench/data:ro" -v "$PWD/work:/home/bench/work" cissod-bench cissod-bench ...
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

# Set-up as in a checkout: PyTorch's CPU build by uv, mmcv compiled, and only what trains.
FROM tools AS built
WORKDIR /opt/cissod-bench
COPY . .
RUN UV_COMPILE_BYTECODE=1 make EXTRAS=train setup \
    && rm -rf ~/.cache .venv/bin/uv .venv/bin/uvx

FROM python:${PYTHON}-slim-bookworm
RUN useradd --create-home --uid 1001 bench
COPY --from=built /opt/cissod-bench /opt/cissod-bench
ENV PATH=/opt/cissod-bench/.venv/bin:$PATH
USER 1001
WORKDIR /home/bench
CMD ["cissod-bench", "demo"]
