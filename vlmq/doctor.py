"""`vlmq doctor`: looks at everything vlmq needs, and says what to do. Loads neither torch nor a model."""

from vlmq.config import Settings
from vlmq.data_dir import DataDir
from vlmq.doctor_backends import look_at_database, look_at_models, look_at_redis, look_at_secrets
from vlmq.doctor_machine import look_at_disk, look_at_gpu, look_at_packages, look_at_port
from vlmq.doctor_settings import look_at_settings
from vlmq.finding import Finding


def examine(settings: Settings) -> list[Finding]:
    """Everything that was found, the machine first."""
    data = DataDir(settings.data_dir)
    return [
        *look_at_packages(),
        *look_at_gpu(),
        look_at_disk(data.root),
        look_at_port(settings),
        *look_at_settings(),
        *look_at_models(settings),
        *look_at_secrets(settings),
        look_at_database(settings),
        *look_at_redis(settings, data),
    ]
