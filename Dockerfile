# One image for every role; the command says which: worker, scheduler, datasvc serve, or any other of phedex-rucio's.
FROM python:3.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
# The dependencies are a layer of their own: a change of the code alone leaves it as it is.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['datasvc']))" > wanted.txt \
 && /app/bin/pip install --constraint constraints.txt --requirement wanted.txt
COPY common common
COPY consumers consumers
COPY datasvc datasvc
COPY phedex_rucio phedex_rucio
COPY policy policy
COPY producers producers
RUN /app/bin/pip install --constraint constraints.txt --no-deps . \
 && /app/bin/pip uninstall --yes pip \
 && /app/bin/python -m compileall -q -j 0 /app/lib

FROM python:3.12-slim-bookworm
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="phedex-rucio" \
      org.opencontainers.image.description="Event-driven workers that keep Rucio equal to PhEDEx" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# The owner of the volumes `spool` and `snapshot`, which a new volume takes over from these folders.
RUN useradd --system --uid 10001 --create-home --home-dir /home/phedex --shell /usr/sbin/nologin phedex \
 && install -d -o phedex -g phedex /var/spool/phedex-rucio /var/lib/phedex-rucio
COPY --from=build /app /app
# Nothing is written below /: Rucio's client keeps its token below TMPDIR, which is a tmpfs where the root is read-only.
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["phedex-rucio"]
CMD ["--help"]
