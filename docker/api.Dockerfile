# The API, the light worker and the migrations: no model, no torch.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements/api.txt requirements/api.txt
RUN pip install -r requirements/api.txt
COPY vlmq vlmq
COPY models models
COPY migrations migrations
COPY tasks tasks
COPY api api

# A volume that is mounted at /data for the first time takes its owner from here.
RUN useradd --uid 10001 --create-home vlmq && install -d -o vlmq -g vlmq -m 700 /data
USER vlmq
ENV VLMQ_DATA_DIR=/data VLMQ_HOST=0.0.0.0
EXPOSE 8000
ENTRYPOINT ["python", "-m", "vlmq"]
CMD ["api"]
