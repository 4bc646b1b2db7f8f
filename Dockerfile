# The scoring machine, pinned: docker build -t ntire . && docker run --gpus all -v "$PWD:/work" ntire doctor
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS installed

RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap libgl1 libglib2.0-0t64 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY ntire /src/ntire
COPY teams /src/teams
COPY scoring /src/scoring
RUN python3 -m venv /opt/ntire \
    && /opt/ntire/bin/pip install --no-cache-dir --constraint /src/constraints.txt '/src[diffusion,iqa,report]'

# A worker of Codabench, with the weights of a track's metrics (docs/codabench.md):
# docker build --target codabench --build-arg TRACK=face-2025 -t you/ntire-codabench .
FROM installed AS codabench
ARG TRACK=
ENV PATH=/opt/ntire/bin:$PATH NTIRE_WEIGHTS=/opt/weights/ntire TORCH_HOME=/opt/weights/torch HF_HOME=/opt/weights/huggingface
RUN if [ -n "$TRACK" ]; then ntire weights fetch --track "$TRACK"; fi
# The platform mounts folders of root's, and starts the command itself.
WORKDIR /app
ENTRYPOINT []
CMD ["ntire", "doctor"]

# A node of a Ray cluster on Kubernetes (docs/cluster.md): docker build --target cluster -t you/ntire-cluster . Jobs are submitted
# through Ray's dashboard, and KubeRay asks the nodes with wget how they are.
FROM installed AS cluster
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
    && /opt/ntire/bin/pip install --no-cache-dir --constraint /src/constraints.txt 'ray[default]'
ENV PATH=/opt/ntire/bin:$PATH
RUN useradd --create-home --uid 10001 ntire
USER ntire
WORKDIR /home/ntire
ENTRYPOINT []
CMD ["ray", "--help"]

FROM installed AS ntire
RUN useradd --create-home --uid 10001 ntire
USER ntire
WORKDIR /work
ENTRYPOINT ["/opt/ntire/bin/ntire"]
