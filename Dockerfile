# Build: docker build -t qsmflow:0.1.0 .
# The image runs under any user, with a read-only root and without a network.
# Debian packages are not pinned: mirrors of a stable release keep its newest versions only.
# container/qsmflow.def makes the same for Apptainer; a test holds the two together.

FROM debian:bookworm-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
# The constraints hold for the build's own environment, too.
ENV PIP_CONSTRAINT=/src/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/qsmflow
WORKDIR /src
# Dependencies have a layer of their own, which changes with the versions only. The test suites
# that they bring, a sixth of the image, are left out.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
 && /opt/qsmflow/bin/pip install --no-cache-dir -c constraints.txt -r requirements.txt bids-validator-deno dcm2niix \
 && find /opt/qsmflow/lib -type d -name tests -prune -exec rm -rf {} +
COPY README.md LICENSE NOTICE descriptor.json ./
COPY docs/convert docs/convert
COPY workflows workflows
COPY qsmflow qsmflow
# Not editable: a container may run where the source cannot be read.
RUN /opt/qsmflow/bin/pip install --no-cache-dir --no-deps . \
 && /opt/qsmflow/bin/pip uninstall -y pip setuptools \
 && find /opt/qsmflow ! -type l ! -perm -a+r -exec chmod a+rX {} +
# Kernels are compiled here, so that a fresh container starts at once. A machine that cannot make
# them says so, and the image does without.
RUN /opt/qsmflow/bin/python -m qsmflow.cli.warmup

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qsmflow" \
      org.opencontainers.image.description="BIDS App for quantitative susceptibility mapping" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The qsmflow developers" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends graphviz python3 tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/qsmflow /opt/qsmflow
# In /usr/local/bin, where login shells, which set their own PATH, find it too.
RUN ln -s /opt/qsmflow/bin/qsmflow /opt/qsmflow/bin/qsmflow-dicom \
      /opt/qsmflow/bin/qsmflow-phantom /opt/qsmflow/bin/qsmflow-slurm \
      /opt/qsmflow/bin/bids-validator-deno /usr/local/bin/ \
 && test "$(qsmflow --version)" = "qsmflow ${VERSION}"
# The home is /tmp because nothing else can be written; python of the host stays outside.
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    MPLBACKEND=Agg \
    NIPYPE_NO_ET=1 \
    NO_ET=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    TINI_SUBREAPER=1
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/qsmflow"]
