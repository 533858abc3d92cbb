# A GPU worker. torch's wheels bring CUDA along; the host needs the driver and the NVIDIA container toolkit.
ARG BASE=python:3.11-slim
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements/worker.txt requirements/worker.txt
RUN pip install -r requirements/worker.txt
# Optional: a wheel of flash-attn for this Python, torch and CUDA; or `flash-attn==2.8.3`, built here, on a BASE that
# has Python 3.11 and the CUDA compiler.
ARG FLASH_ATTN=
RUN if [ -n "$FLASH_ATTN" ]; then pip install --no-build-isolation "$FLASH_ATTN"; fi
# Optional: packages that only some models or jobs need: `bitsandbytes peft opencv-python-headless decord torchcodec`.
ARG EXTRAS=
RUN if [ -n "$EXTRAS" ]; then pip install $EXTRAS; fi
COPY checkpoints/tiny-vlm checkpoints/tiny-vlm
COPY vlmq vlmq
COPY models models
COPY migrations migrations
COPY media media
COPY engine engine
COPY tasks tasks

RUN useradd --uid 10001 --create-home vlmq && install -d -o vlmq -g vlmq -m 700 /data /cache
USER vlmq
ENV VLMQ_DATA_DIR=/data HF_HOME=/cache
ENTRYPOINT ["python", "-m", "vlmq"]
CMD ["worker", "--model", "tiny-vlm"]
