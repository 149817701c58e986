FROM python:3.11-slim-bookworm
# cpu or gpu: selects the lock file and thereby the TensorFlow build
ARG ACCELERATOR=cpu
WORKDIR /app
COPY locks/${ACCELERATOR}.txt locks/
RUN pip install --no-cache-dir --require-hashes --requirement locks/${ACCELERATOR}.txt
COPY . .
# The commit that `lumbar --version` shows: --build-arg COMMIT=$(git describe --always)
ARG COMMIT=
RUN printf '%s\n' "$COMMIT" > lumbar/COMMIT \
    && pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home lumbar && install -d -o lumbar /data
USER lumbar
ENV LUMBAR_HOME=/data LUMBAR_LOG_FORMAT=json
ENTRYPOINT ["lumbar"]
CMD ["--help"]
